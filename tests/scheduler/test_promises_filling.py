"""How promises are filled: by whom, in which order, and what is passed over for want of room."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.scheduler.decided_twice import differences
from tests.scheduler.promise_rig import DEAR, Play, asic, event, gate, held_up

from wattshift_scheduler.promises import filling, given
from wattshift_scheduler.promises.filling import Filling, Room
from wattshift_scheduler.promises.goals import Goal
from wattshift_scheduler.promises.holdable import Devices
from wattshift_scheduler.promises.obligations import Need, needs
from wattshift_scheduler.state import State
from wattshift_scheduler.step import step

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def held() -> State:
    return held_up()


def test_who_was_found_to_have_no_room_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three promises lack watts under one cap: what the first finds holds for the others."""
    play = Play((gate("g0"), gate("g1"), gate("g2"), asic("a0")))
    play.run(70)
    play.cap(1000.0)
    play.price(DEAR)
    starts_s = (100.0, 130.0, 160.0)
    play.promise(*(event(f"e{at:.0f}", play.now_s + at, 1000.0) for at in starts_s))
    play.run(8)
    looks: list[bool] = []

    def able(self: Any, *asked: Any, was: Any = Goal.able) -> Any:
        looks.append(self.wakes)
        return was(self, *asked)

    monkeypatch.setattr(Goal, "able", able)
    plain = step(play.state.forgotten(), [], play.now_s)
    assert len(needs(play.state, 1000.0, play.now_s)) == 3
    assert plain[0].held.barred
    assert len(looks) == 4, "before and after the first has what there is, and what bars the rest"
    looks.clear()
    monkeypatch.setattr(Filling, "of", _forgetful)
    anew = step(play.state.forgotten(), [], play.now_s)
    assert list(differences(plain, anew)) == []
    assert len(looks) == 7


class _Forgetful(dict[Any, Any]):
    def get(self, _like: Any, default: Any = None) -> Any:
        return default


def _forgetful(*asked: Any, was: Any = Filling.of) -> Filling:
    made: Filling = was(*asked)
    made._spent = _Forgetful()
    return made


def test_who_had_no_room_is_asked_again_once_there_is_some() -> None:
    play = Play((asic("a0"), asic("a1")))
    play.run(70)
    play.price(DEAR)
    play.run(40)
    now_s = play.now_s
    play.promise(event("e", now_s + 600.0, 6000.0))
    play.run(1)
    state = play.state
    need = needs(state, state.outlook.cap_w, play.now_s)[0]
    devices, plain_w = Devices.of(state, play.now_s), np.zeros(2)

    def filled(room_w: float) -> Filling:
        room = Room(np.full(3, room_w), room_w, 0.0)
        made = Filling.of(state, devices, room, DEAR, plain_w)
        made.fill(need)
        assert not made.watts_w.any()
        return made

    filling = filled(6.0)
    filling.room = Room(np.full(3, 4000.0), 4000.0, 0.0)
    filling.fill(need)
    assert filling.watts_w.tolist() == [3150.0, 0.0]
    filling = filled(6.0)
    filling._write(np.array([1]), np.array([3149.0]))
    filling.room = Room(np.array([3154.0, 6.0, 6.0]), 3154.0, 0.0)
    filling.fill(need)
    assert filling.watts_w.tolist() == [0.0, 3150.0], "it takes less now than it did"


def test_what_makes_room_for_one_promise_may_serve_the_next() -> None:
    """A slow machine that divides is not raised beside the gate that is held, and then in part."""
    slow = replace(asic("slow", down_s=60.0), continuous=True)
    play = Play((slow, gate("g0")))
    play.run(70)
    play.price(DEAR)
    play.run(80)
    state = play.state
    devices, wanted_w = Devices.of(state, play.now_s), np.array([3000.0, 0.0])
    room = Room(np.full(3, 3200.0), 3200.0, 0.0)
    filling = Filling.of(state, devices, room, DEAR, wanted_w)
    assert filling.rising.tolist() == [0]
    filling.fill(Need(580.0, 10.0, 300.0))
    assert filling.watts_w.tolist() == [0.0, 594.0]
    filling.fill(Need(2000.0, 600.0, 300.0))
    assert filling.watts_w.tolist() == [1470.0, 594.0]


