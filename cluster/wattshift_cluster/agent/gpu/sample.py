"""One look at a GPU, in units, with what is unknown said to be so."""

from dataclasses import dataclass
from typing import Literal

Source = Literal["instant", "average"]

THROTTLING = {
    0x04: "power_cap",
    0x08: "hw_slowdown",
    0x20: "thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
}
"""Clock event reasons that hold a busy card's clocks down (nvml.h, nvmlClocksEventReasons). Idle,
application clocks, synchronised boost and display clocks are what somebody chose."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look at a GPU; None is unknown.

    Attributes:
        at_boot_s: boot clock just before the driver was asked, s.
        watts_w: draw: the present one where the card tells it, else the mean of its last second.
        average_w: mean of the last second, W.
        watts_source: which of the two `watts_w` is.
        power_age_s: since the power value last changed, s.
        energy_j: counter since the driver started, J.
        utilisation_pct, memory_utilisation_pct: share of time with a kernel, or with memory
            traffic, in the driver's last sampling period, %.
        sm_clock_mhz, temperature_c: of the GPU.
        enforced_limit_w: the lowest of all limits in force, W.
        throttled: why clocks are held down; () also where the card does not tell.
        fault: why it, or its power, cannot be read; None when it can.
    """

    at_boot_s: float
    watts_w: float | None = None
    average_w: float | None = None
    watts_source: Source | None = None
    power_age_s: float | None = None
    energy_j: float | None = None
    utilisation_pct: float | None = None
    memory_utilisation_pct: float | None = None
    sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    enforced_limit_w: float | None = None
    throttled: tuple[str, ...] = ()
    fault: str | None = None


def throttle_names(bits: int | None) -> tuple[str, ...]:
    """Names of the reasons among these bits that are throttling."""
    return () if not bits else tuple(name for bit, name in THROTTLING.items() if bits & bit)
