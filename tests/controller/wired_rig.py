"""A controller that turns by itself, beside a scenario over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens

PATIENCE_S = 30.0


@asynccontextmanager
async def turning(
    config: SiteConfig, folder: Path, agents: dict[str, bytes]
) -> AsyncIterator[Controller]:
    """A controller with a journal in `folder`, that knows the tokens of these agents."""
    journal = Journal.open(folder / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens(agents, None))
    stop = asyncio.Event()
    running = asyncio.create_task(controller.run(stop, []))
    try:
        yield controller
    finally:
        stop.set()
        await running
        journal.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds; TimeoutError if it never does."""
    for _ in range(int(PATIENCE_S / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("it did not come about")
