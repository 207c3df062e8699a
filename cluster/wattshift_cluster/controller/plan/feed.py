"""The look-ahead plan of a running controller: asked for now and then, told to the core, shown.

Nothing here is waited for by a turn: a question is worked out in a thread and answered by another
process. Where there is no plan, for whatever reason, that is said, and the ladder alone goes on.
"""

import asyncio
import math
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from wattshift_cluster.config.plan import LATE_PERIODS
from wattshift_cluster.config.settlement import zone_of
from wattshift_cluster.controller.plan import ahead as plan_ahead
from wattshift_cluster.controller.plan import demands as plan_demands
from wattshift_cluster.controller.plan import views as plan_views
from wattshift_cluster.controller.plan import wire as plan_wire
from wattshift_cluster.controller.plan.ahead import Snapshot
from wattshift_cluster.controller.plan.history import SLOT_S, PlanHistory
from wattshift_cluster.controller.plan.prices import NothingToPlan
from wattshift_cluster.controller.plan.process import Planner, PlannerFailed
from wattshift_cluster.controller.plan.views import Made
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.site_figures import sun_moment
from wattshift_cluster.controller.views import known
from wattshift_cluster.grid.market.prices import FilePrices
from wattshift_cluster.grid.peaks.demand_charge import DemandSource, DemandTerms
from wattshift_cluster.grid.peaks.kept_highest import KeptHighest
from wattshift_cluster.grid.peaks.periods import Season
from wattshift_cluster.grid.said import Steps
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision, Input
from wattshift_scheduler.jobs import JobKind
from wattshift_scheduler.plan.words import Plan, PlanInvalid, Standing
from wattshift_scheduler.signals.words import Work
from wattshift_scheduler.state import Alarm

FIRST_S = 10.0
"""After the start, so that devices have joined and sources have spoken."""

LOOK_S = 10.0
"""How often a sample of what is drawn and paid is taken."""

GRACE_S = 30.0
"""Beside the time limit of the solver, for a process to start and to build its model, s."""

PAUSE_LEAST_S = 1.0
"""Between two plans, however long one takes."""

SAVE_S = 900.0
LATELY_S = 3600.0
PLANS_SHOWN = 12
"""The last hour of them."""

log = structlog.get_logger()


