"""Two stories for the frequency response: a simulated event at 30 Hz, and the Iberian blackout.

Replayed: what is measured is the decision, on the trace's own clock. A sensor's window is laid over
the trace first, so what it costs is counted. What devices add is measured with the real agent.
"""

import csv
import gzip
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from wattshift_scheduler.frequency.response import Phase, Response, Sample, respond
from wattshift_scheduler.frequency.terms import Sensor, Terms, claims

GMLC = "grid/gmlc_sim_freq_event_30hz.csv.gz"
IBERIA = "grid/iberia_blackout_2025-04-28_toledo_2s.csv.gz"

GMLC_NOMINAL_KV = 543.4
"""The mean of Bus1.V over the first 20 s, kV: the trace names no nominal, and nothing has happened
there yet."""

IBERIA_NOMINAL_V = 45_000.0 / math.sqrt(3.0)
"""Phase to earth of a 45 kV network, 25,981 V. The trace names no nominal; its median of 27.6 kV is
47.9 kV between phases, and 45 kV is the standard level of Spain below that. What follows is the
same for every nominal up to 27,401 V: at 12:33:20 the lowest phase stood at 28,771 V."""

SENSOR = Sensor(accuracy_hz=0.005, window_s=0.05, rate_hz=30.0)
"""Three cycles of 60 Hz, five millihertz: a power-quality meter of the better kind."""

TERMS = Terms(
    nominal_hz=60.0,
    dead_band_hz=0.036,
    full_at_hz=0.3,
    emergency_hz=59.85,
    accuracy_hz=SENSOR.accuracy_hz,
    dice=0.5,
)
"""ERCOT's governor dead band, and its trigger of RRS-FFR: full within 15 cycles below 59.85 Hz."""

IBERIA_SENSOR = Sensor(accuracy_hz=0.001, window_s=2.0, rate_hz=0.5)
IBERIA_TERMS = Terms(
    nominal_hz=50.0,
    dead_band_hz=0.2,
    full_at_hz=1.0,
    emergency_hz=49.0,
    accuracy_hz=IBERIA_SENSOR.accuracy_hz,
    stale_s=5.0,
    gap_s=2.5,
    dice=0.5,
)
"""Defence plans of continental Europe begin to shed load at 49.0 Hz."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A level that was passed on the way down.

    Attributes:
        level_hz: it.
        at_s: when the trace itself passed it, between two of its points, s.
        answered_s: from then to the share that rose because of it; None: it never did.
        below_s: for how long the trace stayed below.
    """

    level_hz: float
    at_s: float
    answered_s: float | None
    below_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """A change that a person would tell of: when, what it does then, the share, and why."""

    at_s: float
    phase: Phase
    share: float
    hz: float
    v_pu: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Story:
    """What a replay did.

    Attributes:
        moments: all changes of phase, and of the reason while the frequency was low.
        crossings: of the dead band and of the emergency level, as they were passed.
        sheds: how many began.
        swings: how often the share rose after it had fallen: each is a turn of a limit cycle.
        most_share, end_share: the highest and the last.
        most_v_pu_shedding: the highest voltage at which the share rose; None: it never did.
        words: what the sensor's class lets it claim.
        step_ms: processor time of a step, the longest, ms.
    """

    moments: tuple[Moment, ...]
    crossings: tuple[Crossing, ...]
    sheds: int
    swings: int
    most_share: float
    end_share: float
    most_v_pu_shedding: float | None
    words: tuple[str, ...]
    step_ms: float

    @property
    def response_ms_max(self) -> float | None:
        """The longest time from a crossing to the share it asked for, ms; None: one had no answer,
        or there was none.
        """
        times = [one.answered_s for one in self.crossings]
        known = [answered_s for answered_s in times if answered_s is not None]
        return max(known) * 1e3 if known and len(known) == len(times) else None

    def text(self) -> str:
        """The story, a line for each moment."""
        lines = [f"{one.at_s:9.2f} s  {_line(one)}" for one in self.moments]
        return "\n".join((*lines, *(f"claimed: {word}" for word in self.words)))


def _line(one: Moment) -> str:
    volts = "?" if one.v_pu is None else f"{one.v_pu:.3f}"
    return f"{one.hz:7.3f} Hz {volts} pu  {one.phase:9} {one.share:4.0%}  {one.reason}"


def gmlc(folder: Path) -> list[Sample]:
    """Bus 1 of the simulated event: s, Hz, per unit of its quiet beginning."""
    with gzip.open(folder / GMLC, "rt", newline="") as rows:
        return [
            Sample(float(row["Time"]), float(row["Bus1.F"]), float(row["Bus1.V"]) / GMLC_NOMINAL_KV)
            for row in csv.DictReader(rows)
        ]


