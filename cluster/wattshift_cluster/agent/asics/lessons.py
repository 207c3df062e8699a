"""What one ASIC teaches its agent, and how that is used: told points, corrected watts, known draws.

Only what the machine was seen to do by our own, confirmed command teaches anything. A meter's word
may lower what is told; the firmware's own, which may be a fifth off, only once a meter has shown by
how much. What the machine disproves is unlearnt at once.
"""

from dataclasses import dataclass, replace
from typing import Any

import structlog

from wattshift_cluster.agent.asics.profile import Visit
from wattshift_cluster.agent.asics.supply import Draw
from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicPoint, AsicReading
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import Command, Goal, State
from wattshift_cluster.fleet.learn import TRUST_FROM, Learnt, Tally
from wattshift_cluster.fleet.learnt_file import Kept
from wattshift_cluster.fleet.study import Sample, Settled, Study, Tempo
from wattshift_cluster.fleet.taught import believed, news, scale, taught

log = structlog.get_logger()

AT_WORK_SHARE = 0.8
"""Of a point's hashrate, or of its watts where it tells none: with less the machine is not there
yet, or throttled, and what it draws is not that point's."""

STILL_AT_WORK_SHARE = 0.7
"""Of the hashrate at which a draw was learnt: with less it draws less, nobody knows how much."""

RATE_SLACK = 0.1
DISPROVED_POLLS = 2
"""A hashrate above the learnt one by more than that in so many polls is another mode's."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One poll, with what the controller's side of the agent knows at that moment.

    Attributes:
        raw: as the firmware said it.
        draw: by its outlets; None without.
        command: the last wish and what became of it.
        ours: whether the set point in force is the one that we wrote.
    """

    raw: AsicReading
    draw: Draw | None
    command: Command
    ours: bool


