"""What an operator asks of single devices goes to their agents, and what came of it is kept."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.agent.protocol import DeviceInfo, Point
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import sessions
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.errors import NotFound, Refused, Unreachable, WattshiftError
from wattshift_cluster.wire import server

TOKEN = b"t" * 32
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
[[feeders]]
name = "main"
limit = "10kW"
[api]
listen = "127.0.0.1:18099"
"""
AGENT = """
[[agents]]
name = "{name}"
address = "127.0.0.1:{port}"
token_file = "t"
feeder = "main"
"""
PATIENCE_S = 20.0


class Silence:
    """No answer within any deadline."""


@dataclass
class ScriptedAgent:
    """An agent with one card that answers an operator as the test says.

    It listens on loopback as any agent does, and keeps what it was asked beside its leases.
    """

    name: str
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        if op in ("hello", "exchange"):
            clock = {"boot_id": boot_id(), "boot_s": boot_s(), "inventory_version": 1}
            card = _card(self.name).wire()
            return {**clock, "epoch": 1, "devices": [card], "readings": [], "results": []}
        self.asked.append((op, fields))
        answer = self.answers[op]
        if isinstance(answer, WattshiftError):
            raise answer
        if isinstance(answer, Silence):
            await asyncio.sleep(PATIENCE_S)
        if callable(answer):
            found: dict[str, Any] = answer(fields)
            return found
        return dict(answer)


def _card(agent: str) -> DeviceInfo:
    points = (Point("idle", 90.0, 0.0, 0.01), Point("hash", 560.0, 5e9, 0.01))
    return DeviceInfo(
        id=f"{agent}-gpu0",
        kind="gpu",
        model="Emulated H200",
        firmware="1",
        algorithm="sha256d",
        nameplate_w=700.0,
        tolerance=0.05,
        continuous=True,
        fenced=True,
        safe_w=90.0,
        power_on_w=90.0,
        host=None,
        quality="emulated",
        points=points,
    )


@dataclass
class Yard:
    """Two hosts with a card each, and the controller between them and the operator."""

    front: Front
    hosts: dict[str, ScriptedAgent]

    async def told(self, subject: str, count: int = 1) -> list[tuple[str, str]]:
        """What an operator did to a device, as it is on record, oldest first.

        The journal writes a moment later: waits until there are so many.
        """
        for _ in range(round(PATIENCE_S / 0.01)):
            found = self.front.decisions(subject, None, 20)
            rows = [row for row in found if row["action"] in ("limit", "release", "profile")]
            if len(rows) >= count:
                break
            await asyncio.sleep(0.01)
        return [(row["action"], row["reason"]) for row in reversed(rows)]


Scenario = Callable[[Yard], Awaitable[None]]
Play = Callable[[Scenario], None]


