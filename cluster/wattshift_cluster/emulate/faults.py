"""The ways in which an emulated machine can misbehave, each seen on real ones.

A fault belongs to one machine, holds until it is cleared, and is reached only through the
emulator's own HTTP port: a real machine has no such switch.
"""

from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a machine."""

    NONE = "none"
    MUTE = "mute"
    """Accepts connections and never answers (a hung control board)."""
    REFUSE = "refuse"
    """Refuses connections (powered off, or its API switched off)."""
    IGNORE = "ignore"
    """Says "done" to set points and does not follow them."""
    BLANK = "blank"
    """Answers with neither watts nor hashrate (a power supply without a sensor)."""
    GARBAGE = "garbage"
    """Answers with bytes that are not its protocol."""
