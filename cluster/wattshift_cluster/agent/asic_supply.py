"""What the outlets of one ASIC say of it, and what was done to them.

That a machine draws nothing is believed only when all its outlets were read to be off and it has
stopped answering. One that goes on answering hangs somewhere else than its owner wrote down.
"""

from dataclasses import dataclass
from typing import Protocol

from wattshift_cluster.agent.asic_contact import Contact
from wattshift_cluster.agent.protocol import Quality
from wattshift_cluster.bootclock import boot_s

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

    def dark(self, contact: Contact) -> bool:
        """Whether the machine is sure to draw nothing."""
        off = self.off_s is not None and self.outlets.powered(self.device) is False
        return off and contact.misses > 0 and not self._answered(contact)

    def elsewhere(self, contact: Contact) -> str | None:
        """Why what its outlets say is not believed; None when nothing speaks against it."""
        if self.off_s is None or not self._answered(contact):
            return None
        return "its outlets are off and yet it answers: it does not hang on them"

    def draw(self) -> Draw | None:
        """What its outlets measure now; None: unknown."""
        return self.outlets.watts(self.device)

    def quality(self) -> Quality | None:
        """How a draw of nothing is known; that of the meters where there are any."""
        draw = self.draw()
        return None if draw is None else draw.quality

    def _answered(self, contact: Contact) -> bool:
        """Whether it answered after it had lost its power."""
        seen = contact.seen
        return (
            seen is not None
            and self.off_s is not None
            and seen.at_boot_s > self.off_s + HOLD_UP_S
        )


def dark(supply: Supply | None, contact: Contact) -> bool:
    """Whether a machine is sure to draw nothing, as far as it has outlets at all."""
    return supply is not None and supply.dark(contact)


def draw_of(supply: Supply | None, contact: Contact) -> Draw | None:
    """What the outlets measure, where that may be taken for the machine's own draw."""
    if supply is None or supply.elsewhere(contact) is not None:
        return None
    return supply.draw()


def dark_since_s(supply: Supply) -> float:
    """When the last proof of it was had, boot clock, s: that of the meters, else now."""
    draw = supply.draw()
    return boot_s() if draw is None else draw.at_boot_s
