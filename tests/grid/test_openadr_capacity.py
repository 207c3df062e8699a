"""The communications-loss rule: limits and subscriptions as plain caps, to the second.

The property test compares the caps with the rule said again in one line, at random times.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.grid.openadr.asked import Asked, Terms
from wattshift_cluster.grid.openadr.capacity import capacity_caps
from wattshift_cluster.grid.openadr.kept import KeptFile, Known, answered, noticed
from wattshift_cluster.grid.openadr.mapping import fault_of
from wattshift_cluster.grid.openadr.meanings import Becomes
from wattshift_cluster.grid.openadr.saying import say
from wattshift_cluster.grid.openadr.words import Event, Program, read_event
from wattshift_scheduler.signals.arbitrate import arbitrate
from wattshift_scheduler.signals.words import Cap

NOW = 1_800_000_000.0
CONNECTION_W = 10e6
PROGRAM = Program(id="p", name="capacity")
TERMS = Terms("openadr", "ven-1", subscription_w=600e3)


def ask(
    becomes: Becomes,
    amount_w: float,
    starts_s: float,
    ends_s: float | None,
    program: str = "p",
    confirmed: bool = True,
) -> Asked:
    name = f"{becomes}/{starts_s}/{amount_w}/{program}"
    return Asked(name, "e", program, becomes, "X", starts_s, ends_s, amount_w, confirmed=confirmed)


def cap_w(caps: tuple[Cap, ...], at_s: float) -> float:
    return arbitrate(caps, CONNECTION_W, at_s).cap_w


def caps(*asks: Asked, fallback_w: float | None = None, outage: bool = False) -> tuple[Cap, ...]:
    return capacity_caps(asks, fallback_w, "openadr", outage=outage)


LIMIT = ask(Becomes.LIMIT, 900e3, 100, 400)
SUBSCRIBED = ask(Becomes.SUBSCRIPTION, 500e3, 0, None)


def test_a_limit_stands_in_place_of_the_subscription_and_gives_way_to_it_to_the_second() -> None:
    held = caps(LIMIT, SUBSCRIBED)
    edges = [(99.999, 500e3), (100.0, 900e3), (399.999, 900e3), (400.0, 500e3), (1e9, 500e3)]
    assert [(at_s, cap_w(held, at_s)) for at_s, _ in edges] == edges


def test_where_nothing_is_told_the_subscription_of_the_sites_file_holds() -> None:
    held = caps(LIMIT, fallback_w=300e3)
    assert [cap_w(held, at_s) for at_s in (0, 100, 400)] == [300e3, 900e3, 300e3]
    told = caps(LIMIT, SUBSCRIBED, fallback_w=300e3)
    assert [cap_w(told, at_s) for at_s in (-1, 0, 100, 400)] == [300e3, 500e3, 900e3, 500e3]
    assert [cap_w(caps(fallback_w=300e3), at_s) for at_s in (0, 1e9)] == [300e3, 300e3]


def test_after_an_outage_no_limit_and_no_grant_counts() -> None:
    tight = ask(Becomes.LIMIT, 100e3, 100, 400)
    grant = ask(Becomes.RESERVATION, 200e3, 0, 1000)
    held = caps(LIMIT, tight, grant, SUBSCRIBED, outage=True)
    assert [cap_w(held, at_s) for at_s in (50, 150, 500)] == [500e3, 500e3, 500e3]
    assert cap_w(caps(LIMIT, fallback_w=300e3, outage=True), 150) == 300e3


def test_a_reservation_adds_while_it_lasts_and_the_smallest_of_several_counts() -> None:
    large = ask(Becomes.RESERVATION, 200e3, 0, 100)
    small = ask(Becomes.RESERVATION, 50e3, 50, 150)
    held = caps(SUBSCRIBED, large, small)
    assert [cap_w(held, at_s) for at_s in (10, 60, 120, 150)] == [700e3, 550e3, 550e3, 500e3]


def test_a_limit_of_one_program_does_not_lift_the_subscription_of_another() -> None:
    other = ask(Becomes.SUBSCRIPTION, 400e3, 0, None, program="q")
    held = caps(LIMIT, SUBSCRIBED, other)
    assert [cap_w(held, at_s) for at_s in (50, 150)] == [400e3, 400e3]


def test_what_a_notice_alone_told_lowers_and_never_displaces() -> None:
    heard = ask(Becomes.LIMIT, 900e3, 100, 400, confirmed=False)
    assert cap_w(caps(heard, SUBSCRIBED), 150) == 500e3
    lower = ask(Becomes.LIMIT, 200e3, 100, 400, confirmed=False)
    assert cap_w(caps(lower, SUBSCRIBED), 150) == 200e3
    grant = ask(Becomes.RESERVATION, 900e3, 0, 1000, confirmed=False)
    assert cap_w(caps(grant, SUBSCRIBED), 150) == 500e3


def test_ids_of_caps_that_hold_at_one_time_are_unique() -> None:
    other = ask(Becomes.SUBSCRIPTION, 400e3, 0, None, program="q")
    held = caps(LIMIT, SUBSCRIBED, other, fallback_w=1e3)
    for at_s in (-1.0, 50.0, 100.0, 400.0, 1e9):
        ids = [cap.id for cap in held if cap.in_force(at_s)]
        assert len(set(ids)) == len(ids)


spans = st.tuples(st.integers(0, 20), st.one_of(st.none(), st.integers(1, 15)))
kinds = st.sampled_from([Becomes.LIMIT, Becomes.SUBSCRIPTION, Becomes.RESERVATION])
asks = st.builds(
    lambda kind, span, amount, program, confirmed: ask(
        kind,
        float(amount),
        float(span[0]),
        None if span[1] is None else float(span[0] + span[1]),
        program,
        confirmed,
    ),
    kinds,
    spans,
    st.integers(1, 9),
    st.sampled_from("pq"),
    st.booleans(),
)


def rule_w(told: list[Asked], fallback_w: float | None, at_s: float, outage: bool) -> float:
    """What must hold at one moment, by the rule itself."""
    live = [one for one in told if one.starts_s <= at_s < (one.ends_s or math.inf)]
    if outage:
        live = [one for one in live if one.becomes is Becomes.SUBSCRIPTION]
    of = {kind: [one for one in live if one.becomes is kind] for kind in Becomes}
    least = [CONNECTION_W, *(one.amount for one in of[Becomes.LIMIT])]
    for program in "pq":
        limits = [x for x in of[Becomes.LIMIT] if x.program == program and x.confirmed]
        subs = [x.amount for x in of[Becomes.SUBSCRIPTION] if x.program == program]
        grants = [x.amount for x in of[Becomes.RESERVATION] if x.program == program and x.confirmed]
        if subs and not limits:
            least.append(min(subs) + min(grants, default=0.0))
    covered = of[Becomes.SUBSCRIPTION] or [x for x in of[Becomes.LIMIT] if x.confirmed]
    if fallback_w is not None and not covered:
        least.append(fallback_w)
    return min(least)


@settings(max_examples=60, deadline=None)
@given(st.lists(asks, max_size=8), st.one_of(st.none(), st.integers(1, 9)), st.booleans())
def test_the_caps_say_the_rule_at_every_moment(
    told: list[Asked], fallback_w: int | None, outage: bool
) -> None:
    floor_w = None if fallback_w is None else float(fallback_w)
    held = caps(*told, fallback_w=floor_w, outage=outage)
    for at_s in range(-1, 37):
        assert cap_w(held, at_s) == rule_w(told, floor_w, at_s, outage)


def limit(limit_kw: float, start: int, length: int, name: str, modified: int) -> Event:
    return read_event(
        {
            "id": name,
            "programID": "p",
            "modificationDateTime": f"2027-01-01T00:00:{modified:02d}Z",
            "intervalPeriod": {
                "start": f"2027-01-15T08:{start:02d}:00Z",
                "duration": f"PT{length}M",
            },
            "payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}],
            "intervals": [
                {"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [limit_kw]}]}
            ],
        }
    )


def test_a_vtn_dead_for_an_hour_lets_the_rule_come_to_the_second(tmp_path: Path) -> None:
    """One poll, then silence and a restart: limits run out, the subscription holds at once."""
    told = [limit(900, 0, 5, "a", 1), limit(300, 5, 5, "b", 1)]
    known = answered(Known(seed="s"), told, [PROGRAM], lambda *_: None, "boot", NOW)
    file = KeptFile(tmp_path / "kept.json")
    file.write(known)
    read, fault = file.read()
    assert fault is None
    for now_s in (NOW, NOW + 400, NOW + 3600):
        held = say(read, TERMS, now_s, outage=False, fault="no answer").caps
        edges = [(NOW + 299.999, 900e3), (NOW + 300, 300e3), (NOW + 599.999, 300e3)]
        later = [(NOW + 600, 600e3), (NOW + 3600, 600e3), (NOW + 1e7, 600e3)]
        for at_s, watts_w in edges + later:
            if at_s >= now_s:
                assert cap_w(held, at_s) == watts_w


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("poll"), st.lists(st.integers(0, 5), max_size=4)),
        st.tuples(st.just("notice"), st.integers(0, 5)),
        st.tuples(st.just("replay"), st.integers(0, 5)),
        st.tuples(st.just("broken"), st.integers(0, 5)),
        st.tuples(st.just("silence"), st.integers(0, 20)),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    max_size=12,
)
POOL = [
    limit(limit_kw, start, 10, name, modified)
    for (name, start), (limit_kw, modified) in itertools.product(
        [("a", 0), ("b", 5)], [(900, 3), (300, 2), (100, 1)]
    )
]


class World:
    """The VEN's knowledge beside what the true rule demands, through polls, notices and losses."""

    def __init__(self, folder: Path) -> None:
        self.file = KeptFile(folder / "kept.json", lambda: "the-same-seed")
        self.file.path.unlink(missing_ok=True)
        self.known, _ = self.file.read()
        self.boot, self.now_s = "boot-0", NOW
        self.truth: dict[str, Event] = {}

    def poll(self, picks: list[int]) -> None:
        self.truth = {POOL[at].id: POOL[at] for at in picks}
        self.known = answered(
            self.known, list(self.truth.values()), [PROGRAM], self.fault, self.boot, self.now_s
        )
        self.file.write(self.known)

    def fault(self, event: Event, first_s: float) -> str | None:
        return fault_of(event, first_s, PROGRAM, TERMS, self.now_s)

    def act(self, step: tuple[str, Any]) -> None:
        kind, value = step
        if kind == "poll":
            self.poll(value)
        elif kind in ("notice", "replay"):
            self.known = noticed(self.known, POOL[value], self.now_s)
        elif kind == "broken":
            event = POOL[value].model_copy(update={"unreadable": "nonsense"})
            if event.id in self.truth:
                rest = [one for name, one in self.truth.items() if name != event.id]
                told = [*rest, event]
                self.known = answered(
                    self.known, told, [PROGRAM], self.fault, self.boot, self.now_s
                )
                self.file.write(self.known)
        elif kind == "silence":
            self.now_s += 60 * value
        else:
            self.known, fault = self.file.read()
            assert fault is None
            if value:
                self.boot += "x"

    def check(self) -> None:
        outage = self.known.boot != self.boot
        held = say(self.known, TERMS, self.now_s, outage=outage).caps
        for minute in (0, 4, 5, 9, 10, 14, 15, 30):
            at_s = max(self.now_s, NOW) + 60 * minute
            assert cap_w(held, at_s) <= self.true_w(at_s, outage)

    def true_w(self, at_s: float, outage: bool) -> float:
        """The last whole answer by the rule; notices can only lower it."""
        live = []
        for one in self.truth.values():
            start_s = NOW if one.id == "a" else NOW + 300
            (payload,) = one.intervals[0].payloads
            if start_s <= at_s < start_s + 600 and not outage:
                assert isinstance(payload.values[0], int | float)
                live.append(payload.values[0] * 1e3)
        return min(live, default=600e3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_no_sequence_of_signals_losses_and_restarts_raises_the_cap_above_the_rule(
    folder: Path, steps: list[tuple[str, Any]]
) -> None:
    world = World(folder)
    for step in steps:
        world.act(step)
        world.check()


def test_a_site_that_has_never_asked_speaks_of_no_outage() -> None:
    asked = Known(asked_s=NOW - 60.0)
    assert [say(known, TERMS, NOW, outage=True).notes for known in (Known(), asked)] == [
        (),
        ("after a power outage limits do not count until the VTN has answered",),
    ]


def test_a_subscription_that_a_limit_displaces_is_one_cap_in_pieces() -> None:
    told = caps(LIMIT, fallback_w=300e3)
    pieces = [(cap.id, cap.starts_s, cap.ends_s) for cap in told if cap.limit_w == 300e3]
    assert pieces == [("subscription", None, LIMIT.starts_s), ("subscription", LIMIT.ends_s, None)]
    ids = [cap.id for cap in caps(LIMIT, SUBSCRIBED) if cap.limit_w == SUBSCRIBED.amount]
    assert ids == ["subscription/p"] * 2