class Lessons:
    """What is learnt of one machine.

    Attributes:
        own: the machine as its driver says; None while it is not known.
        identity: the machine as it is told.
        learnt: of it.
        dirty: whether the disk does not have it yet.
    """

    def __init__(self, asic: Asic, kept: Kept | None = None, tempo: Tempo | None = None) -> None:
        """Args: kept: from an earlier life of this agent; tempo: how much is looked at."""
        self.identity: AsicIdentity | None = None
        self.learnt = Learnt() if kept is None else kept.learnt
        self.dirty = False
        self._asic = asic
        self._kept = kept
        self.own: AsicIdentity | None = None
        self._study = Study(tempo)
        self._ask_w = 0.0
        self._faster_polls = 0

    # Who it is

    def adopt(self, found: AsicIdentity | None) -> bool:
        """Take note of who it is, None: nobody that is meant; whether that changes what is told."""
        if found is self.own or found == self.own:
            return False
        if found is None:
            self._study.forget()
        elif self._kept is not None and (why := self._kept.changed(found)) is not None:
            log.warning("asic.learnt_dropped", device=self._asic.id, reason=why)
            self.learnt, self.dirty = Learnt(), True
            self._kept = Kept.of(found, self.learnt)
            self._study.forget()
        self.own, before = found, self.identity
        self.identity = None if found is None else taught(found, self.learnt)
        return self.identity != before

    @property
    def kept(self) -> Kept | None:
        """What is to be kept of it; None while there is nothing."""
        return self._kept

    def retell(self) -> bool:
        """Tell what was learnt since; whether that is any news."""
        if self.own is None or self.identity is None:
            return False
        told = taught(self.own, self.learnt)
        if not news(self.identity, told):
            return False
        self.identity = told
        return True

    # What is used

    def corrected(self, seen: AsicReading) -> AsicReading:
        """A sample with the firmware's watts as the outlet's meter would say them."""
        if seen.watts_w is None or self.learnt.factor.n < TRUST_FROM:
            return seen
        return replace(seen, watts_w=self.learnt.corrected_w(seen.watts_w))

    def asking(self, goal: Goal) -> Goal:
        """A goal in the machine's own words, and no stricter on hashes than its driver is."""
        own, point = self.own, self._point(goal.mode)
        if own is None or point is None or goal.mode == SLEEP:
            return goal
        if own.continuous:
            return replace(goal, ask_w=goal.ask_w / scale(self.learnt, lowers=False))
        most_h = max(goal.most_h_per_s, point.hashrate_h_per_s * (1.0 + own.tolerance))
        return replace(goal, ask_w=max(goal.ask_w, point.watts_w), most_h_per_s=most_h)

    def drawn_w(self, command: Command, h_per_s: float | None) -> float | None:
        """What a machine that reports no watts draws by what was learnt; None where unknown.

        Only a command that was seen to be obeyed says at which point it is.
        """
        goal = command.goal
        if goal is None or command.state is not State.CONFIRMED or command.above:
            return None
        tally = self.learnt.points.get(goal.mode, Tally())
        if goal.mode == SLEEP:
            if tally.n:
                return tally.mean
            point = self._point(SLEEP)
            return point.watts_w if point is not None and self.learnt.points else None
        rate = self.learnt.rates.get(goal.mode, Tally())
        point = self._point(goal.mode)
        if point is None or not believed(point.watts_w, tally) or rate.n == 0 or h_per_s is None:
            return None
        return tally.mean if h_per_s >= STILL_AT_WORK_SHARE * rate.mean else None

    # What is learnt

    def took(self, goal: Goal, at_s: float, *, woke: bool) -> None:
        """The machine took a command of ours."""
        self._ask_w = goal.ask_w
        self._study.begin(goal.mode, at_s, woke=woke)

    def lost(self) -> None:
        """It has lost its power, or somebody else has set it: what it does now is not ours."""
        self._study.forget()

    def disproved(self, sight: Sight) -> bool:
        """Whether a poll shows more than was learnt of its point: that is then unlearnt."""
        goal, command = sight.command.goal, sight.command
        if goal is None or goal.mode == SLEEP or self.identity is None or not self.learnt:
            return False
        settled = sight.raw.at_boot_s >= command.proof_from_s + goal.settle_s
        if not settled and command.state is not State.CONFIRMED:
            return False  # on its way down it draws everything in between
        told, own = self._told(goal.mode), self._point(goal.mode)
        if told is None or own is None or told.watts_w >= own.watts_w:
            return False
        over = 1.0 + self.identity.tolerance
        watts_w = self._drawn(sight)
        if watts_w is not None:
            if not told.watts_w * over < watts_w <= own.watts_w * over:
                return False
            self._learn(self.learnt.with_point(goal.mode, watts_w, 0.0, sight.raw.hashrate_h_per_s))
        elif not self._faster(goal.mode, sight.raw.hashrate_h_per_s):
            return False
        else:
            self._learn(self.learnt.without_point(goal.mode))
        log.warning("asic.learnt_disproved", device=self._asic.id, mode=goal.mode, watts_w=watts_w)
        return True

    def saw(self, sight: Sight) -> None:
        """Draw the lesson of a poll, if there is one."""
        raw, draw = sight.raw, self._outlet(sight)
        watts_w = raw.watts_w if draw is None else draw.watts_w
        if not sight.ours:
            self._study.forget(watts_w)
            return
        if watts_w is None:
            return
        at_s = raw.at_boot_s if draw is None else min(raw.at_boot_s, draw.at_boot_s)
        sample = Sample(at_s, watts_w, draw is not None, raw.watts_w, raw.hashrate_h_per_s)
        settled = self._study.add(sample)
        if settled is not None and self._settled(settled, sight.command):
            self._study.done(at_s)

    def merge(self, learnt: Learnt) -> None:
        """Take in what somebody else measured of it, in watts as this agent tells them."""
        ours, theirs = self.learnt.factor, learnt.factor
        if ours.n >= TRUST_FROM:
            theirs = theirs.times(ours.mean)
        if 0 < theirs.n < TRUST_FROM:
            # A step on a meter, made on purpose and seen at both edges, is worth as many looks.
            own2 = (TRUST_FROM * theirs.error) ** 2
            theirs = Tally(TRUST_FROM, theirs.mean, 0.0, own2, theirs.most)
        self._learn(self.learnt.plus(replace(learnt, factor=theirs)))

    def visited(self, visit: Visit) -> None:
        """Take in a point that was measured on purpose, if it held still."""
        found, point = visit.figures, self._point(visit.mode)
        if not visit.settled or found.watts_w is None or found.error_w is None or point is None:
            return
        learnt, rate = self.learnt, found.hashrate_h_per_s
        if found.outlet_w is not None and found.own_w is not None and visit.mode != SLEEP:
            learnt = learnt.with_claim(found.own_w, found.outlet_w, found.error_w)
        if self._held(point):
            add = learnt.with_word if found.outlet_w is None else learnt.with_point
            learnt = add(visit.mode, found.watts_w, found.error_w, rate)
        if visit.settle_s is not None:
            learnt = learnt.with_time(visit.mode, visit.settle_s)
        self._learn(learnt)

    def view(self) -> dict[str, Any]:
        """What is learnt, for people; see docs/protocol.md."""
        own, told = self.own, self.identity
        modes = [] if own is None or told is None else [point.mode for point in told.points]
        factor = self.learnt.factor
        return {
            "device": self._asic.id,
            "points": [self._row(mode) for mode in modes],
            "down_s": _figure(self.learnt.down),
            "up_s": _figure(self.learnt.up),
            "factor": _figure(factor),
            "factor_error": _error(factor),
            "factor_n": factor.n,
        }

    def _row(self, mode: str) -> dict[str, Any]:
        own, told = self._point(mode), self._told(mode)
        assert own is not None
        assert told is not None
        tally = self.learnt.points.get(mode, Tally())
        took = self.learnt.times.get(mode, Tally())
        rate = self.learnt.rates.get(mode, Tally())
        return {
            "mode": mode,
            "driver_w": own.watts_w,
            "told_w": told.watts_w,
            "claimed_w": _figure(self.learnt.claims.get(mode, Tally())),
            "watts_w": _figure(tally),
            "error_w": _error(tally),
            "most_w": None if tally.n == 0 else tally.most,
            "n": tally.n,
            "hashrate_h_per_s": _figure(rate),
            "settle_s": _figure(took),
            "settle_n": took.n,
            "told_s": told.transition_s,
        }

    def _settled(self, settled: Settled, command: Command) -> bool:
        """Whether a draw that holds still is that of its point, and so a lesson."""
        goal, own = command.goal, self._point(settled.mode)
        if goal is None or own is None or goal.mode != settled.mode:
            return False
        if command.state is not State.CONFIRMED or command.above:
            return False
        if settled.mode != SLEEP and not self._at_work(own, settled):
            return False
        learnt = self._timed(settled)
        level, claim_w = settled.draw, settled.claim_w
        if settled.metered and settled.mode != SLEEP and claim_w is not None:
            learnt = learnt.with_claim(claim_w, level.watts_w, level.error_w)
        if settled.metered is not None and self._held(own):
            add = learnt.with_point if settled.metered else learnt.with_word
            learnt = add(own.mode, level.watts_w, level.error_w, settled.h_per_s)
        self._learn(learnt)
        return True

    def _timed(self, settled: Settled) -> Learnt:
        learnt, took_s = self.learnt, settled.took_s
        if took_s is None:
            return learnt
        if settled.mode == SLEEP:
            learnt = learnt.with_times(down_s=took_s)
        elif settled.woke:
            learnt = learnt.with_times(up_s=took_s)
        return learnt.with_time(settled.mode, took_s)

    def _held(self, own: AsicPoint) -> bool:
        """Whether the machine was asked for this very point, and not for watts in between."""
        assert self.own is not None
        return not self.own.continuous or own.mode == SLEEP or self._ask_w >= 0.99 * own.watts_w

    def _at_work(self, own: AsicPoint, settled: Settled) -> bool:
        if settled.h_per_s is not None and own.hashrate_h_per_s > 0.0:
            return settled.h_per_s >= AT_WORK_SHARE * own.hashrate_h_per_s
        return settled.draw.watts_w >= AT_WORK_SHARE * own.watts_w

    def _drawn(self, sight: Sight) -> float | None:
        """The best word on its draw: the outlet's, else its own, corrected, W."""
        draw = self._outlet(sight)
        return self.corrected(sight.raw).watts_w if draw is None else draw.watts_w

    def _outlet(self, sight: Sight) -> Draw | None:
        """What its outlets say, if they are as real as the machine is."""
        draw = sight.draw
        fits = draw is not None and (draw.quality == "measured" or self._asic.emulated)
        return draw if fits else None

    def _faster(self, mode: str, h_per_s: float | None) -> bool:
        rate = self.learnt.rates.get(mode, Tally())
        above = rate.n > 0 and h_per_s is not None and h_per_s > rate.most * (1.0 + RATE_SLACK)
        self._faster_polls = self._faster_polls + 1 if above else 0
        return self._faster_polls >= DISPROVED_POLLS

    def _learn(self, learnt: Learnt) -> None:
        assert self.own is not None, "what nobody is has nothing to teach"
        if learnt != self.learnt:
            self.learnt, self.dirty = learnt, True
            self._kept = Kept.of(self.own, learnt)

    def _point(self, mode: str) -> AsicPoint | None:
        return _named(self.own, mode)

    def _told(self, mode: str) -> AsicPoint | None:
        return _named(self.identity, mode)


def _named(known: AsicIdentity | None, mode: str) -> AsicPoint | None:
    points = () if known is None else known.points
    return next((point for point in points if point.mode == mode), None)


def _figure(tally: Tally) -> float | None:
    return tally.mean if tally.n else None


def _error(tally: Tally) -> float | None:
    return tally.error if tally.n else None
