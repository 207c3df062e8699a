"""What one pulse of one machine shows: where its step appeared, and how large it was. Pure.

A machine was put to sleep and woken while every meter was watched. Its step must stand on the meter
of its own feeder and on those above it, at both edges; where it stands elsewhere the wiring map is
wrong. The firmware's own watts are compared with the meter's, never the other way round.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wattshift_cluster.fleet.levels import MEDIAN_LOSS, Level, Step, Trace, level, settling_s
from wattshift_cluster.fleet.site_port import Tree

SIGMAS = 6.0
"""A step counts when it is that many standard errors high: by chance once in 10⁹ looks."""

LEAST_SHARE = 0.5
"""Of the expected step, and of the step down for the step up."""

OFF_PCT = 5.0
"""Within this firmware watts are as good as a maker's own tolerance."""


class Kind(StrEnum):
    """The verdict on one device."""

    CONFIRMED = "confirmed"
    PARTLY = "confirmed above its feeder"
    WRONG_FEEDER = "wrong feeder"
    NO_STEP = "no step seen"
    TOO_NOISY = "too noisy"
    DISTURBED = "disturbed"
    SKIPPED = "skipped"
    LEFT_ASLEEP = "left asleep"


@dataclass(frozen=True, slots=True)
class Pulse:
    """What was recorded of one pulse.

    Attributes:
        device, feeder: the machine, and where the site file says it hangs.
        tree: what each feeder hangs on.
        slept_s, woke_s, end_s: when sleep and wake were accepted, and the end of the recording.
        window_s: how long levels are taken before each of the three, s.
        meters: by the feeder that each one measures.
        own: what the machine itself reports.
        others: the sum of what all other devices report; all NaN where it is unknown.
    """

    device: str
    feeder: str
    tree: Tree
    slept_s: float
    woke_s: float
    end_s: float
    window_s: float
    meters: Mapping[str, Trace]
    own: Trace
    others: Trace


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pulse showed; figures are None where they could not be told.

    Attributes:
        kind, text: the finding.
        meter: feeder whose meter the figures come from.
        step_w, error_w: the step down and its standard error, W.
        reported_w: the machine's own step, W.
        off_pct: the meter against the machine's word: +8 means that it draws 8 % more than it says.
        down_s, up_s: from the accepted command to the settled draw, s.
        step: for what is learnt.
    """

    kind: Kind
    text: str
    meter: str | None = None
    step_w: float | None = None
    error_w: float | None = None
    reported_w: float | None = None
    off_pct: float | None = None
    down_s: float | None = None
    up_s: float | None = None
    step: Step | None = field(default=None, repr=False)


def path_of(feeder: str, tree: Tree) -> list[str]:
    """A feeder and those above it, up to the root, that carry all of what hangs on it.

    Of two ways up, the feeders that lie on both: what flows on one of them alone nobody knows.
    """
    above = tree.get(feeder)
    if above is None:
        return [feeder]
    if isinstance(above, str):
        return [feeder, *path_of(above, tree)]
    other = path_of(above[1], tree)
    return [feeder, *(name for name in path_of(above[0], tree) if name in other)]


def all_above(feeder: str, tree: Tree) -> set[str]:
    """A feeder and everything above it, by either way."""
    found: set[str] = set()
    ahead = [feeder]
    while ahead:
        at = ahead.pop()
        if at not in found:
            found.add(at)
            above = tree.get(at) or ()
            ahead.extend((above,) if isinstance(above, str) else above)
    return found


def nearest_meter(feeder: str, tree: Tree, meters: Mapping[str, object]) -> str | None:
    """The first feeder on the way up that has a meter and carries all of what hangs here."""
    return next((name for name in path_of(feeder, tree) if name in meters), None)


def resolvable_w(noise_w: float, samples: int) -> float:
    """The least step that so many samples before and after can show through so much noise, W."""
    if samples < 1:
        return math.inf
    return SIGMAS * MEDIAN_LOSS * noise_w * math.sqrt(2.0 / samples)


def samples_needed(noise_w: float, step_w: float) -> int:
    """Samples before and after a step that it needs to be seen."""
    return max(1, math.ceil(2.0 * (SIGMAS * MEDIAN_LOSS * noise_w / step_w) ** 2))


def judge(pulse: Pulse) -> Verdict:
    """The verdict on one pulse."""
    nearest = nearest_meter(pulse.feeder, pulse.tree, pulse.meters)
    if nearest is None:
        return Verdict(Kind.SKIPPED, "no meter on its feeder or above it")
    reported = _edge(pulse, pulse.own, pulse.slept_s, pulse.woke_s)
    expected_w = reported.watts_w if reported is not None and reported.watts_w > 0.0 else None
    if moved := _others_moved(pulse, expected_w):
        return Verdict(Kind.DISTURBED, moved, nearest)
    steps = {name: _both_edges(pulse, trace, expected_w) for name, trace in pulse.meters.items()}
    seen = {name for name, step in steps.items() if step is not None}
    here = all_above(pulse.feeder, pulse.tree)
    elsewhere = sorted(seen - here, key=lambda name: len(path_of(name, pulse.tree)))
    if elsewhere:
        where = elsewhere[-1]
        text = f"its step stands on {where}, not on {pulse.feeder}: the wiring map is wrong"
        return _measured(pulse, Kind.WRONG_FEEDER, text, where, steps[where], reported)
    if nearest not in seen:
        restless = [name for name, trace in pulse.meters.items() if not _still(pulse, trace)]
        if restless:
            text = f"unclear: the meter of {', '.join(sorted(restless))} did not hold still"
            return Verdict(Kind.TOO_NOISY, text, nearest)
        return Verdict(Kind.NO_STEP, f"no meter moved when it slept, {nearest} not either", nearest)
    if nearest != pulse.feeder:
        text = f"seen on {nearest}; {pulse.feeder} itself has no meter"
        return _measured(pulse, Kind.PARTLY, text, nearest, steps[nearest], reported)
    text = f"its step stands on {nearest}"
    return _measured(pulse, Kind.CONFIRMED, text, nearest, steps[nearest], reported)


def _measured(
    pulse: Pulse, kind: Kind, text: str, meter: str, step: Step | None, reported: Step | None
) -> Verdict:
    """A verdict with its figures, and what the machine's own word is worth."""
    assert step is not None, "only a meter that saw the step is named"
    off_pct = None
    if reported is not None and reported.watts_w > 0.0:
        off_pct = 100.0 * (step.watts_w / reported.watts_w - 1.0)
        error_pct = 100.0 * math.hypot(step.error_w, reported.error_w) / reported.watts_w
        if abs(off_pct) > max(OFF_PCT, 3.0 * error_pct):
            side = "more" if off_pct > 0 else "less"
            text += f"; it draws {abs(off_pct):.0f} % {side} than it reports"
    trace = pulse.meters[meter]
    return Verdict(
        kind=kind,
        text=text,
        meter=meter,
        step_w=step.watts_w,
        error_w=step.error_w,
        reported_w=None if reported is None else reported.watts_w,
        off_pct=off_pct,
        down_s=settling_s(_until(trace, pulse.woke_s), pulse.slept_s, step),
        up_s=_up_s(pulse, trace),
        step=step,
    )


