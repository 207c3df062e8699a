"""From a command to its effect, per number of devices: to the reply, to the last launch, to watts.

A real agent answers over TCP, with its workers behind their gates, at a loopback pool. The bench
takes the controller's part: it leases devices to the full, and then lowers all of them with one
`exchange`. Times run from just before that message is sent, on the boot clock:

    command   to the later of the agent's reply and the end of the last launch (steps to 0)
    power     to the moment when the first power sample at or below the target was in our hands,
              with the age that this sample then had; the target is 90 % of the way to where the
              power settled

The published figure beside which this stands is 97 ms for three GPUs (GridPilot, arXiv 2605.26384),
a command time: from the call to the return of the last of three sequential `nvidia-smi`.

On GPUs power is NVML's, looked at a hundred times a second by the bench itself (measured, or
emulated where NVML is); the age of a sample is the time since the card's value last changed, and
`refresh_ms` how long a value stays. `seen` is the same by the agent's readings over the wire, as a
controller has them. A CPU has those alone, and its power is processor time times the watts of a
busy CPU over one second (modelled: its power times are those of that window).

    WATTSHIFT_BENCH_SECONDS   of the power steps together; 100
    WATTSHIFT_BENCH_LIMITS    1 sets power limits, too, and gives them back; needs the privilege
    WATTSHIFT_PLOT_DIR        where series and pictures of a step and of a yield go
"""

import asyncio
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.agent_devices import LIMITS
from benchmarks.agent_rig import AgentRig, Look, agent_rig
from benchmarks.plots import Line, Picture, keep, wanted
from benchmarks.rig import HostCpu, device_facts, ranked

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import ClientGate

COMMANDS = 60
SECONDS = 100.0
STEPS_PCT = (0, 50)
RISE_S = 1.6
FALL_S = 1.6
"""Longer than the second over which an agent averages what it models."""

BEFORE_S = 0.4
SETTLED_S = 0.5
REACHED = 0.9
LEAST_DROP = 0.05
"""A smaller fall cannot be told from noise; its time is unknown."""

MOST_TRIALS = 15
LIMIT_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Trial:
    """One step: its times on the boot clock, ns, and the power around it.

    Attributes:
        sent_ns, reply_ns: just before the command was sent; when the reply was here.
        looks: by the best meter there is.
        seen: by the agent's readings.
    """

    sent_ns: int
    reply_ns: int
    looks: Sequence[Look]
    seen: Sequence[Look]


def run() -> dict[str, Any]:
    """Measure; the keys are those of INTERFACES. Raises: CannotRunHere."""
    with agent_rig() as rig:
        return asyncio.run(_run(rig))


async def _run(rig: AgentRig) -> dict[str, Any]:
    await rig.connect()
    try:
        return await _measure(rig)
    finally:
        await rig.close()


async def _measure(rig: AgentRig) -> dict[str, Any]:
    pids = rig.pids()
    before = HostCpu.now(pids)
    most = len(rig.devices)
    counts = sorted({1, most})
    seconds = float(os.environ.get("WATTSHIFT_BENCH_SECONDS", SECONDS))
    each_s = seconds / (len(counts) * len(STEPS_PCT))
    trials = max(3, min(MOST_TRIALS, int(each_s / (RISE_S + FALL_S))))
    rows = {str(count): await _count(rig, count, trials) for count in counts}
    pictures = await _pictures(rig)
    top = rows[str(most)]
    return {
        **device_facts(rig.kind),
        "quality": rig.quality,
        "backend": rig.backend,
        "devices": most,
        **{key: top[key] for key in ("command_ms_p50", "command_ms_max")},
        **{key: top["to_0"][key] for key in ("power_ms_p50", "power_ms_max", "sample_age_ms")},
        "counts": rows,
        "pictures": keep(pictures),
        "others_cpu_share": before.others_share(HostCpu.now(pids)),
    }


async def _count(rig: AgentRig, count: int, trials: int) -> dict[str, Any]:
    """All figures with this many devices commanded at once."""
    replies, stops = [], []
    for _ in range(COMMANDS):
        await rig.lease(count, 100)
        await rig.launching(count)
        sent_ns, reply_ns = await rig.lease(count, 0)
        stop_ns = await rig.last_launch_end_ns(count)
        replies.append((reply_ns - sent_ns) / 1e6)
        stops.append(max(0, stop_ns - sent_ns) / 1e6)
    commands = sorted(max(pair) for pair in zip(replies, stops, strict=True))
    replies.sort()
    stops.sort()
    row: dict[str, Any] = {
        "command_ms_p50": ranked(commands, 0.5),
        "command_ms_max": ranked(commands, 1.0),
        "reply_ms_p50": ranked(replies, 0.5),
        "reply_ms_max": ranked(replies, 1.0),
        "stop_ms_p50": ranked(stops, 0.5),
        "stop_ms_max": ranked(stops, 1.0),
        "commands": COMMANDS,
    }
    for pct in STEPS_PCT:
        row[f"to_{pct}"] = power_figures([await _step(rig, count, pct) for _ in range(trials)])
    if LIMITS and rig.kind != "cpu":
        row["limit"] = await _limits(rig, count, trials)
    row["refresh_ms"] = rig.refresh_ms()
    print(f"response: {count} devices: {row}", file=sys.stderr)
    return row


async def _step(rig: AgentRig, count: int, pct: int) -> Trial:
    """One step from 100 % to `pct`."""
    began_ns = boot_ns()
    await rig.lease(count, 100)
    seen = await rig.watch(count, RISE_S)
    sent_ns, reply_ns = await rig.lease(count, pct)
    seen += await rig.watch(count, FALL_S)
    return Trial(sent_ns, reply_ns, rig.metered(count, began_ns) or seen, seen)


