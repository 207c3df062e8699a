"""Other masters of an ASIC: set points that we did not write.

What the machine does without our having written it is reported. Only when that is higher than what
we wrote is ours written again: two masters that keep overruling each other wear the machine out.
"""

from dataclasses import dataclass

POLLS = 2
"""Samples in a row that must show it: one may have been under way while we wrote."""


@dataclass(slots=True)
class Others:
    """Watches the set points of one machine.

    Attributes:
        ours: the mode that we wrote last; None while nothing of ours is in force.
        settled_s: boot clock from which on another mode is not ours still settling, s.
        until_s: boot clock until which the alarm is shown, s.
    """

    ours: str | None = None
    settled_s: float = 0.0
    until_s: float = 0.0
    polls: int = 0

    def wrote(self, mode: str, settled_s: float) -> None:
        """The machine took `mode` from us, and has settled by then."""
        self.ours, self.settled_s, self.polls = mode, settled_s, 0

    def look(self, mode: str | None, at_s: float, now_s: float, alarm_s: float) -> str | None:
        """One sample; the foreign mode once it is certain.

        Args:
            mode: the set point that it names; None is no sample.
            at_s: when it was taken, boot clock, s.
            now_s, alarm_s: the clock, and for how long to show it, s.
        """
        if self.ours is None or mode is None or at_s < self.settled_s:
            return None
        if mode == self.ours:
            self.polls = 0
            return None
        self.polls += 1
        if self.polls < POLLS:
            return None
        self.until_s = now_s + alarm_s
        return mode