def iberia(folder: Path, nominal_v: float = IBERIA_NOMINAL_V) -> list[Sample]:
    """Toledo on 28 April 2025: s after 11:00 CEST, Hz, the highest phase in per unit."""
    with gzip.open(folder / IBERIA, "rt", newline="") as rows:
        return list(_toledo(csv.DictReader(rows), nominal_v))


def _toledo(rows: Iterable[dict[str, str]], nominal_v: float) -> Iterator[Sample]:
    began: datetime | None = None
    for row in rows:
        # Only differences count, and no clock was changed that day.
        at = datetime.strptime(row["time"], "%d-%b-%Y %H:%M:%S").replace(tzinfo=UTC)
        began = began or at
        volts = [row[f"Analyzer{line}PhaseVoltage"] for line in ("L1", "L2", "L3")]
        if row["AnalyzerL1Frequency"] and all(volts):  # a minute lacks a reading now and then
            highest_pu = max(float(one) for one in volts) / nominal_v
            yield Sample(
                (at - began).total_seconds(), float(row["AnalyzerL1Frequency"]), highest_pu
            )


def windowed(trace: Sequence[Sample], window_s: float) -> list[Sample]:
    """What a sensor says that takes the mean of a window: told at its end."""
    said: list[Sample] = []
    first = 0
    for at, one in enumerate(trace):
        while trace[first].t_s <= one.t_s - window_s:
            first += 1
        part = trace[first : at + 1]
        said.append(replace(one, hz=sum(each.hz for each in part) / len(part)))
    return said


def replay(trace: Sequence[Sample], terms: Terms, sensor: Sensor) -> Story:
    """Run a trace through the response, seen through a sensor's window.

    Args:
        trace: the truth, times rising.
        terms: what is offered.
        sensor: whose window is laid over it, and whose class limits the claims.
    """
    said = windowed(trace, sensor.window_s) if sensor.rate_hz >= 5.0 else list(trace)
    now = Response()
    moments: list[Moment] = []
    shares: list[float] = []
    slowest_s, most_v, was_low = 0.0, None, False
    for one in said:
        before, began_s = now, time.thread_time()
        now = respond(terms, before, one.t_s, one)
        slowest_s = max(slowest_s, time.thread_time() - began_s)
        shares.append(now.share)
        if now.share > before.share and one.v_pu is not None:
            most_v = max(most_v or 0.0, one.v_pu)
        low = one.hz < terms.edge_hz
        news = low and (not was_low or _kind(now.reason) != _kind(before.reason))
        was_low = low
        if now.phase is not before.phase or (news and terms.measured(one.hz)):
            moments.append(Moment(one.t_s, now.phase, now.share, one.hz, one.v_pu, now.reason))
    return Story(
        moments=tuple(moments),
        crossings=_crossings(trace, said, shares, terms),
        sheds=now.sheds,
        swings=swings(shares),
        most_share=max(shares, default=0.0),
        end_share=now.share,
        most_v_pu_shedding=most_v,
        words=claims(terms, sensor).words,
        step_ms=slowest_s * 1e3,
    )


def _kind(reason: str) -> str:
    """A reason without its figures: the same kind of thing is told once."""
    return "".join(letter for letter in reason if letter.isalpha())


def _crossings(
    trace: Sequence[Sample], said: Sequence[Sample], shares: Sequence[float], terms: Terms
) -> tuple[Crossing, ...]:
    found = []
    levels = [(terms.edge_hz, 0.0)]
    if terms.emergency_hz is not None:
        levels.append((terms.emergency_hz, terms.most_share * (1.0 - 1e-9)))
    for level_hz, over in levels:
        for at in range(1, len(trace)):
            before, after = trace[at - 1], trace[at]
            if not before.hz >= level_hz > after.hz or shares[at - 1] > over:
                continue
            part = (before.hz - level_hz) / (before.hz - after.hz)
            at_s = before.t_s + part * (after.t_s - before.t_s)
            up = next((one.t_s for one in trace[at:] if one.hz >= level_hz), trace[-1].t_s)
            rose = (
                one.t_s for one, share in zip(said[at:], shares[at:], strict=True) if share > over
            )
            answered_s = next((t_s for t_s in rose if t_s <= up + 0.5), None)
            found.append(
                Crossing(
                    level_hz, at_s, None if answered_s is None else answered_s - at_s, up - at_s
                )
            )
    return tuple(sorted(found, key=lambda one: one.at_s))


def swings(shares: Sequence[float]) -> int:
    """How often the share rose after it had fallen."""
    turns, falling = 0, False
    for before, after in pairwise(shares):
        if after > before and falling:
            turns += 1
        falling = after < before or (falling and after == before)
    return turns
