"""The evidence log on real files: chained over days, whole after any kill, never in the way."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.settle import log
from wattshift_cluster.settle.keys import PRIVATE_NAME, PUBLIC_NAME, public_at
from wattshift_cluster.settle.lines import FIRST, Kind, Line, hash_of, parsed
from wattshift_cluster.settle.log import Evidence, Pace
from wattshift_cluster.settle.months import day_files
from wattshift_cluster.settle.tail import EvidenceFailed
from wattshift_cluster.settle.verify import verify

Logged = Callable[..., Path]
Until = Callable[[Callable[[], bool]], None]
DAY_S = 86_400.0


def told(folder: Path) -> list[Line]:
    """Every line of a log that must hold."""
    lines: list[Line] = []
    found = verify(folder, (), lines.append)
    assert found.ok, found.fault
    return lines


def kinds(folder: Path) -> list[str]:
    return [str(line.kind) for line in told(folder)]


def plain(count: int, begin_s: float) -> list[tuple[Kind, dict[str, Any], float]]:
    return [(Kind.DECISION, {"n": n}, begin_s + n) for n in range(count)]


def test_what_is_put_is_read_back_in_order_and_signed(logged: Logged, noon_s: float) -> None:
    folder = logged(plain(5, noon_s), pace=Pace(lines=2))
    lines = told(folder)
    assert [line.body["n"] for line in lines if line.kind is Kind.DECISION] == [0, 1, 2, 3, 4]
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0].kind is Kind.OPENED
    assert lines[-1].body["end"] is True
    found = verify(folder)
    assert found.closed
    assert (found.signed_seq, found.head) == (found.last_seq, lines[-1].hash)
    assert found.keys == (lines[0].body["key"],) == (public_at(folder / PUBLIC_NAME),)


def test_the_key_is_private_and_one_that_is_not_is_refused(logged: Logged, noon_s: float) -> None:
    folder = logged(plain(1, noon_s))
    key = folder.parent / PRIVATE_NAME
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(EvidenceFailed, match="others may read the key"):
        Evidence.open(folder, site="yard")


def test_a_day_has_a_file_and_the_chain_goes_on_over_it(logged: Logged, noon_s: float) -> None:
    folder = logged(plain(2, noon_s) + plain(2, noon_s + DAY_S) + plain(2, noon_s + 3 * DAY_S))
    names = [path.stem for path in day_files(folder)]
    # The test's clock stands still: no file may lie more than a day ahead of it.
    assert names == ["2026-11-28", "2026-11-29"]
    logged(plain(2, noon_s + 3 * DAY_S), now_s=noon_s + 3 * DAY_S)
    files = day_files(folder)
    assert [path.stem for path in files] == ["2026-11-28", "2026-11-29", "2026-12-01"]
    heads = [parsed(path.read_bytes().splitlines(keepends=True)[0]) for path in files]
    ends = [path.read_bytes().splitlines(keepends=True)[-1] for path in files]
    assert [head.prev for head in heads] == [FIRST, *(hash_of(end) for end in ends[:-1])]
    assert all(parsed(end).kind is Kind.CHECKPOINT for end in ends), "each file ends signed"
    assert verify(folder).days_missing == ["2026-11-30"]
    assert all(verify(path).ok for path in files), "each day can be checked by itself"


def test_a_start_tells_the_gap_before_it(logged: Logged, noon_s: float) -> None:
    folder = logged(plain(2, noon_s), now_s=noon_s + 2)
    logged(plain(1, noon_s + 500), now_s=noon_s + 500)
    assert verify(folder).gaps == [(noon_s + 2, noon_s + 500)]


def test_a_clock_set_back_is_told_and_the_chain_holds(logged: Logged, noon_s: float) -> None:
    folder = logged(plain(2, noon_s) + plain(2, noon_s - 3) + plain(2, noon_s - 3600))
    words = kinds(folder)
    assert words.count("clock") == 1, "3 s late is a slow feed, an hour is a clock set back"


def test_only_one_process_writes(logged: Logged, tmp_path: Path) -> None:
    evidence = Evidence.open(tmp_path / "evidence", site="yard")
    with pytest.raises(EvidenceFailed, match="another process writes it"):
        Evidence.open(tmp_path / "evidence", site="yard")
    assert evidence.close()
    assert Evidence.open(tmp_path / "evidence", site="yard").close()


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_end_is_cut_off_kept_and_told(logged: Logged, noon_s: float, cut: int) -> None:
    folder = logged(plain(3, noon_s))
    path = folder / "2026-11-28.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder / "head.json").write_bytes(lines[1])  # a kill leaves a head older than the log
    path.write_bytes(whole[: -len(lines[-1])] + lines[-1][:cut])
    logged(plain(1, noon_s + 9), now_s=noon_s + 9)
    words = told(folder)
    recovered = next(line for line in words if line.kind is Kind.RECOVERED)
    (side,) = folder.glob("torn-*.bin")
    assert side.read_bytes() == lines[-1][:cut]
    assert recovered.body["cuts"][0]["kept_as"] == side.name
    gap = next(line for line in words if line.kind is Kind.GAP)
    assert gap.body["closed"] is False


def test_signed_lines_that_are_gone_at_a_start_are_never_healed(
    logged: Logged, noon_s: float
) -> None:
    folder = logged(plain(3, noon_s))
    path = folder / "2026-11-28.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    logged(plain(1, noon_s + 9), now_s=noon_s + 9)
    fault = verify(folder).fault
    assert fault is not None
    assert "are lost before it" in fault.reason


def test_zeros_at_the_end_as_a_power_cut_leaves_them(logged: Logged, noon_s: float) -> None:
    folder = logged(plain(3, noon_s))
    path = folder / "2026-11-28.jsonl"
    with path.open("ab") as file:
        file.write(bytes(4096))
    logged([], now_s=noon_s + 9)
    assert "recovered" in kinds(folder)


WRITES_UNTIL_KILLED = """
    import sys, itertools
    from pathlib import Path
    from wattshift_cluster.settle.lines import Kind
    from wattshift_cluster.settle.log import Evidence, Pace
    evidence = Evidence.open(Path(sys.argv[1]), site="yard", pace=Pace(lines=50))
    print("open", flush=True)
    at_s = evidence._writer._wall_s()
    for n in itertools.count():
        if not evidence.put(Kind.DECISION, {"n": n, "words": "x" * (n % 700)}, at_s):
            evidence._thread.join(0.001)
