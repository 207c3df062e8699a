"""The life of a command: nothing counts before watts show it, nothing is given up quietly."""

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.fleet.curtail import Command, Goal, Pace, State

SLEEP = Goal("sleep", most_w=32.0, most_h_per_s=0.0, settle_s=5.0, ask_w=0.0)
LOW = Goal("low", most_w=1050.0, most_h_per_s=52e12, settle_s=10.0, ask_w=1050.0)
HIGH = Goal("high", most_w=3150.0, most_h_per_s=126e12, settle_s=10.0, ask_w=3150.0)
PACE = Pace()


def commanded(goal: Goal, now_s: float = 0.0) -> Command:
    wished = Command().want(goal, now_s).sent(now_s)
    return wished.accepted(wished.order, now_s)


def confirmed(goal: Goal, watts_w: float) -> Command:
    return commanded(goal).sample(watts_w, None, 1.0, 1.0)


def test_a_command_is_confirmed_by_watts_asked_for_after_it() -> None:
    command = commanded(SLEEP, 10.0)
    assert command.state is State.COMMANDED
    assert command.sample(30.0, None, 10.0, 10.5).state is State.COMMANDED, "asked for before"
    assert command.sample(3000.0, None, 11.0, 11.1).state is State.COMMANDED
    assert command.sample(math.nan, None, 11.0, 11.1).state is State.COMMANDED
    assert command.sample(None, None, 11.0, 11.1).state is State.COMMANDED
    done = command.sample(30.0, None, 11.0, 11.1)
    assert done.state is State.CONFIRMED
    assert not done.due(1e9)


def test_watts_that_were_low_before_the_command_was_taken_prove_nothing() -> None:
    wished = Command().want(SLEEP, 0.0)
    assert wished.sample(10.0, 0.0, 1.0, 1.0).state is State.PENDING
    tried = wished.sent(1.0).unreachable(1, "silence", 2.0)
    assert tried.sample(10.0, 0.0, 3.0, 3.0).state is State.UNREACHABLE


def test_without_watts_the_hashrate_counts_after_the_settling_time() -> None:
    command = commanded(SLEEP, 0.0)
    assert command.sample(None, 0.0, 4.0, 4.0).state is State.COMMANDED
    assert command.sample(None, 1e12, 6.0, 6.0).state is State.COMMANDED
    assert command.sample(None, 0.0, 6.0, 6.0).state is State.CONFIRMED


def test_drift_takes_two_samples_in_a_row_and_is_commanded_again() -> None:
    command = confirmed(LOW, 1000.0)
    spike = command.sample(2000.0, None, 20.0, 20.0)
    assert spike.state is State.CONFIRMED
    assert spike.sample(1000.0, None, 21.0, 21.0).sample(2000.0, None, 22.0, 22.0).state is (
        State.CONFIRMED
    ), "two spikes, but not in a row"
    drifted = spike.sample(2000.0, None, 21.0, 21.0)
    assert drifted.state is State.DRIFTED
    assert drifted.due(21.0)
    assert "2,000 W" in drifted.explain(22.0)
    again = drifted.sent(21.0).accepted(drifted.order, 21.5)
    assert again.sample(1000.0, None, 21.2, 22.0).state is State.COMMANDED
    assert again.sample(1000.0, None, 22.0, 22.0).state is State.CONFIRMED


def test_two_masters_do_not_overrule_each_other_at_every_sample() -> None:
    drifted = confirmed(LOW, 1000.0).overruled("somebody else set high", 2.0)
    assert not drifted.due(2.0)
    assert drifted.due(PACE.drift_pause_s)


def test_a_new_wish_replaces_the_old_at_once_and_old_answers_count_for_nothing() -> None:
    raising = Command().want(HIGH, 0.0).sent(0.0)
    assert raising.interrupted_by(SLEEP)
    assert not Command().want(LOW, 0.0).interrupted_by(HIGH)
    lowered = raising.want(SLEEP, 1.0)
    assert lowered.state is State.PENDING
    assert lowered.due(1.0)
    assert lowered.accepted(raising.order, 2.0) == lowered
    assert lowered.refused(raising.order, "no", 2.0) == lowered
    assert lowered.unreachable(raising.order, "silence", 2.0) == lowered
    assert lowered.want(SLEEP, 3.0) is lowered


def test_what_never_obeys_fails_loudly_and_is_still_tried() -> None:
    command, now_s, tries = Command().want(SLEEP, 0.0), 0.0, 0
    while command.state is not State.FAILED:
        now_s += 1.0
        command = command.tick(now_s)
        if command.state is not State.FAILED and command.due(now_s):
            command = command.sent(now_s).refused(command.order, "bad password", now_s)
            tries += 1
        assert now_s < 2 * PACE.failed_after_s
    assert tries == PACE.tries
    assert "failed" in command.explain(now_s)
    assert "bad password" in command.explain(now_s)
    assert "retried every 60 s" in command.explain(now_s)
    later = command.sent(now_s).accepted(command.order, now_s)
    assert later.state is State.FAILED, "its word changes nothing"
    assert later.due(now_s + PACE.failed_retry_s)
    assert later.sample(30.0, None, now_s + 1, now_s + 1).state is State.CONFIRMED


def test_a_slow_firmware_is_given_its_own_time() -> None:
    slow = Goal("sleep", 32.0, 0.0, settle_s=600.0, ask_w=0.0)
    command = commanded(slow)
    assert not command.due(600.0)
    assert command.tick(599.0).state is State.COMMANDED
    assert command.due(610.0)


