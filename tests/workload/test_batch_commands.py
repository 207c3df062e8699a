"""A command per chunk: JSON lines in and out, its failures told, and nothing of it left behind."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_bench import gone, nursery, results, spec_of

from wattshift_cluster.workload.batch.callables import WrongOutputs
from wattshift_cluster.workload.batch.chunk_loop import Chunks
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.commands import Command, CommandFailed
from wattshift_cluster.workload.batch.formats import InputInvalid
from wattshift_cluster.workload.batch.job_log import JobLog, tail
from wattshift_cluster.workload.batch.plans import Outcome

CAT = ("/bin/cat",)


def until(check: Callable[[], object], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "not in time"
        time.sleep(0.005)


def command(folder: Path, *words: str, **more: object) -> Command:
    return Command(words, folder, JobLog(folder), **more)  # type: ignore[arg-type]


def shell(folder: Path, script: str, **more: object) -> Command:
    return command(folder, "/bin/sh", "-c", script, **more)


def test_items_go_in_as_json_lines_and_outputs_come_back_in_order(tmp_path: Path) -> None:
    items = [1, "two\nlines", {"three": [3.5, None]}, "ü"]
    assert command(tmp_path, *CAT)(items) == items
    assert shell(tmp_path, "pwd >&2; cat")([7]) == [7]
    assert tail(tmp_path, 1)[0].endswith(f" 0 {tmp_path}")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 1", "answered 1 lines to 2 items"),
        ("echo 1; echo 2; echo 3", "answered more than 2 lines to 2 items"),
        ("echo hello; echo 2; echo why >&2", "not JSON: hello: why"),
        ("", "answered 0 lines"),
    ],
)
def test_what_is_not_one_line_per_item_is_refused(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(WrongOutputs, match=words):
        shell(tmp_path, script)([1, 2])


def test_a_status_and_the_last_words_are_told(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="status 3: no model here"):
        shell(tmp_path, "echo loading >&2; echo no model here >&2; exit 3")([1])
    with pytest.raises(CommandFailed, match="ended by SIGTERM"):
        shell(tmp_path, "kill -TERM $$")([1])
    assert [line.split(" ", 2)[2] for line in tail(tmp_path, 9)] == ["loading", "no model here"]
    with pytest.raises(InputInvalid, match="cannot run /no/such: No such file"):
        command(tmp_path, "/no/such")([1])


def test_an_answer_without_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises((WrongOutputs, CommandFailed), match=r"more than|SIGKILL"):
        shell(tmp_path, "yes 1", outputs_max_b=1 << 20)([1])


def test_what_a_command_leaves_running_ends_with_its_chunk(tmp_path: Path) -> None:
    work = shell(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid; cat")
    assert work([5]) == [5]
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid))


def test_a_command_that_is_interrupted_ends_at_once_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait"
    work = shell(tmp_path, script)
    threading.Timer(0.1, lambda: (until((tmp_path / "pid").exists), work.interrupt())).start()
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="stopped"):
        work([1])
    assert time.monotonic() - began < 20
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid))
    with pytest.raises(CommandFailed, match="stopped"):
        work([1])


def test_a_worker_that_is_killed_takes_its_command_along(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("1\n")
    script = f"sleep 300 & echo $! $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pids; wait"
    spec = spec_of(tmp_path, callable="", command=("/bin/sh", "-c", script))
    with nursery() as made:
        pid = made.worker("job", spec)
        until((tmp_path / "pids").exists)
        os.kill(pid, signal.SIGKILL)
        pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
        until(lambda: all(map(gone, pids)))


def test_a_stop_waits_for_the_command_until_its_deadline_and_kills_it_then(
    tmp_path: Path,
) -> None:
    (tmp_path / "items.jsonl").write_text("1\n")
    spec = spec_of(
        tmp_path, callable="", command=("/bin/sh", "-c", f"touch {tmp_path}/at; sleep 99")
    )
    chunks = Chunks("job", spec)
    threading.Timer(0.0, lambda: (until((tmp_path / "at").exists), chunks.stop(0.1))).start()
    began = time.monotonic()
    assert chunks.run() is None
    assert chunks.why == "stopped"
    assert time.monotonic() - began < 60
    assert ChunkStore(tmp_path / "out").committed() == set()


def test_a_job_of_a_command_has_its_folders_its_environment_and_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattshift_cluster.workload.batch.trial.RETRY_S", 0.001)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/doubling.py").write_text("def double(x): return 2 * x\n")
    (tmp_path / "run.py").write_text(
        "import json, sys, doubling\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps(doubling.double(json.loads(line))), flush=True)\n"
        "    if json.loads(line) is None: sys.exit('None it is')\n"
    )
    (tmp_path / "items.jsonl").write_text('1\n"a"\nnull\n')
    words = (sys.executable, "-S", "run.py")  # beside the output folder
    more = {"python_path": (str(tmp_path / "code"),), "item_attempts": 1}
    spec = spec_of(tmp_path, callable="", command=words, **more)
    assert Chunks("job", spec).run() == Outcome("completed", None, 1)
    rows = results(tmp_path)
    assert [row.get("output") for row in rows] == [2, "aa", None]
    assert rows[2]["error"].startswith("CommandFailed: ended with status 1: ")
