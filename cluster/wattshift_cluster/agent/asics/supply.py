"""What the outlets of one ASIC say of it, and what was done to them.

That a machine draws nothing is believed only when all its outlets were read to be off and it has
stopped answering. One that goes on answering hangs somewhere else than its owner wrote down.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from wattshift_cluster.agent.asics.contact import Contact
from wattshift_cluster.agent.protocol import Quality
from wattshift_cluster.asic.driver import AsicReading

HOLD_UP_S = 1.0
"""A power supply feeds its controller on for so long after it has lost its mains, at most."""


class Draw(Protocol):
    """Watts as outlets measure them. See `fences.OutletWatts`."""

    @property
    def at_boot_s(self) -> float:
        """When they were asked for, boot clock, s."""
        ...

    @property
    def watts_w(self) -> float:
        """W."""
        ...

    @property
    def quality(self) -> Quality:
        """How they are had."""
        ...


class Outlets(Protocol):
    """What of `Fences` is asked here."""

    def powered(self, device: str) -> bool | None:
        """Whether any of its outlets is on; None: unknown."""
        ...

    def watts(self, device: str) -> Draw | None:
        """What it draws by all of them; None: unknown."""
        ...

    def nothing(self, device: str) -> Draw | None:
        """The proof that it draws nothing, by the state of its outlets; None: there is none."""
        ...


@dataclass(slots=True)
class Supply:
    """The power of one machine.

    Attributes:
        off_s: since when its outlets are seen to be off, boot clock, s; None: they are not.
        fenced: whether it loses its power by itself should this agent die.
        remark: what was done to its outlets; None: nothing.
    """

    device: str
    outlets: Outlets
    off_s: float | None = None
    fenced: bool = False
    remark: str | None = None

    def look(self, now_s: float) -> None:
        """Note since when it is off."""
        match self.outlets.powered(self.device):
            case True:
                self.off_s = None
            case False if self.off_s is None:
                self.off_s = now_s

    def dark(self, contact: Contact) -> Draw | None:
        """The proof that the machine draws nothing; None where it may draw something."""
        if self.off_s is None or contact.misses == 0 or self._answered(contact):
            return None
        return self.outlets.nothing(self.device)

    def elsewhere(self, contact: Contact) -> str | None:
        """Why what its outlets say is not believed; None when nothing speaks against it."""
        if self.off_s is None or not self._answered(contact):
            return None
        return "its outlets are off and yet it answers: it does not hang on them"

    def draw(self, contact: Contact) -> Draw | None:
        """What its outlets measure, where that may be taken for the machine's own draw."""
        return None if self.elsewhere(contact) is not None else self.outlets.watts(self.device)

    def _answered(self, contact: Contact) -> bool:
        """Whether it answered after it had lost its power."""
        seen = contact.seen
        return seen is not None and seen.at_boot_s > (self.off_s or 0.0) + HOLD_UP_S


def draw_of(seen: AsicReading, supply: Supply | None, contact: Contact) -> Draw | None:
    """What the outlets measure, for a machine that tells no watts itself."""
    return None if supply is None or seen.watts_w is not None else supply.draw(contact)


def metered(seen: AsicReading, supply: Supply | None, contact: Contact) -> AsicReading:
    """A sample with the watts of the outlets where the machine tells none."""
    draw = draw_of(seen, supply, contact)
    if draw is None:
        return seen
    at_s = min(seen.at_boot_s, draw.at_boot_s)
    return replace(seen, at_boot_s=at_s, watts_w=draw.watts_w)
