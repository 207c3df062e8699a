"""What a plan says to people: what could not be met, and what will happen when."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.plan.machines import W_PER_KW
from wattshift_scheduler.plan.model import Model
from wattshift_scheduler.plan.words import Ahead, Kind, Plan

MOST_TOLD = 40
"""Events of a plan that are told; the rest are counted."""

SEEN_KW = 1e-3
"""Less is the solver's rounding."""

SLEEP_SHARE = 0.5
"""Of a kind's devices that must rest for it to be told."""

DEAR_SHARE = 0.05
"""Share by which a shadow price must lie above the price for its reason to be told."""

FULL_USD_PER_MWH = 0.5
"""What a watt under a feeder must be worth on top for it to be told as full."""

MOST_FULL = 3
"""Full feeders that are named; the rest are counted."""

DAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")
"""Weekdays from that on which UTC seconds are counted, 1970-01-01."""


def unmet(ahead: Ahead, model: Model, values: Floats) -> tuple[str, ...]:
    """What could not be met, most important first."""
    found = list(_short(ahead, values, model.over, "the cap lies {w} below what cannot be shed"))
    for limit, columns in zip(ahead.limits, model.bounds.beyond, strict=True):
        words = f"feeder {limit.name}: what cannot be shed lies {{w}} above what it may carry"
        found += _short(ahead, values, columns, words)
    found += _short(ahead, values, model.unserved, "services lack {w} under the cap")
    found += _short(ahead, values, model.unready, "{w} of the services' reserve cannot be reached")
    for columns, word in zip(model.steep, ("rises", "falls"), strict=True):
        found += _short(ahead, values, columns, f"the site {word} {{w}} more steeply than it may")
    for one, column in zip(ahead.batches, model.late, strict=True):
        left_kwh = float(values[column]) if column >= 0 else 0.0
        if left_kwh * W_PER_KW > 1e-4 * one.left_wh + 1e-3:
            share = 100.0 * left_kwh * W_PER_KW / one.left_wh
            words = f"batch {one.name}: {left_kwh:,.2f} kWh ({share:.0f} %) are not done"
            found.append(f"{words} by its deadline in {after(one.deadline_s)}")
    for hold, columns in zip(ahead.holds, model.bounds.unheld, strict=True):
        words = f"promise {hold.name}: {{w}} of the mining that it needs before it cannot be held"
        found += _short(ahead, values, columns, words)
    for commitment, columns in zip(ahead.commitments, model.excess, strict=True):
        words = f"promise {commitment.name}: the site draws {{w}} too much"
        found += _short(ahead, values, columns, words)
    return tuple(found)


def _short(ahead: Ahead, values: Floats, columns: Ints, words: str) -> Iterator[str]:
    """What gives way by watts at its worst, when that is, and for how long it does in all."""
    kw = np.where(columns >= 0, values[columns], 0.0)
    if kw.max(initial=0.0) > SEEN_KW:
        at = int(np.argmax(kw))
        count = int((kw > SEEN_KW).sum())
        most = words.replace("{w}", f"{kw[at] * W_PER_KW:,.0f} W")
        begins = clock(ahead.start_s + at * ahead.step_s)
        lasts = f"for {after(count * ahead.step_s)}"
        yield f"{most} from {begins} UTC" + (
            f", {lasts}" if count == 1 else f" at the worst, {lasts} in all"
        )


def events(ahead: Ahead, plan: Plan) -> Plan:
    """The plan with its events, in order of time."""
    told = [*_batches(ahead, plan), *_sleeps(ahead, plan), *_scarce(ahead, plan)]
    told += [*_full(ahead, plan), *_holds(ahead), *_promises(ahead)]
    told.sort(key=lambda one: one[0])
    words = [text for _, text in told[:MOST_TOLD]]
    if len(told) > MOST_TOLD:
        words.append(f"and {len(told) - MOST_TOLD} more")
    return replace(plan, events=tuple(words))


Told = tuple[float, str]


def _batches(ahead: Ahead, plan: Plan) -> Iterator[Told]:
    for i, one in enumerate(ahead.batches):
        for begin, end in spans(plan.batch_w[:, i] > SEEN_KW * W_PER_KW):
            mean_w = float(plan.batch_w[begin:end, i].mean())
            yield (
                begin * ahead.step_s,
                f"{when(ahead, begin, end)}: batch {one.name} runs at {mean_w:,.0f} W",
            )


def _sleeps(ahead: Ahead, plan: Plan) -> Iterator[Told]:
    for i, kind in enumerate(ahead.kinds):
        if not kind.count or len(kind.points_w) < 2:
            continue
        rests = plan.awake[:, i] <= (1.0 - SLEEP_SHARE) * kind.count
        for begin, end in spans(rests):
            fewest = float(plan.awake[begin:end, i].min())
            text = f"{kind.count - fewest:,.0f} of {kind.count:,} {kind.name} rest"
            reason = _dear(plan, kind, slice(begin, end))
            yield begin * ahead.step_s, f"{when(ahead, begin, end)}: {text}: {reason}"


