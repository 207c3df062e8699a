"""Watts of replicas, learnt from the sensors of their cards: when, how much, and from what not."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.api.jobspec import parse_job
from wattshift_cluster.cli.explain_compute import why_job
from wattshift_cluster.cli.job_text import job_text, learnt
from wattshift_cluster.config import blueprint
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import compute_views, replica_watts
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.replica_watts import ReplicaWatts
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobState, Learnt
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Site
from wattshift_scheduler.state import Limited, Sent, initial
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

POINTS = (OperatingPoint("idle", 20.0, 0.0, 0.01), OperatingPoint("mine", 350.0, 1e9, 0.01))
TREE = FeederTree.of([Feeder("main", None, 9000.0)])
SITE = Site("s", TREE, (Node("n0", "main", 3000.0), Node("n1", "main", 3000.0)))
BODY = {"kind": "service", "name": "chat", "import_path": "a.b:app", "watts_per_replica": "300W",
        "max_replicas": 4, "learn_watts": True}  # fmt: skip


def _card(name: str, host: str, kind: str = "gpu") -> Device:
    return Device(name, kind, "agent", "main", POINTS, 350.0, 0.0, True, True, host=host)


CARDS = (_card("g0", "n0"), _card("g1", "n0"), _card("g2", "n1"), _card("c0", "n0", "cpu"))


class Rig:
    """A controller's state, readings and reports that the test sets, a second at a time."""

    def __init__(self, **body: Any) -> None:
        spec = parse_job({**BODY, **body}, "body").to_spec()
        job = blueprint.job_of("chat", spec, 0.0)
        job = replace(job, state=JobState.RUNNING, units=2, nodes={"n0": 2}, by_node={"n0": 2})
        self.now_s = 1000.0
        self.state = initial(SITE, Values(), 1, {"chat": job})
        self.row: dict[str, Any] = {
            "name": "chat", "by_node": {"n0": 2}, "running": 2, "unit_w": 300.0, "ongoing": 3,
            "queued": 0, "gates": ["g0", "g1", "c0"],
        }  # fmt: skip
        self.others: list[dict[str, Any]] = []
        self.watts: dict[str, float | None] = {"g0": 150.0, "g1": 200.0, "g2": 50.0}
        self.reading: dict[str, Any] = {"quality": "measured", "lease": {"mode": "idle"}}
        self.roster = Roster()
        self.roster.offered("agent", [{"id": card.id, "quality": "measured"} for card in CARDS])
        self.frozen = False
        self.told: list[ev.Event] = []
        self.restart()
        self.fold(ev.DeviceJoined(CARDS))

    def restart(self) -> None:
        self.learner = ReplicaWatts(self.roster, lambda: {"services": [self.row, *self.others]})

    @property
    def job(self) -> Job:
        return self.state.jobs["chat"]

    def fold(self, *events: ev.Event) -> None:
        for event in events:
            self.state, _ = reduce(self.state, event, self.now_s)

    def change(self, **changes: Any) -> None:
        self.state = replace(self.state, jobs={"chat": replace(self.job, **changes)})

    def read(self) -> None:
        rows = [{"device": d, "watts_w": w, **self.reading} for d, w in self.watts.items()]
        self.roster.read(rows, self.now_s)
        n = len(rows)
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        at_s = np.full(n, 1000.0 if self.frozen else self.now_s)
        names = tuple(self.watts)
        self.fold(ev.Readings(names, at_s, nan, nan, nan, nan, nan, ("",) * n, no, no))

    def pass_s(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            self.read()
            self.told = self.learner.heard([], self.state, self.now_s)
            self.fold(*self.told)

    def stop(self) -> None:
        """No replica runs any more, by the core's word and by the report."""
        self.change(units=0, nodes={}, by_node={}, state=JobState.PENDING)
        self.row |= {"by_node": {}, "running": 0}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute's worth of samples instead of half an hour's."""
    for name, value in (("SAMPLES_MIN", 30), ("SPAN_MIN_S", 40.0), ("WEIGH_S", 5.0),
                        ("WINDOW_S", 120.0), ("HELD_S", 60.0)):  # fmt: skip
        monkeypatch.setattr(replica_watts, name, value)


def test_the_hottest_replica_and_a_tolerance_are_learnt_and_wait_for_a_deployment() -> None:
    rig = Rig()
    rig.pass_s(35)
    assert rig.job.learnt is None, "enough samples, over too short a time"
    assert "31 samples under load over 0 min" in rig.learner.note("chat")
    rig.pass_s(25)
    known = rig.job.learnt
    assert known is not None
    assert (known.given_w, known.quality) == (300.0, "measured")
    assert known.unit_w == pytest.approx(200.0 * 1.10), "of the hotter card, not of their mean"
    assert known.samples >= 30
    assert rig.job.unit_w == 300.0, "what runs holds what it was deployed with"
    assert rig.job.spec["watts_per_replica_w"] == 300.0
    rig.stop()
    rig.pass_s(2)
    assert rig.job.unit_w == rig.job.spec["watts_per_replica_w"] == known.unit_w
    assert rig.told == [], "in use, so nothing is said again"


def test_few_samples_teach_nothing_however_long_it_took() -> None:
    rig = Rig()
    for at in range(80):
        rig.row["ongoing"] = 0 if at % 4 else 1
        rig.pass_s(1)
    assert rig.job.learnt is None
    assert "19 samples under load over 1 min" in rig.learner.note("chat")


@pytest.mark.parametrize(
    ("row", "units", "watts_w"),
    [
        ({"gates": ["g0"], "by_node": {"n0": 2}}, 2, 75.0),
        ({"gates": ["g0", "g1"], "by_node": {"n0": 1}, "running": 1}, 1, 350.0),
        ({"gates": ["g0", "g2"], "by_node": {"n0": 1, "n1": 1}}, 2, 150.0),
    ],
    ids=["two share a card", "one has two cards", "on two nodes"],
)
def test_watts_are_those_of_the_cards_of_one_replica(
    row: dict[str, Any], units: int, watts_w: float
) -> None:
    rig = Rig(watts_per_replica="900W")
    rig.row |= {**row, "unit_w": 900.0}
    rig.change(units=units, by_node=row["by_node"])
    rig.pass_s(60)
    assert rig.job.learnt is not None
    assert rig.job.learnt.unit_w == pytest.approx(watts_w * 1.10)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"row": {"gates": ["c0"]}}, "no sensor covers its replicas"),
        ({"row": {"gates": []}}, "no sensor covers its replicas"),
        ({"row": {"by_node": {"n0": 1, "n1": 1}}}, "no sensor covers its replicas"),
        ({"row": {"running": 1}}, "replicas come or go"),
        ({"row": {"unit_w": 120.0}}, "asks Ray for watts of its own"),
        ({"row": {"by_node": {}}}, "no replica runs"),
        ({"reading": {"lease": {"mode": "mine"}}}, "leased for mining"),
        ({"reading": {"hashrate_h_per_s": 5.0}}, "leased for mining"),
        ({"reading": {"quality": "modelled"}}, "modelled, no sensor's"),
        ({"watts": {"g1": None}}, "g1: its sensor is silent"),
        ({"frozen": True}, "its sensor is silent"),
        ({"others": [{"name": "b", "gates": ["g1"]}]}, "g1: another service is on it"),
        ({"row": {"ongoing": 0}}, "0 samples under load"),
        ({"row": {"ongoing": None, "queued": None}}, "0 samples under load"),
    ],
    ids=str,
)
def test_what_teaches_nothing_says_why(changes: dict[str, Any], says: str) -> None:
    rig = Rig()
    rig.row |= changes.get("row", {})
    rig.reading |= changes.get("reading", {})
    rig.watts |= changes.get("watts", {})
    rig.frozen, rig.others = changes.get("frozen", False), changes.get("others", [])
    rig.pass_s(60)
    assert rig.job.learnt is None
    assert says in rig.learner.note("chat")


def test_a_replica_with_more_gpus_than_it_marks_teaches_nothing() -> None:
    rig = Rig(gpus=2)
    rig.pass_s(60)
    assert rig.job.learnt is None
    assert "fewer GPUs than they hold" in rig.learner.note("chat")


def test_nothing_is_learnt_where_nobody_asked() -> None:
    rig = Rig(learn_watts=False)
    rig.pass_s(60)
    assert (rig.job.learnt, rig.learner.note("chat")) == (None, "")
    rig.fold(ev.UnitsLearnt("chat", 10.0, "measured", 9, 0.0))
    assert rig.job.learnt is None


def test_what_a_power_limit_holds_down_lowers_nothing() -> None:
    rig = Rig()
    limits = {"chat": Limited(1, 100.0, 0.0, 2, 100.0, 2)}
    n0 = replace(rig.state.nodes["n0"], limits=limits)
    rig.state = replace(rig.state, nodes={**rig.state.nodes, "n0": n0})
    rig.pass_s(60)
    assert rig.job.learnt is None


def test_after_replicas_moved_the_cards_are_given_time() -> None:
    rig = Rig()
    for at in range(60):
        rig.row["gates"] = ["g0", "g1"] if at % 3 else ["g0", "g1", "c0"]
        rig.pass_s(1)
    assert rig.job.learnt is None


def test_never_above_what_was_given_nor_below_what_it_draws_idle() -> None:
    rig = Rig()
    rig.watts["g1"] = 340.0
    rig.pass_s(60)
    assert rig.job.learnt is None, "it would be more than was given"
    assert "340 W, more than was given" in rig.learner.note("chat")
    rig.fold(ev.UnitsLearnt("chat", 340.0, "measured", 99, 0.0))
    assert rig.job.learnt is not None
    assert rig.job.learnt.unit_w == 300.0
    idle = Rig()
    idle.watts["g1"], idle.row["ongoing"] = 290.0, 0
    idle.pass_s(10)
    idle.watts["g1"], idle.row["ongoing"] = 200.0, 1
    idle.pass_s(60)
    assert idle.job.learnt is not None
    assert idle.job.learnt.unit_w == 290.0


def test_a_sample_above_it_raises_at_once_and_lowers_later() -> None:
    rig = Rig()
    rig.pass_s(60)
    rig.stop()
    rig.pass_s(2)
    deployed_w = rig.job.unit_w
    rig.change(units=2, by_node={"n0": 2}, nodes={"n0": 2}, state=JobState.RUNNING)
    rig.row |= {"by_node": {"n0": 2}, "running": 2, "unit_w": deployed_w}
    rig.pass_s(5)
    rig.watts["g0"] = 250.0
    rig.pass_s(1)
    assert rig.job.learnt is not None
    assert rig.job.learnt.unit_w == pytest.approx(250.0 * 1.10)
    assert rig.job.unit_w == deployed_w, "what runs holds what it was deployed with"
    seen = ev.ComputeSeen("n0", True, 3000.0, unasked_w=40.0, unasked=("actor Foo",))
    (told,) = rig.learner.heard([seen], rig.state, rig.now_s)
    assert isinstance(told, ev.ComputeSeen)
    assert told.unasked_w == pytest.approx(40.0 + 2 * (275.0 - deployed_w))
    assert told.unasked[0].startswith("chat: replicas draw 110 W above what they hold")
    (silent,) = rig.learner.heard([replace(seen, unasked_w=None)], rig.state, rig.now_s)
    assert isinstance(silent, ev.ComputeSeen)
    assert silent.unasked_w == told.unasked_w, "while its meter is silent, as last told"
    rig.watts["g0"] = 100.0
    rig.pass_s(50)
    assert rig.job.learnt.unit_w == pytest.approx(275.0), "not so soon"
    rig.pass_s(130)
    assert rig.job.learnt.unit_w == pytest.approx(220.0), "the peak has left the window"
    (calm,) = rig.learner.heard([replace(seen, unasked_w=None)], rig.state, rig.now_s)
    assert isinstance(calm, ev.ComputeSeen)
    assert calm.unasked_w == 40.0, "nothing is left of it"


def test_it_is_put_to_use_only_when_no_replica_can_hold_watts() -> None:
    for changes in (
        {"by_node": {"n0": 1}},
        {"by_node": None},
        {"units": 1},
        {"refused": (1, "timeout")},
        {"spec": {**Rig().job.spec, "hand_over": "sleep"}},
    ):
        rig = Rig()
        rig.stop()
        rig.change(**changes)
        rig.fold(ev.UnitsLearnt("chat", 200.0, "measured", 99, 0.0))
        assert rig.job.unit_w == 300.0, changes
    rig = Rig()
    rig.stop()
    rig.state = replace(rig.state, sent={7: Sent("set_replicas", "chat", 0.0)})
    rig.fold(ev.UnitsLearnt("chat", 200.0, "measured", 99, 0.0))
    assert rig.job.unit_w == 300.0, "a command is under way"
    rig.state = replace(rig.state, sent={})
    rig.fold(ev.UnitsLearnt("chat", 200.0, "measured", 99, 0.0))
    assert rig.job.unit_w == 200.0


def test_it_survives_a_restart_and_lowers_no_sooner_than_after_a_rise(tmp_path: Path) -> None:
    rig = Rig()
    rig.pass_s(60)
    before = rig.job
    journal = Journal.open(tmp_path / "j.sqlite")
    journal.note([before], [])
    journal.close()
    journal = Journal.open(tmp_path / "j.sqlite")
    kept = journal.jobs()["chat"]
    journal.close()
    assert kept.learnt == before.learnt
    assert kept.spec == dict(before.spec)
    rig.restart()
    rig.watts["g1"] = 100.0
    rig.pass_s(55)
    assert rig.job.learnt == before.learnt
    rig.pass_s(60)
    assert rig.job.learnt is not None
    assert rig.job.learnt.unit_w == pytest.approx(150.0 * 1.10)


def test_a_job_says_what_was_given_what_is_learnt_and_from_when_on_it_is_used() -> None:
    rig = Rig()
    view = {**compute_views.job(rig.job), "url": None, "error": None}
    assert learnt(view) == ["300 W given as the most; nothing is learnt yet"]
    rig.pass_s(60)
    view |= compute_views.job(rig.job)
    json.dumps(view)
    (line,) = learnt(view)
    assert line.startswith("300 W given as the most; 220 W learnt from")
    assert "(measured) since" in line
    assert line.endswith("used from its next deployment on: pause and resume it for that")
    assert line in job_text(view)
    assert f"watts per replica: {line}" in why_job(view | {"verdict": FITS})
    rig.stop()
    rig.pass_s(2)
    view |= compute_views.job(rig.job)
    assert learnt(view)[0].endswith(", in use")
    assert view["learnt"]["given_w"] == 300.0
    assert learnt(compute_views.job(Rig(learn_watts=False).job)) == []


SITE_FILE = """
[site]
name = "hall"
state_dir = "state"
[[feeders]]
name = "main"
limit = "3kW"
[compute]
name = "n0"
feeder = "main"
max = "2kW"
bridge = "127.0.0.1:9"
token_file = "bridge.token"
"""


def test_a_controller_counts_what_is_drawn_beyond_and_tells_why_nothing_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_watts, "LOOK_S", 0.0)
    (tmp_path / "site.toml").write_text(SITE_FILE)
    config = load_site(tmp_path / "site.toml", environ={})
    journal = Journal.open(tmp_path / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens({}, b"0" * 32))
    front = Front(controller)
    view = asyncio.run(front.submit_job(parse_job(BODY, "body").to_spec(), None, "chat"))
    assert (view["learnt"]["given_w"], view["learnt"]["learnt_w"]) == (300.0, None)
    controller.turn([])
    assert front.job("chat")["learnt"]["note"] == "no replica runs"
    known = Learnt(300.0, 250.0, "measured", 900, 0.0)
    runs: dict[str, Any] = {"learnt": known, "unit_w": 200.0, "units": 2, "by_node": {"n0": 2}}
    chat = replace(controller.state.jobs["chat"], state=JobState.RUNNING, **runs)
    controller.state = replace(controller.state, jobs={"chat": chat})
    controller.turn([ev.ComputeSeen("n0", True, 2000.0, unasked_w=40.0)])
    assert controller.state.nodes["n0"].unasked_w == 140.0
    journal.close()


FITS = {"admission": "fit", "rule": "fits", "words": "", "bound_by": None, "need_w": 0.0,
        "have_w": None, "expected_at": None}  # fmt: skip
