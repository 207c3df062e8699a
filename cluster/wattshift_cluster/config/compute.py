"""`[compute]`, `[[compute.nodes]]` and `[[tenants]]` of a site file: where Ray works, and for whom.

A site has one Ray cluster behind one bridge. Its nodes stand one by one under `[[compute.nodes]]`,
each on a feeder of its own; a site without that list has the one node `compute.name`.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from wattshift_cluster.config.fields import (
    FilePath,
    Listen,
    Name,
    Peer,
    Section,
    Switch,
    number,
    watts,
)

NODES_MAX = 1000
"""Nodes of one Ray cluster: as many as Ray is known to run without trouble, and half again."""

GPUS_MAX = 64.0
LABELS_MAX = 64
LABEL_CHARS = 256

LabelText = Annotated[str, Field(min_length=1, max_length=LABEL_CHARS)]
Labels = Annotated[dict[LabelText, LabelText], Field(max_length=LABELS_MAX)]


class ComputeNode(Section):
    """`[[compute.nodes]]`: a node of the Ray cluster, by the name that it has there.

    `max_w` is the most that Ray work may draw on it (0 for a head that runs none), `idle_w` what it
    draws without any. `gpus` and `labels` say what it has for as long as Ray has not told: with
    them a job that no node could ever run is refused even while the node is down.
    """

    name: Name
    feeder: Name
    max_w: Annotated[float, watts(0)] = Field(alias="max")
    idle_w: Annotated[float, watts(0)] = Field(0.0, alias="idle")
    gpus: Annotated[float, number(0, GPUS_MAX)] = 0.0
    labels: Labels = Field(default_factory=dict)


class Compute(Section):
    """`[compute]`: the Ray cluster whose `power_w` the controller sets, reached over its bridge.

    `name` is the bridge's name. Without `[[compute.nodes]]` it is also the one node: on `feeder`,
    drawing `idle` with no work on it and `max` with all of it. `gated_by_host` says that the
    mining devices of the host of a node's name yield to it through gates; `serve` is where services
    answer. Work on the cluster that asks for no watts is counted by the cores it keeps busy, at
    `watts_per_core`, and by GPUs that it holds, at `watts_per_gpu` (0 where agents measure them).
    With `gcs_storage` a Ray of our own keeps its control store in that folder, so that it may die.
    """

    name: Name = "host"
    bridge: Peer = "127.0.0.1:7410"
    token_file: FilePath
    feeder: Name | None = None
    stated_idle_w: Annotated[float, watts(0)] | None = Field(None, alias="idle")
    stated_max_w: Annotated[float, watts(1)] | None = Field(None, alias="max")
    gated_by_host: Switch = True
    ray_address: str = "local"
    serve: Listen = "127.0.0.1:8000"
    child: Switch = False
    gcs_storage: FilePath | None = None
    watts_per_core_w: Annotated[float, watts(0, 1000)] = Field(10.0, alias="watts_per_core")
    watts_per_gpu_w: Annotated[float, watts(0, 10_000)] = Field(0.0, alias="watts_per_gpu")
    stated_nodes: tuple[ComputeNode, ...] = Field((), alias="nodes", max_length=NODES_MAX)

    @property
    def nodes(self) -> tuple[ComputeNode, ...]:
        """Every node: those that are listed, or the one that the section itself is."""
        if self.stated_nodes:
            return self.stated_nodes
        assert self.feeder is not None, "checked by the loader: a feeder and max, or nodes"
        assert self.stated_max_w is not None, "checked by the loader: a feeder and max, or nodes"
        idle_w = self.stated_idle_w or 0.0
        return (
            ComputeNode(name=self.name, feeder=self.feeder, max_w=self.stated_max_w, idle_w=idle_w),
        )

    @property
    def max_w(self) -> float:
        """The most that Ray work may draw on all nodes, W."""
        return math.fsum(node.max_w for node in self.nodes)

    @property
    def idle_w(self) -> float:
        """What all nodes draw with no work on them, W."""
        return math.fsum(node.idle_w for node in self.nodes)


class Tenant(Section):
    """`[[tenants]]`: somebody whose jobs share the site's compute with others'.

    `weight` is its fair share against the others that want to run. `quota` (watts) and `quota_gpus`
    are what its jobs may hold; with `borrow` they may hold more while nobody else wants it.
    """

    name: Name
    weight: Annotated[float, number(0.001, 1_000_000)] = 1.0
    quota_w: Annotated[float, watts(0)] | None = Field(None, alias="quota")
    quota_gpus: Annotated[float, number(0, 1_000_000)] | None = None
    borrow: Switch = True
