"""GPUs as NVML sees them. A field that the driver lacks is None; no driver means no GPU."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

log = structlog.get_logger()

IDLE_SHARE = 0.2
"""Idle draw as a share of the limit, where it cannot be read; modelled."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look: draw and enforced limit in W, temperature in °C."""

    watts_w: float | None
    enforced_limit_w: float | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this host.

    Attributes:
        index, uuid, name, driver: as NVML names them.
        limit_w: enforced power limit when it was found, W.
        idle_w: draw when it was found, at most 30 % of the limit, W.
    """

    index: int
    uuid: str
    name: str
    driver: str
    limit_w: float
    idle_w: float
    handle: Any

    def sample(self) -> GpuSample:
        """Read the GPU; some milliseconds of blocking calls."""
        import pynvml

        return GpuSample(
            watts_w=_watts(lambda: pynvml.nvmlDeviceGetPowerUsage(self.handle)),
            enforced_limit_w=_watts(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(self.handle)),
            temperature_c=_number(
                lambda: pynvml.nvmlDeviceGetTemperature(self.handle, pynvml.NVML_TEMPERATURE_GPU)
            ),
        )


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this host that have a power limit; empty without library, driver or GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        count = int(pynvml.nvmlDeviceGetCount())
    except Exception as fault:  # the binding raises its own classes, absent without the library
        log.info("gpu.none", reason=str(fault))
        return ()
    found = (_find(pynvml, index, driver) for index in range(count))
    return tuple(gpu for gpu in found if gpu is not None)


def _find(pynvml: Any, index: int, driver: str) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
    except pynvml.NVMLError as fault:
        log.warning("gpu.unreadable", index=index, reason=str(fault))
        return None
    limit_w = _watts(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    if not limit_w:
        log.warning("gpu.no_limit", index=index, reason="without a limit its draw has no bound")
        return None
    draw_w = _watts(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    idle_w = IDLE_SHARE * limit_w if draw_w is None else min(draw_w, 0.3 * limit_w)
    return Gpu(index, _text(uuid), _text(name), driver, limit_w, idle_w, handle)


def _watts(read: Callable[[], Any]) -> float | None:
    milliwatts = _number(read)
    return None if milliwatts is None else milliwatts / 1000


def _number(read: Callable[[], Any]) -> float | None:
    # Any NVML error means that this field is not to be had; its classes exist only with the driver.
    with contextlib.suppress(Exception):
        return float(read())
    return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
