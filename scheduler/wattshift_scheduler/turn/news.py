"""How what sources and the meter say changes the memory. Nothing said here can raise a cap by
being broken: what is not a number is unknown, and only the operator's overrides are taken."""

import math
from dataclasses import replace

import numpy as np

from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.signals.standing import OPERATOR
from wattshift_scheduler.signals.words import CapKind, Override, Signals
from wattshift_scheduler.state import State

Reduced = tuple[State, tuple[Decision, ...]]


def said(state: State, event: ev.SignalChanged, now_s: float) -> Reduced:
    """A source replaces all that it said before."""
    before, name = state.signals, event.source
    signals = replace(
        before,
        caps={**before.caps, name: event.caps},
        targets={**before.targets, name: event.targets},
        events={**before.events, name: event.events},
    )
    if event.sets_price:
        price = event.price_usd_per_mwh
        price = None if price is None or not math.isfinite(price) else price
        signals = replace(signals, price_usd_per_mwh=price, price_at_s=now_s)
    if name == OPERATOR:
        signals = replace(signals, overrides=event.overrides)
    told = [_refused(one, why, now_s) for one, why in _not_taken(before, signals, event)]
    return replace(state, signals=signals), tuple(told)


def _not_taken(
    before: Signals, signals: Signals, event: ev.SignalChanged
) -> list[tuple[Override, str]]:
    """Overrides that do not hold, with the reason; those told of before are not told again."""
    if event.source != OPERATOR:
        return [(one, f"{event.source} is not the operator") for one in event.overrides]
    breakers = {
        (source, cap.id)
        for source, caps in signals.caps.items()
        for cap in caps
        if cap.kind == CapKind.BREAKER
    }
    return [
        (one, "a breaker's cap is never overridden")
        for one in event.overrides
        if (one.source, one.cap) in breakers and one not in before.overrides
    ]


def _refused(one: Override, why: str, now_s: float) -> Decision:
    reason = f"an override of cap {one.cap} of {one.source} by {one.by} is not taken: {why}"
    return Decision(now_s, "site", "refused", reason, {"limit_w": one.limit_w, "by": one.by})


def metered(state: State, event: ev.MeterRead, now_s: float) -> Reduced:
    """A sample of the site meter. One from the future was taken now, one out of turn is dropped."""
    watts_w, at_s = event.watts_w, min(event.at_s, now_s)
    if watts_w is None or not math.isfinite(watts_w) or not at_s >= state.meter_at_s:
        return state, ()
    memory = state.memory
    if at_s - state.meter_at_s <= state.site.rules.stale_after_s:
        site = memory.site.until(at_s, max(watts_w, 0.0), max(state.meter_w, 0.0))
    else:
        most_w = float(np.fmax(memory.most_w, state.outlook.committed_w))
        site = memory.site.until(at_s, most_w)
    memory = replace(memory, site=site, most_w=math.nan)
    return replace(state, memory=memory, meter_w=watts_w, meter_at_s=at_s), ()


def carbon(state: State, event: ev.CarbonSeen, _now_s: float) -> Reduced:
    """What a kWh emits has changed. What is no number is unknown; none takes carbon away."""
    grams = event.g_per_kwh
    grams = None if grams is None or not math.isfinite(grams) else max(grams, 0.0)
    return replace(state, signals=replace(state.signals, carbon_g_per_kwh=grams)), ()


def overhead(state: State, event: ev.OverheadLearnt, now_s: float) -> Reduced:
    """What the site draws beside its devices has been learnt anew."""
    new = event.overhead
    if new == state.overhead:
        return state, ()
    words = "no learnt overhead is believed: other_load_w alone is kept free"
    inputs: dict[str, float | None] = {}
    if new is not None:
        words = f"overhead learnt: {new.fixed_w:,.0f} W and {new.share:.1%} of the devices' watts"
        words += f", {new.residual_w:,.0f} W off as a rule, from {new.pairs} pairs"
        inputs = {"fixed_w": new.fixed_w, "share": new.share, "residual_w": new.residual_w}
    return replace(state, overhead=new), (Decision(now_s, "site", "learnt", words, inputs),)
