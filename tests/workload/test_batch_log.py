"""The log of a job: whole lines with their time, bounded, and one view over all workers."""

import io
from pathlib import Path

from wattshift_cluster.workload.batch.job_log import LINE_CHARS_MAX, Copied, JobLog, tail


def said(lines: list[str]) -> list[str]:
    return [line.partition(" ")[2] for line in lines]


def test_lines_are_written_whole_and_of_all_workers_in_order(tmp_path: Path) -> None:
    logs = [JobLog(tmp_path, n) for n in range(3)]
    logs[0].write("load")
    logs[1].write("one\ntwo\n")
    logs[0].write("ing\nnext")
    logs[2].line("ours\nmore")
    logs[0].line("cut")
    assert said(tail(tmp_path, 99)) == [
        "1 one", "1 two", "0 loading", "2 ours", "2 more", "0 next", "0 cut",
    ]  # fmt: skip
    assert said(tail(tmp_path, 2)) == ["0 next", "0 cut"]
    assert tail(tmp_path, 0) == []
    assert tail(tmp_path / "none", 5) == []
    assert all(line[:2] == "20" and "Z " in line for line in tail(tmp_path, 9))


def test_a_log_is_bounded_and_rotated_once(tmp_path: Path) -> None:
    log = JobLog(tmp_path, 0, size_max_b=1000)
    for number in range(100):
        log.line(f"line {number}")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) <= {"log.txt", "log.old.txt"}
    assert max(sizes.values()) < 1200
    assert said(tail(tmp_path, 20)) == [f"0 line {n}" for n in range(80, 100)]
    log.write("x" * (3 * LINE_CHARS_MAX))
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 2 * LINE_CHARS_MAX


def test_what_is_printed_goes_to_both_and_a_log_that_fails_stops_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    copied = Copied(stream, JobLog(tmp_path))
    print("hello", "there", file=copied, flush=True)
    assert stream.getvalue() == "hello there\n"
    assert said(tail(tmp_path, 1)) == ["0 hello there"]
    (tmp_path / "file").write_text("")
    print("lost", file=Copied(stream, JobLog(tmp_path / "file")))
    assert stream.getvalue().endswith("lost\n")
