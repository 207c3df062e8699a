"""What is odd about a valid site file: it runs, but hardly as its owner meant.

Advice is told by `wattshift config check` and never stops anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from wattshift_cluster.config.agent_advice import advice_agents, agent_of
from wattshift_cluster.config.compute import Compute
from wattshift_cluster.config.fields import is_private, split_address
from wattshift_cluster.config.quantities import format_watts
from wattshift_cluster.config.site import SiteConfig


def advice(config: SiteConfig) -> list[str]:
    """Return a sentence for everything odd in a valid site file.

    The agents' files are read where the site file names them, for their devices and the hosts of
    these.
    """
    compute, found = config.compute, [*_open_ports(config), *advice_agents(config)]
    if compute is None:
        shares = ["[[tenants]] share compute, and the site has none"] if config.tenants else []
        return found + shares
    found += [*_quotas(config, compute), *_crowded(config, compute)]
    if compute.gcs_storage is not None and compute.ray_address != "local":
        found.append("compute.gcs_storage is for a Ray of our own: a cluster keeps its own store")
    return found + (list(_hosts(config, compute)) if compute.gated_by_host else [])


def _open_ports(config: SiteConfig) -> Iterator[str]:
    """Modbus knows no login: whoever reaches the port from a peer's address sets the cap."""
    modbus = None if config.utility is None else config.utility.modbus
    if modbus is not None and not is_private(split_address(modbus.listen)[0]):
        yield (
            f"utility.modbus.listen is {modbus.listen}, which others may reach, and Modbus knows "
            "no login: a network or a tunnel of its own is safer"
        )


def _quotas(config: SiteConfig, compute: Compute) -> Iterator[str]:
    """A quota that the site can never give is no quota, and all of them may still be too much."""
    quotas_w = {one.name: one.quota_w for one in config.tenants if one.quota_w is not None}
    most_w = min(compute.max_w, config.root.limit_w)
    for name, quota_w in quotas_w.items():
        if quota_w > most_w:
            yield (
                f"tenant {name}: its quota of {format_watts(quota_w)} is more than the "
                f"{format_watts(most_w)} that the site has for compute"
            )
    sum_w = math.fsum(quotas_w.values())
    if len(quotas_w) > 1 and sum_w > most_w:
        yield (
            f"the tenants' quotas come to {format_watts(sum_w)}, the site has "
            f"{format_watts(most_w)} for compute: not all of them can have theirs at once"
        )
    gpus = math.fsum(node.gpus for node in compute.nodes)
    for one in config.tenants:
        quota = one.quota_gpus
        if quota is not None and 0 < gpus < quota:
            yield f"tenant {one.name}: its quota of {quota:g} GPUs; the nodes have {gpus:g}"


def _crowded(config: SiteConfig, compute: Compute) -> Iterator[str]:
    """More nodes on a feeder than it carries: they share it, which is sound but may surprise."""
    for feeder in config.feeders:
        sum_w = math.fsum(node.max_w for node in compute.nodes if node.feeder == feeder.name)
        if sum_w > feeder.limit_w:
            yield (
                f"feeder {feeder.name} carries {format_watts(feeder.limit_w)}, the nodes on it may "
                f"ask for {format_watts(sum_w)}: they share it"
            )


def _hosts(config: SiteConfig, compute: Compute) -> Iterator[str]:
    """A host that is no node: its miners would be counted on top of Ray's work there."""
    names = {node.name for node in compute.nodes}
    for ref in config.agents:
        agent = agent_of(ref)
        if agent is None:
            continue
        host = agent.agent.host
        if host is not None and host not in names and agent.hashing.devices != "none":
            yield (
                f"agent {ref.name}: its devices say host = {host}, which is no compute node "
                f"({', '.join(sorted(names))}): they do not yield to Ray's work by gates"
            )
