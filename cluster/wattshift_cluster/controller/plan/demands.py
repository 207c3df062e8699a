"""What is asked of the site ahead: caps, promises, peaks, and the energy of batch jobs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from wattshift_cluster.config.settlement import SettledProgram
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.beside import PeakAhead
from wattshift_cluster.controller.plan.curves import Grid
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.in_force.effective import all_targets, standing_caps
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.plan.limits import MOST_HOLDS, Hold
from wattshift_scheduler.plan.words import MOST_COMMITMENTS, Batch, Commitment, Peak
from wattshift_scheduler.promises.holdable import MARGIN_SHARE
from wattshift_scheduler.promises.obligations import coming
from wattshift_scheduler.signals.words import DRILL, Cap, GridEvent, Target, Work
from wattshift_scheduler.state import State

BATCHES_MOST = 100
"""Of one plan: the most urgent of a long queue; what comes later is planned later."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Remark:
    """What begins at an interval, for people."""

    interval: int
    text: str


@dataclass(frozen=True, slots=True)
class CapsAhead:
    """The lowest cap of each interval, after its margin, W; shape (n,); what begins when."""

    cap_w: Floats
    remarks: tuple[Remark, ...]


def caps_ahead(state: State, grid: Grid, now_s: float) -> CapsAhead:
    """Caps and targets that bind all work, as they stand; an interval holds the lowest it meets."""
    connection_w = float(state.site.tree.limit_w[0])
    limit_w = np.full(grid.count, connection_w)
    holder = np.full(grid.count, -1, dtype=np.int64)
    caps = [one for one in standing_caps(state, now_s) if _touches(one, grid, now_s)]
    for at, cap in enumerate(caps):
        span = grid.covered(cap.starts_s, cap.ends_s)
        lower = cap.limit_w < limit_w[span]
        limit_w[span][lower], holder[span][lower] = cap.limit_w, at
    remarks = []
    for i in np.flatnonzero(np.diff(limit_w, prepend=np.nan)):
        if holder[i] >= 0:
            cap = caps[holder[i]]
            whose = cap.name or f"{cap.origin} {cap.id}"
            remarks.append(Remark(int(i), f"cap {_watts(cap.limit_w)}: {whose}"))
        elif i > 0:
            remarks.append(Remark(int(i), "no cap but the connection's"))
    cap_w = limit_w * (1.0 - margin_share(state))
    targets = [one for one in all_targets(state.signals) if one.work is Work.ALL]
    aims = [one for one in targets if _touches(one, grid, now_s)]
    return CapsAhead(np.minimum(cap_w, _aim_w(aims, grid)), tuple(remarks))


def margin_share(state: State) -> float:
    """The share of the connection's limit that stays free."""
    return float(state.site.tree.shares(state.site.rules.margin_share, 0.0)[0])


def _touches(one: Cap | Target, grid: Grid, now_s: float) -> bool:
    begun = one.starts_s is None or one.starts_s < grid.ends_s
    return begun and (one.ends_s is None or one.ends_s > now_s)


def _aim_w(targets: Sequence[Target], grid: Grid) -> Floats:
    """The target of each interval: of the highest priority, among equals the lowest."""
    found = np.full(grid.count, np.inf)
    for priority in sorted({one.priority for one in targets}, reverse=True):
        equal = np.full(grid.count, np.inf)
        for one in targets:
            if one.priority == priority:
                span = grid.covered(one.starts_s, one.ends_s)
                equal[span] = np.minimum(equal[span], one.watts_w)
        found = np.where(np.isfinite(equal), equal, found)
    return found


