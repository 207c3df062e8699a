"""Chunk files without Ray: one commit per chunk, whoever dies and however many try."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_bench import gone, nursery, results, spec_of, write_items, written

from wattshift_cluster.errors import Refused
from wattshift_cluster.workload.batch.chunk_loop import Chunks
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.datasets import survey
from wattshift_cluster.workload.batch.formats import InputInvalid
from wattshift_cluster.workload.batch.plans import Outcome, Plan, planned
from wattshift_cluster.workload.batch.rows import Wrong, dead_row, output_row

WAIT_S = 30.0


def until(check: Callable[[], object], seconds: float = WAIT_S) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "not in time"
        time.sleep(0.005)


def store_of(folder: Path, items: int = 4) -> tuple[ChunkStore, Plan]:
    """An output folder with a plan of chunks of one item."""
    (folder / "in.jsonl").write_text("1\n" * items)
    index = survey(str(folder / "in.jsonl"), "auto", 1)
    store = ChunkStore(folder / "out")
    return store, store.open(*planned("job", "work", "in.jsonl", index))


def test_a_job_runs_to_its_end_in_order(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    outcome = Chunks("job", spec_of(tmp_path)).run()
    assert outcome == Outcome("completed", None, 0)
    assert results(tmp_path) == [{"index": n, "output": n} for n in range(10)]
    assert list((tmp_path / "out/attempts").iterdir()) == []
    assert list((tmp_path / "out/claims").iterdir()) == []


def test_an_input_without_items_is_done_at_once(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("\n \n")
    assert Chunks("job", spec_of(tmp_path)).run() == Outcome("completed", None, 0)
    assert results(tmp_path) == []


def test_a_stop_takes_effect_between_chunks_and_the_rest_is_done_later(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    first = Chunks("job", spec_of(tmp_path))
    first.stop()
    assert first.run() is None
    assert first.why == "stopped"
    store = ChunkStore(tmp_path / "out")
    assert store.committed() == set()
    assert store.outcome() is None
    assert Chunks("job", spec_of(tmp_path)).run() == Outcome("completed", None, 0)


def test_the_second_commit_of_a_chunk_changes_nothing(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path)
    assert store.commit(0, [output_row(0, "first")])
    assert not store.commit(0, [output_row(0, "second")])
    assert "first" in (tmp_path / "out/chunks/00000000.jsonl").read_text()
    assert store.committed() == {0}


COMMIT_MANY = """
import os, sys
from pathlib import Path
from wattshift_cluster.workload.batch.chunks import ChunkStore
store = ChunkStore(Path(sys.argv[1]))
ready, go = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.close(go)
        os.read(ready, 1)
        wins = [store.commit(n, [b'{"index": %d, "output": 1}\\n' % n]) for n in range(40)]
        os.write(1, b"%d\\n" % sum(wins))
        os._exit(0)
os.close(go)
for _ in range(3):
    os.wait()
"""


def test_of_doubled_workers_exactly_one_commits_each_chunk(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path, 40)
    command = [sys.executable, "-c", COMMIT_MANY, str(tmp_path / "out")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    wins = [int(line) for line in done.stdout.splitlines()]
    assert len(wins) == 3
    assert sum(wins) == 40
    assert store.committed() == set(range(40))


QUICK = """
import time
def work(items):
    time.sleep(0.001 * len(items))
    return [2 * item for item in items]
"""


def test_twenty_kills_of_two_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    items, kills = 1200, 20
    (tmp_path / "items.jsonl").write_text("".join(f"{n}\n" for n in range(items)))
    spec = spec_of(tmp_path, chunk_items=3, **written(tmp_path, QUICK))
    store, chance, killed = ChunkStore(tmp_path / "out"), random.Random(6), 0
    with nursery() as made:
        workers: dict[int, int] = {}
        while killed < kills or workers:
            for number in {0, 1} - set(workers) if store.outcome() is None else ():
                more = {"worker": number, "workers": 2, "lease_s": 0.5}
                workers[number] = made.worker("job", spec, **more)
            time.sleep(chance.uniform(0.0, 0.05))
            for number, pid in list(workers.items()):
                if gone(pid):
                    del workers[number]
            if killed < kills and workers:
                os.kill(workers.pop(chance.choice(sorted(workers))), signal.SIGKILL)
                killed += 1
    assert killed == kills
    assert store.outcome() == Outcome("completed", None, 0)
    assert results(tmp_path) == [{"index": n, "output": 2 * n} for n in range(items)]
    rows = [
        json.loads(line)["index"]
        for path in (tmp_path / "out/chunks").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert sorted(rows) == list(range(items))


FROZEN = """
import os, time
from pathlib import Path
def work(items):
    if items[0] == 0 and os.environ.get("MARK"):
        Path(os.environ["MARK"]).write_text(str(os.getpid()))
        time.sleep(0.3)
        return [os.environ["MARK"]] * len(items)
    return [item + 1 for item in items]
