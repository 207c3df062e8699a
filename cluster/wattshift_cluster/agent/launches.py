"""The launches of one device that are under way, in the order in which they were begun.

The device has the next launch before the last one is read. When the gate closes they are called
back: the stop word goes up, so what is only queued ends at once, and what runs is waited for.
"""

import time
from collections import deque
from dataclasses import dataclass

from wattshift_cluster.agent.pace import Charge
from wattshift_cluster.agent.tray import Assignment
from wattshift_cluster.bootclock import boot_ns
from wattshift_kernels.hasher import Hasher, HasherFailed, Launch, Range, SearchResult

POLL_S = 0.00005
"""While launches are under way, the gate and they are looked at so often; a sleep adds as much."""

OVERDUE_NS = 5_000_000_000
"""A launch of 0.7 ms that has not ended by then never will: the device hangs."""


@dataclass(frozen=True, slots=True)
class _Aloft:
    assignment: Assignment
    charge: Charge
    launch: Launch
    began_ns: int


@dataclass(frozen=True, slots=True)
class Landed:
    """A launch that has ended; times are of the boot clock, ns."""

    assignment: Assignment
    charge: Charge
    found: SearchResult
    ended_ns: int
    took_ns: int


class Launches:
    """Up to `hasher.depth` launches."""

    def __init__(self, hasher: Hasher) -> None:
        """None is under way."""
        self._hasher = hasher
        self._aloft: deque[_Aloft] = deque()
        self._stopped = False

    @property
    def aloft(self) -> int:
        """Launches under way."""
        return len(self._aloft)

    @property
    def room(self) -> bool:
        """Whether another one may be begun."""
        return len(self._aloft) < self._hasher.depth

    def begin(self, assignment: Assignment, nonces: Range, charge: Charge, now_ns: int) -> None:
        """Launch nonces that were taken from an assignment. Raises: HasherFailed."""
        if self._stopped:
            self._hasher.resume()
            self._stopped = False
        launch = self._hasher.begin(assignment.work, *nonces)
        self._aloft.append(_Aloft(assignment, charge, launch, now_ns))

    def landed(self) -> list[Landed]:
        """Those that have ended since the last look; never waits. Raises: HasherFailed."""
        ended = []
        while self._aloft and self._aloft[0].launch.done():
            ended.append(self._read(self._aloft.popleft()))
        if self._aloft and boot_ns() - self._aloft[0].began_ns > OVERDUE_NS:
            raise HasherFailed(f"a launch did not end within {OVERDUE_NS / 1e9:g} s")
        return ended

    def recall(self) -> list[Landed]:
        """Stop them all and wait until the device is free. Raises: HasherFailed."""
        self._stopped = True
        self._hasher.stop()
        ended = self.landed()
        while self._aloft:
            time.sleep(POLL_S)
            ended += self.landed()
        return ended

    def _read(self, one: _Aloft) -> Landed:
        ended_ns = boot_ns()  # before the result is fetched and its hits are verified
        found = one.launch.result()
        return Landed(one.assignment, one.charge, found, ended_ns, one.launch.took_ns)
