"""GPUs through a stand-in for NVML: a missing field is None, a missing driver is no GPU."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.agent.gpu import GpuSample, find_gpus
from wattshift_cluster.agent.hashing import HASH, IDLE, duty_pct, gpu_spec
from wattshift_cluster.agent.leases import Lease


class Missing(Exception):
    """What the binding raises."""


def refuse(*_: object) -> Any:
    raise Missing("Not Supported")


def library(**changes: Any) -> SimpleNamespace:
    fields = {
        "NVMLError": Missing,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"580.1",
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: "GPU-1",
        "nvmlDeviceGetName": lambda handle: "H200",
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
        "nvmlDeviceGetPowerUsage": lambda handle: 120_500,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 41,
    }
    return SimpleNamespace(**{**fields, **changes})


def use(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library(**changes))


def test_a_gpu_is_found_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    (gpu,) = find_gpus()
    assert (gpu.name, gpu.driver, gpu.limit_w, gpu.idle_w) == ("H200", "580.1", 700.0, 120.5)
    assert gpu.sample() == GpuSample(120.5, 700.0, 41.0)


def test_what_the_driver_does_not_offer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, nvmlDeviceGetPowerUsage=refuse, nvmlDeviceGetTemperature=refuse)
    (gpu,) = find_gpus()
    assert gpu.sample() == GpuSample(None, 700.0, None)
    assert gpu.idle_w == pytest.approx(140.0)


def test_no_driver_or_no_limit_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, nvmlInit=refuse)
    assert find_gpus() == ()
    use(monkeypatch, nvmlDeviceGetEnforcedPowerLimit=refuse)
    assert find_gpus() == (), "a device whose draw has no bound cannot be promised"


def test_a_gpus_duty_counts_from_its_idle_draw(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    use(monkeypatch, nvmlDeviceGetPowerUsage=lambda handle: 100_000)
    spec = gpu_spec("gpu0", tmp_path, find_gpus()[0], 19, "host")

    def duty(mode: str, watts_w: float) -> int:
        return duty_pct(Lease("gpu0", 1, 1, mode, watts_w, 1.0), spec)

    assert [duty(HASH, w) for w in (50.0, 100.0, 105.9, 106.0, 400.0, 700.0, 999.0)] == [
        *(0, 0, 0, 1, 50, 100, 100)
    ]
    assert duty(IDLE, 700.0) == 0
