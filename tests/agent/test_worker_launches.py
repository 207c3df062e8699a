"""The worker's loop with two launches in flight: real gate files, and a GPU that a test moves on.

The kernel is the real one, compiled as C++; see `tests/kernels/standin.py`.
"""

import importlib.util
import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.agent import launches
from wattshift_cluster.agent.tray import Assignment, Tray
from wattshift_cluster.agent.voice import Voice
from wattshift_cluster.agent.worker import Worker
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import AgentGate, ClientGate, SeatView, WorkerGate, WorkerSeat, clients
from wattshift_kernels.hasher import Hasher, HasherFailed, Work
from wattshift_kernels.kernel import Shape
from wattshift_kernels.sha256d.cuda import CudaHasher
from wattshift_kernels.sha256d.reference import ReferenceHasher
from wattshift_kernels.sha256d.variants import by_name

WORK = Work(bytes(range(76)), 2**250)
TILE = 32


def beside_the_kernels(name: str) -> Any:
    """A module of the kernels' tests."""
    path = Path(__file__).parents[1] / "kernels" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_for_worker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def of_small_blocks() -> Hasher:
    shape = Shape(threads=16, hashes_per_thread=TILE // 16)
    return CudaHasher(variants=(by_name("loop-whole"),), shape=shape, hashes_per_sm=512)


class Rig:
    """A worker's loop in a thread, on a device that stands still until `go`."""

    def __init__(self, folder: Path, gpu: Any, hasher: Hasher) -> None:
        clients.create_clients_file(folder / "gpu0.clients")
        self.folder, self.gpu = folder, gpu
        gpu.driven, gpu.block_s = True, 0.0001
        self.gate = AgentGate(folder / "gpu0.gate")
        self.hasher: Any = hasher
        self.tray, self.out = Tray(), io.BytesIO()
        self.fault: HasherFailed | None = None
        self.released: bool | None = None
        seat = WorkerSeat(folder / "gpu0.worker")
        self.view = SeatView(folder / "gpu0.worker")
        gate = WorkerGate(folder / "gpu0.gate")
        self.worker = Worker(gate, seat, self.hasher, self.tray, Voice(self.out), on_cpu=False)
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True)]
        self.threads[0].start()

    def run(self) -> None:
        try:
            self.released = self.worker.run()
        except HasherFailed as fault:
            self.fault = fault

    def go(self) -> None:
        """Let the device run by itself from now on."""
        self.threads.append(threading.Thread(target=self.gpu.drive, args=(self.stopping,)))
        self.threads[-1].start()

    def lease(self, for_s: float = 60.0, duty_pct: int = 100) -> None:
        expires_ns = boot_ns() + int(for_s * 1e9)
        self.gate.write(
            epoch=1, leased_w=50.0, expires_boot_ns=expires_ns, intensity_idle_pct=duty_pct
        )

    @property
    def aloft(self) -> int:
        return self.worker._launches.aloft

    @property
    def stopped(self) -> bool:
        return bool(self.hasher._stop.bytes[0])

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def end(self) -> None:
        self.tray.closing = True
        if len(self.threads) == 1:
            self.go()
        self.threads[0].join(10)
        self.stopping.set()
        self.threads[1].join(10)
        self.gate.close()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    standin = beside_the_kernels("standin")
    reason = standin.missing()
    if reason is not None:
        pytest.skip(reason)
    device = standin.StandIn()
    standin.put_in_place(monkeypatch, device)
    return device


@pytest.fixture
def rig(tmp_path: Path, gpu: Any) -> Iterator[Rig]:
    started = Rig(tmp_path, gpu, of_small_blocks())
    yield started
    started.end()


@pytest.fixture
def building(tmp_path: Path, gpu: Any) -> Iterator[Rig]:
    """A worker whose hasher reads a table."""
    started = Rig(tmp_path, gpu, beside_the_kernels("made_up").launcher())
    yield started
    started.end()


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.002)
    return False


def test_work_of_which_no_job_can_be_made_is_dropped_and_the_next_is_hashed(rig: Rig) -> None:
    begin, bad = rig.hasher.begin, Work(bytes(76), 2**250)

    def refusing(work: Work, first: int, count: int) -> Any:
        if work == bad:
            raise ValueError("no matrix")
        return begin(work, first, count)

    rig.hasher.begin = refusing
    rig.tray.put(Assignment(1, bad))
    rig.tray.put(Assignment(2, WORK, (0, 4 * TILE)))
    rig.go()
    rig.lease()
    assert eventually(lambda: {"event": "spent", "id": 2} in rig.said())
    assert rig.fault is None
    assert rig.tray.current() is None


def test_two_launches_are_in_flight_and_never_three(rig: Rig) -> None:
    rig.tray.put(Assignment(1, WORK))
    rig.lease()
    assert eventually(lambda: rig.aloft == 2), "the device stands still, so two are queued"
    time.sleep(0.05)
    assert rig.gpu.launches == 2
    assert rig.view.read().launches == 0


