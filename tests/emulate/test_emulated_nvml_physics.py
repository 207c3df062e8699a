"""What an emulated card does over time, read through the real binding."""

import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.emulate.nvml import (
    EmulatedDriver,
    build,
    child_environment,
    emulated_here,
    models,
)
from wattshift_cluster.gate.seat import WorkerSeat

IDLE_W, FULL_W = models.H200.idle_w, models.H200.full_w
POWER_CAP, SW_THERMAL, HARDWARE = 0x4, 0x20, 0x48


@pytest.fixture
def driver(cache: Path, tmp_path: Path) -> Iterator[EmulatedDriver]:
    """Two H200 under a clock that only the test moves, with NVML initialised."""
    with emulated_here(cache, tmp_path / "cards", [models.H200] * 2) as emulated:
        emulated.hold_clock()
        pynvml.nvmlInit()
        if pynvml.nvmlSystemGetDriverVersion() != "580.65.06":
            pytest.skip("this process has the real NVML loaded")
        for card in emulated.cards:
            card.refresh(0.01)
        yield emulated


def instant_w(index: int = 0) -> float:
    card = pynvml.nvmlDeviceGetHandleByIndex(index)
    return float(pynvml.nvmlDeviceGetFieldValues(card, [186])[0].value.uiVal) / 1000


def average_w() -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000


def energy_j() -> float:
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1000


def reasons() -> int:
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(card))


def sm_mhz() -> int:
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    return int(pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM))


def test_a_step_of_load_is_followed_with_the_time_constant(driver: EmulatedDriver) -> None:
    card = driver.cards[0]
    card.time_constants(power_s=0.2)
    assert instant_w() == pytest.approx(IDLE_W)
    card.load(1)
    shares = []
    for _ in range(3):
        driver.pass_time(0.2)
        shares.append((instant_w() - IDLE_W) / (FULL_W - IDLE_W))
    expected = [1 - math.exp(-n) for n in (1, 2, 3)]
    assert shares == pytest.approx(expected, abs=0.03)  # a tick of 10 ms is 5 % of 0.2 s
    card.load(0)
    driver.pass_time(2)
    assert instant_w() == pytest.approx(IDLE_W, abs=1)


def test_the_mean_lags_what_it_averages(driver: EmulatedDriver) -> None:
    assert average_w() == pytest.approx(IDLE_W)
    driver.cards[0].load(1)
    driver.pass_time(0.5)
    assert instant_w() > 0.99 * FULL_W
    # Half of the window at idle, half at full but for the lag of 50 ms.
    assert average_w() == pytest.approx(IDLE_W + (FULL_W - IDLE_W) * 0.45, abs=15)
    driver.pass_time(0.7)
    assert average_w() == pytest.approx(FULL_W, abs=1)


