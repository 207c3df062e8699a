"""Frequency response: samples in, the share of load to shed out. Pure: the clock comes in.

    low for N cycles, voltage in bounds  ──▶ shed, as the droop asks; never less while it is low
    below the emergency level            ──▶ everything, latched until the frequency is back
    back, for a while and then some      ──▶ a random delay, and then a ramp
    no reading                           ──▶ nothing new; what is shed returns the same way
    voltage too high                     ──▶ nothing new; what is shed returns, and that was it
    voltage too low, or no supply        ──▶ nothing new and nothing back

Only the level counts: no rate of change is ever computed, so none can ask for anything. The share
rises at once and falls late and slowly, behind a hysteresis: a site does not swing with the grid.

This assists a grid. It is no protective relay: nothing here is certified, timed or fail-safe as
one is.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from wattshift_scheduler.frequency.terms import Terms

DEAD_PU = 0.2
"""Below it there is no supply, and a frequency is that of noise."""

MOST_WINDOW = 256
"""Samples that are kept: more than 60 cycles of persistence hold at 200 a second."""

GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)

STEP = 1e-9
"""Shares and times, s, are never compared closer than this."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading: when it was taken, s on any clock that never goes back; Hz; voltage in per unit
    of nominal, None where the sensor does not say.
    """

    t_s: float
    hz: float
    v_pu: float | None = None


class Phase(StrEnum):
    """What the response does."""

    READY = "ready"
    BLIND = "blind"
    """No reading to go by, and nothing shed."""
    SHED = "shed"
    LATCHED = "latched"
    WAITING = "waiting"
    """The frequency is back; the hold and the random delay pass."""
    RETURNING = "returning"


@dataclass(frozen=True, slots=True)
class Response:
    """The response of one site or host, and all that it remembers.

    Attributes:
        share: of what may be shed, to be shed now; 0 to 1.
        phase, reason: what it does, and why, in words.
        since_s: when this phase began, s; None before the first step.
        latched: the emergency level was reached, and the frequency has not been back since.
        spent: it gave back because of high voltage; nothing more until the frequency was back.
        sheds: how many began, ever.
        back_at_s: when the return begins, if nothing comes between; None: not in sight.
        window: the samples of the last cycles and the one before them, oldest first.
        same_since_s: since when the sensor says the same to the last digit, s.
        stepped_s: the step before, s.
        unread: why the window is empty.
        dark: it is empty because there is no supply at all.
    """

    share: float = 0.0
    phase: Phase = Phase.BLIND
    reason: str = "no reading yet"
    since_s: float | None = None
    latched: bool = False
    spent: bool = False
    sheds: int = 0
    back_at_s: float | None = None
    window: tuple[Sample, ...] = ()
    same_since_s: float = -math.inf
    stepped_s: float = -math.inf
    unread: str = "no reading yet"
    dark: bool = False


@dataclass(frozen=True, slots=True)
class _View:
    """What the window says: the bounds between which the share may stay, and why."""

    least: float
    most: float
    reason: str
    sighted: bool = True
    emergency: bool = False
    too_high: bool = False
    back: bool = False


def respond(terms: Terms, was: Response, now_s: float, sample: Sample | None = None) -> Response:
    """One step, with a new sample or only with time passed.

    Args:
        terms: what is offered.
        was: the response before; `Response()` at the start.
        now_s: now, on the samples' clock, s.
        sample: None when there is no new one; one that is no newer than the last is no sample.
    """
    seen = was if sample is None else _take(terms, was, sample)
    view = _view(terms, seen, now_s)
    after = _return(terms, _shed(seen, view, now_s), view, now_s)
    phase = _phase(after, view, now_s)
    since_s = after.since_s if phase is was.phase else now_s
    reason = _told(after, phase, view, now_s)
    return replace(after, phase=phase, since_s=since_s, reason=reason, stepped_s=now_s)


def _take(terms: Terms, was: Response, sample: Sample) -> Response:
    """Take a sample into the window; one that measures nothing empties it."""
    last = was.window[-1] if was.window else None
    if last is not None and sample.t_s <= last.t_s:
        return was
    if sample.v_pu is not None and not (math.isfinite(sample.v_pu) and sample.v_pu >= 0.0):
        sample = replace(sample, v_pu=None)
    if sample.v_pu is not None and sample.v_pu < DEAD_PU:
        why = f"no supply: {sample.v_pu:.2f} pu"
        return replace(was, window=(), unread=why, dark=True)
    if not terms.measured(sample.hz):
        return replace(was, window=(), unread=f"{sample.hz:g} Hz is no reading", dark=False)
    same = last is not None and (last.hz, last.v_pu) == (sample.hz, sample.v_pu)
    since_s = was.same_since_s if same else sample.t_s
    kept = [one for one in was.window if one.t_s > sample.t_s - terms.persist_s + STEP]
    before = was.window[: len(was.window) - len(kept)][-1:]
    window = (*before, *kept, sample)[-MOST_WINDOW:]
    return replace(was, window=window, same_since_s=since_s, dark=False)


def _view(terms: Terms, seen: Response, now_s: float) -> _View:
    blind = _blind(terms, seen, now_s)
    if blind is not None:
        # Where there is no supply there is nothing to return to: that waits until it is back.
        return _View(0.0, seen.share if seen.dark else 0.0, blind, sighted=False)
    window = seen.window
    highest, lowest = max(one.hz for one in window), min(one.hz for one in window)
    hz, back = window[-1].hz, lowest >= terms.edge_hz
    most = terms.wanted(lowest - terms.back_hz)
    if seen.latched and not back:
        most = max(most, terms.most_share)
    voltage = _voltage(terms, window)
    if voltage is not None:
        why, too_high = voltage
        most = 0.0 if too_high else max(most, seen.share) if _low(terms, window) else most
        return _View(0.0, most, why, too_high=too_high, back=back and not too_high)
    if not _persists(terms, window):
        return _View(0.0, most, f"{hz:.3f} Hz", back=back)
    if seen.spent and not back:
        why = f"{hz:.3f} Hz, but it gave back for high voltage and the frequency was not back since"
        return _View(0.0, most, why)
    surely_hz = highest + terms.accuracy_hz
    level_hz = terms.emergency_hz
    if level_hz is not None and surely_hz < level_hz:
        why = f"{hz:.3f} Hz, below {level_hz:g} Hz for {terms.persist_cycles} cycles"
        return _View(terms.most_share, terms.most_share, why, emergency=True)
    least = terms.wanted(surely_hz)
    return _View(least, max(least, most), f"{hz:.3f} Hz", back=back)


def _blind(terms: Terms, seen: Response, now_s: float) -> str | None:
    """Why nothing can be told from the readings; None when it can."""
    if not seen.window:
        return seen.unread
    newest = seen.window[-1]
    if now_s - newest.t_s > terms.stale_s:
        return f"no reading for {now_s - newest.t_s:.1f} s"
    if newest.t_s - seen.same_since_s >= terms.frozen_s:
        return f"the sensor says {newest.hz:g} Hz and nothing else for {terms.frozen_s:g} s"
    return None


def _voltage(terms: Terms, window: tuple[Sample, ...]) -> tuple[str, bool] | None:
    """Why its voltage forbids a shed, and whether it is too high throughout; None: it allows it."""
    known = [one.v_pu for one in window if one.v_pu is not None]
    if len(known) < len(window) and terms.needs_voltage:
        return "the voltage is not known", False
    if known and max(known) > terms.high_pu:
        why = f"{max(known):.3f} pu, above {terms.high_pu:g}: less load would raise it further"
        return why, min(known) > terms.high_pu and _persists(terms, window)
    if known and min(known) < terms.low_pu:
        return f"{min(known):.3f} pu, below {terms.low_pu:g}: a dip or a fault near by", False
    return None


def _low(terms: Terms, window: tuple[Sample, ...]) -> bool:
    return any(one.v_pu is not None and one.v_pu < terms.low_pu for one in window)


def _persists(terms: Terms, window: tuple[Sample, ...]) -> bool:
    """Whether the window is a row of readings that spans the cycles of persistence."""
    gaps = (after.t_s - before.t_s for before, after in pairwise(window))
    spans_s = window[-1].t_s - window[0].t_s
    return spans_s >= terms.persist_s - STEP and max(gaps, default=math.inf) <= terms.gap_s


def _shed(seen: Response, view: _View, now_s: float) -> Response:
    """More, if it is asked for: at once."""
    latched = seen.latched or view.emergency
    if view.least <= seen.share + STEP:
        return replace(seen, latched=latched)
    began = seen.share == 0.0
    return replace(
        seen,
        share=view.least,
        latched=latched,
        sheds=seen.sheds + began,
        since_s=now_s,
        back_at_s=None,
    )


def _return(terms: Terms, seen: Response, view: _View, now_s: float) -> Response:
    """Less, once less has been asked for long enough; late, and slowly."""
    spent = seen.spent and not view.back
    if view.most >= seen.share - STEP:
        return replace(seen, spent=spent, back_at_s=None)
    spent = spent or view.too_high
    back_at_s = seen.back_at_s
    if back_at_s is None:
        back_at_s = now_s + terms.hold_s + _delay_s(terms, seen.sheds)
    if now_s < back_at_s:
        return replace(seen, spent=spent, back_at_s=back_at_s)
    passed_s = now_s - max(seen.stepped_s, back_at_s)
    share = max(view.most, seen.share - terms.most_share * passed_s / terms.return_s)
    share = 0.0 if share < STEP else share
    return replace(
        seen,
        share=share,
        latched=seen.latched and not view.back and view.sighted and not view.too_high,
        spent=spent,
        back_at_s=back_at_s if share else None,
    )


def _delay_s(terms: Terms, number: int) -> float:
    """The delay before the return from shed `number`, s: the dice, turned on by the golden ratio,
    which spreads the throws of one site evenly and leaves those of two sites apart.
    """
    return terms.delay_s * ((terms.dice + number * GOLDEN) % 1.0)


def _phase(after: Response, view: _View, now_s: float) -> Phase:
    if after.share == 0.0:
        return Phase.READY if view.sighted else Phase.BLIND
    if after.back_at_s is not None:
        return Phase.WAITING if now_s < after.back_at_s else Phase.RETURNING
    return Phase.LATCHED if after.latched else Phase.SHED


def _told(after: Response, phase: Phase, view: _View, now_s: float) -> str:
    match phase:
        case Phase.WAITING:
            assert after.back_at_s is not None
            return f"{view.reason}; the return begins in {after.back_at_s - now_s:.0f} s"
        case Phase.RETURNING:
            return f"{view.reason}; load returns"
    return view.reason