"""


def test_a_worker_that_hangs_and_comes_back_damages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "items.jsonl").write_text("".join(f"{n}\n" for n in range(6)))
    spec = spec_of(tmp_path, chunk_items=2, **written(tmp_path, FROZEN))
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    with nursery() as made:
        pid = made.worker("job", spec)
        until(mark.exists)
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.delenv("MARK")
        try:
            other = Chunks("job", spec, 1, 2, lease_s=0.4)
            assert other.run() == Outcome("completed", None, 0)
            before = (tmp_path / "out/results.jsonl").read_bytes()
            assert [row["output"] for row in results(tmp_path)] == [1, 2, 3, 4, 5, 6]
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: gone(pid))
    assert (tmp_path / "out/results.jsonl").read_bytes() == before
    assert str(mark) not in (tmp_path / "out/chunks/00000000.jsonl").read_text()
    assert list((tmp_path / "out/attempts").iterdir()) == []


def test_a_worker_that_comes_back_to_a_folder_of_another_job_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "items.jsonl").write_text("0\n1\n")
    spec = spec_of(tmp_path, chunk_items=2, **written(tmp_path, FROZEN))
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    with nursery() as made:
        pid = made.worker("old", spec)
        until(mark.exists)
        os.kill(pid, signal.SIGSTOP)
        try:
            shutil.rmtree(tmp_path / "out")
            index = survey(str(tmp_path / "items.jsonl"), "auto", 2)
            store = ChunkStore(tmp_path / "out")
            store.open(*planned("new", spec.work, spec.input, index))
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: gone(pid))
    plan = store.plan()
    assert plan is not None
    assert plan.job == "new"
    assert store.committed() == set()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "attempts", "chunks", "claims", "dead", "job.json", f"input.{plan.sha256[:16]}.json",
    }  # fmt: skip
    assert list((tmp_path / "out/attempts").iterdir()) == []


def test_a_commit_never_lands_in_a_folder_that_took_the_place_of_its_own(tmp_path: Path) -> None:
    old, _ = store_of(tmp_path)
    shutil.rmtree(tmp_path / "out")
    new, _ = store_of(tmp_path)
    with pytest.raises(FileNotFoundError):
        old.commit(0, [output_row(0, "of the old job")])
    assert new.committed() == set()
    for late in (lambda: old.end(Outcome("failed")), old.check):
        with pytest.raises(Refused, match="was removed while the job ran"):
            late()
    assert new.outcome() is None
    new.check()


def test_dead_letters_are_counted_at_once_and_joined_with_the_results(tmp_path: Path) -> None:
    store, plan = store_of(tmp_path, 3)
    store.commit(0, [output_row(0, {"dead": 1})])
    store.commit(1, [dead_row(1, {"text": "x"}, Wrong("ValueError", "no"), 3)])
    known: dict[int, int] = {}
    assert store.dead_letters(known) == 1
    # Its worker died between the commit and the letters: the chunk still has them.
    (tmp_path / "out/dead/00000001.jsonl").unlink()
    store.commit(2, [output_row(2, [])])
    assert store.finish(plan) == Outcome("completed", None, 1)
    assert [json.loads(x) for x in (tmp_path / "out/results.jsonl").read_text().splitlines()] == [
        {"index": 0, "output": {"dead": 1}},
        {"index": 1, "error": "ValueError: no"},
        {"index": 2, "output": []},
    ]
    assert json.loads((tmp_path / "out/dead_letters.jsonl").read_text()) == {
        "index": 1,
        "item": {"text": "x"},
        "error": {"type": "ValueError", "message": "no"},
        "attempts": 3,
    }


def test_a_failed_job_that_is_opened_again_tries_its_dead_letters_again(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path, 2)
    store.commit(0, [output_row(0, 1)])
    store.commit(1, [dead_row(1, 1, Wrong("ValueError", "no"), 3)])
    store.reopen()
    assert store.committed() == {0, 1}
    store.end(Outcome("failed", "no"))
    assert store.end(Outcome("completed")) == Outcome("failed", "no")
    store.reopen()
    assert store.committed() == {0}
    assert store.outcome() is None
    assert store.dead_letters({}) == 0


def test_a_folder_of_another_job_or_other_work_is_left_alone(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 5)
    assert Chunks("one", spec_of(tmp_path)).run() == Outcome("completed", None, 0)
    (tmp_path / "out/outcome.json").unlink()
    other = Chunks("two", spec_of(tmp_path)).run()
    assert other is not None
    assert "another job" in str(other.error)
    assert not (tmp_path / "out/outcome.json").exists()
    with pytest.raises(Refused, match="holds the output of"):
        ChunkStore(tmp_path / "out").held("one", "module:other")


def test_a_changed_input_ends_the_job_with_its_name(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 5)
    first = Chunks("one", spec_of(tmp_path))
    first.run()
    (tmp_path / "out/outcome.json").unlink()
    shutil.rmtree(tmp_path / "out/chunks")
    (tmp_path / "out/chunks").mkdir()
    write_items(tmp_path / "items.jsonl", 6)
    outcome = Chunks("one", spec_of(tmp_path)).run()
    assert outcome is not None
    assert "items.jsonl changed since the job began" in str(outcome.error)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(InputInvalid, match=r"job\.json"):
        ChunkStore(tmp_path).plan()
