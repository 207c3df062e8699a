"""Power limits of replicas: set on the GPUs whose gates they mark, told when they hold no more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wattshift_cluster.controller import unit_limits
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.controller.unit_limits import UnitLimits
from wattshift_cluster.wire.link import LinkError, OpFailed
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import LimitUnits
from wattshift_scheduler.site import Device, OperatingPoint

PATIENCE_S = 20.0
POINTS = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 350.0, 1e9, 0.01))


def _gpu(name: str, host: str, kind: str = "gpu") -> Device:
    return Device(name, kind, f"agent-{host}", "f", POINTS, 350.0, 0.0, True, True, host=host)


DEVICES = (_gpu("g0", "n0"), _gpu("g1", "n0"), _gpu("g2", "n1"), _gpu("cpu", "n0", "cpu"))


class _Clock:
    """The time that the test sets."""

    def __init__(self, site: "Site") -> None:
        self._site = site

    def now_s(self) -> float:
        return self._site.now_s


class Site:
    """Agents that enforce what they are told to, and a report that the test changes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.rounding_w = 0.0
        self.fault: Exception | None = None
        self.row: dict[str, Any] = {
            "name": "svc",
            "by_node": {"n0": 2, "n1": 1},
            "gates": ["g0", "g1", "g2", "cpu"],
        }
        self.now_s = 1000.0
        self.roster = Roster()
        self.inbox = Inbox()
        self.limits = UnitLimits(
            self.ask,
            lambda: DEVICES,
            lambda: {"services": [self.row]},
            self.roster,
            self.inbox,
            _Clock(self),
            0.02,
        )

    async def ask(self, agent: str, op: str, **fields: Any) -> dict[str, Any]:
        self.asked.append((agent, op, fields.get("limits") or fields.get("device")))
        if self.fault is not None:
            raise self.fault
        if op == "release":
            return {"limit": None}
        rows = fields["limits"].items()
        return {"limits": [{"device": d, "enforced_w": w + self.rounding_w} for d, w in rows]}

    async def end(self, command: LimitUnits) -> ev.CommandEnded:
        self.limits.send(command)
        return await self.next()

    async def next(self) -> ev.CommandEnded:
        async with asyncio.timeout(PATIENCE_S):
            while not (events := self.inbox.take()):
                await self.inbox.wait(1.0)
        [end] = events
        assert isinstance(end, ev.CommandEnded)
        return end


def _run(test: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        site = Site()
        running = asyncio.create_task(site.limits.run())
        try:
            await test(site)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_a_limit_goes_to_the_gpus_that_the_replicas_on_that_node_mark() -> None:
    async def test(site: Site) -> None:
        site.rounding_w = 1.0
        end = await site.end(LimitUnits(7, "n0", "svc", 200.0))
        assert site.asked == [("agent-n0", "limit", {"g0": 200.0, "g1": 200.0})]
        assert (end.command, end.ok, end.watts_w) == (7, True, 201.0)

    _run(test)


def test_units_that_share_a_gpu_get_their_shares_of_its_limit() -> None:
    async def test(site: Site) -> None:
        site.row["gates"], site.row["by_node"] = ["g2"], {"n1": 2}
        end = await site.end(LimitUnits(1, "n1", "svc", 100.0))
        assert site.asked == [("agent-n1", "limit", {"g2": 200.0})]
        assert end.watts_w == 100.0

    _run(test)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gates": []}, "mark the gate of no GPU"),
        ({"by_node": {"n1": 1}}, "no replica of svc is on n0"),
    ],
)
def test_where_no_gpu_is_marked_nothing_is_asked_and_the_core_hears_why(
    change: dict[str, Any], words: str
) -> None:
    async def test(site: Site) -> None:
        site.row |= change
        end = await site.end(LimitUnits(1, "n0", "svc", 100.0))
        assert (end.ok, words in end.reason, site.asked) == (False, True, [])

    _run(test)


@pytest.mark.parametrize(
    "fault",
    [
        OpFailed("h:1", "limit", "power limits are only read here"),
        LinkError("h:1", "limit", "no answer in 5 s"),
    ],
)
def test_an_agent_that_refuses_or_is_silent_confirms_nothing(fault: LinkError) -> None:
    async def test(site: Site) -> None:
        site.fault = fault
        end = await site.end(LimitUnits(1, "n0", "svc", 100.0))
        assert (end.ok, fault.reason in end.reason, end.watts_w) == (False, True, None)

    _run(test)


NEGATIVE = [{"device": "g0", "enforced_w": -90.0}, {"device": "g1", "enforced_w": 90.0}]


