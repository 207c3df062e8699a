"""How a worker's process speaks to its agent: lines of JSON, and what its exit code says."""

import json
from typing import Any, BinaryIO

EXIT_BROKEN = 3
EXIT_TAKEN = 75
EXIT_RELEASED = 76
"""The device's memory was wanted: freed, or not taken at all."""


class Voice:
    """Standard output as lines of JSON."""

    def __init__(self, out: BinaryIO) -> None:
        """Write to `out`."""
        self._out = out

    def say(self, event: str, **fields: Any) -> None:
        """Tell the agent. Raises: OSError when it is gone."""
        self._out.write(json.dumps({"event": event, **fields}).encode() + b"\n")
        self._out.flush()