async def _limits(rig: AgentRig, count: int, trials: int) -> dict[str, Any]:
    """Limits fall to a share of the draw, and mining with it as the agent sees fit."""
    found = []
    for _ in range(trials):
        began_ns = boot_ns()
        await rig.lease(count, 100)
        seen = await rig.watch(count, RISE_S)
        draw_w = (rig.metered(count, began_ns) or seen)[-1].watts_w
        if draw_w is None:
            continue
        limit_w = max(LIMIT_SHARE * draw_w / count, rig.least_limit_w(count))
        sent_ns, reply_ns = await rig.limit(count, limit_w)
        seen += await rig.watch(count, FALL_S)
        found.append(Trial(sent_ns, reply_ns, rig.metered(count, began_ns) or seen, seen))
        await rig.release(count)
    replies = sorted((trial.reply_ns - trial.sent_ns) / 1e6 for trial in found)
    times = {
        "command_ms_p50": ranked(replies, 0.5) if replies else None,
        "command_ms_max": ranked(replies, 1.0) if replies else None,
    }
    return {**times, **power_figures(found)}


def power_figures(trials: Sequence[Trial]) -> dict[str, Any]:
    """Times to the first sample at or below the target; unknown where power fell in no trial."""
    found = [at for trial in trials if (at := reached(trial.sent_ns, trial.looks)) is not None]
    seen = sorted(at[0] for trial in trials if (at := reached(trial.sent_ns, trial.seen)))
    times = sorted(time_ms for time_ms, _ in found)
    levels = [at for trial in trials if (at := _levels(trial.sent_ns, trial.looks)) is not None]
    return {
        "power_ms_p50": ranked(times, 0.5) if times else None,
        "power_ms_max": ranked(times, 1.0) if times else None,
        "sample_age_ms": round(statistics.median(age for _, age in found), 3) if found else None,
        "seen_ms_p50": ranked(seen, 0.5) if seen else None,
        "seen_ms_max": ranked(seen, 1.0) if seen else None,
        "before_w": round(statistics.median(high for high, _ in levels), 1) if levels else None,
        "settled_w": round(statistics.median(low for _, low in levels), 1) if levels else None,
        "trials": len(trials),
        "trials_reached": len(found),
    }


def reached(sent_ns: int, looks: Sequence[Look]) -> tuple[float, float] | None:
    """Time to the first look at or below the target, and the age of its sample, ms.

    None where the power was not known or did not fall.
    """
    levels = _levels(sent_ns, looks)
    if levels is None:
        return None
    high_w, low_w = levels
    if high_w - low_w < LEAST_DROP * high_w:
        return None
    target_w = high_w - REACHED * (high_w - low_w)
    after = (look for look in looks if look.at_ns > sent_ns and look.watts_w is not None)
    first = next((look for look in after if look.watts_w <= target_w), None)  # type: ignore[operator]
    return None if first is None else ((first.at_ns - sent_ns) / 1e6, first.age_ns / 1e6)


def _levels(sent_ns: int, looks: Sequence[Look]) -> tuple[float, float] | None:
    """Power just before the command, and where it settled, W."""
    last_ns = looks[-1].at_ns
    high = [
        look.watts_w
        for look in looks
        if sent_ns - BEFORE_S * 1e9 < look.at_ns < sent_ns and look.watts_w is not None
    ]
    low = [
        look.watts_w
        for look in looks
        if look.at_ns > last_ns - SETTLED_S * 1e9 and look.watts_w is not None
    ]
    return (statistics.median(high), statistics.median(low)) if high and low else None


async def _pictures(rig: AgentRig) -> list[Picture]:
    """A step of each size, and a yield to inference, on all devices; none where nobody asked."""
    if wanted() is None:
        return []
    count = len(rig.devices)
    what = f"{count} x {device_facts(rig.kind)['device']}, mining"
    steps = {pct: await _step(rig, count, pct) for pct in reversed(STEPS_PCT)}
    lines = [_line(f"100 % to {pct} %", one.sent_ns, one.looks) for pct, one in steps.items()]
    step = Picture(
        "step", f"Power after one command, {what}", rig.quality, lines, moments_s={"command": 0.0}
    )
    return [step, await _yield(rig, count, what)]


async def _yield(rig: AgentRig, count: int, what: str) -> Picture:
    """Inference marks every gate for a while; its own watts are not in the picture."""
    gate, start_ns = ClientGate(rig.gates), boot_ns()
    try:
        await rig.lease(count, 100)
        looks = await rig.watch(count, RISE_S)
        began_ns = boot_ns()
        with gate.busy():
            looks += await rig.watch(count, FALL_S)
        ended_ns = boot_ns()
        looks += await rig.watch(count, FALL_S)
        await rig.lease(count, 0)
    finally:
        gate.close()
    moments = {"busy": 0.0, "free": (ended_ns - began_ns) / 1e9}
    line = _line("sum of the devices", began_ns, rig.metered(count, start_ns) or looks)
    return Picture(
        "yield", f"Power while inference is busy, {what}", rig.quality, [line], moments_s=moments
    )


def _line(label: str, zero_ns: int, looks: Sequence[Look]) -> Line:
    at_s = [round((look.at_ns - zero_ns) / 1e9, 4) for look in looks]
    return Line(label, at_s, [look.watts_w for look in looks])
