"""A verdict on one neighbour of the miner, and the busy mark that holds it in the gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Marker(Protocol):
    """One gate's busy mark. Calls alternate, `enter` first; neither fails nor waits."""

    def enter(self) -> None:
        """Inference has the device from now on."""
        ...

    def leave(self) -> None:
        """It has it no longer."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a neighbour needs the device.

    Attributes:
        busy: nothing may be mined beside it now.
        why: in one sentence.
        at_boot_s: when the last answered look began, boot clock, s; None before the first.
        age_s: how old that look is, s; None before the first.
    """

    busy: bool
    why: str
    at_boot_s: float | None
    age_s: float | None


class HeldMark:
    """The same busy mark in several gates. It begins busy: what was never seen is not idle."""

    def __init__(self, markers: Sequence[Marker]) -> None:
        """Mark every gate busy. Args: markers: one for each device."""
        self._markers = tuple(markers)
        self._busy = False
        self.set(busy=True)

    @property
    def busy(self) -> bool:
        """Whether the gates are marked."""
        return self._busy

    def set(self, *, busy: bool) -> None:
        """Mark or unmark every gate; nothing happens where it already is so."""
        if busy == self._busy:
            return
        self._busy = busy
        for marker in self._markers:
            if busy:
                marker.enter()
            else:
                marker.leave()
