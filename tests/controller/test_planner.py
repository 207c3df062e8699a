"""The planner's process: a real one that plans, is stopped, killed, refuses, and talks nonsense."""

import asyncio
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.controller.plan import wire as plan_wire
from wattshift_cluster.controller.plan.process import Planner, PlannerFailed
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan.words import Ahead, Batch, Kind, Plan

PATIENCE_S = 60.0
"""A process starts and imports a solver; on a busy machine that takes a while."""

STUB = """
import sys
body = sys.stdin.buffer
size = int.from_bytes(body.read(4), "big")
body.read(size)
{act}
"""


def ahead(price_usd_per_mwh: float = 40.0) -> Ahead:
    """Six hours of a few machines and one batch job."""
    flat = Band.of(np.full(24, price_usd_per_mwh))
    rigs = Kind("rigs", 10, (30.0, 3000.0), (0.0, 0.2), up_s=600.0, cycle_usd=0.05, running=10)
    night = Batch("night", 2000.0, 1000.0, deadline_s=4 * 3600.0)
    loads = (Band.of(np.full(24, 500.0)), Band.of(np.full(24, 2000.0)))
    return Ahead(9e8, 900.0, flat, np.full(24, 4e4), *loads, kinds=(rigs,), batches=(night,))


def asked(of: Ahead) -> dict[str, Any]:
    return {"ahead": of, "time_limit_s": 10.0}


def running(scenario: Callable[[Planner], Awaitable[None]], act: str | None = None) -> None:
    """A scenario with a planner; `act`: what one of ours does instead of planning."""

    async def run() -> None:
        argv = () if act is None else ((sys.executable, "-S", "-c", STUB.format(act=act)),)
        planner = Planner(*argv)
        try:
            await scenario(planner)
        finally:
            await planner.close()
            assert planner.pid is None

    asyncio.run(run())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_process_plans_and_one_that_is_stopped_or_killed_is_replaced() -> None:
    async def scenario(planner: Planner) -> None:
        answer = await planner.ask(asked(ahead()), PATIENCE_S)
        plan = plan_wire.read(Plan, answer["plan"])
        assert plan.status == "optimal"
        assert plan.mining_w.shape == (24, 1)
        assert plan.mining_w[:, 0] == pytest.approx(3e4, rel=0.01), "it pays at this price"
        assert plan.batch_w[:, 0].sum() / 4.0 == pytest.approx(2000.0, rel=0.01)
        first = planner.pid
        assert first is not None
        assert os.getpriority(os.PRIO_PROCESS, first) > os.getpriority(os.PRIO_PROCESS, 0)
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(PlannerFailed, match=r"no plan within 0\.3 s"):
            await planner.ask(asked(ahead()), 0.3)
        assert gone(first)
        assert planner.pid is None
        await planner.ask(asked(ahead(1000.0)), PATIENCE_S)
        second = planner.pid
        assert second not in (None, first)
        os.kill(second, signal.SIGKILL)
        with pytest.raises(PlannerFailed, match=r"the planner has ended \(signal 9\)"):
            await planner.ask(asked(ahead()), PATIENCE_S)
        assert planner.starts == 2

    running(scenario)


def test_what_is_refused_names_the_item() -> None:
    async def scenario(planner: Planner) -> None:
        words = plan_wire.written(ahead())
        words["batches"][0]["left_wh"] = math.nan
        with pytest.raises(PlannerFailed, match="night: its figures") as refused:
            await planner.ask({"ahead": words, "time_limit_s": 5.0}, PATIENCE_S)
        assert refused.value.item == "night"
        pid = planner.pid
        await planner.ask(asked(ahead()), PATIENCE_S)
        assert planner.pid == pid, "the process goes on"

    running(scenario)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("raise SystemExit('no more watts')", "exit code 1.*: no more watts"),
        ("sys.stdout.buffer.write(b'\\xff' * 4)", "does not speak our language"),
        ("sys.stdout.buffer.write(b'\\0\\0\\0\\3abc')", "does not speak our language: no JSON"),
        ("sys.stdout.buffer.write(b'\\0\\0\\0\\3ab')", "the planner has ended"),
        ("import os; os.kill(os.getpid(), 11)", r"ended \(signal 11\)"),
        ("sys.stderr.write('x' * 10**6 + '\\nlast words'); sys.exit(3)", "code 3.*: last words"),
    ],
)
def test_one_that_ends_or_talks_nonsense_is_told_of(act: str, told: str) -> None:
    async def scenario(planner: Planner) -> None:
        with pytest.raises(PlannerFailed, match=told):
            await planner.ask(asked(ahead()), PATIENCE_S)
        assert planner.pid is None

    running(scenario, f"{act}\n")


def test_one_that_reads_nothing_holds_nobody_up(tmp_path: Path) -> None:
    async def run() -> None:
        planner = Planner((sys.executable, "-S", "-c", "import time; time.sleep(60)"))
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        other = asyncio.create_task(turning())
        with pytest.raises(PlannerFailed, match="no plan within"):
            # Far more than a pipe holds.
            await planner.ask({"ahead": np.zeros(1_000_000)}, 0.5)
        other.cancel()
        assert turns > 10
        assert planner.pid is None

    asyncio.run(run())


def test_a_child_that_is_stopped_ends_with_its_parent() -> None:
    code = (
        "import asyncio\n"
        "from wattshift_cluster.controller.plan.process import Planner\n"
        "async def main():\n"
        "    planner = Planner()\n"
        "    await planner._started()\n"
        "    print('child', planner.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )

    async def run() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while not (line := await parent.stdout.readline()).startswith(b"child "):
                assert line, "the parent has ended"
            pid = int(line.split()[-1])
            while _spared(pid) != "800":  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            os.kill(pid, signal.SIGSTOP)
            parent.kill()
            await parent.wait()
            while not gone(pid) and not _zombie(pid):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)

    asyncio.run(run())


def _spared(pid: int) -> str:
    """How much the kernel spares a process when memory is short; the child sets it at its start."""
    return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_wire_keeps_every_digit_and_refuses_what_it_did_not_write() -> None:
    one = ahead(math.pi)
    frame = plan_wire.framed({"ahead": one})
    body = plan_wire.body_of(frame[plan_wire.HEADER.size :])
    back = plan_wire.read(Ahead, body["ahead"])
    assert back.price.mid.tobytes() == one.price.mid.tobytes()
    assert (back.kinds, back.batches, back.solar) == (one.kinds, one.batches, None)
    assert math.isinf(back.kinds[0].since_s)
    for wrong in (
        {**body["ahead"], "step_s": "soon"},
        {**body["ahead"], "cap_w": [1.0]},
        {**body["ahead"], "cap_w": {"dtype": "<f4", "shape": [24], "data": "A" * 128}},
        {**body["ahead"], "cap_w": {"dtype": "<f8", "shape": [9], "data": "AAAA"}},
        {**body["ahead"], "kinds": {}},
    ):
        with pytest.raises(plan_wire.NotOurs):
            plan_wire.read(Ahead, wrong)
    with pytest.raises(plan_wire.NotOurs):
        plan_wire.body_of(b"[]")
