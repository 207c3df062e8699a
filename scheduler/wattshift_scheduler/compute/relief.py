"""Power limits of units: what they take off a node's bound, and when they may be changed.

A unit under a confirmed power limit cannot draw what it holds of `power_w`; the difference is the
node's relief. Lowering frees watts only when it is confirmed. Raising takes the relief away first,
and only where there is room for it (I1); the limit follows.
"""

import math
from collections.abc import Callable, Mapping, MutableMapping, Set
from dataclasses import replace

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import ComputeCommand, LimitUnits
from wattshift_scheduler.compute.placement import Placement
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.state import Limited, NodePower, State

AGAIN_S = 10.0
"""Before a limit that failed, or that does not hold for every unit, is asked for again."""

SHELVED_S = 300.0
"""How long a job's power steps stay out of use when a limit was refused: whoever plans with a limit
that nobody can set leaves the site above its cap."""

ROUNDING_W = 1e-6

Number = Callable[[str, str], int]


def subject(node: str, job: str) -> str:
    """What a limit command is about, beside the job's own commands."""
    return f"{node}/{job}"


def settled(state: State) -> State:
    """The state with every node's relief worked out anew from its confirmed limits."""
    nodes = {name: _settled(node, name, state.jobs) for name, node in state.nodes.items()}
    if all(nodes[name] is node for name, node in state.nodes.items()):
        return state
    return replace(state, nodes=nodes)


def _settled(node: NodePower, name: str, jobs: Mapping[str, Job]) -> NodePower:
    relief_w = math.fsum(
        _relief_w(limited, jobs[job], name) for job, limited in node.limits.items() if job in jobs
    )
    return node if relief_w == node.relief_w else replace(node, relief_w=relief_w)


def _relief_w(limited: Limited, job: Job, node: str) -> float:
    """What a confirmed limit takes off: only for units that it was confirmed for and still are."""
    if math.isnan(limited.enforced_w):
        return 0.0
    units = min(limited.covers, there(job, node))
    return max(job.unit_w - limited.enforced_w, 0.0) * units


def there(job: Job, node: str) -> int:
    """Units of a job that hold watts on a node, as reported; as asked for where none reports."""
    return (job.nodes if job.by_node is None else job.by_node).get(node, 0)


def ended(state: State, event: ev.CommandEnded, *, first: bool, now_s: float) -> State:
    """Fold in the end of a limit command; anything else leaves the state as it is.

    A limit that was confirmed may end a second time, not ok: it is no longer in force everywhere.
    One that was taken and of which nothing was read back is not confirmed (shadow mode ends so).

    Args:
        first: the command was still waiting for its end.
    """
    if event.ok and not first:
        return state  # an answer that came twice: what has ended since then stays ended
    for name, node in state.nodes.items():
        for job, limited in node.limits.items():
            if limited.command == event.command:
                limits = {**node.limits, job: _answered(limited, event, first, now_s)}
                if event.ok and limited.asked_w is None:
                    del limits[job]
                nodes = {**state.nodes, name: replace(node, limits=limits)}
                state = replace(state, nodes=nodes)
                return settled(state if event.ok else _shelved(state, job, now_s))
    return state


def _answered(limited: Limited, event: ev.CommandEnded, first: bool, now_s: float) -> Limited:
    if event.ok and event.watts_w is not None:
        return replace(limited, enforced_w=event.watts_w, covers=limited.units)
    if first:
        # Whatever became of the write, what was confirmed before it was not raised by it.
        return replace(limited, asked_s=now_s)
    return replace(limited, enforced_w=math.nan, covers=0, asked_s=now_s)


def _shelved(state: State, name: str, now_s: float) -> State:
    job = state.jobs.get(name)
    if job is None or job.state.final or not job.terms.steps:
        return state
    terms = replace(job.terms, steps=())
    shelved = job.changed(terms=terms, shelved=job.terms.steps, shelved_s=now_s)
    return replace(state, jobs={**state.jobs, name: shelved})


def unshelved(job: Job, now_s: float) -> Job:
    """The job with its power steps in use again when they have been out of it for long enough."""
    if not job.shelved or now_s - job.shelved_s < SHELVED_S:
        return job
    return job.changed(terms=replace(job.terms, steps=job.shelved), shelved=())


def ask(
    state: State,
    placement: Placement,
    left: Set[str],
    left_w: MutableMapping[str, float],
    number: Number,
    now_s: float,
) -> tuple[Mapping[str, NodePower], list[ComputeCommand]]:
    """Commands that bring limits to what is placed, and the nodes with what they change.

    Args:
        state: after the jobs' own commands.
        placement: what should run, and under which limits.
        left: jobs that had a limit at the last decision and should have none now. Of a limit that
            was set before a restart nothing else is known.
        left_w: watts by which each node's bound may still rise, W; what is used of it is taken.
        number: makes a command's id.
        now_s: our clock, s.
    """
    wanted = {one.job.id: one.unit_limit_w for one in placement.placed}
    nodes, commands = dict(state.nodes), list[ComputeCommand]()
    known = {job for node in state.nodes.values() for job in node.limits}
    limited = {job for job, limit_w in wanted.items() if limit_w is not None} | (left - known)
    for name, node in state.nodes.items():
        for job in sorted(limited | node.limits.keys()) if node.up else ():
            if job not in state.jobs:
                continue
            before = node.limits.get(job)
            units = there(state.jobs[job], name)
            limit_w = wanted.get(job) if units else None
            waiting = before is not None and before.command in state.sent
            lifts = before is None and job in left and units > 0
            if waiting or not (lifts or _due(before, limit_w, units, now_s)):
                continue
            if not _room(nodes[name], name, state.jobs[job], limit_w, left_w):
                continue
            command = number("limit_units", subject(name, job))
            commands.append(LimitUnits(command, name, job, limit_w))
            nodes[name] = _asked(nodes[name], name, job, limit_w, command, state, now_s)
    return nodes, commands


def _due(limited: Limited | None, limit_w: float | None, units: int, now_s: float) -> bool:
    """Whether a limit has to be asked for."""
    if limited is None:
        return limit_w is not None
    if limited.asked_w != limit_w:
        return True
    holds = not math.isnan(limited.enforced_w) and limited.covers >= units
    return not holds and now_s - limited.asked_s >= AGAIN_S


def _raises(limited: Limited | None, limit_w: float | None) -> bool:
    if limited is None or math.isnan(limited.enforced_w):
        return False
    return limit_w is None or limit_w > limited.enforced_w + ROUNDING_W


def _room(
    node: NodePower, name: str, job: Job, limit_w: float | None, left_w: MutableMapping[str, float]
) -> bool:
    """Whether the limit may be asked for now; takes the room that it needs.

    A raise passes through no limit at all (an agent raises a card's limit by giving its first one
    back), so it needs room for the whole relief.
    """
    limited = node.limits.get(job.id)
    if limited is None or not _raises(limited, limit_w):
        return True
    need_w = _relief_w(limited, job, name)
    if need_w > left_w.get(name, 0.0) + ROUNDING_W:
        return False
    left_w[name] = left_w.get(name, 0.0) - need_w
    return True


def _asked(
    node: NodePower,
    name: str,
    job: str,
    limit_w: float | None,
    command: int,
    state: State,
    now_s: float,
) -> NodePower:
    before = node.limits.get(job)
    new = Limited(command, limit_w, now_s, there(state.jobs[job], name))
    if before is not None and not _raises(before, limit_w):
        new = replace(new, enforced_w=before.enforced_w, covers=before.covers)
    return _settled(replace(node, limits={**node.limits, job: new}), name, state.jobs)
