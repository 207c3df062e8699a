"""A card's table is freed on a lease's word and built again, by a real worker on a stand-in GPU."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.leases import Lease, judge
from wattshift_cluster.agent.shedding import Held, lowered
from wattshift_cluster.agent.specs import cpu_spec
from wattshift_cluster.agent.table import EMPTY, EXPECTED, CardTable
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.gate import ClientGate
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.coins.server import TONGUES, CoinPool
from wattshift_cluster.mining.pool.settings import PoolSettings

KERNELS = Path(__file__).parents[1] / "kernels"
ROWS = 20_000
TABLE_BYTES = 8 * ROWS
STAND_IN = f"""
import sys, threading, time
if "wattshift_cluster.agent.worker" in sys.orig_argv:
    sys.path.append({str(KERNELS)!r})
    import made_up, standin
    from types import SimpleNamespace
    from wattshift_kernels import registry
    from wattshift_kernels.autolykos2 import algorithm
    from wattshift_kernels.hasher import Work
    from wattshift_kernels.tables import Plan, Stage

    made_up.ROWS = {ROWS}
    gpu = standin.StandIn()
    place = lambda at, name, value: at.__setitem__(name, value)
    standin.put_in_place(SimpleNamespace(setitem=place, setattr=lambda name, value: None), gpu)
    import wattshift_kernels.gpu, ctypes
    real = ctypes.CDLL
    seen = lambda name, *more: gpu.driver if name == "libcuda.so.1" else real(name, *more)
    wattshift_kernels.gpu.ctypes = SimpleNamespace(**{{**vars(ctypes), "CDLL": seen}})

    def drive():
        while gpu.stream is None:
            time.sleep(0.001)
        gpu.drive(threading.Event())

    def make():
        gpu.driven = True
        threading.Thread(target=drive, daemon=True).start()
        # Built for another height than is searched, so that nothing is found.
        stages = (Stage({ROWS}, 500),)
        made = made_up.launcher(lambda height: Plan(height + 1, {TABLE_BYTES}, stages))
        made.algorithm = "autolykos2"
        return made

    work = Work(bytes(36), 1, "autolykos2", height=5)
    registry.failure = lambda hasher: [None for _ in [hasher.search(work, 0, 10)]][0]
    object.__setattr__(algorithm.ALGORITHM, "makers", (("cuda", make),))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        pytest.skip("the stand-in's kernels need a compiler")
    (tmp_path / "sitecustomize.py").write_text(STAND_IN)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{before}" if before else str(tmp_path))
    return tmp_path


class Card:
    """A device with its worker, and a pool of its coin."""

    def __init__(self, folder: Path, desk: PoolDesk) -> None:
        spec = replace(
            cpu_spec("host-gpu0", folder, 300.0, 19, "host"), kind="gpu", algorithm="autolykos2"
        )
        self.device = HashingDevice(spec, desk, folder)
        self.sequence = 0

    def lease(self, mode: str) -> None:
        self.sequence += 1
        watts_w = self.device.terms().modes[mode]
        until_s = boot_s() + 60.0
        self.device.hold(Lease("host-gpu0", 1, self.sequence, mode, watts_w, until_s))

    @property
    def held_bytes(self) -> int | None:
        return self.device.reading().table_held_bytes

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - the worker's words
                await asyncio.sleep(0.002)


def with_card(folder: Path, body: Callable[[Card], Awaitable[None]]) -> None:
    async def run() -> None:
        settings = PoolSettings(difficulty=1.0, algorithm="autolykos2")
        pool = CoinPool(TONGUES["autolykos2"](), settings)
        at = await pool.start(Endpoint("127.86.1.1", 0))
        made: Any = {"algorithm": "autolykos2", "url": f"stratum+tcp://{at}", "user": "rig"}
        desk = PoolDesk(Pool(**made))
        card = Card(folder, desk)
        tasks = [asyncio.create_task(desk.run()), asyncio.create_task(card.device.run())]
        try:
            await body(card)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await card.device.close()
            await pool.stop()

    asyncio.run(run())


def test_a_table_is_built_freed_on_a_leases_word_and_built_again(stand_in: Path) -> None:
    async def body(card: Card) -> None:
        device, child = card.device, card.device.child
        assert card.held_bytes in (None, 0), "nobody knows before the worker is there"
        await card.until(lambda: child.fault is None)
        assert card.held_bytes == 0, "that of its self-test is freed"
        pid, notes = child.pid, set()
        card.lease("hash")

        def built() -> bool:
            notes.add(device.reading().note)
            return device.reading().table_progress == 1.0

        await card.until(built)
        assert card.held_bytes == TABLE_BYTES
        assert any(note and note.startswith("it builds its table: ") for note in notes)
        await card.until(lambda: bool(device.reading().hashrate_h_per_s))
        assert device.info().table_bytes == TABLE_BYTES, "learnt"
        assert device.info().table_build_s > 0.0
        freed: list[dict[str, Any]] = []
        heard = device.table.heard

        def hear(event: dict[str, Any]) -> None:
            freed.extend([event] if "freed_ms" in event else [])
            heard(event)

        watched: Any = device.table
        watched.heard = hear
        child.send({"op": "empty"})  # with an open gate: freed between two launches, and begun anew
        await card.until(lambda: bool(freed))
        await card.until(built)
        card.lease("idle")
        await asyncio.sleep(0.1)
        assert card.held_bytes == TABLE_BYTES, "to idle frees nothing"
        card.lease("hash")
        began_s = time.monotonic()
        card.lease(EMPTY)
        assert card.held_bytes is None, "asked, and not answered yet: unknown is not free"
        await card.until(lambda: card.held_bytes == 0)
        took_s = time.monotonic() - began_s
        _, told = freed
        print(f"freed {took_s * 1e3:.1f} ms after the lease; the device took {told['freed_ms']} ms")
        assert told["table_bytes"] == 0
        assert child.pid == pid, "the worker stays"
        assert "kept free for compute" in (device.reading().note or "")
        assert device.reading().table_progress == 0.0
        card.lease(EMPTY)
        assert card.held_bytes == 0, "a renewal asks nothing again"
        card.lease("hash")
        await card.until(lambda: card.held_bytes == TABLE_BYTES)

    with_card(stand_in, body)


