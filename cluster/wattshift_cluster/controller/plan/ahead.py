"""From the state and what is foreseen to what a plan is made from (`scheduler.plan.words.Ahead`).

`Snapshot` is taken in the event loop and costs next to nothing; `prepared` does the work, in a
thread, on a state that never changes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.beside import PeakAhead
from wattshift_cluster.controller.plan import demands as plan_demands
from wattshift_cluster.controller.plan import prices as plan_prices
from wattshift_cluster.controller.plan.curves import BY_TIME_OF_DAY, Foreseen, Grid, foreseen
from wattshift_cluster.controller.plan.demands import Remark
from wattshift_cluster.controller.plan.feeders import below
from wattshift_cluster.controller.plan.history import Past
from wattshift_cluster.controller.plan.machines import machines
from wattshift_cluster.grid.curves.steps import filled
from wattshift_cluster.grid.said import Steps
from wattshift_scheduler.arrays import Bools
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.plan.words import Ahead
from wattshift_scheduler.signals import overhead
from wattshift_scheduler.state import State

SERIES = ("price", "posted", "carbon", "services", "other", "solar")
"""What is remembered, by name: USD/MWh (what held, and what was posted for it beforehand), g/kWh,
and W."""

Curves = Callable[[float], Sequence[Steps | None]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment.

    Attributes:
        now_s: our clock, s.
        state: of the core.
        prices, carbon: give what each source has published, the first that knows first; may read a
            file.
        past: by the names of SERIES.
        peaks: sources of a grid's peaks.
        demand_so_far_w: the site's highest demand of the month, W; NaN unknown.
        month_ends_s: when that month ends, s.
        baselines: of events, by source and event.
        drawn_w: what the site drew lately, W; NaN unknown.
        unit_s_per_item: pace of batch jobs (`plan_demands.pace`), by job.
    """

    now_s: float
    state: State
    prices: Curves
    carbon: Curves
    past: Mapping[str, Past]
    peaks: Sequence[PeakAhead]
    demand_so_far_w: float
    month_ends_s: float
    baselines: Mapping[str, Sequence[float]]
    drawn_w: float
    unit_s_per_item: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a plan is made from, and what people are told beside it.

    Attributes:
        ahead: of the planner.
        priced: intervals whose price is published; shape (n,).
        remarks: what begins when.
        notes: what was assumed or left out.
        kinds: what each kind of devices is called, and how many there are.
        posted: when the next quarter of an hour begins, s, and the price that is posted for it,
            USD/MWh; NaN: none is.
    """

    ahead: Ahead
    priced: Bools
    remarks: tuple[Remark, ...]
    notes: tuple[str, ...]
    kinds: Mapping[str, int]
    posted: tuple[float, float] = (0.0, math.nan)


def prepared(known: Snapshot, config: SiteConfig) -> Prepared:
    """Work out what a plan is made from.

    Raises:
        NothingToPlan (`prices`): the energy price is not known.
        PlanInvalid: something of it cannot be; it is named.
    """
    terms, state, now_s = config.plan, known.state, known.now_s
    start_s = math.floor(now_s / terms.step_s) * terms.step_s
    grid = Grid(start_s, terms.step_s, terms.intervals)
    curve = _first(known.prices(now_s))
    price = plan_prices.price(known.state, curve, known.past, grid)
    others = _others(known, config, grid)
    caps = plan_demands.caps_ahead(state, grid, now_s)
    promises, events = plan_demands.commitments(
        state, config, known.baselines, known.drawn_w, grid, now_s, caps.cap_w
    )
    jobs, late = plan_demands.batches(state.jobs.values(), known.unit_s_per_item, now_s)
    mining = machines(state, now_s)
    feeders = below(state, mining, others.services.mid)
    holds, held = plan_demands.holds(state, grid, now_s)
    charge = terms.demand_charge_usd_per_kw
    ahead = Ahead(
        start_s=grid.start_s,
        step_s=grid.step_s,
        price=price.band,
        cap_w=caps.cap_w,
        other=_lifted(others.other, mining.apart_w),
        services=others.services,
        solar=None if others.solar is None else others.solar.band,
        kinds=mining.kinds,
        batches=tuple(jobs),
        commitments=tuple(promises),
        peaks=(
            *plan_demands.coincident(known.peaks, terms.peak_charge_usd_per_kw, grid),
            *plan_demands.demand_charge(
                charge, known.demand_so_far_w, known.month_ends_s, grid, now_s
            ),
        ),
        ramp_up_w_per_s=state.site.rules.ramp_up_w_per_s,
        ramp_down_w_per_s=state.site.rules.ramp_down_w_per_s,
        carbon_g_per_kwh=None if others.carbon is None else others.carbon.band,
        carbon_usd_per_t=terms.carbon_usd_per_t,
        compute_w=_compute_w(state),
        prospect=price.prospect,
        limits=feeders.limits,
        zones=feeders.zones,
        holds=holds,
    )
    words = (price.words, *(one.words for one in (others.solar, others.carbon) if one), *late)
    return Prepared(
        ahead=ahead,
        priced=price.published,
        remarks=(*caps.remarks, *held, *events),
        notes=tuple(word for word in (*words, *others.notes, *feeders.notes) if word),
        kinds={kind.name: kind.count for kind in mining.kinds},
        posted=plan_prices.posted_next(curve, now_s),
    )


def _first(curves: Sequence[Steps | None]) -> Steps | None:
    """Of several curves the first that knows each time."""
    return reduce(filled, curves, None)


@dataclass(frozen=True, slots=True)
class _Others:
    """What is foreseen beside the price."""

    other: Band
    services: Band
    solar: Foreseen | None
    carbon: Foreseen | None
    notes: tuple[str, ...] = ()


def _others(known: Snapshot, config: SiteConfig, grid: Grid) -> _Others:
    state, past = known.state, known.past
    services, words = _services(state, past["services"], grid)
    solar = carbon = None
    if config.solar is not None:
        solar = foreseen("the sun", None, past["solar"], grid, least=0.0)
    if config.plan.carbon_usd_per_t > 0:
        curve = _first(known.carbon(known.now_s))
        carbon = foreseen("carbon", curve, past["carbon"], grid, least=0.0)
        if carbon is None:
            words = (*words, "carbon is not known, and is not priced")
    return _Others(_other(state, past["other"], grid), services, solar, carbon, words)


def _lifted(band: Band, watts_w: float) -> Band:
    return Band(band.low + watts_w, band.mid + watts_w, band.high + watts_w)


def other_w(state: State) -> float:
    """What is drawn beside devices and jobs, as the control loop counts it, W."""
    cap_w = state.outlook.cap_w
    hard_w = float(state.site.tree.limit_w[0]) if math.isnan(cap_w) else cap_w
    bound_w = overhead.reserved_w(state.overhead, state.site.rules.other_load_w, hard_w)
    return float(budget.unasked_w(state).sum()) + bound_w + state.excess_w


def _other(state: State, past: Past, grid: Grid) -> Band:
    """A bound that the control loop keeps; once it has a past, as that was by time of day."""
    found = foreseen("other", None, past, grid, least=0.0)
    if found is None or BY_TIME_OF_DAY not in found.words:
        return Band.of(np.full(grid.count, other_w(state)))
    return found.band


def _compute_w(state: State) -> float:
    """The most that work can draw on the nodes that answer, W; infinite where there are none."""
    up = [node.max_w for node in state.site.nodes if state.nodes[node.name].up]
    return math.fsum(up) if up else math.inf


def services_w(jobs: Mapping[str, Job]) -> float:
    """What the services could use now, W."""
    return math.fsum(
        (job.units if job.wanted is None else job.wanted) * job.unit_w for job in _running(jobs)
    )


def _running(jobs: Mapping[str, Job]) -> Iterator[Job]:
    return (job for job in jobs.values() if job.kind is JobKind.SERVICE and not job.state.final)


def _services(state: State, past: Past, grid: Grid) -> tuple[Band, tuple[str, ...]]:
    """Demand of inference, within what its services may have."""
    jobs = list(_running(state.jobs))
    least_w = math.fsum(job.min_units * job.unit_w for job in jobs)
    most_w = math.fsum(job.max_units * job.unit_w for job in jobs)
    if not jobs:
        return Band.of(np.zeros(grid.count)), ()
    found = foreseen("inference", None, past, grid, least=0.0)
    if found is None:
        now_w = np.full(grid.count, services_w(state.jobs))
        return Band.of(np.clip(now_w, least_w, most_w)), ()
    edges = (found.band.low, found.band.mid, found.band.high)
    return Band(*(np.clip(edge, least_w, most_w) for edge in edges)), (found.words,)