class PlanFeed:
    """The plans of one controller; one of its feeds, and its lookahead.

    Attributes:
        made: the newest plan; None before the first.
        last: the newest plans, oldest first.
        count: how many were made.
        trouble: why the last try had no plan; empty where it had one.
        waits: whether that is something which is not known yet, and no fault.
        alarms: that hold now, by id.
    """

    def __init__(self, controller: Controller, planner: Planner | None = None) -> None:
        """Become the controller's lookahead; nothing is planned yet.

        Raises:
            ConfigInvalid: the file of prices has faults.
        """
        self.made: Made | None = None
        self.last: deque[Made] = deque(maxlen=PLANS_SHOWN)
        self.count = 0
        self.trouble = ""
        self.waits = False
        self.alarms: Mapping[str, Alarm] = {}
        self._c = controller
        self._terms = controller.config.plan
        self._stands_s = LATE_PERIODS * self._terms.period_s
        self._planner = Planner() if planner is None else planner
        state_dir, grid = controller.config.site.state_dir, controller.config.grid
        self._history = PlanHistory(
            plan_ahead.SERIES, state_dir / "plan-history.json", lasting=("price", "posted")
        )
        self._posted: dict[float, float] = {}
        self._prices = None if grid.prices is None else FilePrices(grid.prices)
        self._paces: dict[str, float] = {}
        self._began_s = controller.clock.now_s()
        zone = zone_of(controller.config.settlement.zone)
        self._season = Season(zone=zone)
        self._highest = KeptHighest(state_dir / "highest-plan.json")
        if self._terms.demand_charge_usd_per_kw > 0:
            controller.samplers.append(self._metered())
        controller.lookahead = self

    def _metered(self) -> Any:
        """Takes the meter's samples, so that the month's highest demand is known."""
        terms = DemandTerms(
            "plan", self._season, self._terms.demand_interval_s, 0.0, self._c.config.root.limit_w
        )
        demand = DemandSource(terms, self._highest, clock_s=self._c.clock.now_s)
        return lambda watts_w, at_s: demand.sample(math.nan if watts_w is None else watts_w, at_s)

    async def run(self) -> None:
        """Plan until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._remember())
                group.create_task(self._keep_planning())
        finally:
            await self.close()

    async def close(self) -> None:
        """End the planner's process, and keep the past."""
        await self._planner.close()
        await asyncio.to_thread(self._history.save, self._history.kept())

    async def _remember(self) -> None:
        saved_s = self._c.clock.now_s()
        while True:
            try:
                self.look()
            except Exception:  # a fault of ours must not stop the controller
                log.error("plan.look_failed", trace=traceback.format_exc())
            now_s = self._c.clock.now_s()
            if now_s - saved_s >= SAVE_S:
                saved_s = now_s
                await asyncio.to_thread(self._history.save, self._history.kept())
            await asyncio.sleep(LOOK_S)

    async def _keep_planning(self) -> None:
        await asyncio.sleep(min(FIRST_S, self._terms.period_s))
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            await self.once()
            left_s = self._terms.period_s - (loop.time() - begun_s)
            await asyncio.sleep(max(left_s, PAUSE_LEAST_S))

    def look(self) -> None:
        """Take a sample of what holds now, and judge whether a plan is late. Quick."""
        state, now_s = self._c.state, self._c.clock.now_s()
        price = state.price_usd_per_mwh()
        moment = sun_moment(self._c) if self._c.config.solar is not None else None
        sun_w = None
        if moment is not None and moment.site_w is not None and moment.net_import_w is not None:
            sun_w = max(moment.site_w - moment.net_import_w, 0.0)
        self._history.sampled(
            {
                "price": price if math.isfinite(price) else None,
                "posted": self._posted.get(math.floor(now_s / SLOT_S) * SLOT_S),
                "carbon": self._c.sources.carbon_g_per_kwh(now_s),
                "services": plan_ahead.services_w(state.jobs),
                "other": plan_ahead.other_w(state),
                "solar": sun_w,
            },
            now_s,
        )
        for job in state.of_kind(JobKind.BATCH):
            if (seen := plan_demands.pace(job)) is not None:
                self._paces[job.id] = seen
        self._paces = {name: s for name, s in self._paces.items() if name in state.jobs}
        self._judge(now_s)

    async def once(self) -> None:
        """Make a plan and tell the core of it; or say why there is none. Raises nothing of that."""
        c, now_s = self._c, self._c.clock.now_s()
        before, self.waits = self.trouble, False
        try:
            self.look()
            made = await self._plan(self._snapshot(now_s))
            standing = Standing.of(made.plan, stands_s=self._stands_s)
        except NothingToPlan as why:
            self.trouble, self.waits = str(why), True
        except PlanInvalid as fault:
            self.trouble = f"refused: {fault}"
        except PlannerFailed as fault:
            self.trouble = f"refused: {fault}" if fault.item else str(fault)
        except Exception as fault:  # a fault of ours must not stop the controller
            # Not by `log.exception`: it would write the whole state out, of 100,000 devices.
            log.error("plan.failed", trace=traceback.format_exc())
            self.trouble = f"it has stopped: {fault or type(fault).__name__}"
        else:
            self.trouble = ""
            self.made = made
            self.last.append(made)
            self.count += 1
            c.inbox.put([ev.PlanUpdated(standing)], urgent=True)
            c.tell(_decision(made))
        if self.trouble and self.trouble != before:
            log.warning("plan.none", reason=self.trouble)
        self._judge(c.clock.now_s())

    async def _plan(self, known: Snapshot) -> Made:
        ready = await asyncio.to_thread(plan_ahead.prepared, known, self._c.config)
        self._post(*ready.posted, known.now_s)
        question = {"ahead": ready.ahead, "time_limit_s": self._terms.time_limit_s}
        started = time.perf_counter()
        answer = await self._planner.ask(question, self._terms.time_limit_s + GRACE_S)
        try:
            plan = await asyncio.to_thread(plan_wire.read, Plan, answer["plan"])
        except (KeyError, plan_wire.NotOurs) as fault:
            raise PlannerFailed(f"the planner does not speak our language: {fault}") from None
        if not plan.usable:
            raise PlannerFailed(f"the solver had none within {self._terms.time_limit_s:g} s")
        took_s = plan.solve_s or time.perf_counter() - started
        # Its figures are of the moment at which they were taken, not of the interval's begin.
        plan = replace(plan, made_s=known.now_s, solve_s=took_s)
        return Made(plan, ready, known.now_s, known.now_s + self._stands_s)

    def _post(self, starts_s: float, usd_per_mwh: float, now_s: float) -> None:
        """Hold on to what is posted for a quarter of an hour until that is over; the last word
        before it begins counts."""
        held = {at_s: usd for at_s, usd in self._posted.items() if at_s + SLOT_S > now_s}
        held.pop(starts_s, None)
        self._posted = held if math.isnan(usd_per_mwh) else {**held, starts_s: usd_per_mwh}

    def _snapshot(self, now_s: float) -> Snapshot:
        c = self._c
        said = [c.sources.said(name) for name in c.config.signal_sources]
        prices = [one.prices_usd_per_mwh for one in said if one is not None]
        carbon = [one.carbon_g_per_kwh for one in said if one is not None]
        lately = c.drawn[Work.ALL].span(now_s - LATELY_S, now_s)

        def priced(at_s: float) -> Sequence[Steps | None]:
            file = None if self._prices is None else self._prices.steps(at_s)
            return (file, *prices)

        return Snapshot(
            now_s=now_s,
            state=c.state,
            prices=priced,
            carbon=lambda _at_s: carbon,
            past={name: self._history.past(name) for name in plan_ahead.SERIES},
            peaks=tuple(c.peaks_ahead),
            demand_so_far_w=self._highest.of(self._season.period(now_s)),
            month_ends_s=self._season.period_ends_s(now_s),
            baselines=dict(c.baselines),
            drawn_w=lately.mean_w,
            unit_s_per_item=dict(self._paces),
        )

    def _judge(self, now_s: float) -> None:
        """Raise and clear the alarms of the plan, each told once."""
        causes = dict(self._causes(now_s))
        before = self.alarms
        self.alarms = {
            name: Alarm(name, "warning", text, before[name].since_s if name in before else now_s)
            for name, text in causes.items()
        }
        came = [one for name, one in self.alarms.items() if name not in before]
        went = [one for name, one in before.items() if name not in causes]
        told = [Decision(now_s, a.id, "alarm", a.text, {"severity": a.severity}) for a in came]
        told += [Decision(now_s, a.id, "all clear", a.text, {}) for a in went]
        if told:
            self._c.tell(*told)

    def _causes(self, now_s: float) -> list[tuple[str, str]]:
        causes = []
        if self.trouble and not self.waits:
            text = f"there is no new plan: {self.trouble}"
            text += "; the last one holds until it expires" if self._holds(now_s) else ""
            causes.append(("plan-failed", text))
        # Of a plan that has expired the core itself tells.
        if self.made is None and now_s - self._began_s >= self._stands_s:
            text = f"no plan for {LATE_PERIODS} periods: the ladder alone decides"
            causes.append(("plan-late", text))
        if self.made is not None and self._holds(now_s) and self.made.plan.infeasible:
            first, *more = self.made.plan.infeasible
            text = f"the plan cannot meet all that is asked: {first}"
            causes.append(("plan-infeasible", f"{text}, and {len(more)} more" if more else text))
        return causes

    def _holds(self, now_s: float) -> bool:
        return self.made is not None and now_s < self.made.expires_s

    def view(self, now_s: float, hours: float | None) -> dict[str, Any]:
        """The plan as people are shown it (api.plan_views.PlanView); `hours` of it, None: all."""
        said = plan_views.Said(self.trouble, self.waits)
        return plan_views.plan(self.made, self.last, said, now_s, hours)


