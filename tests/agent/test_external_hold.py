"""What is done to a foreign program, for any history of gate, clients, answers and doubts."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.agent.external.hold import Move, Phase, Seen, Terms, next_move

STEP_S = 0.25
ACTIVE = (Phase.RUNNING, Phase.PAUSING)

moments = st.lists(
    st.tuples(
        st.booleans(),  # open
        st.booleans(),  # busy, where it is not
        st.sampled_from([None, True, False]),  # its answer to a pause
        st.booleans(),  # its watts are doubted
        st.integers(0, 30).map(lambda n: n == 0),  # memory wanted
        st.integers(0, 30).map(lambda n: n == 0),  # it dies
    ),
    max_size=120,
)


@given(moments, st.booleans())
def test_behind_a_closed_gate_it_soon_stands_still_whatever_it_answers(
    history: list[tuple[bool, bool, bool | None, bool, bool, bool]], can_pause: bool
) -> None:
    terms = Terms(can_pause, keep_s=3.0, quiet_s=0.5)
    seen = Seen(Phase.OFF, -9.0, open=False, turned_s=-9.0, busy=False, alive=False)
    for step, (is_open, busy, answered, doubted, wanted, dies) in enumerate(history):
        now_s = step * STEP_S
        if is_open is not seen.open:
            seen = replace(seen, open=is_open, turned_s=now_s)
        alive = seen.alive and not dies
        seen = replace(
            seen, busy=busy and not is_open, answered=answered, doubted=doubted, wanted=wanted,
            alive=alive,
        )  # fmt: skip
        move, phase = next_move(now_s, seen, terms)
        closed_s = 0.0 if is_open else now_s - seen.turned_s
        if alive and phase in ACTIVE:
            assert closed_s < terms.answer_s + STEP_S, "it may run on behind a closed gate"
            assert not wanted, "memory that is wanted comes before all else"
            assert not seen.busy, "beside a busy client nothing is asked, it is stopped"
        if move is Move.START:
            assert is_open
            assert not alive
        if move in (Move.RESUME, Move.GO_ON):
            assert is_open
            assert now_s - seen.turned_s >= terms.quiet_s
        if seen.phase is Phase.ENDING and alive and now_s - seen.since_s >= terms.end_s:
            assert move is Move.KILL
        killed = move is Move.KILL
        alive = (alive and not killed) or move is Move.START
        moved = phase is not seen.phase
        itself = (seen.paused_itself or phase is Phase.PAUSED) and phase is not Phase.RUNNING
        seen = replace(
            seen, phase=phase, since_s=now_s if moved else seen.since_s, alive=alive,
            paused_itself=itself,
        )  # fmt: skip


def closed(phase: Phase, **more: object) -> Seen:
    seen = Seen(phase, 0.0, open=False, turned_s=0.0, busy=False, alive=True)
    return replace(seen, **more)  # type: ignore[arg-type]


def test_each_doubt_takes_one_step_further() -> None:
    terms = Terms(can_pause=True)
    assert next_move(1.0, closed(Phase.PAUSED, doubted=True), terms) == (Move.STOP, Phase.STOPPED)
    assert next_move(1.0, closed(Phase.STOPPED, doubted=True), terms) == (Move.END, Phase.ENDING)


def test_a_program_without_a_pause_is_stopped_at_once() -> None:
    assert next_move(0.0, closed(Phase.RUNNING), Terms(can_pause=False))[0] is Move.STOP
    assert next_move(0.0, closed(Phase.RUNNING), Terms(can_pause=True))[0] is Move.PAUSE


def test_one_that_paused_itself_is_asked_to_resume_and_not_only_let_go_on() -> None:
    terms = Terms(can_pause=True)
    halted = closed(Phase.STOPPED, open=True, turned_s=0.0)
    assert next_move(9.0, halted, terms)[0] is Move.GO_ON
    assert next_move(9.0, replace(halted, paused_itself=True), terms)[0] is Move.RESUME


def test_one_that_died_is_started_again_after_a_rest_only() -> None:
    terms = Terms(can_pause=True)
    dead = closed(Phase.RUNNING, alive=False, open=True)
    assert next_move(1.0, dead, terms) == (Move.NOTHING, Phase.OFF)
    off = replace(dead, phase=Phase.OFF, since_s=1.0)
    assert next_move(1.0 + terms.rest_s - 0.1, off, terms)[0] is Move.NOTHING
    assert next_move(1.0 + terms.rest_s, off, terms)[0] is Move.START


def test_silence_is_no_pause() -> None:
    terms = Terms(can_pause=True)
    waiting = closed(Phase.PAUSING)
    assert next_move(terms.answer_s - 0.1, waiting, terms)[0] is Move.NOTHING
    assert next_move(terms.answer_s, waiting, terms) == (Move.STOP, Phase.STOPPED)
    refused = replace(waiting, answered=False)
    assert next_move(0.1, refused, terms) == (Move.STOP, Phase.STOPPED)


def test_memory_that_is_wanted_comes_before_all_else() -> None:
    terms = Terms(can_pause=True)
    for phase in (Phase.RUNNING, Phase.PAUSING, Phase.PAUSED, Phase.STOPPED):
        wanted = closed(phase, open=True, turned_s=-9.0, wanted=True)
        assert next_move(0.0, wanted, terms) == (Move.END, Phase.ENDING)
    off = closed(Phase.OFF, alive=False, open=True, turned_s=-9.0, wanted=True)
    assert next_move(99.0, off, terms)[0] is Move.NOTHING
