"""What may be switched when: properties over random outlets, draws and moments."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.outlets.sequence import Carrier, Known, Place, carried_w, decide

FEEDERS = {"a": Carrier(10_000.0, 5.0, 60.0), "b": Carrier(4_000.0, 2.0, 30.0)}


@st.composite
def scenes(draw):
    places, known = [], {}
    now_s = 1000.0
    for n in range(draw(st.integers(1, 7))):
        place = Place(
            ("pdu", str(n)),
            f"rig-{n}",
            draw(st.sampled_from(["a", "b"])),
            draw(st.floats(100.0, 5000.0)),
            draw(st.booleans()),
            draw(st.floats(0.0, 100.0)),
        )
        places.append(place)
        at_s = st.floats(800.0, now_s)
        known[place.key] = Known(
            draw(st.sampled_from([True, False, None])),
            draw(st.sampled_from([True, False, None])),
            draw(st.one_of(st.none(), st.floats(0.0, 5000.0))),
            draw(at_s),
            draw(at_s),
        )
    locked = draw(st.sets(st.sampled_from([place.device for place in places])))
    return places, known, locked, now_s


@settings(max_examples=80, deadline=None)
@given(scenes())
def test_no_command_breaks_a_rule(scene):
    places, known, locked, now_s = scene
    commands = decide(places, known, FEEDERS, locked, now_s)
    raised = [one.place for one in commands if one.on]
    for one in commands:
        before = known[one.place.key]
        assert before.wanted is one.on
        if one.on:
            assert before.on is False, "an outlet in an unknown state is left alone"
            assert one.place.device not in locked
            assert now_s >= before.switched_s + one.place.rest_s
        else:
            assert one.place.cut, "only with the owner's word"
    for feeder, carrier in FEEDERS.items():
        mine = [place for place in places if place.feeder == feeder]
        rises = [place for place in raised if place.feeder == feeder]
        assert len(rises) <= 1
        if rises:
            load_w = carried_w(mine, known, carrier, now_s)
            assert load_w + rises[0].power_on_w <= carrier.limit_w
            on = [known[p.key].switched_s for p in mine if known[p.key].on is not False]
            assert all(now_s >= at_s + carrier.stagger_s for at_s in on)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(200.0, 3900.0), min_size=1, max_size=8), st.sets(st.integers(0, 7)))
def test_bringing_up_a_feeder_never_exceeds_it_and_leaves_out_what_is_locked(draws_w, locked):
    carrier = Carrier(9_000.0, 4.0, 20.0)
    places = [
        Place(("pdu", str(n)), f"rig-{n}", "a", watts_w, False, 0.0)
        for n, watts_w in enumerate(draws_w)
    ]
    known = {place.key: Known(wanted=True, on=False, watts_w=0.0) for place in places}
    out = {f"rig-{n}" for n in locked}
    raised_s: list[float] = []
    for second in range(200):
        now_s = float(second)
        for one in decide(places, known, {"a": carrier}, out, now_s):
            raised_s.append(now_s)
            # The machine wakes by itself and goes to the draw that the table names.
            known[one.place.key] = replace(
                known[one.place.key],
                on=True,
                watts_w=one.place.power_on_w,
                switched_s=now_s,
                tried_s=now_s,
            )
        assert sum(p.power_on_w for p in places if known[p.key].on) <= carrier.limit_w
    assert all(b - a >= carrier.stagger_s for a, b in itertools.pairwise(raised_s))
    assert not any(known[p.key].on for p in places if p.device in out)
    free_w = carrier.limit_w - sum(p.power_on_w for p in places if known[p.key].on)
    left = [p for p in places if not known[p.key].on and p.device not in out]
    assert all(p.power_on_w > free_w for p in left), "whatever fits is brought up"


def test_what_is_unknown_counts_with_what_it_may_draw():
    place = Place(("pdu", "1"), "rig", "a", 3500.0, False, 0.0)
    carrier = Carrier(9_000.0, 4.0, 60.0)

    def counted_w(known, now_s=100.0):
        return carried_w([place], {place.key: known}, carrier, now_s)

    assert counted_w(Known(on=False)) == 0.0
    assert counted_w(Known(on=None)) == 3500.0
    assert counted_w(Known(on=True, watts_w=None)) == 3500.0
    assert counted_w(Known(on=True, watts_w=25.0)) == 25.0
    assert counted_w(Known(on=True, watts_w=25.0, switched_s=90.0)) == 3500.0


def test_a_cut_waits_for_no_rest():
    place = Place(("pdu", "1"), "rig", "a", 3500.0, True, 1e6)
    known = {place.key: Known(wanted=False, on=True, watts_w=3400.0, switched_s=99.0)}
    (one,) = decide([place], known, FEEDERS, set(), 100.0)
    assert one.on is False
