"""The sessions that a site file asks for: one for each agent, and the compute bridge's."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.agent_session import AgentSession
from wattshift_cluster.controller.bridge_session import BridgeSession
from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.refusals import Refusals
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.controller.unseen import Unseen
from wattshift_cluster.wire.link import Link
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import State

EXCHANGE_S = 2.0
BRIDGE_S = 3.0

ASK_S = 5.0
"""For an operator's ask: an agent may need two deadlines of a card's driver, of 1 s each."""

ACTIVE = (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING, JobState.STARTING)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The shared secrets of the wire: one per agent, by name, and the compute bridge's."""

    agents: Mapping[str, bytes]
    compute: bytes | None


@dataclass(frozen=True, slots=True)
class ToBridge:
    """The bridge's session, and a link for what a person asks of it meanwhile."""

    session: BridgeSession
    asking: Link
    """The session's own links are busy for as long as the bridge has no news."""


def agent_sessions(
    config: SiteConfig,
    tokens: Tokens,
    inbox: Inbox,
    roster: Roster,
    clock: Clock,
    keep: Callable[[Iterable[Device]], None],
    heard: Callable[[str, Mapping[str, Any], float], None],
    refusals: Refusals,
    unseen: Unseen,
) -> dict[str, AgentSession]:
    """One session for each agent of the site file; see AgentSession for the last four."""
    made = {}
    for ref in config.agents:
        token = tokens.agents[ref.name]
        made[ref.name] = AgentSession(
            ref,
            _link(ref.address, token, EXCHANGE_S),
            inbox,
            roster,
            clock,
            config.site.tick_s,
            keep,
            _link(ref.address, token, ASK_S),
            heard,
            refusals,
            unseen,
        )
    return made


def to_bridge(
    config: SiteConfig,
    tokens: Tokens,
    inbox: Inbox,
    nodes: Iterable[str],
    active: Callable[[], Mapping[str, str]],
    epoch: int,
) -> ToBridge | None:
    """The way to the compute bridge; None for a site without compute. See BridgeSession."""
    compute = config.compute
    if compute is None:
        return None
    assert tokens.compute is not None, "a site with compute has a token for it"
    links = (
        _link(compute.bridge, tokens.compute, BRIDGE_S),
        _link(compute.bridge, tokens.compute, BRIDGE_S),
    )
    period_s = config.site.tick_s
    session = BridgeSession(compute.name, nodes, links, inbox, active, period_s, epoch)
    return ToBridge(session, _link(compute.bridge, tokens.compute, ASK_S))


def active_jobs(state: State) -> dict[str, str]:
    """Jobs that the compute bridge must know, because it was told to run them, with their kind."""
    return {
        job.id: job.kind.value
        for job in state.jobs.values()
        if job.state in ACTIVE and job.kind is not JobKind.MINING and job.units
    }


def _link(address: str, token: bytes, deadline_s: float) -> Link:
    host, port = address.rsplit(":", 1)
    return Link(host, int(port), token, deadline_s=deadline_s)
