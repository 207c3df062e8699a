"""Orders to ASICs go to all agents at once, none is waited for too long, and each is on record."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from wattshift_cluster.agent.protocol import DeviceInfo, Point, Reading
from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.server import start
from wattshift_cluster.api.tokens import Role, TokenStore
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import fleet_desk, sessions
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.outlet import Outlet
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.errors import NotFound, Refused, WattshiftError
from wattshift_cluster.wire import server
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases, StartJob

TOKEN = b"t" * 32
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
listen = "127.36.0.1:18099"
"""
AGENT = """
[[agents]]
name = "{name}"
address = "127.36.0.1:{port}"
token_file = "t"
feeder = "main"
"""
PATIENCE_S = 20.0
RIGS = 3


class Silence:
    """No answer within any deadline."""


@dataclass
class Row:
    """An agent with three machines and a card that keeps what it was asked."""

    name: str
    answer: Any = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    leases: list[dict[str, Any]] = field(default_factory=list)
    draws_w: float = 3_000.0
    waits_for: "Row | None" = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        if op in ("hello", "exchange"):
            self.leases += fields.get("leases", [])
            devices = [_info(f"{self.name}-{i}", "asic") for i in range(RIGS)]
            devices.append(_info(f"{self.name}-gpu0", "gpu"))
            clock = {"boot_id": boot_id(), "boot_s": boot_s(), "inventory_version": 1}
            rows = [
                Reading(d.id, boot_s(), "emulated", self.draws_w, hashrate_h_per_s=1e14).wire(None)
                for d in devices
            ]
            infos = [device.wire() for device in devices]
            return {**clock, "epoch": 1, "devices": infos, "readings": rows, "results": []}
        assert op == "asic"
        self.asked.append(fields)
        self.heard.set()
        if self.waits_for is not None:
            await self.waits_for.heard.wait()
        if isinstance(self.answer, WattshiftError):
            raise self.answer
        if isinstance(self.answer, Silence):
            await asyncio.sleep(PATIENCE_S)
        if self.answer is not None:
            return dict(self.answer)
        ok = {"ok": True, "error": None, "state": "commanded"}
        return {"results": [{"device": one, **ok} for one in fields["devices"]]}


def _info(device: str, kind: Any) -> DeviceInfo:
    points = (Point("sleep", 30.0, 0.0, 0.1), Point("full", 3_000.0, 1e14, 0.1))
    return DeviceInfo(
        id=device,
        kind=kind,
        model="Emulated S19",
        firmware="1",
        algorithm="sha256d",
        nameplate_w=3_250.0,
        tolerance=0.05,
        continuous=False,
        fenced=False,
        safe_w=30.0,
        power_on_w=3_250.0,
        host=None,
        quality="emulated",
        points=points,
    )


@dataclass
class Yard:
    """Two rows of machines and the controller between them and the operator."""

    front: Front
    rows: dict[str, Row]
    folder: Path

    async def order(self, action: str, *devices: str, **changes: Any) -> list[Any]:
        given: dict[str, Any] = {"by": "kim", "reason": None, "watts_w": None}
        given |= {"override": False, "dry_run": False} | changes
        return await self.front.command_fleet(action, devices, **given)

    async def told(self, subject: str, action: str) -> list[dict[str, Any]]:
        """Decisions of an action on record; the journal writes a moment later."""
        for _ in range(round(PATIENCE_S / 0.01)):
            found = [d for d in self.front.decisions(subject, None, 99) if d["action"] == action]
            if found:
                return [dict(one) for one in found]
            await asyncio.sleep(0.01)
        return []


Scenario = Callable[[Yard], Awaitable[None]]