def test_energy_is_the_integral_of_power(driver: EmulatedDriver) -> None:
    before, sampled = energy_j(), []
    for turn in range(1000):
        if turn % 20 == 0:
            driver.cards[0].load(turn // 20 % 7 / 6)
        driver.pass_time(0.01)
        sampled.append(instant_w())
    gained = energy_j() - before
    assert gained == pytest.approx(statistics.fmean(sampled) * 10, rel=0.03)
    assert gained > 1.5 * IDLE_W * 10
    assert energy_j() == pytest.approx(driver.cards[0].truth().energy_j, rel=0.01)


def test_changes_count_from_their_moment_even_if_nobody_reads(driver: EmulatedDriver) -> None:
    card = driver.cards[0]
    before = energy_j()
    card.load(1)
    driver.pass_time(60)
    card.load(0)
    driver.pass_time(60)
    assert energy_j() - before == pytest.approx(60 * (FULL_W + IDLE_W), rel=0.005)
    assert instant_w() == pytest.approx(IDLE_W, abs=0.5)
    assert average_w() == pytest.approx(IDLE_W, abs=0.5)
    driver.pass_time(86_400)
    assert energy_j() - before == pytest.approx(60 * FULL_W + 86_460 * IDLE_W, rel=0.005)
    assert average_w() == pytest.approx(IDLE_W, abs=0.5)


def test_a_cap_takes_hold_and_pulls_the_clock_down(driver: EmulatedDriver) -> None:
    card = driver.cards[0]
    card.privilege(True)
    card.load(1)
    driver.pass_time(1)
    assert (reasons(), sm_mhz()) == (0, 1980)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlDeviceSetPowerManagementLimit(handle, 300_000)
    driver.pass_time(0.05)
    # Two lags of 50 ms in a row leave 2/e of the step, one alone 1/e; a tick is 10 ms.
    assert instant_w() == pytest.approx(300 + 400 * 2 / math.e, abs=50)
    driver.pass_time(1)
    assert instant_w() == pytest.approx(300, abs=1)
    assert reasons() == POWER_CAP
    assert 345 < sm_mhz() < 1500
    card.load(0.2)  # asks for 200 W: the cap no longer binds
    driver.pass_time(1)
    assert instant_w() == pytest.approx(200, abs=1)
    assert (reasons(), sm_mhz()) == (0, 1980)
    card.load(0)
    assert (reasons(), sm_mhz()) == (0x1, 345)
    assert instant_w(1) == pytest.approx(IDLE_W), "the neighbour is untouched"


def test_heat_slows_the_card_down_by_software_then_by_hardware(driver: EmulatedDriver) -> None:
    card = driver.cards[0]
    card.time_constants(heat_s=1)
    card.load(1)
    driver.pass_time(0.5)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    rising = pynvml.nvmlDeviceGetTemperature(handle, 0)
    driver.pass_time(10)
    assert 29 < rising < pynvml.nvmlDeviceGetTemperature(handle, 0) == 65
    card.ambient(70)
    seen = set()
    for _ in range(200):
        driver.pass_time(0.05)
        seen.add(reasons() & (SW_THERMAL | HARDWARE))
    assert seen >= {0, SW_THERMAL}
    assert instant_w() < 0.9 * FULL_W
    card.ambient(95)
    driver.pass_time(10)
    assert reasons() & HARDWARE == HARDWARE
    assert sm_mhz() <= 990


def test_values_stand_still_between_two_refreshes(driver: EmulatedDriver) -> None:
    driver.cards[0].refresh(0.1)
    driver.cards[0].load(1)
    values = []
    for _ in range(100):
        driver.pass_time(0.002)
        values.append(instant_w())
    assert 2 <= len(set(values)) <= 3


def test_a_held_clock_that_is_let_go_waits_for_the_present(driver: EmulatedDriver) -> None:
    driver.pass_time(3600)
    at = energy_j()
    driver.words.held_clock_ns = 0
    driver.cards[0].load(1)
    assert energy_j() == at
    assert driver.cards[0].truth().at_ns > driver.now_ns()


def test_years_pass_at_once(driver: EmulatedDriver) -> None:
    began = time.monotonic()
    driver.pass_time(0.3 * 365 * 86_400)
    assert instant_w() == average_w() == IDLE_W
    assert time.monotonic() - began < 10


def test_on_the_running_clock_it_moves_by_itself(driver: EmulatedDriver) -> None:
    driver.words.held_clock_ns = 0
    before = energy_j()
    driver.cards[0].load(1)
    began = time.monotonic()
    while instant_w() < 0.95 * FULL_W:
        assert time.monotonic() - began < 10
        time.sleep(0.01)
    assert time.monotonic() - began > 0.1, "three time constants of 50 ms, less one refresh"
    assert energy_j() > before


def seat_duty(seat: WorkerSeat, driver: EmulatedDriver, share: float, turns: int) -> None:
    """Launches of 10 ms that fill this share of the time."""
    for _ in range(turns):
        driver.pass_time(0.01)
        seat.launched(driver.now_ns(), round(0.01e9 * share), 1)
        instant_w()


def test_a_worker_s_duty_is_load(driver: EmulatedDriver, tmp_path: Path) -> None:
    card, path = driver.cards[0], tmp_path / "gpu0.worker"
    card.follow(path, weight=0.8)
    driver.pass_time(1)
    assert instant_w() == pytest.approx(IDLE_W), "nobody sits there yet"
    seat = WorkerSeat(path)
    seat_duty(seat, driver, share=0.5, turns=60)
    assert instant_w() == pytest.approx(IDLE_W + (FULL_W - IDLE_W) * 0.4, rel=0.02)
    (listed,) = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0))
    assert listed.pid == os.getpid()
    card.load(0.3)
    seat_duty(seat, driver, share=0.5, turns=60)
    assert instant_w() == pytest.approx(IDLE_W + (FULL_W - IDLE_W) * 0.7, rel=0.02)
    card.load(0)
    driver.pass_time(2)
    assert instant_w() == pytest.approx(IDLE_W, abs=40), "the mean of 2 s holds one last launch"
    driver.pass_time(2)
    assert instant_w() == pytest.approx(IDLE_W, abs=0.5)
    seat.leave()
    card.follow(None)
    driver.pass_time(1)
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0)) == []