def test_who_is_too_slow_or_up_too_late_is_not_raised() -> None:
    play = Play((asic("a0", down_s=60.0), asic("a1", down_s=20.0)))
    play.run(70)
    play.price(DEAR)
    play.run(80)
    devices, plain_w = Devices.of(play.state, play.now_s), np.zeros(2)
    goal = Goal.of(play.state, devices, DEAR, plain_w, wakes=True)
    for within_s, starts_in_s, able in (
        (60.0, 60.0, [0, 1]),
        (59.0, 60.0, [1]),
        (60.0, 59.0, [1]),
        (19.0, 60.0, []),
        (60.0, 19.0, []),
    ):
        need = Need(1000.0, within_s, starts_in_s)
        assert goal.able(plain_w, need).tolist() == able
    up = replace(devices, lease_w=devices.fixed.top_w)
    goal = Goal.of(play.state, up, DEAR, plain_w, wakes=True)
    assert goal.able(plain_w, Need(1000.0, 60.0, 19.0)).tolist() == [0, 1], "they only have to stay"


def test_equals_are_raised_in_the_order_of_the_fleet(held: State) -> None:
    """Whatever the part of them that is raised already: a rounding is no reason to change."""
    devices = held.present.promised.devices
    gates = np.flatnonzero(held.fleet.fenced)
    need = needs(held, held.outlook.cap_w, held.decided_s)[0]
    for part_w in np.linspace(0.0, 590.0, 3000):
        watts_w = np.where(np.arange(len(held.fleet)) == gates[0], part_w, 0.0)
        goal = Goal.of(held, devices, DEAR + part_w / 7.0, watts_w, wakes=True)
        places = np.flatnonzero(np.isin(goal.rows, gates))
        order = goal.ranked(places, watts_w, need, 1e4)
        assert goal.rows[places[order]].tolist() == gates.tolist()


def test_the_cheapest_is_raised_first_and_none_for_more_than_it_serves(held: State) -> None:
    """Against a sum in plain numbers; of a whole machine more than what lacks is lost."""
    devices, rows = held.present.promised.devices, list(range(len(held.fleet)))
    need = needs(held, held.outlook.cap_w, held.decided_s)[0]
    goal = Goal.of(held, devices, DEAR, np.zeros(4), wakes=True)
    assert goal.rows.tolist() == rows
    for lacks_w, mid_w, part_w in ((1e5, 0.0, 300.0), (700.0, 2100.0, 590.0), (10.0, 2100.0, 0.0)):
        watts_w = np.array([0.0, mid_w, 0.0, part_w])
        each = []
        for i in rows:
            loss = _lost_usd(held, i, watts_w[i])
            rise_w = devices.fixed.top_w[i] - watts_w[i]
            whole = not held.fleet.continuous[i]
            each.append(loss / (min(rise_w, lacks_w) if whole else rise_w))
        order = goal.ranked(goal.rows, watts_w, need, lacks_w)
        assert order.tolist() == sorted(rows, key=lambda i: (round(each[i] * 1e9), i))


def _lost_usd(state: State, i: int, before_w: float) -> float:
    """What a device loses at the dear price by going up to its top, USD/h."""
    points, tolerance = state.fleet.devices[i].points, state.fleet.devices[i].tolerance
    slack = 1.0 if state.fleet.continuous[i] else 1.0 + tolerance
    limits_w = [one.watts_w * slack for one in points]
    earned = 0.0
    for low, high in zip(range(len(points)), range(1, len(points)), strict=False):
        span_w = max(limits_w[high] - max(limits_w[low], before_w), 0.0)
        hashes = points[high].hashrate_h_per_s - points[low].hashrate_h_per_s
        usd = hashes * state.values.usd_per_hash_hour
        earned += usd * span_w / (limits_w[high] - limits_w[low])
    return DEAR * (limits_w[-1] - before_w) / 1e6 - earned


def test_of_many_that_do_not_fit_one_that_divides_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The room is for a few steps of a gate that comes last; but few devices are tried."""
    devices = (*(asic(f"a{i}") for i in range(9)), gate("g0"), gate("g1", hashes=0.0))
    monkeypatch.setattr(given, "LAST_TRIED", 1)
    given_w = {}
    for many in (0, 1000):
        monkeypatch.setattr(filling, "MANY", many)
        play = Play(devices, (40_000.0, 4e4, 4e4))
        play.run(70)
        play.cap(100.0)
        play.price(DEAR)
        play.run(40)
        play.promise(event("e", play.now_s + 600.0, 20_000.0))
        play.run(1)
        assert play.found == []
        given_w[many] = float(play.state.ledger.lease_w.sum())
    assert given_w[1000] < 1.0
    assert 90.0 < given_w[0] <= 100.0
