"""Processes that mark no gate: who they are, and when the miner may run beside them."""

import asyncio
import time
from collections.abc import Mapping

import pytest

from wattshift_cluster.agent.observe import (
    GpuUsers,
    Neighbours,
    NeighbourTerms,
    Others,
    others,
    together,
)
from wattshift_cluster.agent.observe.processes import UNKNOWN, judge, needs_gpu
from wattshift_cluster.bootclock import boot_s

WORKER, REPLICA, STRANGER = 10, 20, 30
NOBODY = Others(frozenset(), 0.0)


def users(pids: set[int] | None, sm_pct: Mapping[int, float] | None) -> GpuUsers:
    return GpuUsers(None if pids is None else frozenset(pids), sm_pct)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (users({WORKER, REPLICA}, {WORKER: 90, REPLICA: 5}), NOBODY),
        (users({WORKER, STRANGER}, {WORKER: 90}), Others(frozenset({STRANGER}), 0.0)),
        (users({WORKER}, {STRANGER: 4}), Others(frozenset({STRANGER}), 4.0)),
        (users({WORKER}, None), Others(frozenset(), None)),
        (users(None, {WORKER: 90}), Others(None, 0.0)),
        (users(None, {STRANGER: 4}), Others(frozenset({STRANGER}), 4.0)),
        (users(None, None), UNKNOWN),
    ],
)
def test_ours_and_the_gates_clients_are_left_out(seen: GpuUsers, expected: Others) -> None:
    assert others(seen, frozenset({WORKER}), frozenset({REPLICA})) == expected


def test_a_list_without_our_own_worker_is_not_believed() -> None:
    """As in a container without the host's process ids, where NVML lists nobody."""
    ours = frozenset({WORKER})
    assert others(users(set(), {}), ours, present=ours) == UNKNOWN
    assert others(users({WORKER}, {}), ours, present=ours) == NOBODY


def test_one_unknown_gpu_makes_the_whole_unknown_unless_somebody_was_seen() -> None:
    stranger = Others(frozenset({STRANGER}), 2.0)
    assert together([NOBODY, stranger]) == stranger
    assert together([NOBODY, UNKNOWN]) == UNKNOWN
    assert together([stranger, UNKNOWN]) == Others(frozenset({STRANGER}), None)
    assert together([NOBODY, NOBODY]) == NOBODY
    assert together([]) == UNKNOWN


@pytest.mark.parametrize(
    ("found", "terms", "beside", "why"),
    [
        (NOBODY, {}, "free", "nothing else"),
        (Others(frozenset({STRANGER}), 0.0), {}, "never", "marks no gate uses this GPU"),
        (Others(frozenset({STRANGER}), 0.0), {"opt_in": True}, "when_quiet", "opted in"),
        (Others(frozenset({STRANGER}), 9.0), {"observed": True}, "free", "observer"),
        (UNKNOWN, {}, "never", "does not say"),
        (UNKNOWN, {"opt_in": True}, "never", "does not say"),
        (UNKNOWN, {"observed": True}, "never", "does not say"),
        (UNKNOWN, {"exclusive": True}, "free", "its owner says"),
        (Others(frozenset({STRANGER}), 0.0), {"exclusive": True}, "never", "process 30"),
    ],
)
def test_the_rules(found: Others, terms: dict[str, bool], beside: str, why: str) -> None:
    given = {"observed": False, "opt_in": False, "exclusive": False, **terms}
    ruling = judge(found, **given)
    assert ruling.beside == beside
    assert why in ruling.why


def test_beside_an_opted_in_stranger_unknown_use_is_use() -> None:
    for sm_pct, busy in ((0.0, False), (0.5, True), (None, True)):
        found = Others(frozenset({STRANGER}), sm_pct)
        ruling = judge(found, observed=False, opt_in=True, exclusive=False)
        assert (needs_gpu(ruling, found) is not None) is busy


class Gate:
    """Records a gate's busy mark."""

    busy = False

    def enter(self) -> None:
        self.busy = True

    def leave(self) -> None:
        self.busy = False


def test_a_gpus_strangers_hold_its_gate() -> None:
    seen: list[tuple[float, Others] | None] = [None]

    async def scenario() -> None:
        gate = Gate()
        terms = NeighbourTerms(period_s=0.02)
        watched = Neighbours("gpu0", terms, gate, lambda: seen[0])
        assert gate.busy
        running = asyncio.create_task(watched.run())
        await asyncio.sleep(0.1)
        assert gate.busy, "no look yet"
        assert "does not say" in watched.verdict().why
        seen[0] = (boot_s() + 60, NOBODY)
        await becomes(gate, busy=False)
        seen[0] = (boot_s() + 60, Others(frozenset({STRANGER}), 0.0))
        await becomes(gate, busy=True)
        seen[0] = (boot_s() + 60, NOBODY)
        await becomes(gate, busy=False)
        seen[0] = (boot_s() - 60, NOBODY)
        await becomes(gate, busy=True)
        seen[0] = (boot_s() + 60, NOBODY)
        await becomes(gate, busy=False)
        running.cancel()
        await asyncio.wait([running])
        assert gate.busy
        assert watched.verdict().busy

    async def becomes(gate: Gate, *, busy: bool) -> None:
        deadline_s = time.monotonic() + 20
        while gate.busy is not busy:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_an_opted_in_stranger_has_to_be_quiet_for_a_while() -> None:
    gate, share = Gate(), [0.0]
    terms = NeighbourTerms(opt_in=True, quiet_s=0.3)
    watched = Neighbours(
        "gpu0", terms, gate, lambda: (boot_s(), Others(frozenset({STRANGER}), share[0]))
    )
    began_s = time.monotonic()
    while watched.judge_now().busy:
        assert time.monotonic() < began_s + 20
        time.sleep(0.02)
    assert time.monotonic() - began_s >= 0.3
    assert not gate.busy
    share[0] = 1.0
    assert "1 %" in watched.judge_now().why
    share[0] = 0.0
    assert watched.judge_now().busy, "the wait begins anew"
    assert gate.busy
