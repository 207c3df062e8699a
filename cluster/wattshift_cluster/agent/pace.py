"""How much to launch at once and how long to rest in between. Pure: the clock comes in.

A launch lasts about 0.7 ms, so that the device is free within a millisecond. Each launch is due
when those before it have had their share of the time. After one that came late the next are due
the earlier, up to two milliseconds, because sleeping is never exact. What a launch takes is
expected when it is begun and corrected when it has ended, so that with two in flight the duty is
kept as with one.
"""

from dataclasses import dataclass

TARGET_NS = 700_000
MOST_COUNT = 1 << 30
GROWS_MOST, SHRINKS_MOST = 1.25, 0.5
"""From one launch to the next: one that was preempted must not shrink all that follow."""

CREDIT_NS = 2_000_000
LONGEST_SLEEP_NS = 5_000_000
UNLEASED_SLEEP_S = 0.02
"""Without a lease nobody waits for the first launch, and each look costs power."""

RECENT_NS = 250_000_000
"""So long after a launch a closed gate is looked at every millisecond: it is yielding, not off."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a launch was expected to take when it was begun.

    Attributes:
        count: hashes it was asked for.
        size: hashes that were thought right then.
        duty_pct: share of time that launches might take, 1 to 100 %.
        expected_ns: time on the device, ns.
    """

    count: int
    size: int
    duty_pct: int
    expected_ns: int


class Pace:
    """The size of the next launch and the moment it is due.

    Attributes:
        count: hashes of the next launch.
    """

    def __init__(self, first_count: int) -> None:
        """Args: first_count: hashes that take roughly a millisecond; corrected as it goes."""
        self.count = max(1, first_count)
        self._due_ns = 0
        self._ended_ns = 0

    def nonces(self, ways: int) -> int:
        """Of the next launch of a work that takes so many hashes per nonce."""
        return max(1, self.count // ways)

    def begun(self, now_ns: int, count: int, duty_pct: int) -> Charge:
        """Book a launch of `count` hashes: the next one is due when its share has passed.

        Args:
            now_ns: boot clock, ns.
            count: about `self.count`, or fewer where there is no more to try.
            duty_pct: share of time that launches may take, 1 to 100 %.
        """
        charge = Charge(count, self.count, duty_pct, TARGET_NS * count // self.count)
        due_ns = max(self._due_ns, now_ns - CREDIT_NS)
        self._due_ns = due_ns + charge.expected_ns * 100 // duty_pct
        return charge

    def ended(
        self, charge: Charge, ended_ns: int, took_ns: int, hashes: int, *, used_ns: int = 0
    ) -> None:
        """Correct a booking by what the launch really took; the next one gets the right size.

        Args:
            charge: what `begun` answered.
            ended_ns: when it ended, boot clock, ns.
            took_ns: how long it had the device, ns.
            hashes: it made; fewer than its count when it was stopped, none when it built a slice
                of a table instead.
            used_ns: processor time since the launch before, where that is what draws the power: all
                that surrounds a launch counts too. At most twice `took_ns` of it is believed.
        """
        if charge.count == hashes and charge.size == self.count <= 2 * hashes:
            self._resize(hashes, took_ns)
        spent_ns = min(max(took_ns, used_ns), 2 * took_ns)
        self._due_ns += (spent_ns - charge.expected_ns) * 100 // charge.duty_pct
        self._ended_ns = ended_ns

    def _resize(self, hashes: int, took_ns: int) -> None:
        right = hashes * TARGET_NS / max(1, took_ns)
        most = min(MOST_COUNT, max(self.count + 1, GROWS_MOST * self.count))
        self.count = max(1, round(min(most, max(SHRINKS_MOST * self.count, right))))

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