def close_by_client(rig: Rig) -> Callable[[], None]:
    replica = ClientGate(rig.folder)
    replica.enter()
    return replica.close


def close_by_expiry(rig: Rig) -> Callable[[], None]:
    rig.lease(for_s=0.0)
    return lambda: None


def close_by_agent(rig: Rig) -> Callable[[], None]:
    rig.gate.close_gate()
    return lambda: None


@pytest.mark.parametrize("how", [close_by_client, close_by_expiry, close_by_agent])
def test_a_closing_gate_raises_the_stop_word_and_queued_blocks_try_nothing(
    rig: Rig, how: Callable[[Rig], Callable[[], None]]
) -> None:
    rig.tray.put(Assignment(1, WORK))
    rig.lease()
    assert eventually(lambda: rig.aloft == 2)
    assert not rig.stopped
    rig.gpu.run_blocks(2)
    after = how(rig)
    closed_ns = boot_ns()
    assert eventually(lambda: rig.stopped), "at once, with both launches still in flight"
    time.sleep(0.05)
    assert rig.view.read().heartbeat_ns < closed_ns, "it beats only when the device is free"
    assert rig.aloft == 2
    rig.go()
    assert eventually(lambda: rig.view.read().launches == 2)
    assert rig.view.read().hashes == 2 * TILE
    assert eventually(lambda: rig.view.read().heartbeat_ns > closed_ns + 50_000_000)
    assert rig.stopped, "it stays up until the gate is open again"
    after()
    rig.lease()
    assert eventually(lambda: rig.view.read().hashes > 2 * TILE)


def test_a_gate_that_flaps_loses_no_nonce_and_books_none_twice(rig: Rig) -> None:
    count = 5_000
    rig.tray.put(Assignment(7, WORK, (500, count)))
    rig.go()
    stops = 0
    until_s = time.monotonic() + 20
    while not any(one["event"] == "spent" for one in rig.said()) and time.monotonic() < until_s:
        rig.lease()
        time.sleep(0.006)
        busy = rig.aloft
        rig.gate.close_gate()
        stops += bool(busy)
        time.sleep(0.003)
    assert stops > 3, "it was interrupted in flight"
    found = Counter(one["nonce"] for one in rig.said() if one["event"] == "hit")
    wanted = ReferenceHasher().search(WORK, 500, count)
    assert found == Counter(hit.nonce for hit in wanted.hits)
    assert rig.view.read().hashes == count
    assert [one["id"] for one in rig.said() if one["event"] == "spent"] == [7]


def test_rolled_versions_are_counted_as_hashes_and_hits_name_theirs(rig: Rig) -> None:
    work = Work(WORK.message, WORK.target, roll_mask=0x0001_6000)
    sizes, begin, pace = [], rig.hasher.begin, rig.worker._pace

    def watched(work: Work, start: int, count: int) -> Any:
        sizes.append((count * work.ways, pace.count))
        return begin(work, start, count)

    rig.hasher.begin = watched
    rig.tray.put(Assignment(3, work, (40, 700)))
    rig.go()
    stops = 0
    until_s = time.monotonic() + 20
    while not any(one["event"] == "spent" for one in rig.said()) and time.monotonic() < until_s:
        rig.lease()
        time.sleep(0.006)
        stops += bool(rig.aloft)
        rig.gate.close_gate()
        time.sleep(0.003)
    assert stops > 1, "it was interrupted in flight"
    wanted = ReferenceHasher().search(work, 40, 700)
    found = Counter((one["nonce"], one["roll"]) for one in rig.said() if one["event"] == "hit")
    assert found == Counter((hit.nonce, hit.roll) for hit in wanted.hits)
    assert rig.view.read().hashes == 700 * 8
    assert all(hashes <= max(8, due) for hashes, due in sizes), (
        "a launch is as long as without versions"
    )
    assert len({due for _, due in sizes}) > 1, "and its length is being learnt"


def test_a_table_is_built_behind_the_gate_and_its_progress_is_told(building: Rig) -> None:
    rig, work = building, Work(WORK.message, 2**256 - 1, height=7)
    rig.tray.put(Assignment(1, work, (0, 200)))
    time.sleep(0.05)
    assert rig.gpu.launches == 0, "no lease, no slice"
    rig.lease()
    assert eventually(lambda: rig.aloft == 2)
    rig.gpu.run_blocks(1)
    rig.gate.close_gate()
    assert eventually(lambda: rig.stopped)
    rig.go()
    assert eventually(lambda: rig.aloft == 0)
    launched = rig.gpu.launches
    time.sleep(0.05)
    assert (rig.gpu.launches, rig.view.read().hashes) == (launched, 0), (
        "what was queued did nothing"
    )
    rig.lease()
    assert eventually(lambda: any(one["event"] == "spent" for one in rig.said()))
    told = [one["progress"] for one in rig.said() if one["event"] == "table"]
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert rig.view.read().hashes == 200
    found = [one["nonce"] for one in rig.said() if one["event"] == "hit"]
    assert sorted(found) == list(range(200))