async def _main(folder: Path, scenario: Scenario, mode: str) -> None:
    rows = {name: Row(name) for name in ("east", "west")}
    text, listeners = SITE.format(mode=mode), []
    for name, row in rows.items():
        listener = await server.serve("127.36.0.1", 0, name=name, token=TOKEN, handler=row.handle)
        listeners.append(listener)
        text += AGENT.format(name=name, port=listener.sockets[0].getsockname()[1])
    (folder / "site.toml").write_text(text)
    journal = Journal.open(folder / "journal.sqlite")
    config = load_site(folder / "site.toml", environ={})
    controller = Controller(
        config, journal, SteadyClock(), Tokens(dict.fromkeys(rows, TOKEN), None)
    )
    front, stop = Front(controller), asyncio.Event()
    running = asyncio.create_task(controller.run(stop, []))
    try:
        for _ in range(round(PATIENCE_S / 0.01)):
            if sum(one["watts_w"] is not None for one in front.devices()) == 2 * (RIGS + 1):
                break
            await asyncio.sleep(0.01)
        await scenario(Yard(front, rows, folder))
    finally:
        stop.set()
        await running
        for listener in listeners:
            listener.close()
        await asyncio.sleep(0)
        journal.close()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario in a yard of its own, in "control" or in "shadow"."""
    monkeypatch.setattr(sessions, "ASK_S", 1.0)  # some agents here never answer
    return lambda scenario, mode="control": asyncio.run(_main(tmp_path, scenario, mode))


def test_an_order_is_spread_over_the_agents_and_is_on_record(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        rows = await yard.order("sleep", "*", reason="filters")
        assert [row["device"] for row in rows] == [f"{n}-{i}" for n in yard.rows for i in range(3)]
        assert all(row["ok"] and row["state"] == "commanded" for row in rows)
        assert yard.rows["east"].asked == [
            {
                "action": "sleep",
                "devices": ["east-0", "east-1", "east-2"],
                "by": "kim",
                "reason": "filters",
                "watts_w": None,
                "override": False,
                "dry_run": False,
            }
        ]
        (told,) = await yard.told("west-1", "sleep")
        assert told["reason"] == "by kim: filters (commanded)"
        assert told["inputs"]["by"] == "kim"
        assert told["inputs"]["ok"] is True

    play(scenario)


def test_a_silent_agent_costs_one_deadline_and_hides_nobody(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_desk, "BATCH", 2)

    async def scenario(yard: Yard) -> None:
        yard.rows["west"].answer = Silence()
        began_s = time.monotonic()
        rows = {row["device"]: row for row in await yard.order("sleep", "*")}
        assert time.monotonic() - began_s < 1.0 + 5.0, "the second batch is not waited for as well"
        assert len(yard.rows["west"].asked) == 1
        assert [rows[f"east-{i}"]["ok"] for i in range(3)] == [True] * 3
        for i in range(3):
            row = rows[f"west-{i}"]
            assert (row["ok"], row["fault"]) == (False, "unreachable")
            assert row["error"] == "agent west: no answer in 1 s"
        (told,) = await yard.told("west-2", "sleep")
        assert told["reason"] == "by kim (failed: agent west: no answer in 1 s)"

    play(scenario)


def test_agents_are_asked_at_the_same_time(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        east, west = yard.rows.values()
        east.waits_for, west.waits_for = west, east
        rows = await yard.order("sleep", "*")
        assert [row["error"] for row in rows] == [None] * 6, "neither answers before both are asked"

    play(scenario)


def test_an_agent_s_no_and_a_bad_answer_are_rows(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        no = {"device": "east-0", "ok": False, "error": "locked by ann", "state": "asleep"}
        stranger = {"device": "north-9", "ok": True, "error": None, "state": "commanded"}
        odd = {"device": "east-1", "ok": "yes"}
        yard.rows["east"].answer = {"results": [no, stranger, odd, "noise"]}
        yard.rows["west"].answer = Refused("action is none of sleep, wake")
        rows = {row["device"]: row for row in await yard.order("wake", "*")}
        assert "north-9" not in rows
        assert (rows["east-0"]["fault"], rows["east-0"]["error"]) == ("refused", "locked by ann")
        for device in ("east-1", "east-2"):
            assert rows[device]["fault"] == "unreachable"
            assert "does not tell of" in rows[device]["error"]
        assert rows["west-0"]["error"] == "action is none of sleep, wake"
        assert rows["west-0"]["fault"] == "refused"

    play(scenario)


def test_what_is_no_asic_is_refused_and_a_pattern_leaves_it_out(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        rows = {row["device"]: row for row in await yard.order("lock", "east-gpu0", "west-*")}
        assert rows["east-gpu0"]["error"] == (
            "east-gpu0 is a gpu: only an ASIC can be asked to lock"
        )
        assert rows["east-gpu0"]["fault"] == "refused"
        assert set(rows) == {"east-gpu0", "west-0", "west-1", "west-2"}
        assert yard.rows["east"].asked == []
        (only,) = await yard.order("lock", "east-gpu*")
        assert only["fault"] == "refused"
        with pytest.raises(NotFound, match="no device matches 'north-1'"):
            await yard.order("sleep", "west-0", "north-1")
        assert len(yard.rows["west"].asked) == 1, "a slip in one name asks nobody"

    play(scenario)


def test_a_dry_run_asks_and_leaves_no_trace(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        await yard.order("sleep", "east-0", dry_run=True)
        await yard.order("wake", "east-0")
        assert [one["dry_run"] for one in yard.rows["east"].asked] == [True, False]
        assert len(await yard.told("east-0", "wake")) == 1
        told = [one["action"] for one in yard.front.decisions("east-0", None, 99)]
        assert "sleep" not in told

    play(scenario)


def test_over_http_the_token_is_who_asks(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        store = TokenStore(yard.folder)
        secret, _ = store.create("ann", Role.OPERATOR)
        api = await start(create_app(yard.front, store), "127.36.0.1", 0)
        try:
            headers = {"Authorization": f"Bearer {secret}"}
            async with httpx2.AsyncClient(
                base_url=api.url, headers=headers, timeout=10, trust_env=False
            ) as http:
                body = {"devices": ["east-1"], "watts": "2.5kW", "reason": "hot aisle"}
                answer = await http.post("/v1/fleet/limit", json=body)
                assert answer.json()["rows"][0]["ok"]
                found = await http.get("/v1/devices")
        finally:
            await api.close()
        (asked,) = yard.rows["east"].asked
        assert (asked["by"], asked["watts_w"]) == ("ann", 2500.0)
        (told,) = await yard.told("east-1", "limit")
        assert told["reason"] == "by ann, 2500 W: hot aisle (commanded)"
        assert {one["asleep"] for one in found.json()["devices"]} == {False}

    play(scenario)


def test_a_shadow_site_sends_nothing_and_decides_all_the_same(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        with pytest.raises(Refused, match="shadow mode"):
            await yard.order("sleep", "*", dry_run=True)
        for ask in (
            yard.front.limit_devices({"east-gpu0": 450.0}),
            yard.front.release_device("east-0"),
            yard.front.profile_device("east-gpu0", start=True),
            yard.front.submit_job({"kind": "batch", "name": "b"}, None),
        ):
            with pytest.raises(Refused, match="shadow mode"):
                await ask
        # All of it would run: then a cap would put most of it to sleep, and its end bring it back.
        await _until(lambda: {d["mode"] for d in yard.front.devices()} == {"full"})
        await yard.front.set_cap(4_000.0, None, None, "operator", False)
        await _until(lambda: [d["mode"] for d in yard.front.devices()].count("sleep") == 7)
        await yard.told("west-2", "shed")
        await asyncio.sleep(2.6)  # longer than a machine has to be seen to obey
        await yard.front.clear_cap(None)
        await _until(lambda: {d["mode"] for d in yard.front.devices()} == {"full"})
        site, devices = yard.front.site(), yard.front.devices()
        assert site["mode"] == "shadow"
        assert {one["state"] for one in devices} == {"shadow"}
        assert {one["watts_w"] for one in devices} == {3_000.0}, "what is shown was really read"
        assert devices[0]["reason"].startswith("shadow: nothing is commanded; it would be leased")
        assert not [one for one in site["alarms"] if one["id"] == "overdue"]
        assert yard.front.metrics_snapshot()["shadow"] is True
        for row in yard.rows.values():
            assert (row.leases, row.asked) == ([], [])

    play(scenario, "shadow")


def test_a_site_in_control_does_send_leases(play: Callable[..., None]) -> None:
    async def scenario(yard: Yard) -> None:
        await _until(lambda: all(row.leases for row in yard.rows.values()))

    play(scenario)


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(round(PATIENCE_S / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come to hold")


def test_nothing_but_a_reading_leaves_a_shadow_outlet() -> None:
    """The one gate, without any of the desks in front of it."""
    outlet = Outlet({}, None, Inbox(), shadow=True)
    with pytest.raises(Refused, match="shadow mode"):
        asyncio.run(outlet.ask("east", "asic", reads=False))
    with pytest.raises(KeyError):  # a reading is passed on, here to an agent that does not exist
        asyncio.run(outlet.ask("east", "profile", reads=True))


def test_what_was_never_sent_ends_all_the_same() -> None:
    inbox = Inbox()
    outlet = Outlet({}, None, inbox, shadow=True)
    outlet.send(StartJob(7, "host", "batch-1", {}))
    sequence, watts_w = np.array([1, 2]), np.array([30.0, 3_000.0])
    modes = ("sleep", "full")
    outlet.send(GrantLeases(8, "east", "boot", 1, ("a", "b"), sequence, modes, watts_w, 9.0))
    started, leased = inbox.take()
    assert started == ev.CommandEnded(7, True)
    assert isinstance(leased, ev.LeasesReplied)
    assert (leased.command, leased.devices) == (8, ("a", "b"))
    assert leased.accepted.all()
