"""What there is to place on: nodes with their labels and GPUs, and the watts of every feeder."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.compute.displacing import Mined
from wattshift_scheduler.compute.rivals import Rivals
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import FeederTree, Node, Site
from wattshift_scheduler.state import NodePower

Selector = tuple[tuple[str, str], ...]
Asks = tuple[Selector, float]
"""What a unit asks of a node beside watts: labels, and GPUs."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The inputs of one division, beside the jobs.

    Attributes:
        site: its nodes, feeder tree, tenants and rules.
        powers: what is known of each node now, by name.
        room_w: watts of each feeder for compute once mining has given way, W; shape (feeders,).
        free_w: watts by which each feeder's load may rise at once, with mining as it draws now and
            all that is granted to compute counted, W; shape (feeders,).
        cap: the cap in force.
        caps: all known caps, for the time at which more may fit.
        now_s: our clock, s.
        mined: what mining would lose by watts taken at each feeder.
        rivals: mining that batch of less worth gives way to; None: there is none.
        waits_s: batch jobs that wait for hours of their own, by id, and until when, our clock.
        needs_s: for how long batch jobs must be at work before their deadlines as the plan has it,
            by id, s; one that must be so in any case is not told. None: no plan is in force.
    """

    site: Site
    powers: Mapping[str, NodePower]
    room_w: Floats
    free_w: Floats
    cap: Arbitrated
    caps: tuple[Cap, ...]
    now_s: float
    mined: Mined = field(default_factory=Mined)
    rivals: Rivals | None = None
    waits_s: Mapping[str, float] = field(default_factory=dict)
    needs_s: Mapping[str, float] | None = None


def labels_of(node: Node, power: NodePower) -> Mapping[str, str]:
    """The labels of a node: what Ray tells goes before the site file."""
    return {**node.labels, **(power.labels or {})}


def gpus_of(node: Node, power: NodePower) -> float:
    """The GPUs of a node: what Ray tells goes before the site file."""
    return node.gpus if power.gpus is None else power.gpus


def suits(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether labels meet a selector: each is the value, or with "!value" is not."""
    return all(
        labels.get(key) != value[1:] if value.startswith("!") else labels.get(key) == value
        for key, value in selector
    )


def path_of(tree: FeederTree, node: Node) -> tuple[int, ...]:
    """The feeders that carry a node, its own first and the root last."""
    return tree.path(tree.index[node.feeder])[::-1]
