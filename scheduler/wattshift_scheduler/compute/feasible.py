"""Whether a job could ever run at this site, with nothing else on it; if not, it is refused.

Only what the site file fixes can refuse: feeders, nodes' watts, hard quotas, and labels and GPUs of
nodes that Ray has told of. A node that is down or was not seen yet is no reason.
"""

from dataclasses import dataclass

from wattshift_scheduler.compute.ground import (
    Asks,
    Ground,
    Selector,
    gpus_of,
    labels_of,
    path_of,
    suits,
)
from wattshift_scheduler.compute.tenants import EPS_W
from wattshift_scheduler.jobs import Admission, Job, Rule, Verdict
from wattshift_scheduler.site import FeederTree, Node

NAMED = 8
"""Values of a label that a refusal names; more would hide the message."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The most that one unit could ever have on a node, W, and what bounds it there."""

    node: Node
    watts_w: float
    rule: Rule
    bound_by: str
    path: tuple[int, ...]


class Feasible:
    """What an empty site could run; made once per division."""

    def __init__(self, ground: Ground) -> None:
        """Look at the site alone."""
        self._ground = ground
        self._reach = [_reach(ground, node) for node in ground.site.nodes]
        self._limit_w = [_limit_w(ground, i) for i in range(len(ground.site.tree.names))]
        self._hard = {t.name: t for t in ground.site.tenants if not t.borrows}
        self._suited: dict[Asks, list[Reach] | Verdict] = {}

    def refusal(self, job: Job) -> Verdict | None:
        """Why a job can never run here, with the nearest request that could; None if it may."""
        key = (job.terms.selector, job.terms.gpus)
        suited = self._suited.get(key)
        if suited is None:
            suited = self._suited[key] = self._suit(*key)
        if isinstance(suited, Verdict):
            return suited
        best = suited[0]
        if job.unit_w > best.watts_w + EPS_W:
            return _too_much(job, best)
        over = self._over_quota(job) if job.terms.tenant in self._hard else None
        return over or (self._gang(job, suited) if job.terms.gang else None)

    def _suit(self, selector: Selector, gpus: float) -> list[Reach] | Verdict:
        """The nodes that have the labels and the GPUs, most watts first, or why there is none."""
        powers = self._ground.powers
        labelled = [
            reach
            for reach in self._reach
            if powers[reach.node.name].labels is None
            or suits(selector, labels_of(reach.node, powers[reach.node.name]))
        ]
        if not labelled:
            return _no_label(self._ground, selector)
        able = [
            reach
            for reach in labelled
            if powers[reach.node.name].gpus is None
            or gpus_of(reach.node, powers[reach.node.name]) >= gpus - EPS_W
        ]
        if able:
            return sorted(able, key=lambda reach: -reach.watts_w)
        most = max(labelled, key=lambda reach: gpus_of(reach.node, powers[reach.node.name]))
        have = gpus_of(most.node, powers[most.node.name])
        words = (
            f"a unit needs {gpus:g} GPUs; the most that any node has is {have:g} ({most.node.name})"
        )
        return Verdict(Admission.DENY, Rule.NODE, words, most.node.name)

    def _over_quota(self, job: Job) -> Verdict | None:
        tenant = self._hard[job.terms.tenant]
        units = job.max_units if job.terms.gang else 1
        what = f"a gang of {units}" if units > 1 else "a unit"
        need_w, need_gpus = units * job.unit_w, units * job.terms.gpus
        if need_w > tenant.quota_w + EPS_W:
            words = f"{what} needs {need_w:,.0f} W; the quota of tenant {tenant.name} is "
            words += f"{tenant.quota_w:,.0f} W"
            return _deny(Rule.QUOTA_WATTS, words, tenant.name, need_w, tenant.quota_w)
        if need_gpus > tenant.quota_gpus + EPS_W:
            words = f"{what} needs {need_gpus:g} GPUs; the quota of tenant {tenant.name} is "
            words += f"{tenant.quota_gpus:g}"
            return Verdict(Admission.DENY, Rule.QUOTA_GPUS, words, tenant.name)
        return None

    def _gang(self, job: Job, suited: list[Reach]) -> Verdict | None:
        """A gang that not even an empty site could hold."""
        room_w = list(self._limit_w)
        held = 0
        for reach in suited:
            if held >= job.max_units:
                return None
            path = reach.path
            left_w = min(reach.node.max_w, *(room_w[feeder] for feeder in path))
            units = int((left_w + EPS_W) // job.unit_w) if job.unit_w else job.max_units
            power = self._ground.powers[reach.node.name]
            if job.terms.gpus and power.gpus is not None:
                gpus = gpus_of(reach.node, power)
                each = max(int((1.0 + EPS_W) / job.terms.gpus), 1)
                whole = int(gpus + EPS_W) * each if job.terms.gpus <= 1 else gpus // job.terms.gpus
                units = min(units, int(whole))
            units = min(units, job.max_units - held)
            for feeder in path:
                room_w[feeder] -= units * job.unit_w
            held += units
        if held >= job.max_units:
            return None
        words = f"a gang of {job.max_units} needs {job.max_units * job.unit_w:,.0f} W at once; "
        words += f"an empty site holds {held} of its units"
        return _deny(Rule.GANG, words, "", job.max_units * job.unit_w, held * job.unit_w)


def _deny(rule: Rule, words: str, bound_by: str, need_w: float, have_w: float) -> Verdict:
    return Verdict(Admission.DENY, rule, words, bound_by, need_w, have_w)


def _limit_w(ground: Ground, feeder: int) -> float:
    """What a feeder may carry with no cap in force: its limit less the margin and other load."""
    rules, tree = ground.site.rules, ground.site.tree
    limit_w = float(tree.usable_w(rules.margin_share)[feeder])
    return limit_w - (rules.other_load_w if feeder == 0 else 0.0)


def _reach(ground: Ground, node: Node) -> Reach:
    tree: FeederTree = ground.site.tree
    path = path_of(tree, node)
    feeder = min(path, key=lambda i: _limit_w(ground, i))
    limit_w = _limit_w(ground, feeder)
    if limit_w < node.max_w:
        return Reach(node, limit_w, Rule.FEEDER, tree.names[feeder], path)
    return Reach(node, node.max_w, Rule.NODE, node.name, path)


def _too_much(job: Job, best: Reach) -> Verdict:
    where = best.node.name
    if best.rule is Rule.FEEDER:
        where = f"{where}, behind feeder {best.bound_by}"
    words = f"a unit needs {job.unit_w:,.0f} W; "
    words += f"the most that any node has is {best.watts_w:,.0f} W ({where})"
    return _deny(best.rule, words, best.bound_by, job.unit_w, best.watts_w)


def _no_label(ground: Ground, selector: Selector) -> Verdict:
    """Name the label that no node has, and the values that there are."""
    known = [labels_of(node, ground.powers[node.name]) for node in ground.site.nodes]
    bad = next((one for one in selector if not any(suits((one,), k) for k in known)), None)
    if bad is None:
        asked = ", ".join(f"{key}={value}" for key, value in selector)
        words = f"no node has all of {asked} at once"
        return Verdict(Admission.DENY, Rule.NO_SUCH_NODE, words)
    key, value = bad
    there = sorted({labels[key] for labels in known if key in labels})
    more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
    have = f"there are {', '.join(there[:NAMED])}{more}" if there else "no node has that label"
    words = f"no node has {key}={value}; {have}"
    return Verdict(Admission.DENY, Rule.NO_SUCH_NODE, words)
