"""Nodes that an operator vouches are switched off.

What a lost node was granted goes on counting, for nobody knows what it draws (I3). A person can
know: they have seen that the machine is off. From their word on it counts nothing, and when Ray
answers there again, nothing is known of it, as at the start.
"""

import math
from dataclasses import replace

from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.jobs import Job
from wattshift_scheduler.site import Site
from wattshift_scheduler.state import NodePower, State

FORGET_AFTER_S = 60.0
"""Silence before a node can be forgotten: a raylet that has lost Ray's control store goes on for so
long (measured with 2.60.0), and a network that flaps is back by then."""

Reduced = tuple[State, tuple[Decision, ...]]


def names(state: State) -> frozenset[str]:
    """The nodes that are forgotten now."""
    return frozenset(name for name, node in state.nodes.items() if node.forgotten)


def refusal(node: NodePower, now_s: float) -> str | None:
    """Why a node cannot be forgotten now, in words; None if it can."""
    if node.forgotten:
        return "it is forgotten already"
    if node.up:
        return "Ray answers there, so it is not off; drain it if it shall leave"
    silent_s = now_s - node.down_s
    if not silent_s >= FORGET_AFTER_S:
        since = "not known to be silent" if math.isnan(silent_s) else f"silent for {silent_s:.0f} s"
        return (
            f"it is {since}; allowed: after {FORGET_AFTER_S:.0f} s without an answer of Ray there"
        )
    return None


def forgotten(state: State, event: ev.NodeForgotten, now_s: float) -> Reduced:
    """Take an operator's word: the node holds nothing, and no unit of any job."""
    node = state.nodes.get(event.node)
    if node is None or node.up or node.forgotten:
        return state, ()
    gone = NodePower(granted_w=0.0, down_s=node.down_s, forgotten=True)
    jobs = {name: _without(job, event.node) for name, job in state.jobs.items()}
    state = replace(state, nodes={**state.nodes, event.node: gone}, jobs=jobs)
    words = (
        f"by {event.by}, who vouches that the machine is off: {node.bound_w:,.0f} W are free again;"
        " it counts anew as soon as Ray answers there"
    )
    return state, (Decision(now_s, event.node, "forget", words, {"freed_w": node.bound_w}),)


def _without(job: Job, node: str) -> Job:
    if job.state.final or not job.by_node or node not in job.by_node:
        return job
    return replace(job, by_node={name: n for name, n in job.by_node.items() if name != node})


def met(node: NodePower, event: ev.ComputeSeen, site: Site, now_s: float) -> NodePower:
    """The node before what is told of it is folded in: new if it was forgotten and is back.

    Args:
        node: as it is known.
        event: what is told of it.
        site: says what the node may hold at most.
        now_s: our clock, s.
    """
    if event.up:
        if node.forgotten:
            most_w = next(one.max_w for one in site.nodes if one.name == event.node)
            return NodePower(granted_w=most_w)
        return node if math.isnan(node.down_s) else replace(node, down_s=math.nan)
    return replace(node, down_s=now_s) if math.isnan(node.down_s) else node
