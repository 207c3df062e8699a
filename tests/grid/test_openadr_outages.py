"""Whether the grid's power was lost: the meter and the hosts' boots against each other."""

import pytest

from wattshift_cluster.controller.outages import BACK_WITHIN_S, OutageWatch
from wattshift_scheduler.state import Agent

T = 1_900_000_000.0
DEAD_S = 4.0
"""How long it is dark in a story, unless it says otherwise."""
RUNS_S = 1e6
"""Age of a boot that was there before."""


class Story:
    """A site whose meter and agents are told second by second."""

    def __init__(self, hosts: int = 2) -> None:
        self.watch = OutageWatch(connection_w=1e6)
        self.now_s = T
        self.agents = {f"host-{n}": Agent("old", RUNS_S, T) for n in range(hosts)}
        self.told: list[str] = []

    def seconds(self, count: float, watts_w: float | None, *, up: tuple[str, ...] = ()) -> None:
        """Time goes by; `up` are the hosts that answer, under the boot that they have."""
        for _ in range(round(count)):
            self.now_s += 1.0
            self.watch.sampled(watts_w, self.now_s)
            for name in up:
                one = self.agents[name]
                boot_s = one.boot_s + self.now_s - one.seen_s
                self.agents[name] = Agent(one.boot_id, boot_s, self.now_s)
            self.look()

    def boots(self, name: str, ago_s: float) -> None:
        """A host answers with another boot, which began `ago_s` ago."""
        self.agents[name] = Agent(f"boot-{self.now_s}", ago_s, self.now_s)
        self.look()

    def look(self) -> None:
        if (why := self.watch.judge(self.agents)) is not None:
            self.told.append(why)


BOTH = ("host-0", "host-1")


@pytest.mark.parametrize("shown_w", [None, 0.0, -3.0])
def test_a_dark_meter_and_hosts_that_boot_are_an_outage_told_once(shown_w: float | None) -> None:
    story = Story()
    story.seconds(5, 5e5, up=BOTH)
    story.seconds(20, shown_w)
    assert story.told == []
    story.seconds(30, 4e5)
    story.boots("host-0", 25.0)
    assert story.told == ["the meter showed nothing and 1 of 2 hosts have booted since"]
    story.boots("host-1", 25.0)
    story.seconds(30, 4e5, up=BOTH)
    assert len(story.told) == 1


def test_the_next_outage_is_told_again() -> None:
    story = Story()
    for _ in range(2):
        story.seconds(5, 5e5, up=BOTH)
        story.seconds(20, 0.0)
        for name in BOTH:
            story.boots(name, 5.0)
    assert len(story.told) == 2


def test_a_meter_that_is_dark_while_hosts_run_is_no_outage() -> None:
    story = Story()
    story.seconds(5, 5e5, up=BOTH)
    story.seconds(60, None, up=BOTH)
    story.seconds(5, 5e5, up=BOTH)
    assert story.told == []


def test_hosts_that_boot_under_a_meter_that_shows_power_are_no_outage() -> None:
    story = Story()
    story.seconds(5, 5e5, up=BOTH)
    story.seconds(30, 2e5)
    for name in BOTH:
        story.boots(name, 10.0)
    assert story.told == []


def test_one_host_of_three_that_boots_is_no_outage_and_hosts_that_were_away_do_not_count() -> None:
    story = Story(hosts=3)
    story.seconds(5, 5e5, up=(*BOTH, "host-2"))
    story.seconds(20, 0.0, up=BOTH)
    story.boots("host-2", 5.0)
    assert story.told == [], "two ran through it"
    story = Story(hosts=3)
    story.seconds(60, 5e5, up=BOTH)
    story.seconds(20, 0.0, up=("host-1",))
    story.boots("host-0", 5.0)
    assert len(story.told) == 1, "one of the two that were there"


@pytest.mark.parametrize(
    ("silent_s", "ago_s"),
    [
        (60.0, 5.0),  # it was away long before the meter went dark
        (0.0, 40.0),  # its boot began before that
    ],
)
def test_a_boot_that_does_not_fit_the_dark_is_another_matter(silent_s: float, ago_s: float) -> None:
    story = Story(hosts=1)
    story.seconds(5, 5e5, up=("host-0",))
    story.seconds(silent_s, 5e5)
    story.seconds(20, 0.0)
    story.boots("host-0", ago_s)
    assert story.told == []


def test_a_host_that_falls_silent_or_boots_long_after_the_dark_is_another_matter() -> None:
    story = Story(hosts=1)
    story.seconds(5, 5e5, up=("host-0",))
    story.seconds(10, 0.0, up=("host-0",))
    story.seconds(5, 5e5, up=("host-0",))
    story.boots("host-0", 1.0)
    assert story.told == [], "it ran through"
    story = Story(hosts=1)
    story.seconds(5, 5e5, up=("host-0",))
    story.seconds(10, 0.0)
    story.seconds(1, 5e5)
    story.now_s += BACK_WITHIN_S + 60.0
    story.boots("host-0", 10.0)
    assert story.told == [], "somebody has switched it on"


@pytest.mark.parametrize(("dark_s", "outages"), [(DEAD_S, 1), (2.0, 0)])
def test_a_lost_sample_or_two_is_not_dark(dark_s: float, outages: int) -> None:
    story = Story(hosts=1)
    story.seconds(5, 5e5, up=("host-0",))
    story.seconds(dark_s, None)
    story.seconds(30, 5e5)
    story.boots("host-0", 30.0)
    assert len(story.told) == outages


def test_without_a_meter_that_ever_showed_power_there_is_none() -> None:
    story = Story()
    story.seconds(5, None, up=BOTH)
    story.seconds(60, None)
    for name in BOTH:
        story.boots(name, 5.0)
    assert story.told == []
