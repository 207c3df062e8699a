"""What the HTTP face may ask of the running controller (api.port.ControllerPort)."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from wattshift_cluster.controller import compute_views, money, signal_views, views
from wattshift_cluster.controller.device_desk import DeviceDesk
from wattshift_cluster.controller.fleet_desk import FleetDesk, FleetOrder
from wattshift_cluster.controller.job_desk import JobDesk
from wattshift_cluster.controller.learnt_desk import LearntDesk
from wattshift_cluster.controller.plan import off as plan_off
from wattshift_cluster.controller.roster import Entry
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.signal_desk import SignalDesk
from wattshift_cluster.errors import Refused
from wattshift_scheduler.in_force.effective import standing_caps
from wattshift_scheduler.promises import shortages
from wattshift_scheduler.state import Alarm

View = dict[str, Any]
SEVERITIES = ("critical", "warning")


class Front:
    """The controller as the API sees it."""

    def __init__(self, controller: Controller) -> None:
        """Wrap a controller that runs in this event loop."""
        self._c = controller
        self._desk = DeviceDesk(controller)
        self._fleet = FleetDesk(controller)
        self._learnt = LearntDesk(controller)
        self._jobs = JobDesk(controller)
        self._signals = SignalDesk(controller)

    async def limit_devices(self, wanted_w: Mapping[str, float]) -> list[Mapping[str, Any]]:
        """Set power limits, W by device. Raises NotFound, Refused, Unreachable."""
        return list(await self._desk.limit(wanted_w))

    async def release_device(self, device_id: str) -> View:
        """Bring a device to its safe point. Raises NotFound, Refused, Unreachable."""
        return await self._desk.release(device_id)

    async def profile_device(
        self,
        device_id: str,
        *,
        start: bool,
        stop: bool = False,
        dry_run: bool = False,
        with_sleep: bool = False,
        points: int | None = None,
    ) -> View:
        """Measure a power curve, or tell of it. Raises NotFound, Refused, Unreachable."""
        how = {"dry_run": dry_run, "with_sleep": with_sleep, "points": points}
        if stop:
            return await self._desk.stop_profile(device_id)
        return await self._desk.profile(device_id, start=start, how=how)

    async def command_fleet(
        self,
        action: str,
        devices: Sequence[str],
        *,
        by: str,
        by_id: str | None = None,
        reason: str | None,
        watts_w: float | None,
        override: bool,
        dry_run: bool,
    ) -> list[Mapping[str, Any]]:
        """Sleep, wake, lock, unlock or limit ASICs; one row each. Raises NotFound, Refused."""
        order = FleetOrder(action, tuple(devices), by, reason, watts_w, override, dry_run, by_id)
        return list(await self._fleet.command(order))

    async def teach_fleet(
        self, findings: Mapping[str, Mapping[str, Any]], *, by: str, reason: str | None
    ) -> list[Mapping[str, Any]]:
        """Hand findings of a commissioning to the agents; one row each. Raises NotFound."""
        return list(await self._learnt.teach(findings, by=by, reason=reason))

    async def learnt_device(self, device_id: str) -> View:
        """What is learnt of an ASIC. Raises NotFound, Refused, Unreachable."""
        return await self._learnt.learnt(device_id)

    def site(self) -> View:
        """The site now."""
        return self._c.site_view(self._c.clock.now_s())

    def devices(self) -> list[Mapping[str, Any]]:
        """Every device."""
        return list(self._c.device_views(self._c.clock.now_s()))

    def unseen(self) -> list[Mapping[str, Any]]:
        """Machines that count nothing, because nobody knows what they may draw."""
        return list(self._c.unseen_views())

    def jobs(self, state: str | None = None) -> list[Mapping[str, Any]]:
        """Jobs, oldest first."""
        all_jobs = sorted(self._c.state.jobs.values(), key=lambda job: job.submitted_s)
        return [self._jobs.view(job) for job in all_jobs if state in (None, job.state.value)]

    def job(self, job_id: str) -> View:
        """One job. Raises NotFound."""
        return self._jobs.view(self._jobs.found(job_id))

    def signals(self) -> View:
        """What every source says, and what of it holds."""
        return self._signals.signals()

    def caps(self) -> list[Mapping[str, Any]]:
        """Caps in force or still to come."""
        return list(self._signals.caps())

    def overrides(self) -> list[Mapping[str, Any]]:
        """Overrides that hold."""
        return list(self._signals.overrides())

    def decisions(
        self, subject: str | None, since: float | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """Decisions, newest first."""
        return [views.decision(d) for d in self._c.journal.decisions(subject, since, limit)]

    def flexibility(self) -> list[Mapping[str, Any]]:
        """What the site can shed by each deadline."""
        return list(views.flexibility_steps(self._c.state, self._c.clock.now_s()))

    def plan(self, hours: float | None) -> View:
        """What the next hours hold: so many of them, None for all that are planned."""
        c = self._c
        if c.lookahead is None:
            return plan_off.view(c.config.plan.enabled)
        return c.lookahead.view(c.clock.now_s(), hours)

    def economics(self, pattern: str | None, limit: int) -> View:
        """What hashing earns and costs now, and what it came to so far."""
        c = self._c
        feed = None if c.hashprice is None else c.hashprice.known()
        scheme, now_s = c.config.economics.scheme, c.clock.now_s()
        return money.economics(c.state, c.books, feed, scheme, now_s, pattern, limit)

    async def confirm_hashprice(self, by: str) -> list[str]:
        """An operator confirms the figures that are held. Raises Refused where none is."""
        if self._c.hashprice is None:
            raise Refused("the hashprice is a constant of the site file: nothing is held")
        names = await self._c.hashprice.confirm(by)
        if not names:
            raise Refused("no figure is held that could be confirmed")
        self._c.turn(self._c.inbox.take())
        return names

    def metrics_snapshot(self) -> View:
        """Figures of /metrics."""
        c, site = self._c, self.site()
        entries = c.roster.entries
        return {
            "shadow": c.outlet.shadow,
            "site_power_w": {"meter": site["power_w"], "devices": site["mining_w"]},
            "feeder_power_w": c.feeders.powers_w(),
            "cap_w": self._lowest_caps_w(),
            "headroom_w": site["headroom_w"],
            "price_usd_per_mwh": site["price_usd_per_mwh"],
            "hashprice_usd_per_ph_day": c.state.values.hashprice_usd_per_ph_day,
            "hashprice_age_s": views.known(c.clock.now_s() - c.state.quote.observed_s),
            "revenue_usd": [
                (device, quality, usd)
                for device, account in c.books.devices.items()
                for quality, usd in account.revenue_usd.items()
            ],
            "energy_j": [(device, "mining", e.energy_j) for device, e in entries.items()],
            "overcap_s": c.tally.overcap_s,
            "leases": views.lease_counts(c.state),
            "reading_age_s": {d["id"]: d["age_s"] for d in self.devices()},
            "decision_s": c.tally.decision_s.view(),
            "shed_s": c.tally.shed_s.view(),
            "hashes": [
                (str(e.info.get("algorithm") or "unknown"), device, e.counted["hashes"])
                for device, e in entries.items()
            ],
            "shares": _share_rows(entries),
            "jobs": views.job_rows(c.state),
            "reserve_w": c.state.reserve.by_kind,
            "promise_w": shortages.by_kind(c.state, c.clock.now_s()),
            "node_power_w": compute_views.node_power_rows(c.state),
            "unasked_w": {one["node"]: one["unasked_w"] for one in site["compute"]},
            "job_units": compute_views.unit_rows(c.state),
            "alarms": _by_severity(c.alarms.values()),
            **self._plan_figures(),
        }

    def _plan_figures(self) -> View:
        """Of the newest plan; nothing where this site makes none."""
        if self._c.lookahead is None:
            return {}
        plan = self.plan(hours=0.0)
        made = {"plan_age_s": plan["age_s"], "plan_solve_s": plan["solve_s"]}
        return {**made, "plans": self._c.lookahead.count}

    def _lowest_caps_w(self) -> dict[str, float]:
        """The lowest cap in force of each origin, overrides put in, W."""
        state, now_s = self._c.state, self._c.clock.now_s()
        connection = {"connection": float(state.site.tree.limit_w[0])}
        return connection | signal_views.held_caps_w(standing_caps(state, now_s), now_s)

    async def submit_job(
        self, spec: dict[str, Any], idempotency_key: str | None, job_id: str | None = None
    ) -> View:
        """Write a job down, then take it. Raises ConfigInvalid, Refused, TryLater."""
        return await self._jobs.submit(spec, idempotency_key, job_id)

    async def job_action(self, job_id: str, action: str) -> View:
        """Pause, resume or cancel a job. Raises NotFound, Refused."""
        return await self._jobs.act(job_id, action)

    async def job_logs(self, job_id: str, lines: int) -> View:
        """What was decided about a job and what its code printed. Raises NotFound."""
        return await self._jobs.logs(job_id, lines)

    async def drain_node(self, node: str, *, by: str) -> View:
        """Have a compute node's work leave. Raises NotFound, Refused, Unreachable."""
        return await self._jobs.drain(node, by)

    async def forget_node(self, node: str, *, by: str) -> View:
        """Count nothing of a lost node. Raises NotFound, Refused, Unreachable."""
        return await self._jobs.forget(node, by)

    async def set_cap(
        self,
        limit_w: float,
        starts_s: float | None,
        ends_s: float | None,
        origin: str,
        strict: bool,
    ) -> View:
        """Set an operator cap. With `strict`, Refused where the site cannot shed that far."""
        return await self._signals.set_cap(limit_w, starts_s, ends_s, origin, strict)

    async def clear_cap(self, cap_id: str | None) -> None:
        """Lift one operator cap, or all. Raises NotFound."""
        await self._signals.clear_cap(cap_id)

    async def override_cap(
        self, source: str, cap: str, limit_w: float, ends_s: float, *, by: str, reason: str
    ) -> View:
        """Let another limit hold in place of a cap. Raises NotFound, Refused, TryLater."""
        return await self._signals.override_cap(source, cap, limit_w, ends_s, by=by, reason=reason)

    async def clear_override(self, source: str | None, cap: str | None, *, by: str) -> None:
        """End one override, or all. Raises NotFound."""
        await self._signals.clear_override(source, cap, by=by)

    async def inject_signal(self, signal: dict[str, Any]) -> View:
        """Take a grid event as if a feed had sent it. Raises Refused, TryLater."""
        return await self._signals.inject(signal)

    async def subscribe(
        self, last_id: int | None
    ) -> AsyncIterator[tuple[int, str, Mapping[str, Any]]]:
        """Yield events from now on; the HTTP face keeps the ring that makes it resumable."""
        async for event in self._c.audience.subscribe():
            if last_id is None or event[0] > last_id:
                yield event


def _by_severity(alarms: Iterable[Alarm]) -> dict[str, int]:
    """How many hold; a severity that none has counts, too, so that an end is seen."""
    found = dict.fromkeys(SEVERITIES, 0)
    for alarm in alarms:
        found[alarm.severity] = found.get(alarm.severity, 0) + 1
    return found


def _share_rows(entries: Mapping[str, Entry]) -> list[tuple[str, str, float]]:
    rows: dict[tuple[str, str], float] = {}
    for entry in entries.values():
        pool = str(entry.info.get("pool") or "unknown")
        for result in ("accepted", "rejected", "lost"):
            key = (pool, result)
            rows[key] = rows.get(key, 0.0) + entry.counted[result]
    return [(pool, result, count) for (pool, result), count in rows.items() if count]