def commitments(
    state: State,
    config: SiteConfig,
    baselines: Mapping[str, Sequence[float]],
    drawn_w: float,
    grid: Grid,
    now_s: float,
    cap_w: Floats,
) -> tuple[list[Commitment], list[Remark]]:
    """Promises of events ahead, and a remark for each.

    An event whose reduction a cap enforces in any case is firm: its pay changes nothing then, and
    would only stand in the shadow price on top of the cap.

    Args:
        state, config: what is told, and what was agreed for it.
        baselines: by source and event; the first figure is W.
        drawn_w: what the site draws now, W, for an event without a baseline; NaN unknown.
        grid: the intervals.
        now_s: our clock, s.
        cap_w: the lowest cap of each interval, W; shape (n,).
    """
    found: list[Commitment] = []
    remarks: list[Remark] = []
    for source, event in _events(state, grid, now_s):
        ends_s = grid.ends_s if event.ends_s is None else min(event.ends_s, grid.ends_s)
        inside = grid.covered(event.starts_s, ends_s)
        whose = event.name or f"{event.program} {event.id}"
        remarks.append(Remark(inside.start, f"event: {whose}"))
        terms = config.settlement.program(event.program)
        stated_w = baselines.get(f"{source}/{event.id}", (drawn_w,))[0]
        promised = _promise(event, terms, stated_w)
        if promised is None or event.program == DRILL:
            continue
        limit_w, reduction_w = promised
        found.append(
            Commitment(
                name=_unused(f"{source}/{event.id}", found),
                starts_s=max(event.starts_s, grid.start_s),
                ends_s=ends_s,
                limit_w=limit_w,
                usd_per_mwh=_pay_usd_per_mwh(terms, config),
                reduction_w=reduction_w,
                firm=bool((cap_w[inside] <= limit_w).all()),
            )
        )
    return found[:MOST_COMMITMENTS], remarks


def holds(state: State, grid: Grid, now_s: float) -> tuple[tuple[Hold, ...], list[Remark]]:
    """Mining that promises need drawn before they begin, as the control loop will hold it up, and a
    remark for each."""
    needs = (one for one in coming(state, grid.ends_s, now_s) if one.begins_s < grid.ends_s)
    found = tuple(
        Hold(
            name=one.need.named,
            starts_s=one.begins_s,
            ends_s=one.ends_s,
            watts_w=one.need.watts_w * (1.0 + MARGIN_SHARE),
            within_s=one.need.within_s,
        )
        for one in islice(needs, MOST_HOLDS)
    )
    remarks = [
        Remark(
            grid.covered(one.starts_s, one.ends_s).start,
            f"{_watts(one.watts_w)} of mining held up: {one.name}",
        )
        for one in found
    ]
    return found, remarks


def _unused(name: str, found: Sequence[Commitment]) -> str:
    """The name, numbered where an event comes in several pieces."""
    taken = {one.name for one in found}
    numbered = (f"{name} ({n})" for n in range(2, len(found) + 3))
    return name if name not in taken else next(one for one in numbered if one not in taken)


def _events(state: State, grid: Grid, now_s: float) -> list[tuple[str, GridEvent]]:
    rows = [
        (source, event)
        for source, events in state.signals.events.items()
        for event in events
        if event.stands(now_s)
        and event.starts_s < grid.ends_s
        and (event.ends_s is None or event.ends_s > max(event.starts_s, grid.start_s))
    ]
    return sorted(rows, key=lambda row: row[1].starts_s)


def _promise(
    event: GridEvent, terms: SettledProgram | None, baseline_w: float
) -> tuple[float, float] | None:
    """The limit and the reduction that were promised, W; None where nothing was."""
    reduction_w = event.commitment_w
    if math.isnan(reduction_w) and terms is not None and terms.commitment_w is not None:
        reduction_w = terms.commitment_w
    if terms is not None and terms.fsl_w is not None:
        most_w = baseline_w - terms.fsl_w if math.isnan(reduction_w) else reduction_w
        return (terms.fsl_w, max(most_w, 0.0)) if math.isfinite(most_w) else None
    if math.isnan(reduction_w) or not math.isfinite(baseline_w):
        return None
    return max(baseline_w - reduction_w, 0.0), reduction_w


def _pay_usd_per_mwh(terms: SettledProgram | None, config: SiteConfig) -> float:
    """What a reduction is paid; 0 where no pay is agreed, or in money that has no rate to USD."""
    if terms is None:
        return 0.0
    rate_usd = 1.0 if terms.currency == "USD" else config.market.currencies.get(terms.currency, 0.0)
    return max(terms.price_per_mwh * rate_usd, 0.0)


