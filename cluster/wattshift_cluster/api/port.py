"""What the HTTP face needs of a controller.

The controller implements `ControllerPort` structurally and returns plain dicts of the shapes in
`site_views`, `signal_views`, `compute_views`, `device_views`, `profile_views`, `economics_views`,
`learnt_views`, `plan_views` and `metrics_views`; it never imports this package. Units end the
names. Unknown is None, never 0. Times are RFC 3339 UTC text, except in arguments, where they are
Unix seconds.

Events of `subscribe` (name: data):

    site      SiteView, once per control tick
    decision  DecisionView, one per decision
    job       JobView, on every change of state
    signal    SignalsView, when a source has spoken
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

Event = tuple[int, str, Mapping[str, Any]]


class ControllerPort(Protocol):
    """The controller as its HTTP face sees it. The sync views are cheap and never block.

    Every method may raise a WattshiftError; each kind becomes one HTTP status (problems.py).
    """

    def site(self) -> Mapping[str, Any]:
        """Return a SiteView."""
        ...

    def devices(self) -> list[Mapping[str, Any]]:
        """Return a DeviceView per device."""
        ...

    def unseen(self) -> list[Mapping[str, Any]]:
        """Return an UnseenView per machine that its agent names and nobody knows."""
        ...

    def jobs(self, state: str | None = None) -> list[Mapping[str, Any]]:
        """Return JobViews, oldest first, of one state or of all."""
        ...

    def job(self, job_id: str) -> Mapping[str, Any]:
        """Return one JobView. Raises NotFound."""
        ...

    async def job_logs(self, job_id: str, lines: int) -> Mapping[str, Any]:
        """Return a compute_views.LogView of at most so many lines each. Raises NotFound."""
        ...

    async def drain_node(self, node: str, *, by: str) -> Mapping[str, Any]:
        """Have a node's work leave, for good; returns its NodeView. Raises NotFound, Refused."""
        ...

    async def forget_node(self, node: str, *, by: str) -> Mapping[str, Any]:
        """Count nothing of a lost node; returns its NodeView. Raises NotFound, Refused."""
        ...

    def signals(self) -> Mapping[str, Any]:
        """Return a signal_views.SignalsView: what each source says, and the price."""
        ...

    def overrides(self) -> list[Mapping[str, Any]]:
        """Return an OverrideView per override that holds."""
        ...

    async def override_cap(
        self, source: str, cap: str, limit_w: float, ends_s: float, *, by: str, reason: str
    ) -> Mapping[str, Any]:
        """Let another limit hold in place of one cap; an OverrideView. Raises NotFound, Refused."""
        ...

    async def clear_override(self, source: str | None, cap: str | None, *, by: str) -> None:
        """End one override, or all. Raises NotFound."""
        ...

    def caps(self) -> list[Mapping[str, Any]]:
        """Return a CapView per cap that is in force or still to come."""
        ...

    def decisions(
        self, subject: str | None, since: float | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """Return DecisionViews, newest first, of one subject, since a Unix time in s."""
        ...

    def flexibility(self) -> list[Mapping[str, Any]]:
        """Return one FlexibilityStep per deadline, tightest first."""
        ...

    def plan(self, hours: float | None) -> Mapping[str, Any]:
        """Return a plan_views.PlanView of so many hours; None: all that are planned."""
        ...

    def metrics_snapshot(self) -> Mapping[str, Any]:
        """Return a MetricsView."""
        ...

    def economics(self, pattern: str | None, limit: int) -> Mapping[str, Any]:
        """Return an economics_views.EconomicsView of the devices that match; totals hold all."""
        ...

    async def confirm_hashprice(self, by: str) -> list[str]:
        """Take figures that are held; returns their names. Raises Refused where none is held."""
        ...

    async def submit_job(
        self, spec: dict[str, Any], idempotency_key: str | None, job_id: str | None = None
    ) -> Mapping[str, Any]:
        """Store a job durably and return its JobView; a known key returns the job it made.

        `job_id` is the submitter's; None lets one be made. Raises Refused where another job has
        it, or where the job could never run here.
        """
        ...

    async def job_action(self, job_id: str, action: str) -> Mapping[str, Any]:
        """Pause, resume or cancel a job. Raises NotFound, Refused."""
        ...

    async def limit_devices(self, wanted_w: Mapping[str, float]) -> list[Mapping[str, Any]]:
        """Set power limits, W by device; one LimitView each. Raises NotFound, Refused."""
        ...

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
        """Sleep, wake, lock, unlock or limit ASICs by id or pattern; a FleetRow each.

        `by` is the name of the token that asks. Raises NotFound, Refused.
        """
        ...

    async def teach_fleet(
        self, findings: Mapping[str, Mapping[str, Any]], *, by: str, reason: str | None
    ) -> list[Mapping[str, Any]]:
        """Hand findings, by device, to the agents of the machines; a FleetRow each.

        `by` is the name of the token that asks. Raises NotFound.
        """
        ...

    async def learnt_device(self, device_id: str) -> Mapping[str, Any]:
        """Return a learnt_views.LearntView. Raises NotFound, Refused."""
        ...

    async def release_device(self, device_id: str) -> Mapping[str, Any]:
        """Bring a device to its safe point; returns a ReleaseView. Raises NotFound, Refused."""
        ...

    async def profile_device(
        self,
        device_id: str,
        *,
        start: bool,
        stop: bool = False,
        dry_run: bool = False,
        with_sleep: bool = False,
        points: int | None = None,
    ) -> Mapping[str, Any]:
        """Measure a power curve, or tell of it; a ProfileView. Raises NotFound, Refused.

        All but `start` is for ASICs: break it off, only plan it, put it to sleep too, how many
        points at most.
        """
        ...

    async def set_cap(
        self,
        limit_w: float,
        starts_s: float | None,
        ends_s: float | None,
        origin: str,
        strict: bool,
    ) -> Mapping[str, Any]:
        """Set a cap and return its CapView. With `strict`, Refused below the site's floor."""
        ...

    async def clear_cap(self, cap_id: str | None) -> None:
        """Lift one cap, or every operator cap. Raises NotFound."""
        ...

    async def inject_signal(self, signal: dict[str, Any]) -> Mapping[str, Any]:
        """Take a grid event as if a feed had sent it, and return it as accepted."""
        ...

    def subscribe(self, last_id: int | None) -> AsyncIterator[Event]:
        """Yield (id, event, data) after `last_id`, or from now on; ids grow."""
        ...
