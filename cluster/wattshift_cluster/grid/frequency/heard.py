"""What every frequency sensor tells, and to whom."""

from collections.abc import Callable

from wattshift_scheduler.frequency.response import Sample

Heard = Callable[[Sample], None]
"""Takes a sample; its time is that of the boot clock. Called from the event loop, and at once."""