def limits(enforced_w: float, error: str | None = None) -> Callable[[dict[str, Any]], Any]:
    """An agent's rows for whatever was asked."""

    def answer(fields: dict[str, Any]) -> dict[str, Any]:
        row = {"enforced_w": enforced_w, "error": error, "took_s": 0.012}
        asked = fields["limits"].items()
        return {"limits": [{"device": one, "asked_w": watts_w, **row} for one, watts_w in asked]}

    return answer


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a scenario in a yard of its own, whose two agents have joined."""
    monkeypatch.setattr(sessions, "ASK_S", 1.0)  # some agents here never answer

    async def main(scenario: Scenario) -> None:
        hosts = {name: ScriptedAgent(name) for name in ("east", "west")}
        text, listeners = SITE, []
        for name, agent in hosts.items():
            listener = await server.serve(
                "127.0.0.1", 0, name=name, token=TOKEN, handler=agent.handle
            )
            listeners.append(listener)
            text += AGENT.format(name=name, port=listener.sockets[0].getsockname()[1])
        (tmp_path / "site.toml").write_text(text)
        journal = Journal.open(tmp_path / "journal.sqlite")
        config = load_site(tmp_path / "site.toml", environ={})
        tokens = Tokens(dict.fromkeys(hosts, TOKEN), None)
        controller = Controller(config, journal, SteadyClock(), tokens)
        front, stop = Front(controller), asyncio.Event()
        running = asyncio.create_task(controller.run(stop, []))
        try:
            for _ in range(round(PATIENCE_S / 0.01)):
                if len(front.devices()) == len(hosts):
                    break
                await asyncio.sleep(0.01)
            await scenario(Yard(front, hosts))
        finally:
            stop.set()
            await running
            for listener in listeners:
                listener.close()
            await asyncio.sleep(0)
            journal.close()

    return lambda scenario: asyncio.run(main(scenario))


def test_a_limit_reaches_each_agent_once_and_is_written_down(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        yard.hosts["east"].answers["limit"] = limits(450.0)
        yard.hosts["west"].answers["limit"] = limits(
            400.0, "450 W is a raise and no lease covers it"
        )
        rows = await yard.front.limit_devices({"east-gpu0": 450.0, "west-gpu0": 450.0})
        assert [(row["device"], row["enforced_w"]) for row in rows] == [
            ("east-gpu0", 450.0),
            ("west-gpu0", 400.0),
        ]
        assert yard.hosts["east"].asked == [("limit", {"limits": {"east-gpu0": 450.0}})]
        assert await yard.told("east-gpu0") == [("limit", "asked 450 W, 450 W are enforced")]
        ((_, reason),) = await yard.told("west-gpu0")
        assert reason == "asked 450 W: 450 W is a raise and no lease covers it"
        (row,) = [d for d in yard.front.decisions("east-gpu0", None, 9) if d["action"] == "limit"]
        assert row["inputs"] == {"asked_w": 450.0}

    play(scenario)


def test_decisions_of_an_operator_are_streamed_too(play: Play) -> None:
    async def scenario(yard: Yard) -> None:
        yard.hosts["east"].answers["release"] = {"limit": None}
        stream = yard.front.subscribe(None)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await yard.front.release_device("east-gpu0")
        event = await asyncio.wait_for(first, PATIENCE_S)
        while event[1] != "decision" or event[2]["action"] != "release":
            event = await asyncio.wait_for(anext(stream), PATIENCE_S)
        assert event[2]["subject"] == "east-gpu0"

    play(scenario)


def test_one_silent_agent_does_not_hide_what_the_other_set(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        yard.hosts["east"].answers["limit"] = limits(450.0)
        yard.hosts["west"].answers["limit"] = Silence()
        wanted_w = {"east-gpu0": 450.0, "west-gpu0": 450.0}
        east, west = await yard.front.limit_devices(wanted_w)
        assert (east["error"], east["enforced_w"]) == (None, 450.0)
        assert west["enforced_w"] is None, "what nobody answered is unknown, not zero"
        assert west["asked_w"] == 450.0
        assert west["error"] == "agent west: no answer in 1 s"
        assert west["took_s"] >= 0.9
        assert await yard.told("east-gpu0") == [("limit", "asked 450 W, 450 W are enforced")]
        assert await yard.told("west-gpu0") == [
            ("limit", "asked 450 W: agent west: no answer in 1 s")
        ]
        yard.hosts["east"].answers["limit"] = Refused("power limits are only read here")
        with pytest.raises(Refused, match="only read here"):
            await yard.front.limit_devices({"east-gpu0": 450.0})

    play(scenario)


def test_an_unknown_device_is_not_found_and_nobody_is_asked(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        yard.hosts["east"].answers["limit"] = limits(450.0)
        with pytest.raises(NotFound, match="no device north-gpu0"):
            await yard.front.limit_devices({"east-gpu0": 450.0, "north-gpu0": 450.0})
        for ask in (
            yard.front.release_device("north-gpu0"),
            yard.front.profile_device("north-gpu0", start=True),
            yard.front.profile_device("north-gpu0", start=False),
        ):
            with pytest.raises(NotFound):
                await ask
        assert yard.hosts["east"].asked == []

    play(scenario)


def test_a_release_tells_which_limit_came_back(play: Play) -> None:
    async def scenario(yard: Yard) -> None:
        row = {"device": "east-gpu0", "asked_w": 700.0, "enforced_w": 700.0}
        row |= {"error": None, "took_s": 0.02}
        yard.hosts["east"].answers["release"] = {"limit": row}
        assert await yard.front.release_device("east-gpu0") == {"device": "east-gpu0", "limit": row}
        assert yard.hosts["east"].asked == [("release", {"device": "east-gpu0"})]
        ((action, reason),) = await yard.told("east-gpu0")
        assert action == "release"
        assert reason.endswith("its first power limit: asked 700 W, 700 W are enforced")

    play(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"limit": None},
        {
            "limit": {
                "asked_w": None,
                "enforced_w": None,
                "error": "no limit of this card was written",
            }
        },
    ],
)
def test_a_release_with_no_limit_to_give_back(play: Play, answer: dict[str, Any]) -> None:
    async def scenario(yard: Yard) -> None:
        yard.hosts["east"].answers["release"] = answer
        found = await yard.front.release_device("east-gpu0")
        assert found == {"device": "east-gpu0", "limit": None}
        assert await yard.told("east-gpu0") == [("release", "by an operator: to its safe point")]

    play(scenario)


def test_a_curve_is_asked_for_and_only_its_start_is_written_down(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        view = {"device": "east-gpu0", "state": "running", "points": []}
        yard.hosts["east"].answers["profile"] = {"profile": view}
        assert await yard.front.profile_device("east-gpu0", start=False) == view
        assert await yard.front.profile_device("east-gpu0", start=True) == view
        assert [fields["start"] for _, fields in yard.hosts["east"].asked] == [False, True]
        assert [action for action, _ in await yard.told("east-gpu0")] == ["profile"]

    play(scenario)


def test_an_agent_s_own_no_is_passed_on_and_written_down(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        no = Refused("east-gpu0 cannot be measured: it has no lease")
        yard.hosts["east"].answers |= {"profile": no, "release": no}
        with pytest.raises(Refused, match="it has no lease"):
            await yard.front.profile_device("east-gpu0", start=True)
        with pytest.raises(Refused, match="it has no lease"):
            await yard.front.release_device("east-gpu0")
        told = await yard.told("east-gpu0", 2)
        assert {action for action, _ in told} == {"profile", "release"}
        assert all(reason.endswith("it failed: " + str(no)) for _, reason in told)

    play(scenario)


def test_an_answer_that_lacks_what_was_asked_is_no_answer(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        yard.hosts["east"].answers |= {"limit": {}, "profile": {}}
        with pytest.raises(Unreachable, match="its answer to limit has no limits"):
            await yard.front.limit_devices({"east-gpu0": 450.0})
        with pytest.raises(Unreachable, match="its answer to profile has no profile"):
            await yard.front.profile_device("east-gpu0", start=False)

    play(scenario)


def test_an_asic_s_points_are_priced_and_its_walk_can_be_planned_and_broken_off(
    play: Play,
) -> None:
    async def scenario(yard: Yard) -> None:
        point = {"hashrate_h_per_s": 100e12, "watts_w": 3000.0}
        blind = {"hashrate_h_per_s": 100e12, "watts_w": None}
        view = {"device": "east-gpu0", "kind": "asic", "state": "done", "points": [point, blind]}
        yard.hosts["east"].answers["profile"] = {"profile": view}
        shown = await yard.front.profile_device("east-gpu0", start=False)
        income = 0.1 * 40.0 * 0.98 / 24.0
        assert [row["income_usd_per_h"] for row in shown["points"]] == pytest.approx([income] * 2)
        assert [row["net_usd_per_h"] for row in shown["points"]] == [None, None]
        yard.front._c.state = replace(
            yard.front._c.state,
            values=replace(yard.front._c.state.values, default_price_usd_per_mwh=20.0),
        )
        shown = await yard.front.profile_device("east-gpu0", start=False)
        nets = [row["net_usd_per_h"] for row in shown["points"]]
        assert nets == [pytest.approx(income - 0.003 * 20.0), None]
        state = yard.front._c.state
        yard.front._c.state = replace(
            state,
            values=replace(state.values, carbon_usd_per_t=50.0),
            signals=replace(state.signals, carbon_g_per_kwh=200.0),
        )
        shown = await yard.front.profile_device("east-gpu0", start=False)
        nets = [row["net_usd_per_h"] for row in shown["points"]]
        assert nets == [pytest.approx(income - 0.003 * 30.0), None], "its carbon costs 10"
        await yard.front.profile_device("east-gpu0", start=False, dry_run=True, points=4)
        assert await yard.told("east-gpu0", 0) == [], "a plan leaves no trace"
        await yard.front.profile_device("east-gpu0", start=True, with_sleep=True)
        await yard.front.profile_device("east-gpu0", start=False, stop=True)
        asked = [fields for _, fields in yard.hosts["east"].asked][3:]
        assert [{k: v for k, v in one.items() if k != "device"} for one in asked] == [
            {"start": False, "dry_run": True, "points": 4},
            {"start": True, "with_sleep": True},
            {"start": False, "stop": True},
        ]
        assert [reason for _, reason in await yard.told("east-gpu0", 2)] == [
            "by an operator: its power curve is measured",
            "by an operator: its measurement was broken off",
        ]

    play(scenario)
