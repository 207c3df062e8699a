"""Emulated machines, and ports that misbehave, on loopback addresses."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.emulated import emulated
from tests.ports import own_net

from wattshift_cluster.fleet.scan import Sighting


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[list[dict[str, Any]]], str]]:
    """Start emulated machines; a row's address is the last number in a block of its own."""
    with ExitStack() as stack:

        def start(rows: list[dict[str, Any]], within: str | None = None) -> str:
            prefix = within or own_net()
            full = [
                {
                    "id": f"m{i}",
                    "seed": i,
                    "start": "full",
                    **row,
                    "address": f"{prefix}.{row['address']}",
                }
                for i, row in enumerate(rows)
            ]
            stack.enter_context(emulated(tmp_path / "emulator.json", full, f"{prefix}.254"))
            return prefix

        yield start


@asynccontextmanager
async def listening(address: str, port: int, serve: Callable[..., Any]) -> Any:
    """One port that does what `serve` does; it hangs up afterwards."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, address, port)
    try:
        yield
    finally:
        server.close()


@pytest.fixture
def listen() -> Callable[..., Any]:
    return listening


@pytest.fixture
def sighted() -> Callable[..., Sighting]:
    """A sighting, identified unless said otherwise."""

    def make(address: str, **more: Any) -> Sighting:
        row: dict[str, Any] = {
            "kind": "luxos",
            "identified": True,
            "model": "Antminer S21",
            "firmware": "LuxOS 1",
            "mac": None,
            "serial": None,
            "watts_w": None,
            "hashrate_h_per_s": None,
            "drivable": True,
            "control": "sleep and 1 point",
        }
        return Sighting(address, **{**row, **more})

    return make
