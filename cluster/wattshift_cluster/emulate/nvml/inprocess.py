"""An emulated driver for this very process, for as long as a block lasts."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wattshift_cluster.emulate.nvml.build import build, load
from wattshift_cluster.emulate.nvml.control import CONTROL_VARIABLE, EmulatedDriver
from wattshift_cluster.emulate.nvml.models import CardModel


@contextmanager
def emulated_here(
    cache: Path, control: Path, models: Sequence[CardModel]
) -> Iterator[EmulatedDriver]:
    """Show these cards to whoever initialises NVML in this process within the block.

    The library stays loaded after it and then answers DRIVER_NOT_LOADED. A process that has loaded
    the real one before keeps that.

    Raises:
        NvmlNotBuilt: there is no C compiler, or it failed.
    """
    library = load(build(cache))
    before = os.environ.get(CONTROL_VARIABLE)
    with EmulatedDriver(control, models) as driver:
        os.environ[CONTROL_VARIABLE] = str(control)
        try:
            yield driver
        finally:
            if before is None:
                del os.environ[CONTROL_VARIABLE]
            else:
                os.environ[CONTROL_VARIABLE] = before
            while library.nvmlShutdown() == 0:
                pass  # every nvmlInit of the block that was not shut down