def _decision(made: Made) -> Decision:
    """One line for the journal."""
    plan, ahead = made.plan, made.prepared.ahead
    hours = len(ahead) * ahead.hours
    words = f"{hours:g} h in {ahead.step_s / 60.0:g} min, {plan.status} in {plan.solve_s:.2g} s: "
    words += f"{plan.usd:,.2f} USD expected, a MWh more now costs {plan.shadow_usd_per_mwh[0]:,.1f}"
    words += f" USD, {plan.reserve_w[0]:,.0f} W in reserve"
    if plan.infeasible:
        words += f"; not met: {plan.infeasible[0]}"
    inputs: dict[str, Input] = {
        "status": plan.status,
        "gap": known(plan.gap),
        "solve_s": plan.solve_s,
        "usd": plan.usd,
        "intervals": len(ahead),
        "priced_intervals": int(made.prepared.priced.sum()),
        "kinds": len(ahead.kinds),
        "batches": len(ahead.batches),
        "commitments": len(ahead.commitments),
        "price_usd_per_mwh": float(plan.price_usd_per_mwh[0]),
        "shadow_usd_per_mwh": float(plan.shadow_usd_per_mwh[0]),
        "reserve_w": float(plan.reserve_w[0]),
        "infeasible": len(plan.infeasible),
    }
    return Decision(made.at_s, "site", "plan", words, inputs)
