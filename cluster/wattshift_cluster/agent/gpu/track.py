"""What was seen of one card over the last minute, and whether its sensors can be believed.

A driver goes on answering when a sensor has died: with the last value. So a power value that does
not change is believed only while the energy counter moves as it says; without a counter, while the
card is idle.
"""

from collections.abc import Iterator

from wattshift_cluster.agent.gpu.instruments import Instruments, Slow
from wattshift_cluster.agent.gpu.library import SUCCESS, FaultKind, GpuFault, Library
from wattshift_cluster.agent.gpu.sample import GpuSample, Source, throttle_names

STALE_NS = 2_000_000_000
"""A sensor that says the same for so long is looked into."""

TOLERANCE_W = 3.0
TOLERANCE_SHARE = 0.1
"""By how much watts may differ from what the energy counter says over `STALE_NS`: it is renewed
every 0.1 s at most (arXiv 2312.02741), so either end may be off by that."""

FEWEST_STEPS = 5
"""Steps of the energy counter that make its mean better than one of samples."""

Row = tuple[int, int | None, int | None, int | None, int, Slow | None, str | None, str | None]
"""Boot clock ns; instant, average mW; energy mJ; since when the power is unchanged, boot clock ns;
slow readings; why there is nothing at all; why the power is not believed."""

_NO_SLOW: Slow = (None,) * 5


class Track:
    """One card's looks, in a ring. Written by one thread; read by any, without a lock.

    Attributes:
        uuid: the card's name.
        due_ns: when to look next, boot clock.
        turn: how many looks there were; decides whose slow turn it is.
        generation: of the library when the card was last bound.
        fault: why it cannot be read now; None while it can.
    """

    def __init__(self, uuid: str, length: int, turn: int) -> None:
        """Args: length: looks that are kept; turn: where to begin, another one for each card."""
        self.uuid = uuid
        self.due_ns = 0
        self.turn = turn
        self.generation = 0
        self.fault: GpuFault | None = None
        self._rows: list[Row | None] = [None] * length
        self._written = 0
        self._instruments: Instruments | None = None
        self._power_mw: int | None = None
        self._changed_ns = 0
        self._marked: tuple[int, int | None] = (0, None)
        self._distrust: str | None = None
        self._energy_mj: int | None = None
        self._moved_ns = 0

    @property
    def bound(self) -> bool:
        """Whether there is something to look at."""
        return self._instruments is not None

    def bind(self, library: Library, now_ns: int) -> None:
        """Take hold of the card, again after a fault. What fails is in `fault`."""
        before = self.fault
        try:
            if before is not None and before.kind is FaultKind.DRIVER_GONE:
                library.reopen(self.generation)
            self.generation = library.generation
            library.forget(self.uuid)
            self._instruments = Instruments(library, self.uuid)
        except GpuFault as fault:
            self.fail(fault, now_ns)
            return
        self.fault = None
        self._power_mw = self._energy_mj = self._distrust = None
        self._changed_ns = self._moved_ns = now_ns
        self._marked = (now_ns, None)

    def look(self, library: Library, now_ns: int) -> None:
        """Read the card; what fails is in `fault`."""
        instruments = self._instruments
        assert instruments is not None, "bind it first"
        code = instruments.look()
        if code != SUCCESS:
            self.fail(library.explain(code), now_ns)
            return
        self.turn += 1
        instruments.take_turn(self.turn)
        instant_mw, average_mw = instruments.instant_mw, instruments.average_mw
        energy_mj = instruments.energy_mj
        power_mw = average_mw if instant_mw is None else instant_mw
        if energy_mj != self._energy_mj:
            self._energy_mj, self._moved_ns = energy_mj, now_ns
        elif now_ns - self._moved_ns > STALE_NS:
            energy_mj = None  # no card draws nothing for so long
        if power_mw != self._power_mw:
            self._power_mw, self._changed_ns = power_mw, now_ns
            self._marked, self._distrust = (now_ns, energy_mj), None
        elif now_ns - self._marked[0] > STALE_NS:
            self._check(now_ns, energy_mj)
        distrust = self._distrust
        if power_mw is None:
            distrust = f"power: {library.explain(instruments.power_code).text}"
        seen = instruments.slow
        changed_ns = self._changed_ns
        self._put((now_ns, instant_mw, average_mw, energy_mj, changed_ns, seen, None, distrust))

    def fail(self, fault: GpuFault, now_ns: int) -> None:
        """Note that the card cannot be read; it keeps its place."""
        self._instruments = None
        self.fault = fault
        self._put((now_ns, None, None, None, now_ns, None, str(fault), None))

    def latest(self) -> Row | None:
        """The newest look; None before the first."""
        written = self._written
        return self._rows[(written - 1) % len(self._rows)] if written else None

    def since(self, from_ns: int) -> list[Row]:
        """Looks after `from_ns`, oldest first."""
        found = list(self._back(from_ns))
        found.reverse()
        return found

    def _back(self, from_ns: int) -> Iterator[Row]:
        for place in range(self._written - 1, max(-1, self._written - 1 - len(self._rows)), -1):
            row = self._rows[place % len(self._rows)]
            if row is None or row[0] <= from_ns:
                return
            yield row

    def _put(self, row: Row) -> None:
        self._rows[self._written % len(self._rows)] = row
        self._written += 1

    def _check(self, now_ns: int, energy_mj: int | None) -> None:
        """The power did not change since the mark: is that so, or is its sensor dead?"""
        marked_ns, marked_mj = self._marked
        self._marked = (now_ns, energy_mj)
        power_mw = self._power_mw
        if power_mw is None:
            return
        watts_w, instruments = power_mw / 1000, self._instruments
        since_s = (now_ns - self._changed_ns) / 1e9
        self._distrust = None
        if energy_mj is not None and marked_mj is not None:
            drawn_w = (energy_mj - marked_mj) / 1000 / ((now_ns - marked_ns) / 1e9)
            if abs(drawn_w - watts_w) > TOLERANCE_W + TOLERANCE_SHARE * max(watts_w, drawn_w):
                said = f"{watts_w:.0f} W for {since_s:.0f} s"
                self._distrust = f"stale power: {said}, its energy says {drawn_w:.0f} W"
        elif self._energy_mj is not None and energy_mj is None:
            self._distrust = f"stale power: neither it nor the energy moved for {since_s:.0f} s"
        else:
            activity = None if instruments is None else instruments.slow[0]
            if activity is None or activity[0] > 0:
                self._distrust = f"stale power: {watts_w:.0f} W for {since_s:.0f} s of work"