@pytest.mark.parametrize(
    "rows", [7, [7], [{"enforced_w": 9.0}], [{"device": "g0"}, None], NEGATIVE]
)
def test_an_answer_that_is_none_fails_the_limit_and_not_the_controller(rows: Any) -> None:
    async def test(site: Site) -> None:
        async def ask(agent: str, op: str, **fields: Any) -> dict[str, Any]:
            return {"limits": rows}

        site.limits._ask = ask
        end = await site.end(LimitUnits(1, "n0", "svc", 100.0))
        assert (end.ok, end.watts_w) == (False, None)

    _run(test)


def test_a_limit_that_is_not_enforced_is_none() -> None:
    async def test(site: Site) -> None:
        site.rounding_w = 40.0
        end = await site.end(LimitUnits(1, "n0", "svc", 100.0))
        assert (end.ok, "140.0 W are enforced" in end.reason) == (False, True)

    _run(test)


def test_lifting_gives_back_what_was_ever_limited_and_a_raise_goes_by_way_of_it() -> None:
    async def test(site: Site) -> None:
        await site.end(LimitUnits(1, "n0", "svc", 100.0))
        site.row["gates"] = ["g1"]  # g0 was left by its replica, and is still limited
        site.asked.clear()
        end = await site.end(LimitUnits(2, "n0", "svc", None))
        assert [(op, what) for _, op, what in site.asked] == [("release", "g0"), ("release", "g1")]
        assert (end.ok, end.watts_w) == (True, None)
        await site.end(LimitUnits(3, "n0", "svc", 100.0))
        site.asked.clear()
        await site.end(LimitUnits(4, "n0", "svc", 150.0))
        assert [op for _, op, _ in site.asked] == ["release", "limit"]
        site.asked.clear()
        await site.end(LimitUnits(5, "n0", "svc", 120.0))
        assert [op for _, op, _ in site.asked] == ["limit"]

    _run(test)


def test_after_a_restart_what_the_job_marks_now_is_given_back() -> None:
    async def test(site: Site) -> None:
        await site.end(LimitUnits(1, "n1", "svc", None))
        assert site.asked == [("agent-n1", "release", "g2")]

    _run(test)


def test_replicas_on_other_gpus_end_the_confirmation() -> None:
    async def test(site: Site) -> None:
        site.row["gates"], site.row["by_node"] = ["g0"], {"n0": 1}
        assert (await site.end(LimitUnits(5, "n0", "svc", 200.0))).ok
        site.row["gates"] = ["g1"]
        end = await site.next()
        assert (end.command, end.ok, "g1" in end.reason) == (5, False, True)

    _run(test)


@pytest.mark.parametrize("gates", [["g2"], []], ids=["told", "not told any more"])
def test_a_limit_that_somebody_else_has_raised_ends_the_confirmation(gates: list[str]) -> None:
    async def test(site: Site) -> None:
        site.roster.offered("agent-n1", [{"id": "g2"}])
        assert (await site.end(LimitUnits(5, "n1", "svc", 200.0))).ok
        site.row["gates"] = gates
        before = {"device": "g2", "enforced_limit_w": 350.0}
        site.roster.read([before], site.now_s + 1.0)  # sampled before the write was seen
        await asyncio.sleep(0.1)
        assert site.inbox.take() == []
        site.roster.read([{**before, "enforced_limit_w": 201.0}], site.now_s + 5.0)
        await asyncio.sleep(0.1)
        assert site.inbox.take() == []
        site.roster.read([before], site.now_s + 6.0)
        end = await site.next()
        assert (end.command, end.ok, "somebody else" in end.reason) == (5, False, True)

    _run(test)


def test_a_gpu_that_two_services_share_is_limited_until_both_are_lifted() -> None:
    async def test(site: Site) -> None:
        other = {"name": "too", "by_node": {"n0": 1}, "gates": ["g1"]}
        site.limits._report = lambda: {"services": [site.row, other]}
        await site.end(LimitUnits(1, "n0", "svc", 100.0))
        await site.end(LimitUnits(2, "n0", "too", 100.0))
        site.asked.clear()
        assert (await site.end(LimitUnits(3, "n0", "svc", None))).ok
        assert [what for _, _, what in site.asked] == ["g0"]
        assert (await site.end(LimitUnits(4, "n0", "too", None))).ok
        assert [what for _, _, what in site.asked] == ["g0", "g1"]

    _run(test)


def test_more_limits_than_can_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_limits, "WAITING_MAX", 1)

    async def test(site: Site) -> None:
        site.limits.send(LimitUnits(1, "n0", "svc", 100.0))
        for number in range(2, 4):
            site.limits.send(LimitUnits(number, "n0", "svc", 100.0))
        ends = site.inbox.take()
        assert [(end.command, end.ok) for end in ends if isinstance(end, ev.CommandEnded)] == [
            (2, False),
            (3, False),
        ]

    _run(test)
