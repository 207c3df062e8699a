"""What to do to a foreign program next: a pure function of the gate, its state and the time.

    off ──open──▶ running ──closed──▶ pausing ──it answered──▶ paused ──not believed──▶ stopped
                     │                    └──silent──▶ stopped      (its threads by SIGSTOP)
                     └──a client is busy, or it has no pause──▶ stopped
    paused, stopped ──closed for long, not believed, memory wanted──▶ ending ──gone──▶ off

A pause is asked for only where nobody waits: beside a busy client the threads are stopped at once.
"""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Of the program."""

    OFF = "off"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPED = "stopped"
    ENDING = "ending"


class Move(StrEnum):
    """To be carried out now."""

    NOTHING = "nothing"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    GO_ON = "go on"
    END = "end"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a program is treated.

    Attributes:
        can_pause: it has a pause of its own.
        keep_s: so long after the gate has closed it keeps the card's memory.
        quiet_s: the gate must have been open for so long before the program goes on.
        answer_s: it must have answered to a pause by then.
        end_s: it is killed so long after it was told to end.
        rest_s: between two starts.
    """

    can_pause: bool
    keep_s: float = 30.0
    quiet_s: float = 2.0
    answer_s: float = 1.5
    end_s: float = 1.0
    rest_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is so now.

    Attributes:
        phase, since_s: of the program, and since when, s.
        open: the gate lets it hash.
        turned_s: when the gate last opened or closed, s.
        busy: the gate is closed for a client only.
        alive: its process runs.
        answered: to the pause asked for: None not yet, False refused or silent.
        doubted: the card's watts say that it goes on.
        wanted: the card's memory is wanted, or the wrapper is to end.
        paused_itself: it was paused over HTTP before its threads were stopped.
    """

    phase: Phase
    since_s: float
    open: bool
    turned_s: float
    busy: bool
    alive: bool
    answered: bool | None = None
    doubted: bool = False
    wanted: bool = False
    paused_itself: bool = False


def next_move(now_s: float, seen: Seen, terms: Terms) -> tuple[Move, Phase]:
    """What to do, and the phase that this leads to."""
    phase = seen.phase
    if phase is Phase.OFF:
        due = seen.open and _quiet(now_s, seen, terms) and now_s - seen.since_s >= terms.rest_s
        return (Move.START, Phase.RUNNING) if due and not seen.wanted else (Move.NOTHING, phase)
    if not seen.alive:
        return Move.NOTHING, Phase.OFF
    if phase is Phase.ENDING:
        late = now_s - seen.since_s >= terms.end_s
        return (Move.KILL if late else Move.NOTHING), phase
    if seen.wanted:
        return Move.END, Phase.ENDING
    if seen.open:
        return _opened(now_s, seen, terms)
    return _closed(now_s, seen, terms)


def _opened(now_s: float, seen: Seen, terms: Terms) -> tuple[Move, Phase]:
    if seen.phase in (Phase.RUNNING, Phase.PAUSING) or not _quiet(now_s, seen, terms):
        return Move.NOTHING, seen.phase
    if seen.phase is Phase.STOPPED and not seen.paused_itself:
        return Move.GO_ON, Phase.RUNNING
    return Move.RESUME, Phase.RUNNING


def _closed(now_s: float, seen: Seen, terms: Terms) -> tuple[Move, Phase]:
    phase = seen.phase
    if phase is Phase.RUNNING:
        if terms.can_pause and not seen.busy:
            return Move.PAUSE, Phase.PAUSING
        return Move.STOP, Phase.STOPPED
    if phase is Phase.PAUSING:
        if seen.answered:
            return Move.NOTHING, Phase.PAUSED
        silent = seen.answered is False or now_s - seen.since_s >= terms.answer_s
        return (Move.STOP, Phase.STOPPED) if silent or seen.busy else (Move.NOTHING, phase)
    if phase is Phase.PAUSED and (seen.doubted or seen.busy):
        return Move.STOP, Phase.STOPPED
    if seen.doubted or now_s - seen.turned_s >= terms.keep_s:
        return Move.END, Phase.ENDING
    return Move.NOTHING, phase


def _quiet(now_s: float, seen: Seen, terms: Terms) -> bool:
    return now_s - seen.turned_s >= terms.quiet_s