def test_a_worker_that_is_gone_holds_nothing_and_a_new_one_is_unknown(stand_in: Path) -> None:
    async def body(card: Card) -> None:
        child = card.device.child
        await card.until(lambda: child.fault is None)
        card.lease("hash")
        await card.until(lambda: card.held_bytes == TABLE_BYTES)
        card.lease(EMPTY)
        pid = child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await card.until(lambda: child.pid is None)
        assert card.held_bytes == 0
        # A server that starts keeps the next one away; its wish is freed by the gate alone.
        server = ClientGate(card.device.spec.gate_dir)
        server.want_memory(True)
        await card.until(lambda: card.device.reading().clients == 1)
        server.close()

    with_card(stand_in, body)


def table(**changes: Any) -> CardTable:
    base = replace(cpu_spec("g", Path(), 300.0, 19, None), kind="gpu", algorithm="autolykos2")
    return CardTable(replace(base, **changes))


def test_only_a_real_cards_memory_hard_algorithm_has_a_table_to_offer() -> None:
    assert table().offered
    assert table().size == EXPECTED["autolykos2"]
    for other in ({"algorithm": "sha256d"}, {"kind": "cpu"}, {"quality": "emulated"}):
        assert not table(**other).offered
        assert table(**other).size.held_bytes == 0
        assert table(**other).held_bytes is None


def test_what_a_worker_says_counts_only_for_itself() -> None:
    said: list[Any] = []
    worker: Any = SimpleNamespace(pid=None, progress=0.4, send=said.append)
    one = table()
    one.serve(worker)
    assert one.held_bytes == 0
    worker.pid = 10
    assert one.held_bytes is None, "its self-test may hold some"
    one.empty(renewed=False)
    assert not said, "it does not listen yet"
    one.heard({"event": "ready", "table_bytes": 0})
    assert one.held_bytes == 0
    one.heard({"event": "table", "progress": 0.4, "table_bytes": 500})
    assert (one.held_bytes, one.progress) == (500, 0.4)
    assert one.note("hash") == "it builds its table: 40%"
    one.empty(renewed=True)
    assert said == [{"op": "empty"}]
    assert (one.held_bytes, one.progress) == (None, None)
    one.empty(renewed=True)
    assert len(said) == 2, "asked again until it says so"
    one.heard({"event": "table", "progress": 0.0, "table_bytes": 0})
    one.empty(renewed=True)
    assert len(said) == 2
    one.empty(renewed=False)
    assert len(said) == 3, "it may have begun one since it spoke"
    one.heard({"event": "table", "progress": 0.0, "table_bytes": 0})
    worker.pid = 11
    assert one.held_bytes is None, "another process"
    one.heard({"event": "table", "progress": 1.0})
    one.heard({"event": "ready"})
    assert one.held_bytes is None, "a worker that does not say is not free"


def test_a_tables_size_is_news_only_where_it_was_badly_wrong() -> None:
    one = table()
    near = round(EXPECTED["autolykos2"].held_bytes * 1.2)
    one.heard({"event": "table", "progress": 1.0, "table_bytes": near, "build_s": 5.5})
    assert one.changes == 0
    one.heard({"event": "table", "progress": 1.0, "table_bytes": near, "build_s": 2.0})
    assert (one.changes, one.size.build_s) == (1, 2.0)


def test_a_closed_device_may_be_emptied_and_a_shed_keeps_it_so(tmp_path: Path) -> None:
    spec = replace(cpu_spec("g0", tmp_path, 300.0, 19, None), kind="gpu", algorithm="etchash")
    device = HashingDevice(replace(spec, refusal="no consent"), None, tmp_path)
    terms, now_s = device.terms(), boot_s()
    lease = Lease("g0", 1, 1, EMPTY, spec.idle_w, now_s + 10.0)
    assert judge(lease, None, terms, 1, now_s).accepted
    assert not judge(replace(lease, mode="hash"), None, terms, 1, now_s).accepted
    told, _ = lowered(
        [
            Held(lease, terms, 0.01),
            Held(replace(lease, device="g1", mode="hash", watts_w=300.0), terms, 0.01),
        ],
        1.0,
    )
    assert told["g0"].mode == EMPTY
    assert told["g1"].mode == "idle"
    asyncio.run(device.close())
