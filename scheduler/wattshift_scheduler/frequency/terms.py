"""What a site offers when the frequency falls, and what its sensor lets it claim.

Nothing here acts. The response itself is `response`.
"""

import math
from dataclasses import dataclass

LEAST_RATE_HZ = 5.0
"""A slower sensor gives two looks in more than 400 ms: no fast service can be claimed on that."""

LOWEST_PU, HIGHEST_PU = 0.9, 1.05
"""Voltages between which load may be shed; terms may narrow them, never widen them.

Above, shedding raises a voltage that is already too high: in Iberia on 28 April 2025 generation
tripped on over-voltage, and each shed of load raised it further. Below, a dip or a fault near by
upsets the measurement, and ride-through is asked for instead (NOGRR282).
"""


@dataclass(frozen=True, slots=True)
class Sensor:
    """The class of a frequency sensor, by its maker's word.

    Attributes:
        accuracy_hz: the most that a reading is off, Hz.
        window_s: over which a reading is taken; it tells of an instant that is so long ago.
        rate_hz: readings in a second.
    """

    accuracy_hz: float
    window_s: float
    rate_hz: float


@dataclass(frozen=True, slots=True)
class Terms:
    """When how much is shed, and how it comes back.

    Attributes:
        nominal_hz: 50 or 60.
        dead_band_hz: a frequency so far below nominal asks for nothing yet.
        full_at_hz: one so far below asks for everything; between them the share is in proportion.
        emergency_hz: below it everything is shed at once and latched; None: no such level.
        hysteresis_hz: a frequency must be so much higher before it asks for less.
        persist_cycles: for so many cycles the frequency must have been there before it counts.
        most_share: of what may be shed, the most that is, 0 to 1.
        hold_s: for so long the frequency must have been back before anything returns.
        delay_s: then comes a random delay up to this, so that not all sites return at once.
        return_s: how long the return of everything takes.
        low_pu, high_pu: no shed begins or grows outside of these voltages.
        needs_voltage: an unknown voltage is as bad as a wrong one.
        stale_s: a reading older than this says nothing of now.
        gap_s: readings further apart than this are no row of readings.
        frozen_s: a sensor that says the same to the last digit for so long has stopped measuring.
        accuracy_hz: of the sensor; a shed needs a frequency that is surely below the level.
        dice: this site's throw for its random delays, 0 to 1.
    """

    nominal_hz: float
    dead_band_hz: float
    full_at_hz: float
    emergency_hz: float | None = None
    hysteresis_hz: float = 0.02
    persist_cycles: int = 3
    most_share: float = 1.0
    hold_s: float = 10.0
    delay_s: float = 60.0
    return_s: float = 120.0
    low_pu: float = LOWEST_PU
    high_pu: float = HIGHEST_PU
    needs_voltage: bool = True
    stale_s: float = 1.0
    gap_s: float = 1.5 / LEAST_RATE_HZ
    frozen_s: float = 60.0
    accuracy_hz: float = 0.0
    dice: float = 0.0

    @property
    def persist_s(self) -> float:
        """The cycles of persistence as seconds."""
        return self.persist_cycles / self.nominal_hz

    @property
    def edge_hz(self) -> float:
        """Where the dead band ends."""
        return self.nominal_hz - self.dead_band_hz

    @property
    def back_hz(self) -> float:
        """So much more than a frequency must rise before less is asked for: no less than the
        sensor's own doubt, or its noise would be answered.
        """
        return max(self.hysteresis_hz, 2.0 * self.accuracy_hz)

    def wanted(self, hz: float) -> float:
        """The share that the droop asks for at a frequency, 0 to `most_share`."""
        depth = (self.edge_hz - hz) / (self.full_at_hz - self.dead_band_hz)
        return self.most_share * min(1.0, max(0.0, depth))

    def measured(self, hz: float) -> bool:
        """Whether a number can be a power system's frequency: within 15 % of nominal.

        Beyond that every generator has left; meters show their own end of scale.
        """
        return math.isfinite(hz) and abs(hz - self.nominal_hz) < 0.15 * self.nominal_hz


@dataclass(frozen=True, slots=True)
class Claims:
    """What may honestly be said of a response.

    Attributes:
        serves: whether any may be claimed at all.
        answers_s: the longest time from a crossing to the decision, s; devices come on top.
        sure_hz: a deviation below this cannot be told from none.
        words: for people: what is claimed, and why not more.
    """

    serves: bool
    answers_s: float
    sure_hz: float
    words: tuple[str, ...]


def claims(terms: Terms, sensor: Sensor) -> Claims:
    """What a sensor of this class lets a response claim.

    A crossing is seen at the end of the sensor's window, at worst one reading late, and then must
    persist; readings that do not lie closer than the cycles of persistence need one more.
    """
    period_s = 1.0 / sensor.rate_hz
    rows = max(1, math.ceil(terms.persist_s / period_s - 1e-9))
    answers_s = sensor.window_s + period_s + rows * period_s
    words = ["assistance by software: no protective relay, and no service that asks for one"]
    serves = sensor.rate_hz >= LEAST_RATE_HZ
    if not serves:
        words.append(f"{sensor.rate_hz:g} readings a second, of {LEAST_RATE_HZ:g} needed")
    if 2.0 * sensor.accuracy_hz > terms.dead_band_hz:
        serves = False
        words.append(
            f"off by up to {sensor.accuracy_hz:g} Hz, too much for a dead band of"
            f" {terms.dead_band_hz:g} Hz"
        )
    if serves:
        words.append(f"decided within {answers_s * 1e3:.0f} ms of a crossing; devices come on top")
    return Claims(serves, answers_s, sensor.accuracy_hz, tuple(words))
