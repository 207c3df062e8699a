"""The session with the compute bridge, against a bridge that answers over a real connection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from wattshift_cluster.controller import bridge_session, bridge_words
from wattshift_cluster.controller.bridge_session import BridgeSession
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.errors import Refused
from wattshift_cluster.wire import server
from wattshift_cluster.wire.link import Link
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    EvictUnits,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)

TOKEN = b"t" * 32
PATIENCE_S = 20.0
UP = {"up": True, "error": None}


def _node(name: str, **told: Any) -> dict[str, Any]:
    return {"name": name, "alive": True, "power_w_total": 300.0, "power_w_available": 100.0, **told}


@dataclass
class ScriptedBridge:
    """Keeps a report back until its version differs, as the real bridge does."""

    report: dict[str, Any]
    version: int | None = 1
    waits: bool = True
    results: list[dict[str, Any]] | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((op, fields))
        if op == "apply":
            if self.results is None:
                raise Refused("not today")
            return {"results": self.results}
        if self.waits and "after" in fields:
            try:
                async with asyncio.timeout(float(fields["wait_s"])), self.changed:
                    await self.changed.wait_for(lambda: self.version != fields["after"])
            except TimeoutError:
                pass
        return self.report if self.version is None else {**self.report, "version": self.version}

    async def tell(self, **parts: Any) -> None:
        """Something has happened."""
        async with self.changed:
            self.report = {**self.report, **parts}
            self.version = (self.version or 0) + 1
            self.changed.notify_all()

    def reports(self) -> int:
        return sum(op == "report" for op, _ in self.asked)


class Heard(Inbox):
    """An inbox that remembers what was urgent."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[ev.Event, bool]] = []
        self.more = asyncio.Event()

    def put(self, events: Any, *, urgent: bool = False) -> None:
        self.all += [(event, urgent) for event in events]
        self.more.set()

    async def until(self, found: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while not (result := found()):
                self.more.clear()
                await self.more.wait()
        return result

    def of(self, kind: type) -> list[Any]:
        return [event for event, _ in self.all if isinstance(event, kind)]


Test = Callable[[ScriptedBridge, BridgeSession, Heard], Awaitable[None]]


def _run(
    test: Test,
    report: dict[str, Any],
    *,
    nodes: tuple[str, ...] = ("a", "b"),
    active: dict[str, str] | None = None,
    **bridge_said: Any,
) -> None:
    """Run `test` beside a session with a scripted bridge."""

    async def main() -> None:
        bridge, heard = ScriptedBridge(report, **bridge_said), Heard()
        listening = await server.serve(
            "127.0.0.1", 0, name="bridge", token=TOKEN, handler=bridge.handle
        )
        port = listening.sockets[0].getsockname()[1]
        links = (Link("127.0.0.1", port, TOKEN), Link("127.0.0.1", port, TOKEN))
        session = BridgeSession("a", nodes, links, heard, lambda: active or {}, 0.05, 7)
        running = asyncio.create_task(session.run())
        try:
            await test(bridge, session, heard)
        finally:
            listening.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_news_come_at_once_and_urgent_and_nothing_is_asked_for_in_between() -> None:
    service = {"name": "svc", "state": "running", "running": 1, "ongoing": 1, "by_node": {"a": 1}}

    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.JobReported))
        await asyncio.sleep(0.2)
        assert bridge.reports() == 2, "one answered, one kept back"
        began_s = asyncio.get_running_loop().time()
        await bridge.tell(services=[{**service, "ongoing": 9, "queued": 4, "desired": 3}])
        burst = await heard.until(lambda: [j for j in heard.of(ev.JobReported) if j.ongoing == 13])
        # The bar is 50 ms; a loaded machine needs more, a poll once a second would need more still.
        assert asyncio.get_running_loop().time() - began_s < 0.5
        assert burst[0].desired == 3
        assert (burst[0], True) in heard.all

    _run(test, {"ray": UP, "nodes": [_node("a"), _node("b")], "services": [service]})


def test_a_change_that_only_moves_a_figure_waits_for_the_next_turn() -> None:
    service = {"name": "svc", "state": "running", "running": 1, "ongoing": 4, "p95_ms": 20.0}

    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.JobReported))
        await bridge.tell(services=[{**service, "ongoing": 5, "p95_ms": 21.0}])
        calm = await heard.until(lambda: [j for j in heard.of(ev.JobReported) if j.p95_ms == 21.0])
        assert (calm[0], False) in heard.all

    _run(test, {"ray": UP, "nodes": [_node("a")], "services": [service]})


