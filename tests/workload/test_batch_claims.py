"""Claims: who is at work on a chunk, by process where it can be seen, and by time where not."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from batch_bench import results, spec_of, write_items

from wattshift_cluster.workload.batch import claims as claims_module
from wattshift_cluster.workload.batch.chunk_loop import Chunks
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.claims import Claims
from wattshift_cluster.workload.batch.datasets import survey
from wattshift_cluster.workload.batch.plans import planned


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def until(check: Callable[[], object], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "not in time"
        time.sleep(0.005)


def of_another_host(path: Path) -> None:
    """Make a claim look like one of a host that nobody here can see."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))


def test_what_one_holds_no_other_takes_until_it_is_released(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("a")
    assert not other.take("a")
    assert other.take("b")
    assert one.take("c")
    assert other.take("a")
    other.end()
    assert sorted(os.listdir(tmp_path)) == ["c"]


def test_a_claim_of_a_living_process_holds_as_long_as_it_is_renewed(tmp_path: Path) -> None:
    clock = Clock()
    one, other = Claims(tmp_path, renew_s=0.01), Claims(tmp_path, 10.0, clock_s=clock)
    assert one.take("a")
    one.begin()
    for _ in range(3):
        assert not other.take("a")
        clock.now_s += 9.0
        before = (tmp_path / "a").stat().st_mtime_ns
        until(lambda seen=before: (tmp_path / "a").stat().st_mtime_ns != seen)
    one._end.set()
    time.sleep(0.05)
    assert not other.take("a")
    clock.now_s += 9.9
    assert not other.take("a")
    clock.now_s += 0.2
    assert other.take("a")


def test_a_claim_of_another_host_is_void_by_our_own_clock_alone(tmp_path: Path) -> None:
    clock = Clock()
    one, other = Claims(tmp_path), Claims(tmp_path, 10.0, clock_s=clock)
    one.take("a")
    of_another_host(tmp_path / "a")
    os.utime(tmp_path / "a", (0, 0))  # its clock is wrong by decades, or ours is
    assert not other.take("a")
    clock.now_s += 10.1
    assert other.take("a")


def test_a_claim_of_a_process_that_died_here_is_void_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path\nfrom {claims_module.__name__} import Claims\n"
    code += f"assert Claims(Path({str(tmp_path)!r})).take('a')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    other = Claims(tmp_path, 1e9)
    assert other.take("a")
    # The number of a dead process may have become another's.
    claim = json.loads((tmp_path / "a").read_text()) | {"pid": os.getpid(), "start": "1"}
    other._held = None
    (tmp_path / "a").write_text(json.dumps(claim))
    assert other.take("a")


def test_who_lost_a_claim_leaves_that_of_the_new_holder_alone(tmp_path: Path) -> None:
    one, clock = Claims(tmp_path), Clock()
    other = Claims(tmp_path, 10.0, clock_s=clock)
    one.take("a")
    of_another_host(tmp_path / "a")
    assert not other.take("a")
    clock.now_s += 11
    assert other.take("a")
    taken = (tmp_path / "a").stat()
    os.utime(one._held[1])  # type: ignore[index]
    one.release()
    assert (tmp_path / "a").stat() == taken


def test_a_claim_that_is_half_written_counts_by_its_time(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "a").write_text('{"boot": ')
    other = Claims(tmp_path, 10.0, clock_s=clock)
    assert not other.take("a")
    clock.now_s += 10.1
    assert other.take("a")


def test_a_worker_leaves_when_all_that_is_left_is_in_other_hands(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 8)
    spec = spec_of(tmp_path)
    index = survey(spec.input, "auto", spec.chunk_items)
    store = ChunkStore(tmp_path / "out")
    store.open(*planned("job", spec.work, spec.input, index))
    holder = Claims(store.claims, renew_s=0.01)
    assert holder.take("00000001")
    holder.begin()
    try:
        worker = Chunks("job", spec, lease_s=0.4)
        assert worker.run() is None
        assert worker.why == "idle"
        assert store.committed() == {0}
        assert store.outcome() is None
    finally:
        holder.end()
    last = Chunks("job", spec, lease_s=0.4).run()
    assert last is not None
    assert [row["output"] for row in results(tmp_path)] == list(range(8))


def test_workers_begin_at_places_of_their_own(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 32)
    spec = spec_of(tmp_path)
    index = survey(spec.input, "auto", spec.chunk_items)
    plan, document = planned("job", spec.work, spec.input, index)
    ChunkStore(tmp_path / "out").open(plan, document)
    first = [Chunks("job", spec, n, 4)._next(plan) for n in range(4)]
    assert first == [0, 2, 4, 6]
