"""Devices that cannot be: refused one by one over a real link, alarmed, and the others go on."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.controller.wired_rig import turning, until

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.controller.site_figures import SiteShown
from wattshift_cluster.wire import server
from wattshift_scheduler.site import Device, OperatingPoint

TOKEN = b"0123456789abcdef0123456789abcdef"
NET = "127.61.0"
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
margin_pct = 0
[[feeders]]
name = "main"
limit = "20kW"
[[feeders]]
name = "row"
parent = "main"
limit = "{row}"
[grid]
default_price_usd_per_mwh = 20
[mining]
devices = ["*"]
"""
AGENT = """
[[agents]]
name = "{name}"
address = "127.61.0.1:{port}"
token_file = "t"
feeder = "row"
"""


def info(name: str, *watts_w: float, **changes: Any) -> dict[str, Any]:
    points = [
        {"mode": f"p{i}", "watts_w": w, "hashrate_h_per_s": 1e11 * w, "transition_s": 0.1}
        for i, w in enumerate(watts_w)
    ]
    return {
        "id": name, "kind": "asic", "nameplate_w": 3000.0, "tolerance": 0.0, "continuous": False,
        "fenced": False, "safe_w": 0.0, "power_on_w": 0.0, "points": points, **changes,
    }  # fmt: skip


