"""Emulated miners inside the test's own loop, on addresses that no other run uses."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.listener import EmulatedMiner

T = TypeVar("T")
SPEED = 25.0
"""Emulated seconds per real second, so that a ramp of 10 s is over in 0.4 s."""


def _clock() -> float:
    return time.monotonic() * SPEED


@pytest.fixture
def on_miner() -> Callable[..., object]:
    """Run a coroutine function against one emulated miner; returns what it returns."""

    def run(kind: str, test: Callable[[EmulatedMiner], Awaitable[T]], *, full: bool = False) -> T:
        async def main() -> T:
            address = own_address()
            miner = EmulatedMiner("rig", kind, address, seed=7, clock=_clock, full=full)
            await miner.start()
            try:
                return await asyncio.wait_for(test(miner), 60)
            finally:
                await miner.stop()

        return asyncio.run(main())

    return run