def _both_edges(pulse: Pulse, trace: Trace, expected_w: float | None) -> Step | None:
    """The step down, if this meter shows the machine at both edges."""
    down = _edge(pulse, trace, pulse.slept_s, pulse.woke_s)
    up = _edge(pulse, trace, pulse.woke_s, pulse.end_s)
    if down is None or up is None:
        return None
    floor_w = max(SIGMAS * down.error_w, LEAST_SHARE * (expected_w or 0.0), 1.0)
    back = -up.watts_w >= LEAST_SHARE * down.watts_w
    return down if down.watts_w >= floor_w and back else None


def _edge(pulse: Pulse, trace: Trace, first_s: float, second_s: float) -> Step | None:
    """From the level just before one moment to the level just before the other."""
    before = level(trace.between(first_s - pulse.window_s, first_s))
    after = level(trace.between(second_s - pulse.window_s, second_s))
    if before is None or after is None:
        return None
    error_w = math.hypot(before.error_w, after.error_w)
    return Step(before.watts_w - after.watts_w, error_w, before, after)


def _still(pulse: Pulse, trace: Trace) -> bool:
    """Whether a meter held still wherever a level was taken."""
    down = _edge(pulse, trace, pulse.slept_s, pulse.woke_s)
    return down is not None and _edge(pulse, trace, pulse.woke_s, pulse.end_s) is not None


def _up_s(pulse: Pulse, trace: Trace) -> float | None:
    up = _edge(pulse, trace, pulse.woke_s, pulse.end_s)
    return None if up is None else settling_s(_until(trace, pulse.end_s), pulse.woke_s, up)


def _until(trace: Trace, end_s: float) -> Trace:
    kept = trace.at_s < end_s
    return Trace(trace.at_s[kept], trace.watts_w[kept])


def _others_moved(pulse: Pulse, expected_w: float | None) -> str | None:
    """Whether other devices moved by enough to be taken for this one."""
    levels: list[Level | None] = [
        level(pulse.others.between(at_s - pulse.window_s, at_s))
        for at_s in (pulse.slept_s, pulse.woke_s, pulse.end_s)
    ]
    known = [one.watts_w for one in levels if one is not None]
    if len(known) < 2 or expected_w is None:
        return None
    span_w = max(known) - min(known)
    if span_w <= 0.25 * expected_w:
        return None
    return f"other devices moved by {span_w:.0f} W meanwhile"
