"""An independent eye on the core: what DESIGN §4 forbids, looked for in states and in the world.

It trusts nothing that it can work out again: committed watts are summed anew, device by device, and
ceilings are held against what the modelled devices could really draw.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.commands import Command, GrantLeases
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.state import State

EPSILON_W = 1e-3

SENSOR_SHARE = 0.02
"""How far one noisy sample may be from the truth: a ceiling proven by it may be too low by that."""


def ceilings(state: State, now_s: float) -> dict[str, float]:
    """The most that each device may draw by DESIGN §4's definition, in plain loops, W."""
    ledger, seen, fleet = state.ledger, state.seen, state.fleet
    stale_s = state.site.rules.stale_after_s
    rows = zip(
        fleet.devices,
        ledger.held_until_s.tolist(),
        ledger.held_w.tolist(),
        ledger.bound_w.tolist(),
        ledger.point.tolist(),
        ledger.lease_w.tolist(),
        seen.at_s.tolist(),
        seen.watts_w.tolist(),
        seen.foreign.tolist(),
        seen.failed.tolist(),
        strict=True,
    )
    found: dict[str, float] = {}
    for device, until_s, held_w, proven_w, point, lease_w, at_s, watts_w, foreign, failed in rows:
        if device.fenced:
            found[device.id] = held_w if now_s < until_s else device.safe_w
            continue
        most_w = proven_w
        if point >= 0:
            most_w = max(most_w, lease_w)
        old = now_s - at_s > stale_s
        if foreign or (failed and old):
            most_w = max(most_w, device.nameplate_w * (1.0 + device.tolerance))
        if not old and not math.isnan(watts_w):
            most_w = max(most_w, watts_w)
        found[device.id] = most_w
    return found


def bound_w(state: State, name: str) -> float:
    """The most that Ray work on a node may draw: what was granted or asked for, less what limits
    that were confirmed hold back of the units that are still there, W."""
    node = state.nodes[name]
    most_w = node.granted_w if np.isnan(node.asked_w) else max(node.granted_w, node.asked_w)
    for job, limited in node.limits.items():
        if np.isnan(limited.enforced_w) or job not in state.jobs:
            continue
        one = state.jobs[job]
        units = (one.nodes if one.by_node is None else one.by_node).get(name, 0)
        most_w -= max(one.unit_w - limited.enforced_w, 0.0) * min(limited.covers, units)
    return max(most_w, 0.0)


def committed_w(state: State, now_s: float) -> Floats:
    """Ceilings, compute and other load, summed up the tree anew, W; shape (feeders,)."""
    tree, site = state.site.tree, state.site
    own_w = np.zeros(len(tree.names))
    own_w[0] = site.rules.other_load_w
    for node in site.nodes:
        power = state.nodes[node.name]
        own_w[tree.index[node.feeder]] += bound_w(state, node.name)
        own_w[tree.index[node.feeder]] += np.nansum((power.unasked_w, power.system_w))
    most_w = ceilings(state, now_s)
    # Where a device's own feeder does not carry its host's node, nothing of the node counts there.
    path = {node.name: set(tree.path(tree.index[node.feeder])) for node in site.nodes}
    overlap = {
        one.id
        for one in state.fleet.devices
        if one.fenced and one.host in path and tree.index[one.feeder] in path[one.host]
    }
    beside = Counter(one.host for one in state.fleet.devices if one.id in overlap)
    for device in state.fleet.devices:
        credit_w = 0.0
        if device.id in overlap:
            credit_w = bound_w(state, str(device.host)) / beside[device.host]
        own_w[tree.index[device.feeder]] += max(most_w[device.id] - credit_w, 0.0)
    return tree.totals(own_w)


def over_committed(before: State, after: State, now_s: float) -> Iterator[str]:
    """I1: a decision never raises the committed watts of a feeder above its limit less margin."""
    tree, rules = before.site.tree, before.site.rules
    assert after.verdict is not None, "a decision leaves its verdict behind"
    limit_w = np.array(tree.limit_w)
    limit_w[0] = min(limit_w[0], after.verdict.cap_w)
    limit_w *= 1.0 - tree.shares(rules.margin_share)
    was_w, is_w = committed_w(before, now_s), committed_w(after, now_s)
    for i in np.flatnonzero(is_w > np.maximum(limit_w, was_w) + EPSILON_W):
        yield (
            f"I1 {tree.names[i]}: {was_w[i]:.1f} W to {is_w[i]:.1f} W committed, "
            f"{limit_w[i]:.1f} W allowed"
        )


