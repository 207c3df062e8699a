"""What one event comes to: metered reduction, performance and payment, interval by interval.

Shed is baseline less metered, performance is shed over commitment (IPMVP Option B: the metered
site). An event before whose start the site drew more than its plan before the notice is void: a
baseline that was driven up is fined, and such an event must not be claimed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.config.settlement import SettledProgram, Settlement
from wattshift_cluster.settle.baseline import Told, baseline, doubts_of
from wattshift_cluster.settle.collect import Steps
from wattshift_cluster.settle.counter import APART_SHARE
from wattshift_cluster.settle.intervals import (
    UNKNOWN_SHARE_MOST,
    Flag,
    Metered,
    Samples,
    edges,
    metered,
)
from wattshift_cluster.settle.rows import Row
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores.delivery import dfs_factor
from wattshift_scheduler.signals.notice import BEFORE_S, allowed_w
from wattshift_scheduler.signals.words import GridEvent

MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class Settled:
    """An event, settled.

    Attributes:
        event: the event.
        currency: of the payment.
        rows: one for each interval.
        void: why nothing is paid; empty while it stands.
        notes: what a reader must know.
        reduction_kwh, committed_kwh, performance, payment: sums over the intervals; NaN where one
            of them is unknown, committed_kwh where nothing was committed.
    """

    event: GridEvent
    currency: str
    rows: tuple[Row, ...]
    void: str
    notes: tuple[str, ...]
    reduction_kwh: float
    committed_kwh: float
    performance: float
    payment: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a settlement rests on.

    Attributes:
        terms: what was agreed.
        samples: of the site meter.
        plans: what the site was planned to draw, W.
        events: all events.
        until_s: end of what is known; an event that goes on beyond it is settled so far.
        unsigned_s: time of the earliest sample that no signature covers.
    """

    terms: Settlement
    samples: Samples
    plans: Steps
    events: Sequence[GridEvent]
    until_s: float
    unsigned_s: float = math.inf


def settle(event: GridEvent, program: SettledProgram, facts: Facts) -> Settled:
    """Settle one event by the terms of its program."""
    notes: list[str] = []
    ends_s = _end(event, facts.until_s, notes)
    starts_s, stops_s = edges(event.starts_s, ends_s, program.interval_s)
    if not len(starts_s):
        notes.append("no interval of it has begun")
        return Settled(
            event, program.currency, (), "", tuple(notes), math.nan, math.nan, math.nan, math.nan
        )
    found = metered(facts.samples, starts_s, stops_s, doubts_of(facts.terms))
    told = baseline(program, facts.terms, facts.samples, found, facts.events)
    notes += told.notes
    void, more = _void(event, program, facts)
    notes += more
    committed_w = event.commitment_w
    if math.isnan(committed_w) and program.commitment_w is not None:
        committed_w = program.commitment_w
    reduction_w = told.watts_w - found.mean_w
    paid = np.array([pay(program, one, committed_w) for one in reduction_w])
    hours_h = (stops_s - starts_s) / 3600.0
    payment = np.zeros(len(paid)) if void else paid * hours_h / 1e6
    notes += [*_unknown(payment, found, told), *apart_words(found)]
    rows = _rows(event, program, facts, found, told, committed_w, payment, void)
    reduction_kwh = float(np.sum(reduction_w * hours_h)) / 1e3
    committed_kwh = committed_w * float(hours_h.sum()) / 1e3
    return Settled(
        event,
        program.currency,
        rows,
        void,
        tuple(notes),
        reduction_kwh,
        committed_kwh,
        reduction_kwh / committed_kwh if committed_kwh > 0 else math.nan,
        float(np.nansum(payment)),
    )


def pay(program: SettledProgram, reduction_w: float, committed_w: float) -> float:
    """What a reduction held for an hour is paid, in the currency per 1e6 hours; NaN: unknown.

    `linear` pays what was reduced up to the commitment, and takes nothing for the wrong direction;
    without a commitment it pays all of it. `dfs` pays the commitment times NESO's factor.
    """
    price = program.price_per_mwh
    if program.rule == "dfs":
        if not committed_w > 0:
            return math.nan
        return price * committed_w * dfs_factor(100.0 * reduction_w / committed_w)
    if math.isnan(reduction_w):
        return math.nan
    most_w = math.inf if math.isnan(committed_w) else committed_w
    return price * min(max(reduction_w, 0.0), most_w)


def _end(event: GridEvent, until_s: float, notes: list[str]) -> float:
    """When an event ended, as far as is known."""
    ends_s = math.inf if event.ends_s is None else event.ends_s
    if event.cancelled_s is not None and event.cancelled_s < ends_s:
        notes.append("called off" if event.cancelled_s <= event.starts_s else "called off midway")
        ends_s = max(event.cancelled_s, event.starts_s)
    if until_s < ends_s:
        notes.append("not over yet: settled so far")
    return min(ends_s, until_s)


