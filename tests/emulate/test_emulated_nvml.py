"""The emulated NVML through the real binding: what a card says of itself, and each fault."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from wattshift_cluster.emulate.nvml import (
    CardFault,
    ComputeProcess,
    EmulatedDriver,
    NvmlNotBuilt,
    build,
    child_environment,
    emulated_here,
    models,
)
from wattshift_cluster.emulate.nvml.build import FLAGS
from wattshift_cluster.emulate.nvml.control import HW_THERMAL

CARDS = (models.H200, models.A100, models.L4, models.GTX_1080_TI)
AVERAGE, INSTANT, ENERGY = 185, 186, 83


@pytest.fixture
def driver(cache: Path, tmp_path: Path) -> Iterator[EmulatedDriver]:
    """Four cards under a clock that only the test moves, with NVML initialised."""
    with emulated_here(cache, tmp_path / "cards", CARDS) as emulated:
        emulated.hold_clock()
        pynvml.nvmlInit()
        if pynvml.nvmlSystemGetDriverVersion() != "580.65.06":
            pytest.skip("this process has the real NVML loaded")
        yield emulated


def handle(index: int) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def field(card: Any, number: int, scope: int = 0) -> Any:
    (found,) = pynvml.nvmlDeviceGetFieldValues(card, [(number, scope)])
    return found


def code_of(call: Any, *arguments: Any) -> int:
    """The error that a call ends with; 0 for none."""
    try:
        call(*arguments)
    except pynvml.NVMLError as fault:
        return int(fault.value)
    return 0


def test_a_card_says_who_it_is(driver: EmulatedDriver) -> None:
    assert pynvml.nvmlDeviceGetCount() == 4
    assert pynvml.nvmlSystemGetNVMLVersion().startswith("13.")
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 13000
    for index, model in enumerate(CARDS):
        card = handle(index)
        uuid = pynvml.nvmlDeviceGetUUID(card)
        assert uuid == driver.cards[index].uuid
        assert pynvml.nvmlDeviceGetName(card) == model.name
        assert pynvml.nvmlDeviceGetIndex(card) == index == pynvml.nvmlDeviceGetMinorNumber(card)
        assert pynvml.nvmlDeviceGetCudaComputeCapability(card) == model.capability
        assert pynvml.nvmlDeviceGetSerial(card).isdigit()
        place = pynvml.nvmlDeviceGetPciInfo(card)
        assert place.busId == f"00000000:{0x10 + index:02X}:00.0"
        assert (place.domain, place.bus, place.device) == (0, 0x10 + index, 0)
        assert place.busIdLegacy == place.busId[4:]
        for found in (
            pynvml.nvmlDeviceGetHandleByUUID(uuid),
            pynvml.nvmlDeviceGetHandleByPciBusId(place.busId),
            pynvml.nvmlDeviceGetHandleByPciBusId(place.busId[4:]),
        ):
            assert pynvml.nvmlDeviceGetIndex(found) == index
    assert code_of(handle, 4) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(pynvml.nvmlDeviceGetHandleByUUID, "GPU-none") == pynvml.NVML_ERROR_NOT_FOUND
    missing = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetFanSpeed, handle(0)) == missing


def test_readings_come_in_the_units_of_nvml(driver: EmulatedDriver) -> None:
    card = handle(0)
    assert pynvml.nvmlDeviceGetPowerUsage(card) == 75_000
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(card) == [200_000, 700_000]
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(card) == 700_000
    assert [field(card, n).value.uiVal for n in (187, 188, 189, 190, 192)] == [
        200_000,
        *[700_000] * 4,
    ]
    driver.pass_time(100)
    energy = field(card, ENERGY)
    assert energy.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    assert energy.value.ullVal == pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    assert energy.value.ullVal == pytest.approx(7_500_000, rel=0.002)
    memory = pynvml.nvmlDeviceGetMemoryInfo(card)
    assert (memory.total, memory.used, memory.free) == (141 * 10**9, 0, 141 * 10**9)
    driver.cards[0].memory_used(10**9)
    newer = pynvml.nvmlDeviceGetMemoryInfo(card, version=pynvml.nvmlMemory_v2)
    assert (newer.total, newer.used) == (141 * 10**9, 10**9)
    assert pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU) == 29
    assert pynvml.nvmlDeviceGetTemperatureV(card, pynvml.NVML_TEMPERATURE_GPU) == 29
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 345
    assert pynvml.nvmlDeviceGetMaxClockInfo(card, pynvml.NVML_CLOCK_SM) == 1980
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_MEM) == 3201
    assert pynvml.nvmlDeviceGetUtilizationRates(card).gpu == 0
    assert pynvml.nvmlDeviceGetPersistenceMode(card) == 1
    driver.cards[0].persistence(False)
    assert pynvml.nvmlDeviceGetPersistenceMode(card) == 0


def test_what_an_architecture_lacks_is_not_supported(driver: EmulatedDriver) -> None:
    absent = pynvml.NVML_ERROR_NOT_SUPPORTED
    found = {
        model.key: [field(handle(i), n).nvmlReturn for n in (AVERAGE, INSTANT, ENERGY)]
        for i, model in enumerate(CARDS)
    }
    assert found == {
        "h200": [0, 0, 0],
        "a100": [absent, 0, 0],
        "l4": [absent, absent, 0],
        "gtx1080ti": [absent, 0, absent],
    }
    assert code_of(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle(3)) == absent
    assert code_of(pynvml.nvmlDeviceGetMigMode, handle(3)) == absent
    assert field(handle(0), 9999).nvmlReturn == absent
    assert code_of(pynvml.nvmlEventSetCreate) == absent


def test_scopes_of_power(driver: EmulatedDriver) -> None:
    gpu = field(handle(0), INSTANT).value.uiVal
    assert field(handle(0), INSTANT, pynvml.NVML_POWER_SCOPE_MEMORY).value.uiVal == gpu // 2
    module = (handle(0), INSTANT, pynvml.NVML_POWER_SCOPE_MODULE)
    assert field(*module).nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
    driver.cards[0].module_draw(100)
    assert field(*module).value.uiVal == gpu + 100_000
    assert field(handle(1), INSTANT, 2).nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED


def test_a_field_is_as_old_as_its_last_refresh(driver: EmulatedDriver) -> None:
    card, offset_us = handle(0), (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e3
    stamps = []
    for _ in range(4):
        driver.pass_time(0.06)
        stamps.append(field(card, INSTANT).timestamp)
        age_us = offset_us + driver.now_ns() / 1e3 - stamps[-1]
        assert -50_000 < age_us < 150_000  # 50 ms: two clocks are read one after the other
    assert 1 < len(set(stamps)) < 4, "a reading keeps its stamp until the next refresh"


def test_limits_need_the_privilege_and_keep_the_constraints(driver: EmulatedDriver) -> None:
    card, ours = handle(0), driver.cards[0]
    set_limit, enforced = (
        pynvml.nvmlDeviceSetPowerManagementLimit,
        pynvml.nvmlDeviceGetEnforcedPowerLimit,
    )
    assert code_of(set_limit, card, 300_000) == pynvml.NVML_ERROR_NO_PERMISSION
    assert (enforced(card), ours.truth().limit_writes) == (700_000, 0)
    ours.privilege(True)
    for wrong in (199_999, 700_001):
        assert code_of(set_limit, card, wrong) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    set_limit(card, 300_000)
    assert enforced(card) == pynvml.nvmlDeviceGetPowerManagementLimit(card) == 300_000
    pynvml.nvmlDeviceSetPowerManagementLimit_v2(card, pynvml.NVML_POWER_SCOPE_GPU, 350_000)
    assert enforced(card) == 350_000
    assert ours.truth().limit_writes == 2
    assert enforced(handle(1)) == 400_000, "another card keeps its own"


def test_the_lowest_of_several_writers_is_enforced(driver: EmulatedDriver) -> None:
    card, ours = handle(0), driver.cards[0]
    ours.privilege(True)
    ours.clamp_limit(400)
    pynvml.nvmlDeviceSetPowerManagementLimit(card, 600_000)
    assert pynvml.nvmlDeviceGetPowerManagementLimit(card) == 600_000
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(card) == 400_000
    assert [field(card, n).value.uiVal for n in (190, 192)] == [400_000, 600_000]
    ours.clamp_limit(None)
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(card) == 600_000
    ours.write_limit(250)
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(card) == 250_000
    assert pynvml.nvmlDeviceGetPowerManagementLimit(card) == 250_000
    ours.fault(CardFault.LIMIT_IGNORED)
    pynvml.nvmlDeviceSetPowerManagementLimit(card, 500_000)
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(card) == 250_000


def test_a_lost_card_answers_nothing_until_it_is_back(driver: EmulatedDriver) -> None:
    card, ours = handle(0), driver.cards[0]
    calls = (
        pynvml.nvmlDeviceGetPowerUsage,
        pynvml.nvmlDeviceGetUUID,
        pynvml.nvmlDeviceGetMigMode,
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetCurrentClocksEventReasons,
    )
    ours.fault(CardFault.LOST)
    lost = pynvml.NVML_ERROR_GPU_IS_LOST
    assert {code_of(call, card) for call in calls} == {lost}
    assert code_of(pynvml.nvmlDeviceGetFieldValues, card, [INSTANT]) == lost
    assert code_of(handle, 0) == code_of(pynvml.nvmlDeviceGetHandleByUUID, ours.uuid) == lost
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handle(1)) == 0
    assert pynvml.nvmlDeviceGetCount() == 4
    ours.fault(CardFault.LOST, on=False)
    assert {code_of(call, card) for call in calls} == {0}


def test_a_card_that_is_gone_moves_the_others_up(driver: EmulatedDriver) -> None:
    driver.cards[0].fault(CardFault.ABSENT)
    assert code_of(handle, 0) == pynvml.NVML_ERROR_GPU_IS_LOST
    driver.reload()
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 3
    assert pynvml.nvmlDeviceGetUUID(handle(0)) == driver.cards[1].uuid
    assert pynvml.nvmlDeviceGetIndex(handle(0)) == 0
    gone = code_of(pynvml.nvmlDeviceGetHandleByUUID, driver.cards[0].uuid)
    assert gone == pynvml.NVML_ERROR_NOT_FOUND


def test_power_that_cannot_be_read_or_stands_still(driver: EmulatedDriver) -> None:
    card, ours = handle(0), driver.cards[0]
    for fault, code in (
        (CardFault.NO_POWER, pynvml.NVML_ERROR_NOT_SUPPORTED),
        (CardFault.POWER_UNKNOWN, pynvml.NVML_ERROR_UNKNOWN),
    ):
        ours.fault(fault)
        assert code_of(pynvml.nvmlDeviceGetPowerUsage, card) == code
        assert field(card, INSTANT).nvmlReturn == field(card, AVERAGE).nvmlReturn == code
        assert code_of(pynvml.nvmlDeviceGetTotalEnergyConsumption, card) == 0
        ours.fault(fault, on=False)
    ours.fault(CardFault.STALE_POWER)
    before = field(card, INSTANT)
    ours.load(1)
    driver.pass_time(5)
    after = field(card, INSTANT)
    assert after.value.uiVal == before.value.uiVal == pynvml.nvmlDeviceGetPowerUsage(card)
    assert after.timestamp > before.timestamp + 4_000_000
    assert ours.truth().power_w > 690
    energy = pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    ours.fault(CardFault.STALE_ENERGY)
    driver.pass_time(5)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(card) == energy > 3_000_000


def test_a_reloaded_driver_voids_inits_and_handles(driver: EmulatedDriver) -> None:
    card = handle(0)
    driver.cards[0].privilege(True)
    pynvml.nvmlDeviceSetPowerManagementLimit(card, 300_000)
    driver.pass_time(10)
    pynvml.nvmlInit()
    driver.unload()
    unloaded = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, card) == unloaded
    assert code_of(pynvml.nvmlDeviceGetCount) == code_of(pynvml.nvmlInit) == unloaded
    driver.reload()
    assert code_of(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlInit()
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, card) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle(0)) == 700_000
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle(0)) == 0
    pynvml.nvmlShutdown()
    assert code_of(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED


def test_slices_have_no_power_of_their_own(driver: EmulatedDriver) -> None:
    card = handle(0)
    assert pynvml.nvmlDeviceGetMigMode(card) == [0, 0]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(card) == 7
    driver.cards[0].split(2)
    assert pynvml.nvmlDeviceGetMigMode(card) == [1, 1]
    slices = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, k) for k in range(2)]
    third = code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, 2)
    assert third == pynvml.NVML_ERROR_NOT_FOUND
    assert len({pynvml.nvmlDeviceGetUUID(one) for one in (card, *slices)}) == 3
    for one in slices:
        uuid = pynvml.nvmlDeviceGetUUID(one)
        assert uuid.startswith("MIG-")
        found = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        assert pynvml.nvmlDeviceIsMigDeviceHandle(found).value == 1
        assert pynvml.nvmlDeviceGetMemoryInfo(one).total == 141 * 10**9 // 2
        refused = code_of(pynvml.nvmlDeviceGetPowerUsage, one)
        assert refused == pynvml.NVML_ERROR_NOT_SUPPORTED
        parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(one)
        assert pynvml.nvmlDeviceGetUUID(parent) == driver.cards[0].uuid
    assert pynvml.nvmlDeviceGetPowerUsage(card) == 75_000
    hidden = code_of(pynvml.nvmlDeviceGetUtilizationRates, card)
    assert hidden == pynvml.NVML_ERROR_NOT_SUPPORTED
    driver.cards[0].split(1)
    destroyed = code_of(pynvml.nvmlDeviceGetUUID, slices[1])
    assert destroyed == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_processes_and_their_samples(driver: EmulatedDriver) -> None:
    card, ours = handle(0), driver.cards[0]
    samples = pynvml.nvmlDeviceGetProcessUtilization
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(card) == []
    assert code_of(samples, card, 0) == pynvml.NVML_ERROR_NOT_FOUND
    ours.processes([ComputeProcess(4321, 2 * 10**9, 37, 12), ComputeProcess(99, 10**9)])
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(card)
    assert [(row.pid, row.usedGpuMemory) for row in listed] == [(4321, 2 * 10**9), (99, 10**9)]
    assert pynvml.nvmlDeviceGetMemoryInfo(card).used == 3 * 10**9
    (sample,) = samples(card, 0)
    assert (sample.pid, sample.smUtil, sample.memUtil) == (4321, 37, 12)
    assert code_of(samples, card, sample.timeStamp) == pynvml.NVML_ERROR_NOT_FOUND
    driver.pass_time(1)
    assert samples(card, sample.timeStamp)[0].timeStamp > sample.timeStamp
    ours.compute_mode(pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)
    assert pynvml.nvmlDeviceGetComputeMode(card) == 3


def test_calls_that_lag_lag_side_by_side(driver: EmulatedDriver) -> None:
    cards = [handle(0), handle(1)]
    driver.cards[0].lag(0.4)
    driver.cards[1].lag(0.4)
    threads = [threading.Thread(target=pynvml.nvmlDeviceGetPowerUsage, args=(c,)) for c in cards]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    assert pynvml.nvmlDeviceGetPowerUsage(handle(2)) > 0
    assert time.monotonic() - began < 0.4, "a healthy card does not wait for them"
    for thread in threads:
        thread.join()
    assert 0.4 <= time.monotonic() - began < 0.79


def test_held_reasons_are_shown_and_slow_the_card(driver: EmulatedDriver) -> None:
    card, ours = handle(0), driver.cards[0]
    ours.load(1)
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(card) == 0
    ours.hold_reasons(HW_THERMAL)
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(card) == HW_THERMAL
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 990


CHILD = """
import pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
pynvml.nvmlDeviceSetPowerManagementLimit(card, 333_000)
print(pynvml.nvmlDeviceGetCount(), pynvml.nvmlDeviceGetName(card))
"""


def test_a_child_finds_the_library_and_shares_the_card(driver: EmulatedDriver, cache: Path) -> None:
    driver.cards[0].privilege(True)
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=child_environment(build(cache), driver.path),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("4 NVIDIA H200\n", "")
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle(0)) == 333_000
    assert driver.cards[0].truth().limit_writes == 1


def test_a_file_of_another_layout_is_refused(driver: EmulatedDriver) -> None:
    pynvml.nvmlShutdown()
    other = driver.path.with_name("other")
    os.environ["WATTSHIFT_EMULATED_NVML"] = str(other)
    assert code_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    other.write_bytes(b"short")
    assert code_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    image = bytearray(driver.path.read_bytes())
    image[8] ^= 1
    other.write_bytes(image)
    assert code_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    image[8] ^= 1
    other.write_bytes(image)
    assert code_of(pynvml.nvmlInit) == 0


def test_it_compiles_without_a_warning_and_once(tmp_path: Path, cache: Path) -> None:
    made = build(cache, flags=("-Werror",))
    assert made.name == "libnvidia-ml.so.1"
    stamp = made.stat().st_mtime_ns
    assert build(cache, flags=("-Werror",)).stat().st_mtime_ns == stamp
    with pytest.raises(NvmlNotBuilt, match="failed"):
        build(tmp_path, flags=("-include", "none.h"))
    assert "-Wall" in FLAGS


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NvmlNotBuilt, match="no C compiler on PATH"):
        build(tmp_path)


def test_a_model_of_ones_own(cache: Path, tmp_path: Path) -> None:
    mine = replace(models.L4, has_instant=True, name="NVIDIA L4 with a new driver")
    with emulated_here(cache, tmp_path / "mine", [mine]):
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetName(handle(0)) == mine.name
        assert field(handle(0), INSTANT).value.uiVal == 16_000
