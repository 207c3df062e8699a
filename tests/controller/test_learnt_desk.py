"""Findings go from the API through the controller to a real agent, which leases by them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.build import Asics
from wattshift_cluster.agent.service import Agent
from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.server import start
from wattshift_cluster.api.tokens import Role, TokenStore
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.errors import NotFound
from wattshift_cluster.fleet.learn import Learnt
from wattshift_cluster.wire import server
from wattshift_cluster.wire.epochs import EpochFile

eventually = bench.eventually

TOKEN = b"t" * 32
HOST = "127.61.250.1"
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
mode = "{mode}"
[[feeders]]
name = "main"
limit = "100kW"
[grid]
default_price_usd_per_mwh = 20
[mining]
devices = ["*"]
[api]
listen = "127.61.250.1:18098"
[[agents]]
name = "row"
address = "127.61.250.1:{port}"
token_file = "t"
feeder = "main"
"""
PATIENCE_S = 20.0
TAUGHT = Learnt().with_point("high", 2700.0, 5.0, 120e12).with_times(down_s=6.0, up_s=80.0)


@dataclass
class Yard:
    """One machine that reports no watts, its agent, and the controller."""

    front: Front
    machine: Any
    folder: Path

    def device(self) -> Any:
        (one,) = self.front.devices()
        return one

    async def confirmed(self, leased_w: float) -> Any:
        def done() -> bool:
            if not self.front.devices():
                return False
            one = self.device()
            return one["state"] == "confirmed" and one["leased_w"] == pytest.approx(leased_w)

        await eventually(done, PATIENCE_S)
        return self.device()


async def _main(folder: Path, scenario: Callable[[Yard], Awaitable[None]], mode: str) -> None:
    machine = bench.Machine("high")
    machine.blind = True
    lanes = Lanes(rhythm=bench.FAST, pace=bench.QUICK)
    device = AsicDevice(bench.EMULATED, None, machine.connect, lanes=lanes, shadow=mode == "shadow")
    keeper = Keeper(None)
    asics = Asics((device,), AsicSweep([device], lanes, keeper), keeper)
    shadow = mode == "shadow"
    agent = Agent("row", (device,), EpochFile(folder), asics=asics, shadow=shadow)
    listener = await server.serve(HOST, 0, name="row", token=TOKEN, handler=agent.handle)
    port = listener.sockets[0].getsockname()[1]
    (folder / "site.toml").write_text(SITE.format(mode=mode, port=port))
    journal = Journal.open(folder / "journal.sqlite")
    config = load_site(folder / "site.toml", environ={})
    controller = Controller(config, journal, SteadyClock(), Tokens({"row": TOKEN}, None))
    front, stop = Front(controller), asyncio.Event()
    running = [asyncio.create_task(agent.run()), asyncio.create_task(controller.run(stop, []))]
    try:
        await scenario(Yard(front, machine, folder))
    finally:
        stop.set()
        await running[1]
        running[0].cancel()
        with suppress(asyncio.CancelledError):
            await running[0]
        listener.close()
        journal.close()


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    """Runs a scenario in a yard of its own, in "control" or in "shadow"."""
    return lambda scenario, mode="control": asyncio.run(_main(tmp_path, scenario, mode))


def test_findings_lower_a_lease_and_command_nothing(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        before = await yard.confirmed(3150.0)
        assert (before["watts_w"], before["watts_source"]) == (None, None)
        commands = len(yard.machine.written)
        rows = await yard.front.teach_fleet(
            {"rig1": TAUGHT.to_dict()}, by="kim", reason="commissioning"
        )
        assert rows == [
            {
                "device": "rig1",
                "ok": True,
                "error": None,
                "state": "high at most 2,862 W",
                "fault": None,
            }
        ]
        after = await yard.confirmed(2862.0 * 1.05)
        assert after["ceiling_w"] == pytest.approx(2862.0 * 1.05)
        assert after["watts_w"] == 2700.0
        assert (after["quality"], after["watts_source"]) == ("modelled", "learnt")
        assert len(yard.machine.written) == commands, "it runs on as it did"
        view = await yard.front.learnt_device("rig1")
        row = view["points"][-1]
        assert (row["mode"], row["n"], row["driver_w"]) == ("high", 1, 3000.0)
        assert (view["down_s"], view["up_s"], view["factor"]) == (6.0, 80.0, None)
        await eventually(lambda: bool(yard.front.decisions("rig1", None, 99)), PATIENCE_S)
        told = [one for one in yard.front.decisions("rig1", None, 99) if one["action"] == "learn"]
        assert [one["reason"] for one in told] == ["by kim: commissioning (high at most 2,862 W)"]

    play(scenario)


def test_what_fits_nothing_is_told_apart(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        await yard.confirmed(3150.0)
        with pytest.raises(NotFound, match="rig9"):
            await yard.front.teach_fleet({"rig9": TAUGHT.to_dict()}, by="kim", reason=None)
        strange = Learnt().with_point("turbo", 2700.0, 5.0, 120e12)
        (row,) = await yard.front.teach_fleet({"rig1": strange.to_dict()}, by="kim", reason=None)
        assert (row["ok"], row["fault"]) == (False, "refused")
        assert "no set point turbo" in row["error"]
        (row,) = await yard.front.teach_fleet({"rig1": {"version": 9}}, by="kim", reason=None)
        assert "nothing to learn" in row["error"]
        assert yard.device()["leased_w"] == pytest.approx(3150.0)

    play(scenario)


def test_an_operator_hands_it_over_and_a_viewer_reads_it(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        await yard.confirmed(3150.0)
        store = TokenStore(yard.folder)
        roles = {"viewer": Role.VIEWER, "operator": Role.OPERATOR}
        secrets = {name: store.create(name, role)[0] for name, role in roles.items()}
        api = await start(create_app(yard.front, store), HOST, 0)
        try:
            async with httpx2.AsyncClient(base_url=api.url, timeout=10, trust_env=False) as http:

                async def call(who: str, method: str, path: str, **more: Any) -> Any:
                    headers = {"Authorization": f"Bearer {secrets[who]}"}
                    return await http.request(method, path, headers=headers, **more)

                body = {"devices": {"rig1": TAUGHT.to_dict()}, "reason": "commissioning"}
                refused = await call("viewer", "POST", "/v1/fleet/learnt", json=body)
                assert refused.status_code == 403
                wrong = {"devices": {"rig1": {**TAUGHT.to_dict(), "down": {"n": -1}}}}
                malformed = await call("operator", "POST", "/v1/fleet/learnt", json=wrong)
                assert malformed.status_code == 422
                assert "rig1" in malformed.text
                taken = await call("operator", "POST", "/v1/fleet/learnt", json=body)
                assert taken.json()["rows"][0]["ok"] is True
                shown = await call("viewer", "GET", "/v1/devices/rig1/learnt")
                assert shown.json()["points"][-1]["told_w"] == pytest.approx(2862.0)
                missing = await call("viewer", "GET", "/v1/devices/rig9/learnt")
                assert missing.status_code == 404
        finally:
            await api.close()

    play(scenario)


def test_a_site_in_shadow_may_be_taught(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        await eventually(lambda: bool(yard.front.devices()), PATIENCE_S)
        (row,) = await yard.front.teach_fleet({"rig1": TAUGHT.to_dict()}, by="kim", reason=None)
        assert row["ok"], "it decides by what its machines really draw, and commands nothing"
        assert yard.machine.written == []

    play(scenario, "shadow")