def sample_of(row: Row) -> GpuSample:
    """A look in units."""
    at_ns, instant_mw, average_mw, energy_mj, changed_ns, slow, gone, distrust = row
    if slow is None:
        return GpuSample(at_ns / 1e9, fault=gone)
    activity, clock_mhz, celsius, limit_mw, reasons = slow
    power_mw = average_mw if instant_mw is None else instant_mw
    source: Source = "average" if instant_mw is None else "instant"
    return GpuSample(
        at_boot_s=at_ns / 1e9,
        watts_w=None if distrust is not None else _thousandth(power_mw),
        average_w=None if distrust is not None else _thousandth(average_mw),
        watts_source=None if power_mw is None else source,
        power_age_s=None if power_mw is None else (at_ns - changed_ns) / 1e9,
        energy_j=_thousandth(energy_mj),
        utilisation_pct=None if activity is None else float(activity[0]),
        memory_utilisation_pct=None if activity is None else float(activity[1]),
        sm_clock_mhz=None if clock_mhz is None else float(clock_mhz),
        temperature_c=None if celsius is None else float(celsius),
        enforced_limit_w=_thousandth(limit_mw),
        throttled=throttle_names(reasons),
        fault=distrust,
    )


def mean_of(rows: list[Row]) -> float | None:
    """Mean draw over some looks, W: from the energy counter where it moves in steps small enough,
    else of the believed power values; None where less than half of the looks have one."""
    steps: list[tuple[int, int]] = []
    before: int | None = None
    for at_ns, _, _, energy_mj, *_ in rows:
        if energy_mj is None:
            steps, before = [], None
        elif energy_mj != before:
            if before is not None:
                steps.append((at_ns, energy_mj))
            before = energy_mj
    if len(steps) > FEWEST_STEPS and steps[-1][1] > steps[0][1]:
        half_ns = (rows[-1][0] - rows[0][0]) / 2
        span_ns = steps[-1][0] - steps[0][0]
        if span_ns >= half_ns:
            return (steps[-1][1] - steps[0][1]) / 1000 / (span_ns / 1e9)
    values = [
        watts
        for row in rows
        if row[7] is None and (watts := row[2] if row[1] is None else row[1]) is not None
    ]
    return sum(values) / len(values) / 1000 if rows and 2 * len(values) >= len(rows) else None


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
