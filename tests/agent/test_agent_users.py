"""Looks at the processes on the cards of a host, one of whose drivers hangs."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.agent import neighbourhood
from wattshift_cluster.agent.neighbourhood import Users
from wattshift_cluster.agent.observe import GpuUsers
from wattshift_cluster.agent.observe.processes import UNKNOWN


class Hanging(Users):
    """Whose `card-1` answers only when it is let go."""

    def __init__(self, devices: list[Any]) -> None:
        super().__init__(SimpleNamespace(), devices)  # type: ignore[arg-type]
        self.let_go = threading.Event()
        self.looks = {device.id: 0 for device in devices}

    def _read(self, device: Any) -> GpuUsers:
        if device.id == "card-1":
            self.let_go.wait(30.0)
        self.looks[device.id] += 1
        return GpuUsers(frozenset({7}), 0.0)


def card(name: str) -> Any:
    return SimpleNamespace(
        id=name,
        spec=SimpleNamespace(quality="emulated"),
        own_pids=frozenset,
        pids_on_card=frozenset,
        clients=tuple,
    )


async def until(true: Any, what: str) -> None:
    for _ in range(400):
        if true():
            return
        await asyncio.sleep(0.02)
    pytest.fail(what)


def test_a_card_whose_driver_hangs_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhood, "LOOK_S", 0.05)
    monkeypatch.setattr(neighbourhood, "STALE_S", 0.3)
    users = Hanging([card("card-0"), card("card-1"), card("card-2")])

    async def scenario() -> None:
        running = asyncio.create_task(users.run())
        try:
            await until(lambda: users.looks["card-2"] > 3, "the card behind it is not looked at")
            before = users.looks["card-0"]
            await until(lambda: users.looks["card-0"] > before + 3, "the first one is not either")
            assert users.now("card-0").pids == frozenset({7})
            assert users.now("card-1") is UNKNOWN
            named = [one for one in threading.enumerate() if one.name == "gpu-users"]
            assert len(named) == 2, "one that hangs and one that looks"
            users.let_go.set()
            await until(lambda: users.now("card-1") is not UNKNOWN, "its answer is not believed")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await until(
            lambda: all(one.name != "gpu-users" for one in threading.enumerate()),
            "a thread goes on after the end",
        )

    asyncio.run(scenario())


def test_an_unknown_fault_ends_one_look_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhood, "LOOK_S", 0.05)
    users = Hanging([card("card-0")])
    broken = users._read
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def once(device: Any) -> GpuUsers:
        users._read = broken  # type: ignore[method-assign]
        raise RuntimeError("a fault of ours")

    users._read = once  # type: ignore[method-assign]

    async def scenario() -> None:
        running = asyncio.create_task(users.run())
        await until(lambda: users.now("card-0") is not UNKNOWN, "nobody looks any more")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
