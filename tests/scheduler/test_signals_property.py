"""No sequence of signals, losses, overrides and restarts yields an effective cap above the true
minimum, which an oracle works out anew in plain loops; seen to fail without each guard."""

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.in_force import effective
from wattshift_scheduler.signals import ramps, standing, windows
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.signals.minutes import Minutes
from wattshift_scheduler.signals.words import (
    Cap,
    CapKind,
    GridEvent,
    Override,
    Signals,
    Target,
    Work,
)
from wattshift_scheduler.site import Feeder, FeederTree, Rules, Site
from wattshift_scheduler.state import Outlook, State, initial
from wattshift_scheduler.turn import news
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

SEQUENCES, STEPS = 2_000, 8
CONNECTION_W = 10_000.0
T = 1_800_000_000.0
SOURCES = ("vtn", "schedule", "operator", "drill")
PAUSES_S = (0.0, 0.4, 1.0, 1.0, 2.0, 4.9, 7.0, 31.0, 60.0, 200.0)
WINDOWS_S = (0.0, 0.0, 0.0, 60.0, 300.0, 900.0, 7.0)
TREE = FeederTree.of([Feeder("main", None, CONNECTION_W)])
RULES = (
    Rules(),
    Rules(hold_s=20.0, act_at_confidence=0.7),
    Rules(ramp_up_w_per_s=50.0, ramp_down_w_per_s=80.0, hold_s=5.0),
)
STARTED = [initial(Site("s", TREE, (), rules), Values(), 1) for rules in RULES]


@dataclass(slots=True)
class Truth:
    """What really is so: all that was said, and what the site really drew, step by step."""

    caps: dict[str, tuple[Cap, ...]] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    drawn: list[tuple[float, float]] = field(default_factory=list)

    def least_w(self, rules: Rules, now_s: float) -> float:
        """The true minimum."""
        least_w = CONNECTION_W
        for source, caps in self.caps.items():
            for cap in caps:
                begun = cap.starts_s is None or cap.starts_s <= now_s
                over = cap.ends_s is not None and cap.ends_s <= now_s
                if begun and not over and cap.confidence >= rules.act_at_confidence:
                    least_w = min(least_w, self._allows_w(source, cap, now_s))
        return least_w

    def _allows_w(self, source: str, cap: Cap, now_s: float) -> float:
        limits_w = [
            one.limit_w
            for one in self.overrides
            if (one.source, one.cap) == (source, cap.id) and now_s < one.ends_s
        ]
        lifted = limits_w and cap.kind is not CapKind.BREAKER
        limit_w = min(limits_w) if lifted else cap.limit_w
        if cap.window_s not in (60.0, 300.0, 900.0):
            return limit_w
        begins_s = now_s - now_s % cap.window_s
        left_j = limit_w * cap.window_s - self._energy_j(begins_s, now_s)
        return max(left_j, 0.0) / (begins_s + cap.window_s - now_s)

    def _energy_j(self, begins_s: float, now_s: float) -> float:
        """What was really drawn; between two steps the draw goes straight from one to the next."""
        total_j = 0.0
        for (a_s, a_w), (b_s, b_w) in zip(self.drawn, self.drawn[1:], strict=False):
            from_s, to_s = max(a_s, begins_s), min(b_s, now_s)
            if to_s > from_s:
                middle = ((from_s + to_s) / 2.0 - a_s) / (b_s - a_s)
                total_j += (to_s - from_s) * (a_w + (b_w - a_w) * middle)
        return total_j


