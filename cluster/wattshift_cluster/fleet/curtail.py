"""One machine's command from wish to proof: what it takes until a curtailment counts.

A firmware's "done" proves nothing. A command counts as obeyed when a sample that was asked for
after it shows the draw at or below the point; a machine that reports no watts must hash no more
than the point does, and have had its settling time. Until then the command is given again, with
back-off. What does not obey for long is called failed, loudly, and still tried. Pure: events and
times come in, a new value goes out.

Raising is confirmed by the same rule. It says that the machine is within its watts, not that it has
started: what is drawn too little harms nobody.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

SLEEP = "sleep"
DRIFT_SAMPLES = 2
"""Samples in a row above the point that count: one may be a spike of the sensor."""


class State(StrEnum):
    """Where a command stands."""

    IDLE = "idle"
    PENDING = "pending"
    COMMANDED = "commanded"
    CONFIRMED = "confirmed"
    DRIFTED = "drifted"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a machine is to do.

    Attributes:
        mode: the point's name.
        most_w: the most that it may draw there, its tolerance included, W.
        most_h_per_s: the most that it may hash there; 0 asleep.
        settle_s: seconds after the accepted command within which the draw has settled.
        ask_w: watts to name in the command; a renewed lease may change them and asks nothing new.
        fixed: the mode alone says what the machine is told; other bounds ask nothing new of it.
    """

    mode: str
    most_w: float
    most_h_per_s: float
    settle_s: float
    ask_w: float = field(compare=False)
    fixed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long one tries, s.

    Attributes:
        retry_s: pauses after the first, second, … failed try; the last one goes on.
        margin_s: on top of the settling time, before an accepted command is given again.
        attempt_s: a try that reports nothing has ended by then.
        tries, failed_after_s: whichever is reached first makes a command failed.
        failed_retry_s: pause between tries from then on.
        drift_pause_s: between two commands to a machine that drifts: two masters that overrule each
            other would wear it out.
    """

    retry_s: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    margin_s: float = 3.0
    attempt_s: float = 15.0
    tries: int = 6
    failed_after_s: float = 300.0
    failed_retry_s: float = 60.0
    drift_pause_s: float = 10.0


_UNPROVEN = (State.PENDING, State.COMMANDED, State.DRIFTED, State.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Command:
    """The last wish for one machine, and what became of it. All times are of one clock, s.

    Attributes:
        state, since_s: where it stands, and since when.
        goal: the wish; None before the first.
        order: number of the wish. An answer names it: a late one is not taken for another's.
        tries: attempts since the wish, or since it was last confirmed.
        sent_s: when the last attempt began; -inf if never.
        proof_from_s: only samples asked for later than this can confirm; inf while nothing can.
        due_s: when the next attempt is due; inf if none is.
        unproven_s: since when it has not been confirmed.
        above: samples in a row above the point, since it was confirmed.
        silent_s: since when it does not answer; None while it does.
        returned: it was silent, and has not been confirmed since.
        reason: why it is not confirmed, as last heard.
    """

    pace: Pace = Pace()
    state: State = State.IDLE
    since_s: float = -math.inf
    goal: Goal | None = None
    order: int = 0
    tries: int = 0
    sent_s: float = -math.inf
    proof_from_s: float = math.inf
    due_s: float = math.inf
    unproven_s: float = -math.inf
    above: int = 0
    silent_s: float | None = None
    returned: bool = False
    reason: str | None = None

    def want(self, goal: Goal, now_s: float) -> "Command":
        """A new wish, which replaces the old one at once; the same wish changes nothing."""
        old = self.goal
        if old is not None and (goal == old or (goal.fixed and goal.mode == old.mode)):
            # Some firmware restarts at every command: only the bounds have changed, if anything.
            same = goal == old and goal.ask_w == old.ask_w
            return self if same else replace(self, goal=goal)
        return Command(
            pace=self.pace,
            state=State.PENDING,
            since_s=now_s,
            goal=goal,
            order=self.order + 1,
            sent_s=self.sent_s,
            due_s=now_s,
            unproven_s=now_s,
            silent_s=self.silent_s,
            returned=self.returned,
        )

    def drop(self) -> "Command":
        """Nothing is wanted of the machine any more; answers still under way count for nothing."""
        if self.goal is None:
            return self
        return Command(
            pace=self.pace,
            order=self.order + 1,
            sent_s=self.sent_s,
            silent_s=self.silent_s,
            returned=self.returned,
        )

    def interrupted_by(self, goal: Goal) -> bool:
        """Whether the attempt under way must be broken off for this: lowering never waits."""
        return self.goal is not None and goal.most_w < self.goal.most_w

    def due(self, now_s: float) -> bool:
        """Whether the command is to be given (again) now."""
        return self.goal is not None and now_s >= self.due_s

    @property
    def proven(self) -> bool:
        """Whether nothing is open: confirmed, or nothing was ever wanted."""
        return self.state in (State.CONFIRMED, State.IDLE)

    @property
    def _left_alone(self) -> bool:
        return self.due_s == math.inf

    # What comes in

    def sent(self, now_s: float) -> "Command":
        """An attempt begins. Should its end never be told, it is due again all the same."""
        wait_s = self.pace.attempt_s + self._pause_s(self.tries + 1)
        return replace(self, tries=self.tries + 1, sent_s=now_s, due_s=now_s + wait_s)

    def waits(self, reason: str | None, until_s: float) -> "Command":
        """It must not be given yet (only ever said of a raise)."""
        return replace(self, due_s=until_s, reason=reason)

    def accepted(self, order: int, now_s: float) -> "Command":
        """The machine took the command. Only later samples can tell whether it obeys."""
        if order != self.order or self.goal is None:
            return self
        wait_s = max(self.goal.settle_s + self.pace.margin_s, self._pause_s(self.tries))
        return self._to(
            State.COMMANDED,
            now_s,
            self.reason if self.state is State.FAILED else None,
            silent_s=None,
            proof_from_s=now_s,
            due_s=now_s + wait_s,
            above=0,
        )

    def refused(self, order: int, reason: str, now_s: float) -> "Command":
        """The machine, or its driver, declined."""
        if order != self.order:
            return self
        due_s = now_s + self._pause_s(self.tries)
        return self._to(State.PENDING, now_s, reason, silent_s=None, due_s=due_s)

    def unreachable(self, order: int, reason: str, now_s: float) -> "Command":
        """The attempt got no usable answer. It may have been carried out or not."""
        if order != self.order:
            return self
        due_s = now_s + self._pause_s(self.tries)
        return self._to(State.UNREACHABLE, now_s, reason, due_s=due_s)

    def lost(self, reason: str, now_s: float) -> "Command":
        """Samples have failed for so long that nothing is known of it any more.

        It stays due, unless it was seen to run within its point: then it is left alone until it
        answers, because some firmware restarts its work at every command.
        """
        if self.goal is None:
            return replace(self, silent_s=self._silent_since(now_s))
        due_s = min(self.due_s, now_s + self._pause_s(self.tries))
        if self.goal.most_h_per_s > 0.0 and self._left_alone:
            due_s = math.inf
        return self._to(
            State.UNREACHABLE,
            now_s,
            reason,
            silent_s=self._silent_since(now_s),
            due_s=due_s,
            proof_from_s=math.inf,
            unproven_s=now_s if self.proven else self.unproven_s,
            tries=0 if self.proven else self.tries,
        )

    def powerless(self, now_s: float) -> "Command":
        """It has no power and does not answer: the proof of a sleep, whatever was commanded.

        What it is to do above sleep stays open. Once it answers again, it is commanded afresh.
        """
        if self.goal is None or self.goal.most_h_per_s > 0.0:
            return self.lost("it has no power", now_s)
        if self.state is State.CONFIRMED and self.silent_s is not None:
            return self
        return replace(
            self,
            state=State.CONFIRMED,
            since_s=now_s,
            reason=None,
            above=0,
            tries=0,
            silent_s=self._silent_since(now_s),
            proof_from_s=math.inf,
            due_s=now_s,
        )

    def overruled(self, reason: str, now_s: float) -> "Command":
        """Somebody else set the machine higher, or it drew more than its point."""
        if self.goal is None or self.state is not State.CONFIRMED:
            return self
        due_s = max(now_s, self.sent_s + self.pace.drift_pause_s)
        return self._to(
            State.DRIFTED,
            now_s,
            reason,
            tries=0,
            unproven_s=now_s,
            due_s=due_s,
            proof_from_s=now_s,
        )

    def sample(
        self, watts_w: float | None, hashrate_h_per_s: float | None, asked_s: float, now_s: float
    ) -> "Command":
        """What the machine draws.

        Args:
            watts_w, hashrate_h_per_s: None where it does not tell.
            asked_s: when the sample was asked for. The answer may be older than its arrival.
            now_s: the clock.
        """
        if self.silent_s is not None:
            return self._back(asked_s, now_s)
        if self.goal is None or asked_s <= self.proof_from_s:
            return self
        obeys, what = self._judge(watts_w, hashrate_h_per_s, asked_s)
        if obeys:
            if self.state is State.CONFIRMED:
                return self if self.above == 0 else replace(self, above=0)
            return replace(
                self,
                state=State.CONFIRMED,
                since_s=now_s,
                reason=None,
                above=0,
                tries=0,
                due_s=math.inf,
                returned=False,
            )
        if obeys is None or self.state is not State.CONFIRMED:
            return self if self.state is State.CONFIRMED else replace(self, reason=what)
        over = replace(self, above=self.above + 1)
        return over.overruled(what, now_s) if over.above >= DRIFT_SAMPLES else over

    def tick(self, now_s: float) -> "Command":
        """Time has passed: a command that is due once more may be beyond hope."""
        if self.state not in _UNPROVEN or self.tries == 0 or now_s < self.due_s:
            return self
        assert self.goal is not None
        patience_s = max(self.pace.failed_after_s, 2.0 * self.goal.settle_s)
        if self.tries < self.pace.tries and now_s < self.unproven_s + patience_s:
            return self
        return replace(self, state=State.FAILED, since_s=now_s)

    # What it says

    def explain(self, now_s: float) -> str:
        """Where it stands, in words."""
        if self.goal is None:
            return "nothing is wanted of it"
        age_s = max(0.0, now_s - self.since_s)
        why = f": {self.reason}" if self.reason else ""
        match self.state:
            case State.CONFIRMED:
                return f"{self.goal.mode}, confirmed {age_s:.0f} s ago"
            case State.COMMANDED:
                return f"{self.goal.mode} commanded {age_s:.0f} s ago, not confirmed{why}"
            case State.FAILED:
                open_s = now_s - self.unproven_s
                every = f"retried every {self.pace.failed_retry_s:.0f} s"
                return f"{self.goal.mode} failed: not confirmed for {open_s:.0f} s{why}, {every}"
            case State.DRIFTED:
                return f"drifted from {self.goal.mode} {age_s:.0f} s ago{why}"
            case state:
                return f"set {self.goal.mode}: {state} for {age_s:.0f} s, tried {self.tries}x{why}"

    def _judge(
        self, watts_w: float | None, hashrate_h_per_s: float | None, asked_s: float
    ) -> tuple[bool | None, str]:
        """Whether it obeys; None while that cannot be told. And what was seen."""
        assert self.goal is not None
        if watts_w is not None and math.isfinite(watts_w):
            seen = (
                f"it draws {watts_w:,.0f} W, {self.goal.mode} is at most {self.goal.most_w:,.0f} W"
            )
            return watts_w <= self.goal.most_w, seen
        if hashrate_h_per_s is None or not math.isfinite(hashrate_h_per_s):
            return None, "it tells neither watts nor hashrate"
        if hashrate_h_per_s > self.goal.most_h_per_s:
            return False, f"it reports no watts and hashes at {hashrate_h_per_s / 1e12:,.1f} TH/s"
        settled = asked_s >= self.proof_from_s + self.goal.settle_s
        return (True if settled else None), "it reports no watts and may not have settled yet"

    def _back(self, asked_s: float, now_s: float) -> "Command":
        """It answers again. It may have restarted, so what was proven is open again."""
        assert self.silent_s is not None
        reason = f"back after {now_s - self.silent_s:.0f} s of silence"
        if self.goal is None:
            return replace(self, silent_s=None, returned=True, proof_from_s=math.inf)
        due_s = from_s = now_s
        if self._left_alone:
            due_s += self.goal.settle_s + self.pace.margin_s
        else:
            from_s = math.inf
        state = State.COMMANDED if self._left_alone else State.PENDING
        return self._to(
            state,
            now_s,
            reason,
            silent_s=None,
            returned=True,
            proof_from_s=max(from_s, asked_s),
            due_s=due_s,
        )

    def _silent_since(self, now_s: float) -> float:
        return now_s if self.silent_s is None else self.silent_s

    def _pause_s(self, tries: int) -> float:
        if self.state is State.FAILED:
            return self.pace.failed_retry_s
        return self.pace.retry_s[min(max(tries, 1), len(self.pace.retry_s)) - 1]

    def _to(self, state: State, now_s: float, reason: str | None, **fields: Any) -> "Command":
        """Another state; a failed command stays failed until it is confirmed."""
        kept = self.state if self.state is State.FAILED else state
        since_s = self.since_s if kept is self.state else now_s
        return replace(self, state=kept, since_s=since_s, reason=reason, **fields)
