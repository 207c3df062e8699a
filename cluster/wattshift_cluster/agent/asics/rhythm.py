"""How often an ASIC is looked at, and how long each step with it may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rhythm:
    """All of them, s.

    Attributes:
        poll_s: between two looks, at a machine whose command is open or in a small fleet.
        full_s: between two full reads (temperatures, set points).
        surprise_s: at least between two full reads because of unexpected watts.
        prepare_s: between two renewals of what a command needs; shorter than any session's life.
        identify_s: between two questions who it is.
        lookup_s: pauses while it has not been found; the last one goes on.
        connect_s, read_s, write_s, close_s: deadlines.
        lost_polls: polls in a row that must fail before a machine counts as silent.
        reconnect_misses: after every so many failed polls the firmware is told afresh.
        alarm_s: how long a foreign write is shown at least: a polling controller must not miss it.
        settle_s: on top of a point's own time, before another set point counts as foreign.
        grace_s: how long the controller has to lease what runs already, from the agent's start.
    """

    poll_s: float = 1.0
    full_s: float = 60.0
    surprise_s: float = 10.0
    prepare_s: float = 25.0
    identify_s: float = 600.0
    lookup_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    connect_s: float = 8.0
    read_s: float = 3.0
    write_s: float = 12.0
    close_s: float = 8.0
    lost_polls: int = 3
    reconnect_misses: int = 6
    alarm_s: float = 3.0
    settle_s: float = 2.0
    grace_s: float = 20.0
