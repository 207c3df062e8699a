"""The ways in which an emulated machine can misbehave, each seen on real ones.

A fault belongs to one machine, holds until it is cleared, and is reached only through the
emulator's own HTTP port: a real machine has no such switch.
"""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a machine."""

    NONE = "none"
    MUTE = "mute"
    """Accepts connections and never answers (a hung control board)."""
    SLOW = "slow"
    """Obeys at once and answers late, by `seconds`."""
    REFUSE = "refuse"
    """Refuses connections (its API switched off)."""
    OFFLINE = "offline"
    """Off the network: connecting meets no answer at all, open connections fall silent."""
    RESTART = "restart"
    """The control board restarts: connections die, none is taken for `seconds`, then all is well
    again and the fault is over."""
    POWER_CUT = "power_cut"
    """The outlet is off: no watts, and off the network. Cleared, the machine boots and resumes."""
    POWER_ON = "power_on"
    """No fault: puts an outlet on again, whatever switched it off."""
    IGNORE = "ignore"
    """Says "done" to set points and does not follow them."""
    BLANK = "blank"
    """Answers with neither watts nor hashrate (a power supply without a sensor)."""
    GARBAGE = "garbage"
    """Answers with bytes that are not its protocol."""
    HALF = "half"
    """Sends half of each answer and closes."""
    WRONG_TYPE = "wrong_type"
    """Sends numbers as texts, lists, objects and null."""
    FLOOD = "flood"
    """Begins an answer that does not end, up to a gigabyte."""
    WRONG_PASSWORD = "wrong_password"
    """Somebody has changed its password."""
    OTHER_IDENTITY = "other_identity"
    """Answers with the hardware address and serial number of another machine."""


SPOILING = frozenset((Fault.SLOW, Fault.HALF, Fault.WRONG_TYPE, Fault.FLOOD))
"""Faults that change answers on their way out; see `spoil`."""

SILENCING = frozenset((Fault.MUTE, Fault.GARBAGE))
"""Faults under which the firmware is not even asked."""

SLOW_S = 3.0
MAX_FAULT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault and what belongs to it.

    Attributes:
        fault: what is wrong.
        seconds: of `SLOW` and `RESTART`; None for their own.
        identity: seed whose identifiers `OTHER_IDENTITY` shows; None for a stranger's.
    """

    fault: Fault
    seconds: float | None = None
    identity: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a time that nobody would wait for."""
        if self.seconds is not None and not 0.0 <= self.seconds <= MAX_FAULT_S:
            raise ValueError(f"seconds are 0 to {MAX_FAULT_S:g}")


WELL = Trouble(Fault.NONE)
