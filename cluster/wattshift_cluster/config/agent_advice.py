"""What is odd about agents' files, alone and beside the site file that names them.

Each of them may be valid and the site still lack what its owner meant: a file with a fault stops
`up`, and of two devices of one id the second is refused when it joins.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.config.site import AgentRef, SiteConfig
from wattshift_cluster.errors import ConfigInvalid

NAMED = 5
"""Machines named in one note; the rest are counted."""


def advice_agent(config: AgentConfig) -> list[str]:
    """Return a sentence for everything odd in a valid agent file."""
    if config.hashing.devices == "none" and not config.asics:
        return ["the agent has no device: hashing.devices is none and there is no [[asics]]"]
    return list(_unrated(config))


def _unrated(config: AgentConfig) -> Iterator[str]:
    """Machines that nobody counts before they have answered; an emulated one draws nothing."""
    names = [one.id for one in config.asics if one.nameplate_w is None and not one.emulated]
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield (
            f"without a nameplate: {', '.join(names[:NAMED])}{more}: until it has answered it "
            'counts nothing, whatever it draws (set nameplate, as "3500W", in its [[asics]])'
        )


def advice_agents(config: SiteConfig) -> Iterator[str]:
    """A sentence for everything odd about the agents of a valid site file.

    Devices join through the agents that it names, and work through its compute: without either
    nothing ever joins. That is no fault, because a site may be metered before it is run.
    """
    if not config.agents and config.compute is None:
        yield "the site has no [[agents]] and no [compute]: it meters, and commands nothing"
    owners: dict[str, str] = {}
    for ref in config.agents:
        agent = agent_of(ref)
        if agent is None:
            if ref.config is not None:
                told = f"its file has faults; see wattshift config check {ref.config}"
                yield f"agent {ref.name}: {told}"
            continue
        yield from (f"agent {ref.name}: {sentence}" for sentence in advice_agent(agent))
        yield from _given_before(ref, agent, owners)


def agent_of(ref: AgentRef) -> AgentConfig | None:
    """The agent's file where the site file names it and it is valid; else None."""
    if ref.config is None:
        return None
    try:
        return load_agent(ref.config)
    except ConfigInvalid:
        return None


def _given_before(ref: AgentRef, agent: AgentConfig, owners: dict[str, str]) -> Iterator[str]:
    """ASICs of which another agent has one of the same id; `owners` is filled by id."""
    for asic in agent.asics:
        if not any(fnmatchcase(asic.id, pattern) for pattern in ref.devices):
            continue
        owner = owners.setdefault(asic.id, ref.name)
        if owner != ref.name:
            yield f"agent {ref.name}: {asic.id} is a device of agent {owner}, too: one is refused"