class Agent:
    """What an agent says over its port: an inventory, and readings of it."""

    def __init__(self, name: str, infos: list[dict[str, Any]]) -> None:
        self.name, self.infos, self.version = name, infos, 1
        self.asked: list[str] = []

    def offers(self, infos: list[dict[str, Any]]) -> None:
        self.infos, self.version = infos, self.version + 1

    async def answer(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        boot = {"boot_id": self.name, "boot_s": 5.0, "inventory_version": self.version}
        if op == "hello":
            return {**boot, "devices": self.infos}
        self.asked += [one["device"] for one in fields["leases"]]
        rows = [
            {"device": one["id"], "at_boot_s": 5.0, "watts_w": 7.0, "error": None}
            for one in self.infos
        ]
        results = [
            {"device": one["device"], "sequence": one["sequence"], "accepted": True}
            for one in fields["leases"]
        ]
        return {**boot, "readings": rows, "results": results}


def played(folder: Path, agents: list[Agent], play: Callable[[Controller], Any]) -> None:
    """Run a controller with these agents on real sockets, and `play` it."""

    async def scenario() -> None:
        ports = []
        for agent in agents:
            listener = await server.serve(
                f"{NET}.1", 0, name=agent.name, token=TOKEN, handler=agent.answer
            )
            ports.append(listener.sockets[0].getsockname()[1])
        rows = [AGENT.format(name=a.name, port=p) for a, p in zip(agents, ports, strict=True)]
        (folder / "site.toml").write_text(SITE.format(row="9kW") + "".join(rows))
        config = load_site(folder / "site.toml", environ={})
        tokens = {agent.name: TOKEN for agent in agents}
        async with turning(config, folder, tokens) as controller:
            await play(controller)

    asyncio.run(scenario())


def ids(controller: Controller) -> list[str]:
    return sorted(device.id for device in controller.state.fleet.devices)


def test_a_bad_device_is_refused_and_alarmed_and_the_others_are_leased(tmp_path: Path) -> None:
    agent = Agent("rack", [info("good", 30.0, 2000.0), info("bad", 2000.0, 30.0)])

    async def play(controller: Controller) -> None:
        await until(lambda: "good" in agent.asked)
        assert ids(controller) == ["good"]
        (alarm,) = [a for a in controller.alarms.values() if a.id == "device-refused:rack"]
        assert "bad: its operating points must rise in watts" in alarm.text
        told = [one for one in controller.recent if one.subject == "bad"]
        assert [one.action for one in told] == ["refused"]
        assert "bad" not in agent.asked
        agent.offers([info("good", 30.0, 2000.0), info("bad", 30.0, 2000.0)])
        await until(lambda: "bad" in agent.asked)
        assert "device-refused:rack" not in controller.alarms
        agent.offers([info("good", 30.0, 2000.0), info("bad", 30.0, 30.0)])
        await until(lambda: "device-refused:rack" in controller.alarms)
        assert ids(controller) == ["bad", "good"], "what was known is counted on"

    played(tmp_path, [agent], play)


def test_a_device_of_another_agent_is_refused_until_that_one_has_it_no_more(tmp_path: Path) -> None:
    first = Agent("first", [info("rig", 30.0, 2000.0)])
    second = Agent("second", [info("own", 30.0, 2000.0)])

    async def play(controller: Controller) -> None:
        await until(lambda: {"rig", "own"} <= {*first.asked, *second.asked})
        second.offers([info("own", 30.0, 2000.0), info("rig", 30.0, 1000.0)])
        await until(lambda: "device-refused:second" in controller.alarms)
        assert (
            "agent first has a device of that id" in controller.alarms["device-refused:second"].text
        )
        await asyncio.sleep(0.3)
        assert "rig" not in second.asked
        first.offers([])
        await until(lambda: "rig" in second.asked)
        assert "device-refused:second" not in controller.alarms

    played(tmp_path, [first, second], play)


def controller_at(folder: Path, row: str, *devices: Device) -> Controller:
    """A controller that finds devices in its journal."""
    (folder / "site.toml").write_text(SITE.format(row=row) + AGENT.format(name="rack", port=9))
    config = load_site(folder / "site.toml", environ={})
    journal = Journal.open(folder / "journal.sqlite")
    journal.keep_devices(devices)
    journal.close()
    journal = Journal.open(folder / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens({"rack": TOKEN}, None))
    controller.turn(controller.inbox.take())
    return controller


def device(name: str, lowest_w: float, feeder: str = "row") -> Device:
    points = (OperatingPoint("sleep", lowest_w, 0.0, 1.0), OperatingPoint("run", 3000.0, 1e14, 1.0))
    return Device(name, "asic", "rack", feeder, points, 3000.0, 0.0)


def test_a_feeder_that_cannot_carry_its_floor_is_alarmed_by_name(tmp_path: Path) -> None:
    controller = controller_at(tmp_path, "1kW", device("a", 600.0), device("b", 600.0))
    alarm = controller.alarms["feeder-below-floor:row"]
    assert "1,200 W" in alarm.text
    assert "1,000 W" in alarm.text
    told = [one for one in controller.recent if one.subject == "feeder-below-floor:row"]
    assert [one.action for one in told] == ["alarm"]
    assert "cap-below-floor" not in controller.alarms, "the cap has all that it needs"
    main, row = controller.site_view(controller.clock.now_s())["feeders"]
    assert "shortfall_w" not in main
    assert (row["shortfall_w"], row["shortfall_counted_w"]) == (200.0, 5000.0)
    assert SiteShown(controller)().least_w is None, "nor is the utility told so of its cap"
    controller.journal.close()


@pytest.mark.parametrize("row", ["1.2kW", "9kW"])
def test_a_feeder_that_carries_its_floor_is_not(tmp_path: Path, row: str) -> None:
    controller = controller_at(tmp_path, row, device("a", 600.0), device("b", 600.0))
    assert "feeder-below-floor:row" not in controller.alarms
    controller.journal.close()


def test_a_device_hangs_where_the_site_file_has_its_agent_now(tmp_path: Path) -> None:
    controller = controller_at(tmp_path, "9kW", device("a", 30.0, "a-row-that-is-gone"))
    assert [one.feeder for one in controller.state.fleet.devices] == ["row"]
    controller.journal.close()


def test_a_device_in_the_journal_that_is_refused_now_stops_no_start(tmp_path: Path) -> None:
    controller_at(tmp_path, "9kW", device("a", 30.0), device("b", 30.0)).journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as file:
        (body,) = file.execute("SELECT body FROM devices WHERE id = 'a'").fetchone()
        body = json.dumps({**json.loads(body), "nameplate_w": 1.0})
        file.execute("UPDATE devices SET body = ? WHERE id = 'a'", (body,))
    controller = controller_at(tmp_path, "9kW", device("b", 30.0))
    assert ids(controller) == ["b"]
    controller.journal.close()