class Run:
    """One sequence: a controller on one side, the truth on the other."""

    def __init__(self, seed: int, *, journaled: bool = True) -> None:
        self.rng = random.Random(seed)
        self.rules = RULES[seed % len(RULES)]
        self.journaled = journaled
        self.truth = Truth(drawn=[(T - 5.0, CONNECTION_W)])
        self.now_s, self.drawn_w, self.committed_w = T - 5.0, CONNECTION_W, CONNECTION_W
        self.sampled_s, self.lost = -math.inf, False
        self.start(Signals({}))

    def start(self, signals: Signals) -> None:
        """A controller starts with what its journal says was said."""
        self.state: State = replace(STARTED[RULES.index(self.rules)], signals=signals)

    def play(self) -> str:
        """Play the sequence; what is broken, empty if nothing."""
        for step in range(STEPS):
            self.now_s += self.rng.choice(PAUSES_S)
            told = [self.meter(), *self.happens()]
            for event in told:
                self.state, _ = reduce(self.state, event, self.now_s)
            self.state, now = effective.arbitrated(self.state, self.now_s)
            self.state = replace(self.state, outlook=Outlook(committed_w=self.committed_w))
            if found := self.judged(now):
                return f"step {step}: {found}"
        return ""

    def judged(self, now: Arbitrated) -> str:
        least_w = self.truth.least_w(self.rules, self.now_s)
        if not 0.0 <= now.cap_w <= least_w + 1e-4:
            return f"cap {now.cap_w:.3f} W by {now.origin} {now.cap_id}, true is {least_w:.3f} W"
        for aim_w in (now.aim_w, now.mining_w):
            if math.isfinite(aim_w) and aim_w > now.cap_w:
                return f"a target of {aim_w:.1f} W above the cap of {now.cap_w:.1f} W"
        return ""

    def meter(self) -> ev.Event:
        """The site draws no more than was committed at the last step; the meter may not tell."""
        rng, before_lost = self.rng, self.lost
        self.lost = rng.random() < (0.6 if before_lost else 0.15)
        # While a lost meter is still believed, the draw must stay as it was last seen.
        believed = self.now_s - self.sampled_s <= self.rules.stale_after_s
        if not ((self.lost or before_lost) and believed):
            self.drawn_w = rng.uniform(0.0, self.committed_w)
        if self.now_s > self.truth.drawn[-1][0]:
            self.truth.drawn.append((self.now_s, self.drawn_w))
        else:
            self.drawn_w = self.truth.drawn[-1][1]
        self.committed_w = rng.uniform(self.drawn_w, CONNECTION_W)
        if self.lost:
            return ev.MeterRead(None, self.now_s)
        self.sampled_s = self.now_s
        return ev.MeterRead(self.drawn_w, self.now_s)

    def happens(self) -> list[ev.Event]:
        """Nothing (a source may be silent for good), a restart, or somebody speaks."""
        fate = self.rng.random()
        if fate < 0.3:
            return []
        if fate < 0.4:
            self.start(self.state.signals if self.journaled else Signals({}))
            return []
        return [self.speaks(self.rng.choice(SOURCES))]

    def speaks(self, source: str) -> ev.Event:
        rng = self.rng
        caps = tuple(self.cap(source, i) for i in range(rng.randrange(4)))
        words = tuple(self.override() for _ in range(rng.randrange(3)))
        self.truth.caps[source] = caps
        if source == "operator":
            self.truth.overrides = words
        works, at_w = list(Work), rng.uniform(0.0, 12_000.0)
        aims = [Target(f"t{i}", source, at_w, priority=i, work=works[i]) for i in range(2)]
        event = GridEvent("e", source, "p", self.now_s, self.now_s + 90.0, None, 500.0)
        targets = tuple(aims[: rng.randrange(3)])
        return ev.SignalChanged(
            source, caps, targets=targets, overrides=words, events=(event,)[: rng.randrange(2)]
        )

    def cap(self, source: str, i: int) -> Cap:
        rng = self.rng
        starts_s = rng.choice([None, self.now_s + rng.uniform(-50.0, 100.0)])
        ends_s = rng.choice([None, (starts_s or self.now_s) + rng.uniform(0.0, 150.0)])
        return Cap(
            f"c{i}",
            source,
            rng.uniform(0.0, 12_000.0),
            starts_s,
            ends_s,
            kind=rng.choice(list(CapKind)),
            window_s=rng.choice(WINDOWS_S),
            confidence=rng.choice([1.0, 1.0, 0.6, 0.3]),
            ramp_w_per_s=rng.choice([math.inf, 40.0]),
        )

    def override(self) -> Override:
        rng = self.rng
        where = (rng.choice(SOURCES), f"c{rng.randrange(3)}")
        ends_s = self.now_s + rng.uniform(-10.0, 120.0)
        return Override(*where, rng.uniform(0.0, 12_000.0), ends_s, "ann", "why")


