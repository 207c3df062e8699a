"""What one decision keeps of promises for the next changes no answer, and saves it the work."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.scheduler.decided_twice import differences
from tests.scheduler.promise_rig import DEAR, Play, asic, event, held_up, story

from wattshift_scheduler import events as ev
from wattshift_scheduler.ladder.walk.filled import points_at
from wattshift_scheduler.promises import holding
from wattshift_scheduler.promises.filling import Filling
from wattshift_scheduler.promises.goals import Goal
from wattshift_scheduler.promises.holdable import Devices, lost_usd_per_h
from wattshift_scheduler.promises.obligations import needs
from wattshift_scheduler.promises.sheddable import shown
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.state import State
from wattshift_scheduler.step import step
from wattshift_scheduler.turn.reducers import folded

pytestmark = pytest.mark.timeout(400)

TURNS = 24


class Quiet:
    """A controller that is asked again and again while little is heard: each time twice, as it goes
    on and anew."""

    def __init__(self, play: Play, seed: int) -> None:
        self.rng, self.now_s, self.state = random.Random(seed), play.now_s, play.state
        self.play, self.again, self.asked = play, 0, 0

    def turns(self, count: int) -> Iterator[str]:
        """What differs in so many turns."""
        for _ in range(count):
            self.now_s += self.rng.choice((0.0, 0.25, 0.25, 0.25, 0.5, 2.5))
            told = [one for do in self.rng.choices(HAPPENINGS, k=1) for one in do(self)]
            kept = None if self.state.carried is None else self.state.carried.promised
            fast = step(self.state, told, self.now_s)
            yield from differences(fast, step(self.state.forgotten(), told, self.now_s))
            self.state = fast[0]
            now = self.state.present.promised
            self.asked += now is not None
            self.again += now is not None and now is kept

    def nothing(self) -> list[ev.Event]:
        return [ev.Tick()]

    def lives(self) -> list[ev.Event]:
        """Agents answer, one after the other, and say nothing of their devices."""
        agents = sorted(self.state.agents)
        return [ev.AgentSeen(self.rng.choice(agents), "boot", self.now_s, self.now_s)]

    def reads(self) -> list[ev.Event]:
        """Some devices are read: most draw what they are leased."""
        state, rng = self.state, self.rng
        rows = rng.sample(range(len(state.fleet)), rng.randrange(1, len(state.fleet) + 1))
        lease_w = np.nan_to_num(state.ledger.lease_w[rows])
        factor = np.array([rng.choice((1.0, 0.97, 0.9, 0.0)) for _ in rows])
        n, nan = len(rows), np.full(len(rows), np.nan)
        no = np.zeros(n, dtype=np.bool_)
        ids = tuple(state.fleet.devices[i].id for i in rows)
        at_s = np.full(n, self.now_s)
        return [ev.Readings(ids, at_s, lease_w * factor, nan, nan, nan, nan, ("",) * n, no, no)]

    def answers(self) -> list[ev.Event]:
        """Grants are taken, and machines are seen to have come down at once."""
        ledger = self.state.ledger
        ids = np.array([one.id for one in self.state.fleet.devices], dtype=np.object_)
        told = []
        for number, sent in self.state.sent.items():
            if sent.kind == "grant_leases":
                rows = np.flatnonzero(self.state.fleet.agent == self._agent(sent.subject))
                taken, words = np.ones(len(rows), dtype=np.bool_), ("",) * len(rows)
                sequence = ledger.sequence[rows]
                told.append(ev.LeasesReplied(number, tuple(ids[rows]), sequence, taken, words))
        return [*told, *self.reads()]

    def _agent(self, name: str) -> int:
        return self.state.fleet.agents.index(name)

    def priced(self) -> list[ev.Event]:
        price = self.rng.choice((20.0, 60.0, DEAR, DEAR, DEAR + 1.0, None))
        return [ev.SignalChanged("price", (), price, True)]

    def hashed(self) -> list[ev.Event]:
        return [ev.HashpriceSeen(self.rng.choice((40.0, 50.0, 51.0)), self.now_s, "feed")]

    def capped(self) -> list[ev.Event]:
        limit_w = self.rng.choice((None, 600.0, 2000.0, 5000.0))
        caps = () if limit_w is None else (Cap("c", "operator", limit_w),)
        return [ev.SignalChanged("operator", caps)]

    def promised(self) -> list[ev.Event]:
        starts_s = self.now_s + self.rng.choice((9.0, 45.0, 300.0))
        watts_w = self.rng.choice((300.0, 900.0, 1500.0, 4000.0))
        rows = [
            event(f"q{i}", starts_s + 20.0 * i, watts_w, notice_s=self.rng.choice((8.0, 600.0)))
            for i in range(self.rng.randrange(1, 4))
        ]
        return [ev.SignalChanged("vtn", events=tuple(rows))]

    def paused(self) -> list[ev.Event]:
        return [ev.JobActed("mine", self.rng.choice(("pause", "resume", "resume")))]

    def wanted(self) -> list[ev.Event]:
        """The compute beside the gates draws more or less."""
        held_w = self.rng.choice((0.0, 400.0, 800.0))
        return [ev.ComputeSeen(name, True, held_w, used_w=held_w) for name in self.state.nodes]


HAPPENINGS: tuple[Callable[[Quiet], list[ev.Event]], ...] = (
    *(Quiet.nothing, Quiet.nothing, Quiet.nothing, Quiet.nothing, Quiet.reads, Quiet.reads),
    *(Quiet.nothing, Quiet.nothing, Quiet.nothing, Quiet.lives, Quiet.answers, Quiet.answers),
    *(Quiet.answers, Quiet.priced, Quiet.hashed, Quiet.capped, Quiet.promised, Quiet.paused),
    Quiet.wanted,
)


def lives(seeds: range) -> Iterator[Quiet]:
    """Sites at which something is held mostly, as they are asked with little news."""
    for seed in seeds:
        rng = random.Random(seed)
        play = story(seed, [(rng.randrange(70), rng.randrange(100)) for _ in range(2)])
        play.promise(event("p", play.now_s + 400.0, 900.0))
        play.price(DEAR)
        play.run(rng.choice((2, 14)))
        yield Quiet(play, seed)


def test_what_is_kept_changes_no_answer_and_is_used() -> None:
    asked = again = 0
    for life in lives(range(60)):
        assert list(life.turns(TURNS)) == []
        asked, again = asked + life.asked, again + life.again
    assert asked > 600
    assert 60 < again < asked - 600


@pytest.fixture(scope="module")
def held() -> State:
    return held_up()


def _again(state: State, **other: Any) -> bool:
    """Whether the last answer is good for the same question, but for something other."""
    kept = state.present.promised
    answer = kept.answer
    watts_w = other.pop("watts_w", answer.wanted_w)
    named: dict[str, Any] = {
        "state": state,
        "devices": kept.devices,
        "wanted": SimpleNamespace(watts_w=watts_w),
        "owed": needs(state, state.outlook.cap_w, state.decided_s),
        "room": answer.room,
        "price": answer.price,
    }
    return bool(answer.to(holding._Asked(**{**named, **other})))


def test_an_answer_is_for_its_question_alone(held: State) -> None:
    kept, carried = held.present.promised, held.present
    room, owed = kept.answer.room, needs(held, held.outlook.cap_w, held.decided_s)
    assert _again(held)
    assert _again(held, owed=[replace(one, starts_in_s=one.starts_in_s - 1.0) for one in owed])
    assert not _again(held, owed=[replace(one, watts_w=one.watts_w + 1.0) for one in owed])
    assert not _again(held, owed=[replace(one, within_s=one.within_s + 1.0) for one in owed])
    assert not _again(held, owed=[replace(one, names=("another",)) for one in owed])
    assert not _again(held, price=kept.answer.price + 0.01)
    assert not _again(held, watts_w=kept.answer.wanted_w.copy())
    assert not _again(held, devices=replace(kept.devices))
    assert not _again(held, room=replace(room, feeder_w=room.feeder_w + 1.0))
    assert not _again(held, room=replace(room, open_w=room.open_w + 1.0))
    assert not _again(held, room=replace(room, services_w=room.services_w + 1.0))
    assert not _again(replace(held, ladder=replace(held.ladder)))
    credit = replace(carried, credit_w=carried.credit_w.copy())
    assert not _again(replace(held, carried=credit))
    weak = replace(kept.devices, able=np.zeros(len(held.fleet), dtype=np.bool_))
    others = replace(carried, promised=replace(kept, answer=replace(kept.answer, devices=weak)))
    assert not _again(replace(held, carried=others), devices=weak)
    nobody = replace(held, carried=others, held=replace(held.held, rows=held.held.rows[:0]))
    assert _again(nobody, devices=weak)


def test_an_answer_in_which_the_start_mattered_is_not_kept() -> None:
    """A machine on its way down can be up again before the start, and a second later it cannot."""
    play = Play((asic("a0", down_s=20.0),))
    play.run(70)
    play.price(DEAR)
    play.run(2)
    told = ev.SignalChanged("vtn", events=(event("e", play.now_s + 20.6, 2000.0),))
    state = step(play.state, [told], play.now_s)[0]
    assert len(state.held.rows) == 1
    fast, plain = (step(one, [], play.now_s + 1.0) for one in (state, state.forgotten()))
    assert list(differences(fast, plain)) == []
    assert not len(fast[0].held.rows)


def test_a_look_at_the_devices_holds_until_something_is_new(held: State) -> None:
    now_s, ledger = held.decided_s, held.ledger
    last = held.present.promised.devices
    assert Devices.of(held, now_s, last) is last
    for name in ("point", "lease_w", "changed_s"):
        column = getattr(ledger, name).copy()
        same = replace(held, ledger=replace(ledger, **{name: column}))
        assert Devices.of(same, now_s, last) is last
        column[0] += 1
        other = replace(ledger, **{name: column})
        assert Devices.of(replace(held, ledger=other), now_s, last) is not last
    other = replace(ledger, confirmed=~ledger.confirmed)
    assert Devices.of(replace(held, ledger=other), now_s, last) is not last
    facts = replace(held.present.facts, free=held.present.facts.free.copy())
    told = replace(held, carried=replace(held.present, facts=facts))
    assert Devices.of(told, now_s, last) is not last


def test_a_table_that_is_built_is_looked_at(held: State) -> None:
    now_s, last = held.decided_s, held.present.promised.devices
    told = replace(held, tables=replace(held.tables))
    assert Devices.of(told, now_s, last) is last, "nobody has a table"
    orders = replace(held.present.orders, tabled=True)
    told = replace(told, carried=replace(held.present, orders=orders))
    assert Devices.of(told, now_s, last) is not last


def test_what_sensors_show_holds_until_something_is_new(held: State) -> None:
    now_s, last = held.decided_s, held.present.promised.devices.shown
    assert shown(held, now_s, last) is last
    assert shown(replace(held, seen=replace(held.seen)), now_s, last) is not last
    assert shown(replace(held, agents=dict(held.agents)), now_s, last) is not last
    point = np.where(np.arange(len(held.fleet)) == 0, -1, held.ledger.point)
    ledger = replace(held.ledger, point=point)
    assert shown(replace(held, ledger=ledger), now_s, last) is not last
    assert float(held.seen.at_s.min()) < last.until_s < float(held.seen.at_s.min()) + 5.0
    assert shown(held, last.until_s, last) is not last
    fleet = replace(held.fleet)
    assert shown(replace(held, fleet=fleet, carried=None), now_s, last).fixed.fleet is fleet


def test_what_is_known_of_losses_is_of_the_same_alone(held: State) -> None:
    devices, plain_w = held.present.promised.devices, np.zeros(4)
    need = needs(held, held.outlook.cap_w, held.decided_s)[0]

    def asked(state: State, price: float, one: Devices, last: Any = None) -> Goal:
        goal = Goal.of(state, one, price, plain_w, wakes=False)
        goal.learn(last)
        return goal

    first = asked(held, DEAR, devices)
    places = np.arange(len(first.rows))
    first.ranked(places, plain_w, need, 1e4)
    known = first.losses()
    assert np.isfinite(known.lost_usd_per_h).all()
    assert len(known.rows) > 1
    same = asked(held, DEAR, devices, known)
    assert same.losses().lost_usd_per_h.tolist() == known.lost_usd_per_h.tolist()
    assert same.losses().lost_usd_per_h is not known.lost_usd_per_h
    fewer = devices.able & (np.arange(4) != known.rows[0])
    others = (
        asked(held, DEAR + 1.0, devices, known),
        asked(replace(held, ladder=replace(held.ladder)), DEAR, devices, known),
        asked(held, DEAR, replace(devices, lease_w=devices.lease_w + 1.0), known),
        asked(held, DEAR, replace(devices, able=fewer), known),
    )
    for other in others:
        assert np.isnan(other.losses().before_w).all()


def test_an_agent_that_has_fallen_silent_shows_nothing(held: State) -> None:
    """Also between two decisions, and before the first."""
    last = held.present.promised.devices.shown
    assert shown(held, held.decided_s, last).total_w > 2500.0
    lost, _ = folded(held, [ev.AgentLost(name, "gone") for name in held.agents], held.decided_s)
    assert shown(lost, held.decided_s, last).total_w == 0.0
    assert shown(held, held.decided_s + 6.0, last).total_w == 0.0
    fresh = replace(held, seen=replace(held.seen, at_s=held.seen.at_s + 4.0))
    assert shown(fresh, held.decided_s + 3.0).total_w == last.total_w
    assert shown(fresh, held.decided_s + 6.0).total_w == 0.0, "its readings are young, it is not"
    assert shown(held.forgotten(), held.decided_s).total_w == last.total_w
    assert shown(held.forgotten(), held.decided_s).until_s == -np.inf


def test_sums_follow_the_devices_that_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ready, and what feeders carry, is the same as if it were summed anew."""
    looks = 0

    def write(self: Any, rows: Any, watts_w: Any, was: Any = Filling._write) -> None:
        nonlocal looks
        was(self, rows, watts_w)
        anew = Filling.of(self.state, self.devices, self.room, self.price, self.watts_w)
        np.testing.assert_allclose(self.ready_w, anew.ready_w, rtol=0.0, atol=1e-6)
        np.testing.assert_allclose(self.own_w, anew.own_w, rtol=0.0, atol=1e-6)
        looks += 1

    monkeypatch.setattr(Filling, "_write", write)
    points = []

    def as_told(state: Any, rows: Any, watts_w: Any, was: Any = holding._points) -> Any:
        found = was(state, rows, watts_w)
        anew = points_at(state.ladder, rows, watts_w) - state.fleet.first[rows]
        assert found.tolist() == anew.tolist()
        points.extend(found.tolist())
        return found

    def lost(self: Any, rows: Any, before_w: Any, was: Any = Filling.lost_usd_per_h) -> Any:
        found = was(self, rows, before_w)
        after_w = self.watts_w[rows]
        anew = lost_usd_per_h(self.state.ladder, rows, before_w, after_w, self.price)
        np.testing.assert_allclose(found, anew, rtol=1e-12)
        return found

    monkeypatch.setattr(Filling, "lost_usd_per_h", lost)
    monkeypatch.setattr(holding, "_points", as_told)
    for life in lives(range(12)):
        assert list(life.turns(4)) == []
    assert looks > 50
    assert set(points) >= {1, 2}