def test_a_new_worker_in_a_new_file_is_found(driver: EmulatedDriver, tmp_path: Path) -> None:
    path = tmp_path / "gpu0.worker"
    seat = WorkerSeat(path)
    driver.cards[0].follow(path)
    seat_duty(seat, driver, share=0.9, turns=40)
    seat.leave()
    path.unlink()
    driver.pass_time(0.5)
    instant_w()
    driver.pass_time(0.5)
    assert instant_w() < IDLE_W + 1
    seat = WorkerSeat(path)
    seat_duty(seat, driver, share=0.5, turns=60)
    assert instant_w() == pytest.approx((FULL_W + IDLE_W) / 2, rel=0.02)
    seat.leave()


def test_what_is_known_of_one_worker_is_not_taken_for_another(
    driver: EmulatedDriver, tmp_path: Path
) -> None:
    """The second one's counter is far ahead of the first one's, and a third starts at zero."""
    card, seats = driver.cards[0], [WorkerSeat(tmp_path / name) for name in ("a", "b")]
    seats[1].launched(driver.now_ns(), 10**12, 1)
    card.follow(tmp_path / "a")
    seat_duty(seats[0], driver, share=0.01, turns=40)
    card.follow(tmp_path / "b")
    driver.pass_time(0.2)
    assert instant_w() < IDLE_W + 20
    driver.pass_time(0.2)
    assert instant_w() < IDLE_W + 20
    seats[1].leave()
    seats[1] = WorkerSeat(tmp_path / "b")
    driver.pass_time(0.2)
    assert instant_w() < IDLE_W + 20
    for seat in seats:
        seat.leave()


WORKER = """
import sys, time
from pathlib import Path
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate.seat import WorkerSeat
seat = WorkerSeat(Path(sys.argv[1]))
print("sits", flush=True)
while True:
    time.sleep(0.005)
    seat.launched(boot_ns(), 5_000_000, 1)
"""


def test_a_killed_worker_leaves_no_load_behind(driver: EmulatedDriver, tmp_path: Path) -> None:
    driver.words.held_clock_ns = 0
    path = tmp_path / "gpu0.worker"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "sits\n"
        driver.cards[0].follow(path)
        wait_for(lambda: instant_w() > IDLE_W + 0.5 * (FULL_W - IDLE_W))
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        wait_for(lambda: instant_w() < IDLE_W + 5)
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        wait_for(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == [])
    finally:
        worker.kill()
        worker.wait(10)
        assert worker.stdout is not None
        worker.stdout.close()


def wait_for(holds: Any, within_s: float = 15.0) -> None:
    end_ns = boot_ns() + round(within_s * 1e9)
    while not holds():
        assert boot_ns() < end_ns
        time.sleep(0.01)


READER = """
import pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
for _ in range(3000):
    pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
"""


def test_a_call_waits_for_its_own_card_alone(driver: EmulatedDriver) -> None:
    got: list[float] = []
    readers = [
        threading.Thread(target=lambda index=index: got.append(instant_w(index)), daemon=True)
        for index in (0, 1)
    ]
    with driver.locked(0):
        readers[0].start()
        readers[0].join(0.2)
        assert got == []
        readers[1].start()
        readers[1].join(10)
        assert len(got) == 1, "another card has another lock"
    readers[0].join(10)
    assert len(got) == 2


def test_many_readers_see_one_history(driver: EmulatedDriver, cache: Path) -> None:
    driver.words.held_clock_ns = 0
    driver.cards[0].load(1)
    began_ns, before = driver.now_ns(), energy_j()
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER], env=child_environment(build(cache), driver.path)
        )
        for _ in range(2)
    ]
    threads = [threading.Thread(target=lambda: [energy_j() for _ in range(5000)]) for _ in "ab"]
    for thread in threads:
        thread.start()
    last = before
    while any(reader.poll() is None for reader in readers) or threads[0].is_alive():
        now = energy_j()
        assert now >= last
        last = now
        assert driver.now_ns() - began_ns < 60e9
    assert [reader.wait(1) for reader in readers] == [0, 0]
    for thread in threads:
        thread.join(30)
    true = driver.cards[0].truth()
    most = FULL_W * (true.at_ns - began_ns) / 1e9
    assert most - 60 < true.energy_j - before <= most + 1