def first_found(count: int, **how: Any) -> str:
    """What the first sequence that breaks something breaks; empty if none does."""
    for seed in range(count):
        if found := Run(seed, **how).play():
            return f"sequence {seed}, {found}"
    return ""


def test_no_sequence_yields_a_cap_above_the_true_minimum() -> None:
    assert first_found(SEQUENCES) == ""


class Anyone(str):
    """A name that is everybody's."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)


def _too_long(signals: Any, at: float, now_s: float, was: Any = standing.standing) -> Any:
    late = tuple(replace(one, ends_s=one.ends_s + 60.0) for one in signals.overrides)
    return was(replace(signals, overrides=late), at, now_s)


def _every_cap_of_it(overrides: Any, now_s: float, was: Any = standing._in_place_of) -> Any:
    found = was(overrides, now_s)
    return {(source, f"c{i}"): one for (source, _), one in found.items() for i in range(4)}


def _no_breakers(signals: Any, *rest: Any, was: Any = standing.standing) -> Any:
    caps = {
        source: tuple(replace(cap, kind=CapKind.CONTRACT) for cap in caps)
        for source, caps in signals.caps.items()
    }
    return was(replace(signals, caps=caps), *rest)


def _all_forecasts(signals: Any, _at: float, now_s: float, was: Any = standing.standing) -> Any:
    return was(signals, 1.0, now_s)


def _unknown_is_zero(self: Any, from_s: float, _w: float, was: Any = Minutes.energy_j) -> float:
    energy_j: float = was(self, from_s, 0.0)
    return energy_j


def _stale_is_fresh(state: Any, now_s: float) -> Any:
    return state.memory.site.until(now_s, state.meter_w), state.memory


def _slow_fall(pace: Any, hard_w: float, *_rest: Any) -> tuple[float, str]:
    most_w = max(hard_w, pace.cap_w - 1.0)
    return (most_w, "ramp down") if math.isfinite(most_w) else (hard_w, "")


def _last_word(caps: Any, connection_w: float, now_s: float, allows_w: Any) -> Arbitrated:
    live = [cap for cap in caps if cap.in_force(now_s)]
    most_w = allows_w(live[-1]) if live else connection_w
    return Arbitrated(min(most_w, connection_w), "x", "x")


MUTATIONS: list[tuple[str, Any, str, Any]] = [
    ("an override outlives its end", effective, "standing", _too_long),
    ("an override lifts every cap of its source", standing, "_in_place_of", _every_cap_of_it),
    ("a breaker is overridden", effective, "standing", _no_breakers),
    ("anybody overrides", news, "OPERATOR", Anyone()),
    ("what is sure enough is advice", effective, "standing", _all_forecasts),
    ("unknown time is zero", Minutes, "energy_j", _unknown_is_zero),
    ("a stale meter is believed", effective, "_metered", _stale_is_fresh),
    ("any window is followed", windows, "averaged", lambda cap: cap.window_s > 0.0),
    ("a window is not kept", windows, "allowed_w", lambda *_: math.inf),
    ("a ramp delays a hard cap", ramps, "risen", _slow_fall),
    ("the last word holds", effective, "arbitrate", _last_word),
]


@pytest.mark.parametrize(
    ("where", "name", "mutant"), [row[1:] for row in MUTATIONS], ids=[row[0] for row in MUTATIONS]
)
def test_without_its_guard_the_cap_is_seen_to_rise(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any
) -> None:
    monkeypatch.setattr(where, name, mutant)
    assert first_found(SEQUENCES) != ""


def test_a_restart_without_the_journal_is_seen_to_raise_it() -> None:
    assert first_found(SEQUENCES, journaled=False) != ""
