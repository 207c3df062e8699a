"""Whether a card's watts bear out that the program on it has paused.

While a client is busy the card draws for it, and watts say nothing of the program: there only its
threads' stop counts, which the kernel carries out whatever the program wants.
"""

from dataclasses import dataclass

IDLE_SHARE, IDLE_MORE_W = 1.25, 15.0
"""A card that only holds memory draws a little more than one that is empty: its clocks stay up."""


@dataclass(frozen=True, slots=True)
class Stood:
    """How the program stands, by its wrapper.

    Attributes:
        still: it is paused, stopped or ended.
        since_s: since when, boot clock, s.
    """

    still: bool
    since_s: float


def idle_bound_w(idle_w: float) -> float:
    """The most that a card draws on which nobody computes, W."""
    return IDLE_SHARE * idle_w + IDLE_MORE_W


def doubt(
    stood: Stood, *, watts_w: float | None, at_s: float, idle_w: float, settle_s: float, busy: bool
) -> str | None:
    """Why a pause is not believed; None while nothing speaks against it.

    Args:
        stood: what the wrapper says.
        watts_w, at_s: the card's newest sample and when it was taken, boot clock, s.
        idle_w: the card's draw with nothing on it, W.
        settle_s: its watts have fallen by then.
        busy: a client or an observed server computes on it.
    """
    if not stood.still or busy or watts_w is None or at_s < stood.since_s + settle_s:
        return None
    bound_w = idle_bound_w(idle_w)
    if watts_w <= bound_w:
        return None
    return f"the card draws {watts_w:.0f} W, at rest at most {bound_w:.0f} W"