def test_every_node_is_told_of_with_what_is_unknown_left_unknown() -> None:
    nodes = [
        _node(
            "a", labels={"rack": 7}, gpus=2, unasked_w=12.0, unasked=["actor Foo"], draining=True
        ),
        _node("b", power_w_total=None, unasked_w=None),
        _node("c", alive=False, error="lost"),
        _node("x", power_w_total=50.0),
    ]

    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.ComputeSeen))
        seen = {one.node: one for one in heard.of(ev.ComputeSeen)}
        a = seen["a"]
        assert (a.up, a.power_w, a.used_w, a.unasked_w, a.gpus) == (True, 300.0, 200.0, 12.0, 2.0)
        assert (a.labels, a.unasked, a.draining) == ({"rack": "7"}, ("actor Foo",), True)
        b = seen["b"]
        assert (b.up, b.power_w, b.used_w, b.unasked_w, b.gpus) == (True, None, None, None, None)
        assert (seen["c"].up, seen["c"].reason) == (False, "lost")
        assert (seen["d"].up, seen["d"].reason) == (False, "Ray has no node of this name")
        assert seen["x"].up
        await bridge.tell(nodes=nodes[:3])
        await heard.until(lambda: any(n.node == "x" and not n.up for n in heard.of(ev.ComputeSeen)))

    _run(test, {"ray": UP, "nodes": nodes}, nodes=("a", "b", "c", "d"))


def test_a_node_that_came_back_is_heard_and_its_former_life_is_not() -> None:
    rows = [_node("a", power_w_total=0.0), _node("a", alive=False), _node("b")]
    names = bridge_words.Names("a", ("a", "b"))
    for order in (rows, rows[1::-1] + rows[2:]):
        seen = {one.node: one for one in names.nodes({"ray": UP, "nodes": order})}
        assert (seen["a"].up, seen["a"].power_w) == (True, 0.0)


def test_a_cluster_that_is_down_has_no_node_that_is_up() -> None:
    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.ComputeSeen))
        assert {(one.node, one.up, one.reason) for one in heard.of(ev.ComputeSeen)} == {
            ("a", False, "GCS is gone"),
            ("b", False, "GCS is gone"),
        }

    ray = {"up": False, "error": "GCS is gone"}
    _run(test, {"ray": ray, "nodes": [_node("a"), _node("b")]}, active={"svc": "service"})


def test_an_older_bridge_is_asked_once_a_period_and_speaks_for_its_own_node() -> None:
    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: bridge.reports() >= 3)
        assert all("after" not in fields for op, fields in bridge.asked if op == "report")
        seen = {one.node: one for one in heard.of(ev.ComputeSeen)}
        assert (seen["a"].up, seen["a"].power_w, seen["b"].up) == (True, 120.0, False)
        [job] = {one.job: one for one in heard.of(ev.JobReported)}.values()
        assert (job.state, job.by_node, job.running) == ("running", None, 1)

    report = {
        "ray": UP,
        "node": {"id": "i", "power_w_total": 120.0, "power_w_available": 20.0},
        "services": [{"name": "svc", "running": 1, "ongoing": None, "queued": None}],
    }
    _run(test, report, version=None)


def test_a_bridge_that_does_not_wait_is_not_asked_without_a_pause() -> None:
    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await asyncio.sleep(0.5)
        assert bridge.reports() <= 12

    _run(test, {"ray": UP, "nodes": [_node("a")]}, waits=False)


def test_commands_go_out_at_once_though_a_report_is_being_kept_back() -> None:
    sent: list[ComputeCommand] = [
        SetNodePower(1, "b", 200.0),
        SetReplicas(2, "a", "svc", 3, {"k": 1}, {"a": 1, "b": 2}),
        StartJob(3, "a", "bat", {}, {"b": 1}),
        PauseJob(4, "a", "bat"),
        CancelJob(5, "a", "bat"),
        EvictUnits(6, "b", "svc", 2),
    ]
    results: list[dict[str, Any]] = [
        {"id": n, "ok": n != 4, "error": "no such job" if n == 4 else None} for n in range(7)
    ]
    results[1]["watts_w"] = 150.0
    del results[6]

    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.ComputeSeen))
        began_s = asyncio.get_running_loop().time()
        for one in sent:
            session.send(one)
        ends = await heard.until(lambda: heard.of(ev.CommandEnded))
        assert asyncio.get_running_loop().time() - began_s < 0.6
        [rows] = [fields["commands"] for op, fields in bridge.asked if op == "apply"]
        assert rows[0] == {"id": 1, "kind": "set_node_power", "node": "b", "watts_w": 200.0}
        assert rows[1]["nodes"] == {"a": 1, "b": 2}
        assert rows[2] == {
            "id": 3, "kind": "start_job", "job": "bat", "spec": {}, "nodes": {"b": 1}
        }  # fmt: skip
        assert rows[5] == {"id": 6, "kind": "evict_units", "node": "b", "job": "svc", "units": 2}
        by_id = {end.command: end for end in ends}
        assert (by_id[1].ok, by_id[1].watts_w) == (True, 150.0)
        assert (by_id[4].ok, by_id[4].reason) == (False, "no such job")
        assert (by_id[6].ok, "did not answer" in by_id[6].reason) == (False, True)

    _run(test, {"ray": UP, "nodes": [_node("a"), _node("b")]}, results=results)