def coincident(sources: Iterable[PeakAhead], usd_per_kw: float, grid: Grid) -> list[Peak]:
    """The charge on each grid's peak, with the chance of each interval."""
    found = []
    for one in sources:
        if usd_per_kw <= 0 or one.ahead is None:
            continue
        chance = np.zeros(grid.count)
        for starts_s, likely in zip(*(column.tolist() for column in one.ahead), strict=True):
            first_s, past_s = max(starts_s, grid.start_s), starts_s + one.interval_s
            for i in range(*grid.covered(first_s, past_s).indices(grid.count)):
                edge_s = grid.start_s + i * grid.step_s
                inside_s = min(past_s, edge_s + grid.step_s) - max(starts_s, edge_s)
                chance[i] += likely * max(inside_s, 0.0) / one.interval_s
        if chance.any():
            found.append(Peak(one.name, usd_per_kw / 1e3, np.minimum(chance, 1.0)))
    return found


def demand_charge(
    usd_per_kw: float, so_far_w: float, month_ends_s: float, grid: Grid, now_s: float
) -> list[Peak]:
    """The charge on the site's own highest interval of the month.

    A higher demand serves all that is left of the month, of which the plan sees its horizon alone:
    so much of the charge is laid on it.

    Args:
        usd_per_kw: for the month, USD/kW.
        so_far_w: the highest so far, W; NaN: unknown, and then as good as nothing.
        month_ends_s: when the month ends, s.
        grid: the intervals.
        now_s: our clock, s.
    """
    if usd_per_kw <= 0:
        return []
    left_s = max(month_ends_s - now_s, 1.0)
    share = min((grid.ends_s - now_s) / left_s, 1.0)
    known_w = 0.0 if math.isnan(so_far_w) else so_far_w
    return [Peak("demand", usd_per_kw / 1e3 * share, None, known_w)]


def batches(
    jobs: Iterable[Job], unit_s_per_item: Mapping[str, float], now_s: float
) -> tuple[list[Batch], list[str]]:
    """Energy that batch jobs still need, the most urgent first, and what could not be told.

    Args:
        jobs: of the site.
        unit_s_per_item: how long one unit takes for an item, as seen, by job, s.
        now_s: our clock, s; deadlines are counted from it.
    """
    active = [
        job
        for job in jobs
        if job.kind is JobKind.BATCH and not job.state.final and not job.held and job.unit_w > 0
    ]
    order = sorted(active, key=lambda job: (job.due_s, job.submitted_s))
    found, notes = [], []
    for job in order[:BATCHES_MOST]:
        each_s = unit_s_per_item.get(job.id)
        if each_s is None or job.total is None:
            notes.append(f"{job.id} is not planned: how fast it goes is not known yet")
            continue
        unit_h = max(job.total - (job.done or 0), 0) * each_s / HOUR_S
        deadline_s = max(job.due_s - now_s, 0.0)
        most_w = job.max_units * job.unit_w
        found.append(
            Batch(
                name=job.id,
                left_wh=unit_h * job.unit_w,
                most_w=most_w,
                value_usd=max(unit_h * job.value_usd_per_h, 0.0),
                deadline_s=deadline_s,
                fewest_w=most_w if job.terms.gang else job.unit_w,
            )
        )
    if len(order) > BATCHES_MOST:
        notes.append(f"{len(order) - BATCHES_MOST} batch jobs of a long queue are planned later")
    return found, notes


def pace(job: Job) -> float | None:
    """How long one unit of a batch job takes for an item, s, as it runs now; None unknown."""
    units = job.units if job.by_node is None else sum(job.by_node.values())
    return units / job.rate_per_s if job.rate_per_s and units else None


def _watts(value_w: float) -> str:
    size, unit = (1e6, "MW") if value_w >= 1e6 else (1e3, "kW") if value_w >= 1e3 else (1.0, "W")
    return f"{value_w / size:,.4g} {unit}"
