"""Who holds how much: fair shares of the watts between tenants, quotas, and what is borrowed.

A tenant's fair share is its part, by weight, of the watts that compute can have, among the tenants
that want to run. A quota is a promise as well as a bound: what a tenant uses beyond it is borrowed,
and goes back when the tenant to whom it belongs asks for its own.
"""

import math
from collections.abc import Iterable, Mapping

from wattshift_scheduler.jobs import Job, Rule
from wattshift_scheduler.site import Tenant

EPS_W = 1e-6
"""Watts (or GPUs) below which two sums count as equal."""


class Shares:
    """What every tenant's jobs hold in one division; it changes as units are placed and taken.

    `changes` counts how often it has.
    """

    def __init__(
        self,
        tenants: Iterable[Tenant],
        names: Iterable[str],
        wanting: Iterable[str],
        total_w: float,
    ) -> None:
        """Begin with nothing held.

        Args:
            tenants: those that the site names; any other has weight 1 and no quota.
            names: names of all tenants that have a job.
            wanting: those of them that have a job that wants to run.
            total_w: watts that compute can have, W.
        """
        named = {tenant.name: tenant for tenant in tenants}
        self._tenants: Mapping[str, Tenant] = {**{n: Tenant(n) for n in names}, **named}
        names = sorted({*wanting})
        weights = {name: self._tenants[name].weight for name in names}
        total = math.fsum(weights.values()) or 1.0
        self.share_w = {name: max(total_w, 0.0) * w / total for name, w in weights.items()}
        self._part_pct = {name: 100.0 * w / total for name, w in weights.items()}
        self.used_w = dict.fromkeys(self._tenants, 0.0)
        self.used_gpus = dict.fromkeys(self._tenants, 0.0)
        self.shared = len(names) > 1
        self.changes = 0

    def add(self, name: str, watts_w: float, gpus: float) -> None:
        """Count what a tenant's units hold, or with negative figures give it back."""
        self.changes += 1
        self.used_w[name] += watts_w
        self.used_gpus[name] += gpus

    def above(self, name: str) -> bool:
        """Whether a tenant holds its fair share of the watts, or more."""
        return self.shared and self.used_w[name] >= self.share_w.get(name, 0.0) - EPS_W

    def part_pct(self, name: str) -> float:
        """A tenant's fair share of all watts that compute can have, %."""
        return self._part_pct.get(name, 0.0)

    def filled(self, name: str) -> float:
        """How much of its fair share a tenant holds, 1 for all of it."""
        share_w = self.share_w.get(name, 0.0)
        return self.used_w[name] / share_w if share_w > 0 else math.inf

    def beyond(self, name: str) -> float:
        """How far a tenant is beyond its fair share: 0 below it, else how often it fills it."""
        return max(self.filled(name), 1.0) if self.above(name) else 0.0

    def over(self, name: str) -> bool:
        """Whether a tenant holds more than its quota, so that it borrows."""
        tenant = self._tenants[name]
        return (
            self.used_w[name] > tenant.quota_w + EPS_W
            or self.used_gpus[name] > tenant.quota_gpus + EPS_W
        )

    def exceeds(self, job: Job, units: int = 1) -> Rule | None:
        """The quota that so many more units of a job would exceed; None if they stay within it."""
        tenant = self._tenants[job.terms.tenant]
        name = tenant.name
        if self.used_w[name] + units * job.unit_w > tenant.quota_w + EPS_W:
            return Rule.QUOTA_WATTS
        if self.used_gpus[name] + units * job.terms.gpus > tenant.quota_gpus + EPS_W:
            return Rule.QUOTA_GPUS
        return None

    def ceiling(self, name: str) -> tuple[float, float]:
        """The watts and GPUs that a tenant may hold while it only swaps its own jobs: its quota,
        or what it has borrowed already."""
        tenant = self._tenants[name]
        return max(tenant.quota_w, self.used_w[name]), max(tenant.quota_gpus, self.used_gpus[name])

    def within(
        self,
        job: Job,
        ceiling: tuple[float, float],
        units: int,
        less_w: float = 0.0,
        less_gpus: float = 0.0,
    ) -> bool:
        """Whether so many more units of a job stay within a ceiling, others with so much less."""
        terms = job.terms
        used_w = self.used_w[terms.tenant] - less_w + units * job.unit_w
        used_gpus = self.used_gpus[terms.tenant] - less_gpus + units * terms.gpus
        return used_w <= ceiling[0] + EPS_W and used_gpus <= ceiling[1] + EPS_W

    def quota(self, name: str, rule: Rule) -> float:
        """The quota that a rule speaks of: W, or GPUs."""
        tenant = self._tenants[name]
        return tenant.quota_gpus if rule is Rule.QUOTA_GPUS else tenant.quota_w

    def used(self, name: str, rule: Rule) -> float:
        """What a tenant holds of what a rule speaks of: W, or GPUs."""
        return self.used_gpus[name] if rule is Rule.QUOTA_GPUS else self.used_w[name]

    def borrows(self, name: str) -> bool:
        """Whether a tenant may use idle watts and GPUs beyond its quota."""
        return self._tenants[name].borrows

    def owns(self, name: str) -> bool:
        """Whether a tenant has a quota that is its own to ask back."""
        tenant = self._tenants[name]
        return math.isfinite(tenant.quota_w) or math.isfinite(tenant.quota_gpus)