def test_large_specifications_go_out_one_by_one_and_keep_no_watts_from_being_set() -> None:
    """A line of the wire has a limit; commands that did not fit would fail, and the nodes' too."""
    spec = {"args": {"text": "x" * (900 << 10)}}
    sent: list[ComputeCommand] = [StartJob(n, "a", f"b{n}", spec) for n in range(8)]

    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.ComputeSeen))
        for one in [*sent, SetNodePower(8, "a", 200.0)]:
            session.send(one)
        ends = await heard.until(lambda: (e := heard.of(ev.CommandEnded))[8:] and e)
        assert [(end.command, end.ok) for end in ends] == [(n, True) for n in range(9)]
        assert not any(not seen.up for seen in heard.of(ev.ComputeSeen))

    results = [{"id": n, "ok": True, "error": None} for n in range(9)]
    _run(test, {"ray": UP, "nodes": [_node("a")]}, nodes=("a",), results=results)


def test_a_refusal_of_all_commands_ends_them_and_the_cluster_is_not_taken_for_gone() -> None:
    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: heard.of(ev.ComputeSeen))
        session.send(PauseJob(9, "a", "bat"))
        [end] = await heard.until(lambda: heard.of(ev.CommandEnded))
        assert (end.command, end.ok, "not today" in end.reason) == (9, False, True)
        assert all(one.up for one in heard.of(ev.ComputeSeen) if one.node == "a")

    _run(test, {"ray": UP, "nodes": [_node("a"), _node("b")]}, results=None)


def test_when_nobody_answers_the_nodes_are_gone_before_the_commands_fail() -> None:
    """In this order, so that the failure is not counted against the job."""

    async def main() -> None:
        heard, links = Heard(), [Link("127.0.0.1", 9, TOKEN) for _ in range(2)]
        session = BridgeSession("a", ("a",), (links[0], links[1]), heard, dict, 0.05, 7)
        running = asyncio.create_task(session.run())
        session.send(PauseJob(9, "a", "bat"))
        await heard.until(lambda: heard.of(ev.CommandEnded))
        at = next(i for i, (e, _) in enumerate(heard.all) if isinstance(e, ev.CommandEnded))
        assert any(isinstance(e, ev.ComputeSeen) and not e.up for e, _ in heard.all[:at])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_an_answer_that_is_no_report_is_no_report() -> None:
    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        await heard.until(lambda: len(heard.of(ev.ComputeSeen)) >= 4)
        assert not any(one.up for one in heard.of(ev.ComputeSeen))

    _run(test, {"ray": UP, "nodes": [{"alive": True}]})


def test_a_figure_that_is_none_is_unknown_and_gives_the_budget_nothing() -> None:
    """1e400 is an infinity to JSON, and a negative draw would be watts out of nothing (I1)."""
    wrong = {"power_w_total": float("inf"), "unasked_w": -500.0, "gpus": -1}
    report = {"ray": UP, "nodes": [_node("a", **wrong)]}
    (seen, _) = bridge_words.Names("a", ("a", "b")).nodes(report)
    assert (seen.up, seen.power_w, seen.used_w, seen.unasked_w, seen.gpus) == (True, *[None] * 4)
    row = {"name": "s", "state": "running", "desired": float("inf"), "by_node": {"a": -3, "b": 2}}
    (service,) = bridge_words.jobs({"services": [row], "jobs": []})
    assert (service.desired, service.by_node) == (None, None)
    told = {"results": [{"id": 1, "ok": True, "watts_w": -1e9}]}
    (end,) = bridge_words.ended(told, [SetNodePower(1, "a", 300.0)])
    assert isinstance(end, ev.CommandEnded)
    assert (end.ok, end.watts_w) == (True, None)


def test_a_job_that_the_bridge_no_longer_knows_is_lost_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge_session, "MISSING_S", 0.2)

    async def test(bridge: ScriptedBridge, session: BridgeSession, heard: Heard) -> None:
        began_s = asyncio.get_running_loop().time()
        lost = await heard.until(
            lambda: [one.job for one in heard.of(ev.JobReported) if one.state == "lost"]
        )
        assert lost == ["gone"]
        assert asyncio.get_running_loop().time() - began_s >= 0.2

    jobs = [{"job": "here", "state": "running", "done": 3, "total": 9, "failed_items": 1}]
    report = {"ray": UP, "nodes": [_node("a")], "jobs": jobs}
    _run(test, report, version=None, active={"here": "batch", "gone": "batch"})


def test_what_is_reported_of_jobs_is_carried_over_word_by_word() -> None:
    failed = {"name": "svc", "state": "failed", "running": 0, "error": "ImportError: nowhere"}
    batch = {
        "job": "bat", "state": "running", "done": 3, "total": 9, "failed_items": 1,
        "rate_per_s": 2.5, "checkpoint_age_s": 4.0, "by_node": {"b": 2}, "error": None,
    }  # fmt: skip
    [service, job] = bridge_words.jobs({"services": [failed], "jobs": [batch]})
    assert (service.state, service.error, service.ongoing) == (
        "failed",
        "ImportError: nowhere",
        None,
    )
    assert (job.items_failed, job.rate_per_s, job.checkpoint_age_s) == (1, 2.5, 4.0)
    assert (job.by_node, job.done, job.total) == ({"b": 2}, 3, 9)
    with pytest.raises(ValueError, match="asleep"):
        bridge_words.jobs({"jobs": [{"job": "bat", "state": "asleep"}]})