def _dear(plan: Plan, kind: Kind, at: slice) -> str:
    """What a MWh costs a kind at the most in some intervals, and which full feeder has a part."""
    dear, full = plan.shadow_usd_per_mwh[at], ""
    if plan.limit_usd_per_mwh is not None:
        mine = [plan.limits.index(one) for one in kind.under]
        below = np.nan_to_num(plan.limit_usd_per_mwh[at][:, mine])
        dear = dear + below.sum(axis=1)
        if below.max(initial=0.0) > FULL_USD_PER_MWH:
            full = f", for feeder {kind.under[int(below.max(axis=0).argmax())]} is full"
    return f"a MWh costs up to {float(dear.max()):,.0f} USD{full}"


def _scarce(ahead: Ahead, plan: Plan) -> Iterator[Told]:
    beyond = plan.shadow_usd_per_mwh - plan.price_usd_per_mwh
    dear = beyond > DEAR_SHARE * np.abs(plan.price_usd_per_mwh) + 1.0
    full = plan.site_w >= plan.cap_w * (1.0 - 1e-6)
    for begin, end in spans(dear):
        why = "the cap is full" if full[begin:end].any() else "of peaks, promises or deadlines"
        most = float(beyond[begin:end].max())
        text = f"a watt is worth up to {most:,.0f} USD/MWh above its price: {why}"
        yield begin * ahead.step_s, f"{when(ahead, begin, end)}: {text}"


def _full(ahead: Ahead, plan: Plan) -> Iterator[Told]:
    if plan.limit_usd_per_mwh is None:
        return
    for name, usd_per_mwh in zip(plan.limits, plan.limit_usd_per_mwh.T, strict=True):
        for begin, end in spans(usd_per_mwh > FULL_USD_PER_MWH):
            most = float(usd_per_mwh[begin:end].max())
            text = f"feeder {name} is full: a watt there is worth up to {most:,.0f} USD/MWh more"
            yield begin * ahead.step_s, f"{when(ahead, begin, end)}: {text}"


def full_feeders(plan: Plan) -> tuple[str, ...]:
    """Which feeders below the connection will be full, for how long, and what that costs, for
    people; the dearest first."""
    if plan.limit_usd_per_mwh is None:
        return ()
    most = np.nan_to_num(plan.limit_usd_per_mwh).max(axis=0)
    order = [i for i in np.argsort(-most, kind="stable") if most[i] > FULL_USD_PER_MWH]
    lasts_s = (plan.limit_usd_per_mwh > FULL_USD_PER_MWH).sum(axis=0) * plan.step_s
    found = [
        f"feeder {plan.limits[i]} is full for {after(lasts_s[i])}: a watt there is worth up to "
        f"{most[i]:,.0f} USD/MWh more"
        for i in order[:MOST_FULL]
    ]
    more = len(order) - len(found)
    return (*found, f"{more} more feeders are full") if more > 0 else tuple(found)


def _holds(ahead: Ahead) -> Iterator[Told]:
    for one in ahead.holds:
        begin_s = max(one.starts_s - ahead.start_s, 0.0)
        text = f"{one.watts_w:,.0f} W of mining are held up for {one.name}"
        if one.ends_s > ahead.start_s:
            span_s = one.ends_s - max(one.starts_s, ahead.start_s)
            yield begin_s, f"in {after(begin_s)}, for {after(span_s)}: {text}"


def _promises(ahead: Ahead) -> Iterator[Told]:
    for one in ahead.commitments:
        begin_s = max(one.starts_s - ahead.start_s, 0.0)
        text = f"in {after(begin_s)}: {one.name} holds the site below {one.limit_w:,.0f} W"
        if one.ends_s > ahead.start_s:
            yield begin_s, text


def spans(holds: Bools) -> list[tuple[int, int]]:
    """The runs of intervals in which something holds: first, and one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], holds, [False])).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def when(ahead: Ahead, begin: int, end: int) -> str:
    """A run of intervals, for people: from the plan's start."""
    return f"in {after(begin * ahead.step_s)}, for {after((end - begin) * ahead.step_s)}"


def clock(at_s: float) -> str:
    """A moment for people: weekday and time, UTC."""
    minutes = round(at_s / 60.0)
    day = DAYS[minutes // 1440 % len(DAYS)]
    return f"{day} {minutes // 60 % 24:02d}:{minutes % 60:02d}"


def after(span_s: float) -> str:
    """A span for people: hours and minutes."""
    minutes = round(span_s / 60.0)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"
