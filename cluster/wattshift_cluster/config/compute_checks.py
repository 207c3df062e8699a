"""What no single value of `[compute]`, its nodes and the services on them can tell."""

from __future__ import annotations

from collections.abc import Iterator

from wattshift_cluster.config.compute import Compute, ComputeNode
from wattshift_cluster.config.draft import Draft, Finding, duplicates
from wattshift_cluster.config.quantities import format_watts
from wattshift_cluster.config.site import Feeder, Service


def places(draft: Draft) -> list[tuple[str, ComputeNode]]:
    """Path and node of every compute node; a `[compute]` without a feeder or watts has none."""
    found: list[tuple[str, ComputeNode]] = []
    for path, compute in draft.all(Compute):
        if compute.stated_nodes:
            rows = enumerate(compute.stated_nodes)
            found += [(f"{path}.nodes[{at}]", node) for at, node in rows]
        elif compute.feeder is not None and compute.stated_max_w is not None:
            found.append((path, compute.nodes[0]))
    return found


def one_form(draft: Draft) -> Iterator[Finding]:
    """Nodes in a list, or one node in the section itself, and not half of each."""
    for path, compute in draft.all(Compute):
        own = {
            "feeder": compute.feeder,
            "max": compute.stated_max_w,
            "idle": compute.stated_idle_w,
        }
        if compute.stated_nodes:
            for key, value in own.items():
                if value is not None:
                    shown = value if isinstance(value, str) else format_watts(value)
                    yield f"{path}.{key}", shown, "given per node already, in [[compute.nodes]]"
            continue
        for key in ("feeder", "max"):
            if own[key] is None:
                yield f"{path}.{key}", None, "missing; or list the nodes as [[compute.nodes]]"


def unique_nodes(draft: Draft) -> Iterator[Finding]:
    """Nodes are told apart by name, and so are tenants."""
    yield from duplicates(draft.names("compute.nodes"), "compute.nodes", "name")
    yield from duplicates(draft.names("tenants"), "tenants", "name")


def node_range(draft: Draft) -> Iterator[Finding]:
    """A node rests below its most, and its most lies below what its own feeder carries."""
    limits_w = {
        feeder.name: feeder.limit_w
        for _, feeder in draft.all(Feeder)
        if feeder.stated_limit_w is not None or feeder.amps_a is not None
    }
    for path, node in places(draft):
        if 0 < node.max_w < node.idle_w:
            most = format_watts(node.max_w)
            yield f"{path}.idle", format_watts(node.idle_w), f"above max; allowed: 0W to {most}"
        limit_w = limits_w.get(node.feeder, node.max_w)
        if node.max_w > limit_w:
            told = f"more than its feeder {node.feeder} carries; allowed: at most "
            yield f"{path}.max", format_watts(node.max_w), told + format_watts(limit_w)


def services_fit(draft: Draft) -> Iterator[Finding]:
    """The least replicas of all services fit on the nodes, each on one that can hold it."""
    if "compute" not in draft.raw:
        for at, _ in enumerate(draft.names("services")):
            yield f"services[{at}]", None, "needs a [compute] section: a service runs on Ray"
        return
    nodes = [node for _, node in places(draft)]
    most_w = sum(node.max_w for node in nodes)
    least_w = 0.0
    scattered: list[Finding] = []
    for path, service in draft.all(Service):
        least, unit_w = service.min_replicas, service.watts_per_replica_w
        if least > service.max_replicas:
            allowed = f"allowed: 0 to {service.max_replicas}"
            yield f"{path}.min_replicas", least, f"above max_replicas; {allowed}"
        least_w += least * unit_w
        held = sum(int((node.max_w + 1e-6) // unit_w) for node in nodes)
        if held < least:
            told = f"the nodes hold {held} replicas of {format_watts(unit_w)} at most"
            scattered.append((f"{path}.min_replicas", least, told))
    if nodes and least_w > most_w:
        listed = any(compute.stated_nodes for _, compute in draft.all(Compute))
        yield (
            "compute.nodes" if listed else "compute.max",
            None if listed else format_watts(most_w),
            f"below the services' least replicas; allowed: at least {format_watts(least_w)}",
        )
    elif nodes:
        yield from scattered


CHECKS = (one_form, unique_nodes, node_range, services_fit)
