"""Limits below what is drawn at the least: told of the feeder or the cap that it is, in two figures
that have one name each."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.in_force import shortfalls
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import Outlook, State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values


def rig(name: str, lowest_w: float, feeder: str = "row") -> Device:
    points = (OperatingPoint("sleep", lowest_w, 0.0, 1.0), OperatingPoint("run", 3000.0, 1e14, 1.0))
    return Device(name, "asic", "a", feeder, points, 3000.0, 0.0)


def site(
    row_w: float, *, main_w: float = 20_000.0, nodes: tuple[Node, ...] = (), **rules: float
) -> Site:
    feeders = [Feeder("main", None, main_w), Feeder("row", "main", row_w)]
    return Site("s", FeederTree.of(feeders), nodes, Rules(**{"margin_share": 0.0, **rules}))


class Play:
    """A core whose devices obey, but for those whose set point somebody else writes."""

    def __init__(self, at: Site, devices: Sequence[Device]) -> None:
        self.state: State = initial(at, Values(50.0, 0.0, 0.0, 20.0), 1)
        self.devices, self.now_s = devices, 0.0
        self.foreign: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self.turn(ev.DeviceJoined(tuple(devices)))

    def turn(self, *events: ev.Event, seconds: int = 3) -> "Play":
        told = list(events)
        for _ in range(seconds):
            self.now_s += 1.0
            self.state, _, why = step(self.state, [*told, *self._answers()], self.now_s)
            self.told += [(one.subject, one.action) for one in why if isinstance(one, Decision)]
            told = []
        return self

    def _answers(self) -> list[ev.Event]:
        found: list[ev.Event] = []
        for command, sent in self.state.sent.items():
            at = np.flatnonzero([d.agent == sent.subject for d in self.state.fleet.devices])
            ids, yes = tuple(self.state.fleet.devices[i].id for i in at), np.ones(len(at), bool)
            sequence = self.state.ledger.sequence[at]
            found.append(ev.LeasesReplied(command, ids, sequence, yes, ("",) * len(at)))
        for agent in sorted({one.agent for one in self.devices}):
            own = [one for one in self.devices if one.agent == agent]
            drawn_w = np.array([one.points[0].watts_w for one in own])
            count, none = len(own), np.full(len(own), np.nan)
            no = np.zeros(count, dtype=np.bool_)
            foreign = np.array([one.id in self.foreign for one in own])
            names, at_s = tuple(one.id for one in own), np.full(count, self.now_s)
            found += [
                ev.AgentSeen(agent, "boot", self.now_s, self.now_s),
                ev.Readings(
                    names, at_s, drawn_w, none, drawn_w * 0, none, none, ("",) * count, foreign, no
                ),
            ]
        return found

    def text(self, alarm: str) -> str:
        return self.state.alarms[alarm].text

    @property
    def short(self) -> set[str]:
        """The alarms that are told of limits."""
        return {a for a in self.state.alarms if a.startswith(("feeder-", "cap-below"))}


def test_a_feeder_below_its_floor_is_told_in_words_of_that_feeder() -> None:
    play = Play(site(1000.0), [rig("a", 700.0), rig("b", 500.0), rig("c", 0.0, "main")])
    assert play.short == {"feeder-below-floor:row"}
    assert play.text("feeder-below-floor:row") == (
        "feeder row may carry 1,000 W (its limit of 1,000 W less its margin), and what hangs on it "
        "can be asked down to 1,200 W: 2 devices at the lowest point 1,200 W (a 700 W, b 500 W); "
        f"{shortfalls.MEND}"
    )
    assert play.state.alarms["feeder-below-floor:row"].severity == "critical"
    assert play.state.outlook.shortfall_w == 0.0, "the cap has all that it needs"
    (one,) = shortfalls.short_feeders(play.state, play.state.outlook)
    assert one.missed_w == (200.0, 200.0)
    play.turn(ev.DeviceLeft(("a",), "moved"))
    assert not play.short
    assert ("feeder-below-floor:row", "all clear") in play.told


def test_a_floor_up_to_the_margin_of_a_feeder_is_carried() -> None:
    assert Play(site(1250.0, margin_share=0.05), [rig("a", 1187.0)]).short == set()
    assert Play(site(1250.0, margin_share=0.05), [rig("a", 1189.0)]).short == {
        "feeder-below-floor:row"
    }


def test_what_is_not_seen_to_obey_makes_a_feeder_short_as_counted_and_is_named() -> None:
    play = Play(site(4000.0), [rig("a", 30.0), rig("b", 30.0)])
    assert not play.short
    play.foreign = {"a", "b"}
    play.turn(seconds=10)
    assert play.short == {"feeder-short:row"}, "asked down it fits"
    text = play.text("feeder-short:row")
    assert "feeder row may carry 4,000 W" in text
    assert "and 6,000 W are counted on it at the least" in text
    assert "(not seen to obey, and so counted at the ceiling: a, b)" in text
    assert f"it can be asked down to 60 W: {shortfalls.SEE_TO}" in text
    (one,) = shortfalls.short_feeders(play.state, play.state.outlook)
    assert one.missed_w == (0.0, 2000.0)
    play.foreign = set()
    play.turn(seconds=2)
    assert not play.short


def test_what_hangs_elsewhere_is_not_named_and_keeps_nothing_down_here() -> None:
    play = Play(site(2500.0, main_w=4000.0), [rig("a", 30.0), rig("b", 30.0, "main")])
    play.foreign = {"a", "b"}
    play.turn(seconds=10)
    assert play.short == {"feeder-short:row", "cap-below-floor"}
    assert "at the ceiling: a)" in play.text("feeder-short:row")
    assert "at the ceiling: a, b)" in play.text("cap-below-floor")
    tree = play.state.site.tree
    assert shortfalls.on_the_way(play.state, tree.index["row"]) == (
        "feeder row may carry 2,500 W, and 3,000 W are counted on it at the least (wattshift "
        "explain row)"
    )
    assert shortfalls.on_the_way(play.state, tree.index["main"]) == "", "the cap is told apart"


def test_both_figures_are_told_of_a_feeder_that_is_short_for_good_and_does_not_obey() -> None:
    play = Play(site(1000.0), [rig("a", 700.0), rig("b", 500.0)])
    play.foreign = {"b"}
    play.turn(seconds=10)
    assert play.short == {"feeder-below-floor:row"}
    text = play.text("feeder-below-floor:row")
    assert "can be asked down to 1,200 W" in text
    assert (
        "; 3,700 W are counted (not seen to obey, and so counted at the ceiling: b); hang some"
        in text
    )


def test_work_that_has_not_left_its_node_is_counted_and_named() -> None:
    play = Play(site(1000.0, nodes=(Node("n1", "row", 900.0),)), [rig("a", 200.0)])
    assert play.short == {"feeder-short:row"}, "a node that has said nothing may hold all it may"
    assert "not seen to leave its node: work on n1 900 W" in play.text("feeder-short:row")


def test_the_cap_is_missed_by_two_figures_that_are_both_told() -> None:
    play = Play(site(9000.0, other_load_w=500.0), [rig("a", 30.0), rig("b", 30.0)])
    cap = ev.SignalChanged("operator", (Cap("c", "operator", 450.0),))
    play.turn(cap)
    assert play.short == {"cap-below-floor"}
    told = "the cap of 450 W lies 110 W below the 560 W that the site can be asked down to"
    assert play.text("cap-below-floor") == told
    assert shortfalls.missed_w(play.state, play.state.outlook) == (110.0, 110.0)
    play.foreign = {"b"}
    play.turn(seconds=10)
    assert play.text("cap-below-floor") == (
        f"{told}, and 3,080 W below the 3,530 W that are counted (not seen to obey, and so counted "
        "at the ceiling: b)"
    )
    assert shortfalls.missed_w(play.state, play.state.outlook) == (110.0, 3080.0)
    play.turn(ev.SignalChanged("operator", (Cap("c", "operator", 3000.0),)))
    assert play.text("cap-below-floor") == (
        "the cap of 3,000 W lies 530 W below the 3,530 W that are counted at the least (not seen "
        "to obey, and so counted at the ceiling: b); the site can be asked down to 560 W"
    )
    assert shortfalls.missed_w(play.state, play.state.outlook) == (0.0, 530.0)
    play.turn(ev.SignalChanged("operator", (Cap("c", "operator", 3530.0),)))
    assert not play.short


def test_a_connection_that_carries_no_more_than_its_floor_after_its_margin_is_told() -> None:
    at = site(9000.0, main_w=1000.0, margin_share=0.1, other_load_w=500.0)
    play = Play(at, [rig("a", 450.0, "main")])
    assert play.short == {"feeder-below-floor:main"}, "the cap itself carries the floor"
    assert "1 device at the lowest point 450 W (a 450 W), load that nobody leases 500 W" in (
        play.text("feeder-below-floor:main")
    )


def test_the_connection_is_not_told_as_a_feeder_for_what_does_not_obey() -> None:
    play = Play(site(9000.0, main_w=4000.0), [rig("a", 30.0), rig("b", 30.0)])
    play.foreign = {"a", "b"}
    play.turn(seconds=10)
    assert play.short == {"cap-below-floor"}, "the same watts are not told twice"


def test_a_stale_meter_makes_no_feeder_short() -> None:
    play = Play(site(1000.0, stale_margin_share=0.2), [rig("a", 900.0)])
    play.turn(ev.MeterRead(900.0, play.now_s), seconds=10)
    assert play.now_s - play.state.meter_at_s > play.state.site.rules.stale_after_s
    assert not play.short


def test_feeders_that_are_short_by_the_hundred_share_one_alarm() -> None:
    rows = [f"r{i:03}" for i in range(shortfalls.FEEDERS_MOST + 7)]
    tree = FeederTree.of([Feeder("main", None, 1e6), *(Feeder(row, "main", 500.0) for row in rows)])
    at = Site("s", tree, (), Rules(margin_share=0.0))
    play = Play(at, [rig(f"d-{row}", 600.0, row) for row in rows])
    own = {f"feeder-below-floor:{row}" for row in rows[: shortfalls.FEEDERS_MOST]}
    assert play.short == {*own, "feeder-short"}
    assert play.text("feeder-short") == (
        "7 more feeders may carry less than is counted there at the least: "
        "r010, r011, r012, r013, r014 and 2 more"
    )


def test_an_outlook_from_before_the_first_decision_says_nothing() -> None:
    play = Play(site(1000.0), [rig("a", 1200.0)])
    assert play.state.outlook.feeder_counted_w == (1200.0, 1200.0)
    before = replace(play.state, outlook=Outlook())
    assert shortfalls.short_feeders(before, before.outlook) == ()
    assert shortfalls.missed_w(before, before.outlook) == (0.0, 0.0)
    assert shortfalls.on_the_way(before, 1) == ""


def test_nothing_is_kept_by_feeder_while_every_limit_carries_its_least() -> None:
    play = Play(site(1200.0), [rig("a", 1200.0)])
    assert (play.state.outlook.counted_w, play.state.outlook.feeder_counted_w) == (1200.0, ())