def unsound(state: State, world: World, now_s: float) -> Iterator[str]:
    """I3: no device can draw more than the controller counts it at, whatever has been lost."""
    counted_w = ceilings(state, now_s)
    for name, one in world.devices.items():
        if one.foreign or name not in counted_w:
            continue
        # A gate that has just taken a lower lease closes within one launch, a few milliseconds.
        could_w = one.goal_w if one.device.fenced else max(one.watts_w, one.goal_w)
        if could_w > counted_w[name] * (1.0 + SENSOR_SHARE) + EPSILON_W:
            yield f"I3 {name}: could draw {could_w:.1f} W, counted at {counted_w[name]:.1f} W"


def lowered_blindly(before: State, after: State, event: ev.Event, now_s: float) -> Iterator[str]:
    """I3: a reading that knows neither watts nor hashrate lowers no ceiling of its device."""
    if not isinstance(event, ev.Readings):
        return
    blind = np.isnan(event.watts_w) & np.isnan(event.hashrate_h_per_s)
    if not blind.any():
        return
    was_w, is_w = ceilings(before, now_s), ceilings(after, now_s)
    for row in np.flatnonzero(blind):
        name = event.devices[row]
        column = before.fleet.index.get(name, -1)
        # A gate is bounded by its agent's lease, not by its sensor; and watts that a fresh sample
        # showed above the bound are kept by the bound, so only that may change hands.
        if column < 0 or before.fleet.fenced[column]:
            continue
        if is_w[name] < was_w[name] - EPSILON_W:
            yield f"I3 {name}: nothing known, yet {was_w[name]:.1f} W became {is_w[name]:.1f} W"


def misnumbered(
    state: State, commands: Sequence[Command], last: dict[str, tuple[int, int]]
) -> Iterator[str]:
    """I6: every lease carries the epoch, the agent's boot, and a sequence higher than any before.

    Args:
        state: after the decision.
        commands: of the decision.
        last: epoch and sequence last seen of each device; updated.
    """
    for command in commands:
        if not isinstance(command, GrantLeases):
            continue
        if command.epoch != state.epoch or command.boot_id != state.agents[command.agent].boot_id:
            yield f"I6 command {command.id}: epoch {command.epoch}, boot {command.boot_id}"
        for device, sequence in zip(command.devices, command.sequence, strict=True):
            stamp = (command.epoch, int(sequence))
            if stamp <= last.get(device, (0, 0)):
                yield f"I6 {device}: {stamp} after {last[device]}"
            last[device] = stamp


def unexplained(before: State, after: State, told: Sequence[AnyDecision]) -> Iterator[str]:
    """I7: every change of a lease, a job's verdict or the cap has a decision with its inputs."""
    moved = {name for one in told if isinstance(one, Moves) for name in one.devices}
    spoken = {one.subject: one for one in told if isinstance(one, Decision)}
    was_w, now_w = before.ledger.lease_w.tolist(), after.ledger.lease_w.tolist()
    for i, device in enumerate(after.fleet.devices):
        same = was_w[i] == now_w[i] or math.isnan(now_w[i])
        if not same and device.id not in moved:
            yield f"I7 {device.id}: its lease changed and nothing says why"
    for name, job in after.jobs.items():
        was_job = before.jobs[name]
        same = (was_job.admission, was_job.units) == (job.admission, job.units)
        if not same and name not in spoken:
            yield f"I7 {name}: its verdict changed and nothing says why"
    if before.verdict != after.verdict and "cap_w" not in _inputs(spoken, "site"):
        yield "I7 site: the cap changed and nothing says why"
    yield from _hollow(told)


def _inputs(spoken: dict[str, Decision], subject: str) -> set[str]:
    return set(spoken[subject].inputs) if subject in spoken else set()


def _hollow(told: Sequence[AnyDecision]) -> Iterator[str]:
    """Moves whose rows do not say from what, to what, under which cap and at which price."""
    needed = {"cap_w", "cap_origin", "price_usd_per_mwh", "from_w", "to_w", "mode"}
    for one in told:
        if not isinstance(one, Moves):
            continue
        rows = list(one.rows())
        if [row.subject for row in rows] != list(one.devices):
            yield "I7 moves: rows and devices differ"
        for row in rows:
            if not needed <= set(row.inputs) or not row.reason:
                yield f"I7 {row.subject}: explained without {needed - set(row.inputs)}"