def test_a_resting_machine_that_was_silent_is_commanded_again() -> None:
    lost = confirmed(SLEEP, 30.0).lost("silence", 10.0)
    assert lost.state is State.UNREACHABLE
    assert lost.due(12.0)
    back = lost.sample(30.0, 0.0, 50.0, 50.0)
    assert back.state is State.PENDING, "a machine that restarts draws little before it draws much"
    assert back.due(50.0)
    assert "back after 40 s" in back.explain(50.0)
    assert back.returned
    proven = back.sent(50.0).accepted(back.order, 50.5).sample(30.0, None, 51.0, 51.0)
    assert proven.state is State.CONFIRMED
    assert not proven.returned


def test_a_running_machine_that_was_silent_is_believed_by_a_later_sample() -> None:
    lost = confirmed(LOW, 1000.0).lost("silence", 10.0)
    assert not lost.due(1e6), "some firmware restarts its work at every command"
    back = lost.sample(1000.0, None, 50.0, 50.0)
    assert back.state is State.COMMANDED
    assert back.returned
    assert back.due(100.0), "should it not settle"
    assert back.sample(1000.0, None, 51.0, 51.0).state is State.CONFIRMED


def test_nothing_wanted_is_nothing_done() -> None:
    idle = commanded(SLEEP).drop()
    assert idle.state is State.IDLE
    assert not idle.due(1e9)
    assert idle.accepted(1, 5.0) == idle
    assert idle.tick(1e9) == idle
    assert idle.sample(3000.0, None, 1.0, 1.0) == idle


@dataclass
class World:
    """A machine and its master, second by second: what the machine does is up to the test."""

    command: Command = field(default_factory=Command)
    now_s: float = 0.0
    sent_s: float = -1.0
    accepted_s: float = math.inf
    longest_s: float = 0.0
    """Longest time between two tries while something was open."""

    def second(self, answer: str, watts_w: float | None, polled: bool) -> None:
        self.now_s += 1.0
        self.command = self.command.tick(self.now_s)
        if self.command.due(self.now_s):
            self.sent_s = self.now_s
            order = self.command.order
            self.command = self.command.sent(self.now_s)
            match answer:
                case "accepted":
                    self.command = self.command.accepted(order, self.now_s)
                    self.accepted_s = self.now_s
                case "refused":
                    self.command = self.command.refused(order, "no", self.now_s)
                case "unreachable":
                    self.command = self.command.unreachable(order, "silence", self.now_s)
                case "lost":
                    pass
        if polled:
            self.command = self.command.sample(watts_w, None, self.now_s, self.now_s)
        else:
            self.command = self.command.lost("silence", self.now_s)
        if not self.command.proven:
            self.longest_s = max(self.longest_s, self.now_s - self.sent_s)


ANSWERS = st.sampled_from(["accepted", "refused", "unreachable", "lost"])
SECONDS = st.tuples(ANSWERS, st.sampled_from([None, 10.0, 30.0, 40.0, 3000.0]), st.booleans())


@given(st.lists(SECONDS, max_size=60))
def test_never_confirmed_but_by_low_watts_after_an_accepted_command(script) -> None:
    world = World()
    world.command = world.command.want(SLEEP, 0.0)
    for answer, watts_w, polled in script:
        before = world.command.state
        world.second(answer, watts_w, polled)
        if world.command.state is State.CONFIRMED and before is not State.CONFIRMED:
            assert polled
            assert watts_w is not None
            assert watts_w <= SLEEP.most_w
            assert world.now_s > world.accepted_s


@given(st.lists(st.tuples(ANSWERS, st.booleans()), min_size=1, max_size=100))
def test_what_is_accepted_and_ignored_is_never_confirmed(script) -> None:
    world = World()
    world.command = world.command.want(SLEEP, 0.0)
    for answer, polled in script:
        world.second(answer, 3000.0, polled)
        assert world.command.state is not State.CONFIRMED


@given(
    st.lists(st.tuples(ANSWERS, st.sampled_from([None, 3000.0]), st.booleans()), max_size=120),
    st.sampled_from([SLEEP, LOW]),
)
def test_whatever_is_open_is_tried_again_within_bounded_time(script, goal) -> None:
    world = World()
    world.command = world.command.want(goal, 0.0)
    for answer, watts_w, polled in script:
        world.second(answer, watts_w, polled)
    assert world.longest_s <= PACE.attempt_s + PACE.failed_retry_s + 1.0


@given(st.lists(SECONDS, min_size=1, max_size=20))
@settings(max_examples=50)
def test_what_is_open_for_long_is_called_failed(script) -> None:
    world = World()
    world.command = world.command.want(SLEEP, 0.0)
    while world.now_s < PACE.failed_after_s + 2 * PACE.attempt_s:
        for answer, watts_w, polled in script:
            world.second(answer, None if watts_w != 3000.0 else watts_w, polled)
    assert world.command.state is State.FAILED
    assert "failed" in world.command.explain(world.now_s)


@given(st.lists(st.one_of(SECONDS, st.sampled_from([SLEEP, LOW, HIGH])), max_size=60))
def test_whatever_happens_a_lower_wish_is_due_at_once(script) -> None:
    world = World()
    for step in script:
        if isinstance(step, Goal):
            held = world.command.goal
            world.command = world.command.want(step, world.now_s)
            if held is None or step.most_w < held.most_w:
                assert world.command.due(world.now_s)
                assert world.command.state is State.PENDING
        else:
            world.second(*step)
    assert world.command.explain(world.now_s)


def test_a_renewed_lease_with_other_watts_asks_nothing_new() -> None:
    command = confirmed(LOW, 1000.0)
    renewed = Goal("low", 1050.0, 52e12, 10.0, ask_w=1049.0)
    after = command.want(renewed, 5.0)
    assert (after.order, after.state) == (command.order, command.state)
    assert after.goal is not None
    assert after.goal.ask_w == 1049.0