def test_a_table_is_given_back_with_the_rest(building: Rig) -> None:
    rig = building
    rig.tray.put(Assignment(1, Work(WORK.message, 2**256 - 1, height=7), (0, 50_000)))
    rig.lease()
    rig.go()
    assert eventually(lambda: rig.view.read().hashes > 0)
    server = ClientGate(rig.folder)
    server.want_memory(True)
    assert eventually(lambda: rig.released is True)
    began_s = time.monotonic()
    rig.hasher.close()
    assert time.monotonic() - began_s < 1.0
    assert rig.gpu.memory == []
    server.close()


def test_the_next_work_is_begun_while_the_last_of_the_one_before_is_in_flight(rig: Rig) -> None:
    for number in (1, 2):
        rig.tray.put(Assignment(number, WORK, (0, TILE)))
    rig.lease()
    assert eventually(lambda: rig.aloft == 2)
    assert rig.said() == []
    rig.go()
    assert eventually(lambda: sum(one["event"] == "spent" for one in rig.said()) == 2)


def test_an_end_in_flight_waits_for_the_device_and_books_what_it_did(rig: Rig) -> None:
    rig.tray.put(Assignment(1, WORK))
    rig.lease()
    assert eventually(lambda: rig.aloft == 2)
    rig.gpu.run_blocks(1)
    rig.tray.closing = True
    assert eventually(lambda: rig.stopped)
    assert rig.threads[0].is_alive()
    rig.go()
    rig.threads[0].join(10)
    assert not rig.threads[0].is_alive()
    assert (rig.view.read().launches, rig.view.read().hashes) == (2, TILE)


def test_memory_is_given_back_only_when_nothing_is_in_flight(rig: Rig) -> None:
    rig.tray.put(Assignment(1, WORK))
    rig.lease()
    assert eventually(lambda: rig.aloft == 2)
    rig.gpu.run_blocks(1)
    server = ClientGate(rig.folder)
    server.want_memory(True)
    assert eventually(lambda: rig.stopped)
    assert rig.released is None
    rig.go()
    assert eventually(lambda: rig.released is True)
    assert (rig.aloft, rig.view.read().hashes) == (0, TILE)
    rig.hasher.close()
    assert rig.gpu.memory == []
    server.close()


def test_a_device_that_hangs_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "OVERDUE_NS", 100_000_000)
    rig.tray.put(Assignment(1, WORK))
    rig.lease()
    assert eventually(lambda: rig.fault is not None)
    assert "did not end" in str(rig.fault)


def test_a_lost_device_ends_the_loop(rig: Rig) -> None:
    rig.tray.put(Assignment(1, WORK))
    rig.lease()
    assert eventually(lambda: rig.aloft == 2)
    rig.gpu.lost = True
    assert eventually(lambda: rig.fault is not None)
    rig.gpu.lost = False  # so that the fixture can end


def test_an_assignment_hands_out_each_nonce_once_and_again_what_was_left() -> None:
    one = Assignment(1, WORK, (0, 100))
    assert [one.take(30), one.take(30), one.take(30)] == [(0, 30), (30, 30), (60, 30)]
    one.landed([(10, 20)])
    one.landed([(30, 30)])
    one.landed([])
    assert one.open
    assert one.take(1000) == (10, 50), "what was left lies side by side"
    assert one.take(1000) == (90, 10)
    assert (one.open, one.spent) == (False, False)
    one.landed([])
    one.landed([])
    assert one.spent


def test_a_worker_takes_works_of_its_algorithm_and_no_others() -> None:
    message = {"op": "work", "id": 4, "message": bytes(36).hex(), "target": "ff", "height": 7}
    tray = Tray("etchash")
    tray.take({**message, "algorithm": "etchash"})
    assignment = tray.current()
    assert assignment is not None
    assert assignment.work == Work(bytes(36), 0xFF, "etchash", height=7)
    for other in ("autolykos2", "sha256d", None):
        with pytest.raises(ValueError, match="hashes etchash"):
            tray.take({**message, "algorithm": other})
    with pytest.raises(ValueError, match="hashes etchash"):
        tray.take(message)


def test_work_that_was_put_away_is_not_spent() -> None:
    tray = Tray()
    one = Assignment(1, WORK, (0, 10))
    tray.put(one)
    one.take(10)
    assert tray.current() is None
    tray.take({"op": "idle"})
    one.landed([])
    assert one.spent
    assert not tray.drop(one)


def test_a_tray_that_is_full_takes_no_more() -> None:
    tray = Tray()
    for number in range(20):
        tray.put(Assignment(number, WORK, (0, 1)))
    numbers = []
    while (one := tray.current()) is not None:
        numbers.append(one.id)
        with suppress(IndexError):
            one.take(1)
    assert numbers == list(range(8))
