"""What a sample shows beside the command's own proof: other masters, heat, watts off the point."""

import structlog

from wattshift_cluster.agent.asics.others import Others
from wattshift_cluster.asic.driver import AsicIdentity, AsicReading
from wattshift_cluster.fleet.curtail import Command, Goal, State
from wattshift_cluster.fleet.safety import Heat

log = structlog.get_logger()

SURPRISE_SHARE, SURPRISE_W = 0.15, 20.0
"""By which watts must lie off the point before the machine is asked for all it has to say."""


def watts_of(known: AsicIdentity, mode: str) -> float:
    """Watts of a mode; one that the machine did not offer may be anything, so its nameplate."""
    watts = (point.watts_w for point in known.points if point.mode == mode)
    return next(watts, known.nameplate_w)


def overruled(
    device: str,
    known: AsicIdentity,
    others: Others,
    theirs: str | None,
    command: Command,
    now_s: float,
) -> Command:
    """The command after somebody else was seen to set the machine.

    Args:
        device, known: the machine.
        others: who watches for that.
        theirs: the set point in force, if it is certain that it is not ours.
        command: ours; given again only where theirs is the higher one.
        now_s: the clock, s.
    """
    ours = others.ours
    if theirs is None or ours is None:
        return command
    if others.polls == 2:
        log.warning("asic.foreign_write", device=device, ours=ours, theirs=theirs)
    if watts_of(known, theirs) <= watts_of(known, ours):
        return command
    return command.overruled(f"somebody else set {theirs}", now_s)


def felt(
    heat: Heat,
    known: AsicIdentity,
    wish: Goal | None,
    board_c: float | None,
    limit_c: float | None,
    now_s: float,
) -> Heat:
    """How far it is held down for being hot, after a sample.

    Args:
        heat: before it.
        known, wish: the machine, and what it is to do; None: nothing.
        board_c, limit_c: its hottest board and what that may have, °C; None where unknown.
        now_s: the clock, s.
    """
    points_w = [point.watts_w for point in known.points]
    held_w = known.nameplate_w if wish is None else watts_of(known, wish.mode)
    return heat.felt(board_c, limit_c, points_w, held_w, now_s)


def unexpected(known: AsicIdentity, command: Command, seen: AsicReading) -> bool:
    """Whether the watts are not those of the point that it should hold."""
    wish = command.goal
    if wish is None or command.state is not State.CONFIRMED or seen.watts_w is None:
        return False
    point_w = watts_of(known, wish.mode)
    return abs(seen.watts_w - point_w) > max(SURPRISE_SHARE * point_w, SURPRISE_W)


def changed(device: str, before: Command, after: Command, now_s: float) -> bool:
    """Log where a command has come to; whether it is newly seen to be obeyed."""
    if after.state is before.state:
        return False
    if after.state is State.CONFIRMED and before.state is State.FAILED:
        log.info("asic.obeys", device=device, now=after.explain(now_s))
    if after.state in (State.DRIFTED, State.UNREACHABLE):
        log.warning(f"asic.{after.state}", device=device, reason=after.reason)
    return after.state is State.CONFIRMED