"""


def test_kill_9_again_and_again_leaves_a_log_that_holds(tmp_path: Path, until: Until) -> None:
    folder = tmp_path / "state" / "evidence"
    code = textwrap.dedent(WRITES_UNTIL_KILLED)
    for _ in range(2):
        before = sum(path.stat().st_size for path in day_files(folder))
        child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        until(lambda: sum(p.stat().st_size for p in day_files(folder)) > before + 100_000)  # noqa: B023
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert Evidence.open(folder, site="yard").close()
    found = verify(folder)
    assert found.ok, found.fault
    assert len(found.gaps) == 2


DISK_FULL = """
    import resource, sys
    from pathlib import Path
    from wattshift_cluster.settle.lines import Kind
    from wattshift_cluster.settle.log import Evidence, Pace
    evidence = Evidence.open(Path(sys.argv[1]), site="yard", pace=Pace(retry_s=0.01))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    at_s = evidence._writer._wall_s()
    for n in range(100):
        evidence.put(Kind.DECISION, {"n": n, "words": "x" * 100}, at_s)
    while evidence.health().fault is None:
        evidence._thread.join(0.001)
    held = evidence.health()
    assert held.day_bytes <= 6000, held
    assert Path(sys.argv[1]).glob("2*.jsonl").__next__().stat().st_size == held.day_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert evidence.close()
    print(held.fault)
"""


def test_a_full_disk_is_told_and_nothing_is_torn_or_lost(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "evidence"
    code = textwrap.dedent(DISK_FULL)
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "large" in run.stdout, "the system's own word for it"
    lines = told(folder)
    assert [line.body["n"] for line in lines if line.kind is Kind.DECISION] == list(range(100))


def test_a_full_day_drops_counts_and_tells_it_the_next_day(logged: Logged, noon_s: float) -> None:
    folder = logged([*plain(50, noon_s), *plain(1, noon_s + DAY_S)], pace=Pace(day_bytes=3000))
    dropped = next(line for line in told(folder) if line.kind is Kind.DROPPED)
    numbers = [line.body["n"] for line in told(folder) if line.kind is Kind.DECISION]
    assert dropped.body["why"] == {"the day's file is full": 50 - len(numbers) + 1}
    assert (folder / "2026-11-28.jsonl").stat().st_size < 4000
    assert verify(folder).dropped == dropped.body["lines"]


def test_a_body_that_is_no_json_costs_only_itself(logged: Logged, noon_s: float) -> None:
    bad = [
        (Kind.DECISION, {"n": float("nan")}, noon_s),
        (Kind.DECISION, {"n": object()}, noon_s),
        (Kind.DECISION, {"n": "x" * (1 << 20)}, noon_s),
        (Kind.DECISION, {"n": 1}, float("nan")),
    ]
    folder = logged([*bad, *plain(1, noon_s)])
    logged(plain(1, noon_s + 1), now_s=noon_s + 1)
    numbers = [line.body["n"] for line in told(folder) if line.kind is Kind.DECISION]
    assert numbers == [0, 0]


def test_put_never_waits_for_the_disk_and_a_full_queue_is_told(
    tmp_path: Path, noon_s: float, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(log, "QUEUE_MOST", 100)
    evidence = Evidence.open(tmp_path / "evidence", site="yard", wall_s=lambda: noon_s)
    with evidence._wake:  # the writer cannot take anything as long as this is held
        taken = [evidence.put(Kind.DECISION, {"n": n}, noon_s) for n in range(150)]
    assert taken.count(False) == 50
    assert evidence.health().dropped == 50
    until(lambda: evidence.health().waiting == 0)
    assert evidence.close()
    line = next(line for line in told(tmp_path / "evidence") if line.kind is Kind.DROPPED)
    assert line.body == {"lines": 50, "why": "too many waited"}


def test_signatures_come_by_time_too(tmp_path: Path, until: Until) -> None:
    evidence = Evidence.open(tmp_path / "evidence", site="yard", pace=Pace(checkpoint_s=0.05))
    evidence.put(Kind.DECISION, {}, time.time())
    head = tmp_path / "evidence" / "head.json"
    seq = json.loads(head.read_bytes())["seq"]
    until(lambda: json.loads(head.read_bytes())["seq"] > seq)
    idle = evidence.health().seq
    time.sleep(0.15)
    assert evidence.health().seq == idle, "nothing new, nothing to sign"
    assert evidence.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_told(
    tmp_path: Path, noon_s: float, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    evidence = Evidence.open(tmp_path / "evidence", site="yard", wall_s=lambda: noon_s)
    assert evidence.health().fault is None

    def broken(batch: object) -> None:
        raise SystemExit

    monkeypatch.setattr(evidence._writer, "write", broken)
    evidence.put(Kind.DECISION, {}, noon_s)
    until(lambda: evidence.health().fault is not None)
