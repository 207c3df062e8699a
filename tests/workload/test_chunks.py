"""Chunk files without Ray: one commit per chunk, whoever dies and however many try."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wattshift_cluster.errors import Refused
from wattshift_cluster.workload.batch_worker import Chunks, imported, rows_of
from wattshift_cluster.workload.chunks import (
    ChunkStore,
    InputInvalid,
    Outcome,
    Plan,
    read_chunk,
    survey,
)
from wattshift_cluster.workload.specs import BatchSpec

LENGTH = "wattshift_cluster.workload.samples:length"


def write_items(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(count)))
    return path


def spec_of(folder: Path, **more: object) -> BatchSpec:
    fields = {
        "callable": LENGTH,
        "input": str(folder / "items.jsonl"),
        "output": str(folder / "out"),
        "watts_w": 10.0,
        "chunk_items": 4,
        "nice": 0,
    }
    return BatchSpec(**{**fields, **more})  # type: ignore[arg-type]


def results(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]


def test_a_survey_counts_items_and_finds_where_chunks_begin(tmp_path: Path) -> None:
    path = tmp_path / "items"
    path.write_bytes(b'1\n\n2\n"three"\n   \n4\n5')
    digest, items, starts = survey(path, 2)
    assert items == 5
    assert [read_chunk(path, start, n) for start, n in zip(starts, (2, 2, 1), strict=True)] == [
        [b"1\n", b"2\n"],
        [b'"three"\n', b"4\n"],
        [b"5"],
    ]
    path.write_bytes(b'1\n\n2\n"three"\n   \n4\n6')
    assert survey(path, 2)[0] != digest


def test_input_that_cannot_be_read_or_shrank_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="No such file"):
        survey(tmp_path / "none", 2)
    path = tmp_path / "items"
    path.write_text("1\n2\n")
    with pytest.raises(InputInvalid, match="shorter"):
        read_chunk(path, 2, 2)
    path.write_bytes(b"x" * ((1 << 20) + 2))
    with pytest.raises(InputInvalid, match="item 0 is longer"):
        survey(path, 2)


def test_a_job_runs_to_its_end_in_order(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    outcome = Chunks("job", spec_of(tmp_path)).run()
    assert outcome == Outcome("completed", None, 0)
    assert results(tmp_path) == [{"index": n, "output": n} for n in range(10)]
    assert list((tmp_path / "out/attempts").iterdir()) == []


def test_a_stop_takes_effect_between_chunks_and_the_rest_is_done_later(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 10)
    first = Chunks("job", spec_of(tmp_path))
    first.stop()
    assert first.run() is None
    store = ChunkStore(tmp_path / "out")
    assert store.committed() == set()
    assert store.outcome() is None
    assert Chunks("job", spec_of(tmp_path)).run() == Outcome("completed", None, 0)


def test_the_second_commit_of_a_chunk_changes_nothing(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    store.open(Plan("job", LENGTH, "items", "00", 4, 4))
    assert store.commit(0, [{"index": 0, "output": "first"}])
    assert not store.commit(0, [{"index": 0, "output": "second"}])
    assert "first" in (tmp_path / "chunks/00000000.jsonl").read_text()
    assert store.committed() == {0}


COMMIT_MANY = """
import sys
from pathlib import Path
from wattshift_cluster.workload.chunks import ChunkStore
store = ChunkStore(Path(sys.argv[1]))
sys.stdin.readline()
wins = [store.commit(n, [{"index": n, "output": sys.argv[2]}]) for n in range(40)]
print(sum(wins))
"""


def test_of_doubled_workers_exactly_one_commits_each_chunk(tmp_path: Path) -> None:
    ChunkStore(tmp_path).open(Plan("job", LENGTH, "items", "00", 40, 1))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", COMMIT_MANY, str(tmp_path), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    wins = [int(worker.communicate("go\n", timeout=30)[0]) for worker in workers]
    assert sum(wins) == 40
    assert ChunkStore(tmp_path).committed() == set(range(40))


WORK = """
import sys
from wattshift_cluster.workload.batch_worker import Chunks
from wattshift_cluster.workload.specs import BatchSpec
spec = BatchSpec("wattshift_cluster.workload.samples:length", sys.argv[1], sys.argv[2], 1.0, 3)
print(Chunks("job", spec).run())
"""


def test_nothing_is_lost_or_doubled_when_workers_are_killed(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 120)
    command = [sys.executable, "-c", WORK, str(tmp_path / "items.jsonl"), str(tmp_path / "out")]
    store = ChunkStore(tmp_path / "out")
    kills = 0
    while store.outcome() is None and kills < 6:
        before = len(store.committed())
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while len(store.committed()) < before + 5 and worker.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
        kills += 1
    assert kills >= 3
    assert Chunks("job", spec_of(tmp_path, chunk_items=3)).run() == Outcome("completed", None, 0)
    assert results(tmp_path) == [{"index": n, "output": n} for n in range(120)]


def test_bad_lines_have_an_error_and_the_others_their_output(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('"a"\n{broken\n"ccc"\n')
    assert Chunks("job", spec_of(tmp_path)).run() == Outcome("completed", None, 1)
    assert results(tmp_path) == [
        {"index": 0, "output": 1},
        {"index": 1, "error": "not JSON"},
        {"index": 2, "output": 3},
    ]


def test_a_callable_that_fails_again_and_again_fails_the_job_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("17\n")
    outcome = Chunks("job", spec_of(tmp_path)).run()
    assert outcome is not None
    assert outcome.state == "failed"
    assert "chunk 0: TypeError" in str(outcome.error)
    assert Chunks("job", spec_of(tmp_path)).run() == outcome
    ChunkStore(tmp_path / "out").reopen()
    assert ChunkStore(tmp_path / "out").outcome() is None


def test_a_callable_that_does_not_exist_or_miscounts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="no_such"):
        imported("wattshift_cluster.workload.samples:no_such")
    with pytest.raises(InputInvalid, match="1 outputs of 2 items"):
        rows_of(lambda items: items[:1], 0, [b"1", b"2"])


def test_a_folder_of_another_job_or_input_is_left_alone(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 5)
    assert Chunks("one", spec_of(tmp_path)).run() == Outcome("completed", None, 0)
    (tmp_path / "out/outcome.json").unlink()
    other = Chunks("two", spec_of(tmp_path)).run()
    assert other is not None
    assert "another job" in str(other.error)
    assert not (tmp_path / "out/outcome.json").exists()
    write_items(tmp_path / "items.jsonl", 6)
    digest, items, _ = survey(tmp_path / "items.jsonl", 4)
    plan = Plan("one", LENGTH, str(tmp_path / "items.jsonl"), digest, items, 4)
    with pytest.raises(Refused, match="another input"):
        ChunkStore(tmp_path / "out").open(plan)