def _unknown(payment: Floats, found: Metered, told: Told) -> list[str]:
    """How many intervals are not paid because they are unknown, and why."""
    lost = np.isnan(payment)
    if not lost.any():
        return []
    no_meter = lost & np.isnan(found.mean_w)
    no_baseline = lost & ~no_meter & np.isnan(told.watts_w)
    why = []
    if no_meter.any():
        share = float(found.unknown_share[no_meter].max())
        why.append(
            f"in {int(no_meter.sum())} the meter is not known for up to {share:.0%} of the time, "
            f"more than {UNKNOWN_SHARE_MOST:.0%}"
        )
    if no_baseline.any():
        why.append(f"{int(no_baseline.sum())} have no baseline")
    rest = int((lost & ~no_meter & ~no_baseline).sum())
    if rest:
        why.append(f"{rest} have no commitment that their terms pay by")
    return [f"{int(lost.sum())} intervals are unknown and not paid: {'; '.join(why)}"]


def apart_words(found: Metered) -> list[str]:
    """Where a meter's counter and its samples do not agree, in a sentence."""
    apart = [share for share, flags in zip(found.apart, found.flags, strict=True)
             if Flag.APART in flags]  # fmt: skip
    if not apart:
        return []
    told = f"in {len(apart)} intervals the meter's counter and its samples do not agree"
    return [f"{told}: they are up to {max(apart):.1%} apart, more than {APART_SHARE:.0%}"]


def _void(event: GridEvent, program: SettledProgram, facts: Facts) -> tuple[str, list[str]]:
    """Why an event is void, empty if it is not; and what could not be checked."""
    until_s = min(event.starts_s, facts.until_s)
    starts_s, ends_s = edges(event.notified_s, until_s, program.interval_s)
    if not len(starts_s):
        return "", []
    how, plan_w = "plan", facts.plans.mean(event.notified_s - BEFORE_S, event.notified_s)
    doubts = doubts_of(facts.terms)
    if math.isnan(plan_w):
        before_s = np.array([event.notified_s])
        told = metered(facts.samples, before_s - BEFORE_S, before_s, doubts)
        how, plan_w = "metered mean", float(told.mean_w[0])
    if math.isnan(plan_w):
        return "", ["no raise after the notice: not checked, what was before it is not known"]
    seen_w = metered(facts.samples, starts_s, ends_s, doubts).mean_w
    notes = (
        [] if how == "plan" else ["no plan was logged: held against the meter before the notice"]
    )
    if np.isnan(seen_w).any():
        notes.append("between notice and start a part is not known")
    most_w = allowed_w(plan_w) + program.void_above_w
    with np.errstate(invalid="ignore"):
        above = np.flatnonzero(seen_w > most_w)
    if not len(above):
        return "", notes
    worst_w = float(np.nanmax(seen_w))
    return (
        f"drew up to {worst_w / 1e3:,.3f} kW between notice and start, "
        f"more than {most_w / 1e3:,.3f} kW by the {how} before the notice of {plan_w / 1e3:,.3f}",
        notes,
    )


def _rows(
    event: GridEvent,
    program: SettledProgram,
    facts: Facts,
    found: Metered,
    told: Told,
    committed_w: float,
    payment: Floats,
    void: str,
) -> tuple[Row, ...]:
    rows = []
    for i in range(len(found.starts_s)):
        reduction_w = float(told.watts_w[i] - found.mean_w[i])
        unsigned = bool(found.ends_s[i] > facts.unsigned_s)
        rows.append(
            Row(
                program=program.name,
                event_id=event.id,
                resource_id=facts.terms.resource,
                interval_start_s=float(found.starts_s[i]),
                interval_end_s=float(found.ends_s[i]),
                baseline_kw=float(told.watts_w[i]) / 1e3,
                adjustment=told.adjustment,
                metered_kw=float(found.mean_w[i]) / 1e3,
                reduction_kw=reduction_w / 1e3,
                committed_kw=committed_w / 1e3,
                performance=reduction_w / committed_w if committed_w > 0 else math.nan,
                price=program.price_per_mwh,
                currency=program.currency,
                payment=float(payment[i]),
                quality=_quality(found.flags[i], void=bool(void), unsigned=unsigned),
                samples_sha256=found.sha256[i],
                clock_offset_s=float(found.offset_s[i]),
            )
        )
    return tuple(rows)


def _quality(flags: frozenset[Flag], *, void: bool, unsigned: bool) -> str:
    """How an interval was had, and everything that is to be known of it."""
    origin = next((str(f) for f in (Flag.MODELLED, Flag.EMULATED) if f in flags), MEASURED)
    words = sorted(str(f) for f in flags - {Flag.MODELLED, Flag.EMULATED})
    words += ["unsigned"] if unsigned else []
    words += ["void"] if void else []
    return "+".join([origin, *words])
