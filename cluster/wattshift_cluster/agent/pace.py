"""How much to launch at once and how long to rest in between. Pure: the clock comes in.

A launch lasts about 0.7 ms, so that the device is free within a millisecond. A duty below 100 % is
kept by resting after each launch for as long as its share demands; what a rest was too long is made
good, up to two milliseconds, because sleeping is never exact.
"""

TARGET_NS = 700_000
LEAST_COUNT = 64
MOST_COUNT = 1 << 30
CREDIT_NS = 2_000_000
LONGEST_SLEEP_NS = 5_000_000
UNLEASED_SLEEP_S = 0.02
"""Without a lease nobody waits for the first launch, and each look costs power."""

RECENT_NS = 250_000_000
"""So long after a launch a closed gate is looked at every millisecond: it is yielding, not off."""


class Pace:
    """The size of the next launch and the rest that is owed before it.

    Attributes:
        count: hashes of the next launch.
    """

    def __init__(self, first_count: int) -> None:
        """Args: first_count: hashes that take roughly a millisecond; corrected as it goes."""
        self.count = max(LEAST_COUNT, first_count)
        self._due_ns = 0
        self._ended_ns = 0

    def launched(
        self, ended_ns: int, took_ns: int, count: int, duty_pct: int, *, used_ns: int = 0
    ) -> None:
        """Book a launch: the next one gets the right size, and its rest is owed.

        Args:
            ended_ns: when it ended, boot clock, ns.
            took_ns: how long it lasted, ns.
            count: hashes it tried.
            duty_pct: share of time that launches may take, 1 to 100 %.
            used_ns: processor time since the launch before, where that is what draws the power: all
                that surrounds a launch counts too. At most twice `took_ns` of it is believed.
        """
        if count == self.count:
            # Limited steps: one launch that was preempted must not shrink all that follow.
            factor = min(1.25, max(0.5, TARGET_NS / max(1, took_ns)))
            self.count = min(MOST_COUNT, max(LEAST_COUNT, round(count * factor)))
        began_ns = ended_ns - took_ns
        credit_ns = min(CREDIT_NS, max(0, began_ns - self._due_ns))
        spent_ns = min(max(took_ns, used_ns), 2 * took_ns)
        self._due_ns = began_ns + spent_ns * 100 // duty_pct - credit_ns
        self._ended_ns = ended_ns

    def rest_s(self, now_ns: int) -> float:
        """Seconds to sleep before asking again; 0 when the next launch is due."""
        return max(0, min(self._due_ns - now_ns, LONGEST_SLEEP_NS)) / 1e9

    def closed_s(self, now_ns: int, *, leased: bool) -> float:
        """Seconds to sleep while the gate is closed or there is no work.

        Args:
            now_ns: boot clock, ns.
            leased: there is a lease, so a client is what keeps the gate closed.
        """
        if not leased:
            return UNLEASED_SLEEP_S
        return 0.001 if now_ns - self._ended_ns < RECENT_NS else LONGEST_SLEEP_NS / 1e9
