"""Mining overlaps the compute of its host only at feeders that carry both."""

import numpy as np
import pytest

from wattshift_cluster.simulate import witness
from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import decide
from wattshift_scheduler.turn.reducers import folded
from wattshift_scheduler.values import Values

TREE = FeederTree.of(
    [
        Feeder("main", None, 5000.0),
        Feeder("hall", "main", 4000.0),
        Feeder("rack", "hall", 2000.0),
        Feeder("other", "main", 200.0),
    ]
)
ROWS = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 600.0, 1e14, 0.01))
VALUES = Values(45.0, 0.0, 0.0, 10.0)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
SERVICE = Job("svc", JobKind.SERVICE, "svc", {}, 0.0, unit_w=900.0, value_usd_per_h=9.0)


def _gate(name: str, feeder: str) -> Device:
    return Device(name, "gpu", "gpus", feeder, ROWS, 600.0, 0.0, True, True, host="host")


class Play:
    """A node on the rack, and the cards of its host wherever the site file says that they hang."""

    def __init__(self, *feeders: str) -> None:
        rules = Rules(margin_share=0.0)
        site = Site("s", TREE, (Node("host", "rack", 900.0),), rules, ("gpus",))
        cards = [_gate(f"g{i}", feeder) for i, feeder in enumerate(feeders)]
        self.world = World.of(site, cards, (MINE, SERVICE), 1)
        self.state = initial(site, VALUES, 1)
        self.owed: list[ev.Event] = [self.world.joined()]
        self.owed += [ev.JobSubmitted(job) for job in (MINE, SERVICE)]
        self.found: list[str] = []

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            for _ in self.world.advance(self.world.now_s + 1.0):
                pass
            now_s = self.world.now_s
            before, _ = folded(self.state, [*self.owed, *self.world.poll()], now_s)
            self.state, commands, _ = decide(before, now_s)
            self.found += witness.over_committed(before, self.state, now_s)
            self.owed = [event for one in commands for event in self.world.carry(one)]
            over_w = self.world.feeder_w() - TREE.limit_w
            self.found += [
                f"{TREE.names[i]} by {over_w[i]:.0f} W" for i in np.flatnonzero(over_w > 0)
            ]


@pytest.mark.parametrize(
    ("feeders", "credit_w"),
    [
        (["rack", "rack"], [450.0, 450.0]),
        (["rack", "hall"], [450.0, 450.0]),
        (["rack", "other"], [900.0, 0.0]),
        (["other", "other"], [0.0, 0.0]),
    ],
)
def test_the_node_counts_for_a_card_whose_feeder_carries_it(
    feeders: list[str], credit_w: list[float]
) -> None:
    play = Play(*feeders)
    for node in play.world.nodes.values():
        node.load = 1.0
    play.run(12)
    assert play.state.nodes["host"].bound_w == 900.0
    assert budget.credit_w(play.state).tolist() == credit_w


def test_a_card_on_another_feeder_keeps_to_that_feeder() -> None:
    play = Play("other")
    play.run(30)
    assert play.found == []
    assert play.state.nodes["host"].bound_w == 900.0, "the service holds its watts while it idles"
    assert 150.0 < play.state.ledger.lease_w[0] <= 200.0
