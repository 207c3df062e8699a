"""Past months are put into folders of their own: nothing is lost, and a hole is still found."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wattshift_cluster.settle.lines import Kind, Line
from wattshift_cluster.settle.log import Evidence
from wattshift_cluster.settle.months import day_files, put_away
from wattshift_cluster.settle.verify import verify

Logged = Callable[..., Path]
DAY_S = 86_400.0


@pytest.fixture
def folder(logged: Logged, noon_s: float, tmp_path: Path) -> Path:
    """A line on some days of August to November, and a start in December."""
    made = tmp_path / "state" / "evidence"
    for back in (100, 99, 75, 45, 44, 10, 0):
        at_s = noon_s - back * DAY_S
        logged([(Kind.DECISION, {"back": back}, at_s)], now_s=at_s, folder=made)
    return logged([], now_s=noon_s + 5 * DAY_S, folder=made)


def lines(folder: Path) -> list[Line]:
    told: list[Line] = []
    found = verify(folder, (), told.append)
    assert found.ok, found.fault
    return told


def test_all_but_this_month_and_the_last_lie_in_months(folder: Path) -> None:
    assert [str(path.relative_to(folder)) for path in day_files(folder)] == [
        "2026-08/2026-08-20.jsonl",
        "2026-08/2026-08-21.jsonl",
        "2026-09/2026-09-14.jsonl",
        "2026-10/2026-10-14.jsonl",
        "2026-10/2026-10-15.jsonl",
        "2026-11-18.jsonl",
        "2026-11-28.jsonl",
        "2026-12-03.jsonl",
    ]
    told = lines(folder)
    backs = [line.body["back"] for line in told if line.kind is Kind.DECISION]
    assert backs == [100, 99, 75, 45, 44, 10, 0], "not a line is lost"
    away = [name for line in told if line.kind is Kind.PUT_AWAY for name in line.body["files"]]
    assert away == [str(path.relative_to(folder)) for path in day_files(folder)[:5]], "and told"


def test_a_month_and_a_day_of_it_can_be_checked_alone(folder: Path) -> None:
    assert verify(folder / "2026-10").ok
    assert verify(folder / "2026-10" / "2026-10-15.jsonl").ok
    path = folder / "2026-10" / "2026-10-14.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"back":45', b'"back":46'))
    for where in (path, path.parent, folder):
        fault = verify(where).fault
        assert fault is not None
        assert fault.file == str(path)


def test_a_month_may_lie_on_another_disk_behind_a_link(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "2026-09", tmp_path / "archive")
    assert not verify(folder).ok, "a month that is gone is a hole"
    (folder / "2026-09").symlink_to(tmp_path / "archive")
    assert verify(folder).ok
    assert verify(folder / "2026-09").ok
    (tmp_path / "archive").rename(tmp_path / "lost")
    assert not verify(folder).ok


def test_the_oldest_month_that_is_gone_is_a_hole_too(folder: Path) -> None:
    shutil.rmtree(folder / "2026-08")
    fault = verify(folder).fault
    assert fault is not None
    assert "what came before is not here" in fault.reason


def test_a_file_that_is_there_already_is_never_overwritten(folder: Path) -> None:
    kept = folder / "2026-08" / "2026-08-20.jsonl"
    (folder / kept.name).write_bytes(b"another one")
    with pytest.raises(FileExistsError):
        put_away(folder, "2026-12-03")
    assert kept.read_bytes() != b"another one"
    assert (folder / kept.name).read_bytes() == b"another one"


def test_a_failure_is_told_and_the_log_goes_on(
    logged: Logged, noon_s: float, tmp_path: Path
) -> None:
    made = tmp_path / "state" / "evidence"
    logged([], now_s=noon_s - 100 * DAY_S, folder=made)
    (made / "2026-08").write_text("no folder")
    logged([(Kind.DECISION, {"n": 1}, noon_s)], folder=made)
    failed = [one.body["failed"] for one in lines(made) if one.kind is Kind.PUT_AWAY]
    assert failed == ["File exists"]


def test_a_log_that_runs_over_new_year_puts_october_away(noon_s: float, tmp_path: Path) -> None:
    now_s = noon_s - 40 * DAY_S
    folder = tmp_path / "evidence"
    evidence = Evidence.open(folder, site="yard", wall_s=lambda: now_s)
    evidence.put(Kind.DECISION, {}, now_s)
    now_s = noon_s + 40 * DAY_S
    evidence.put(Kind.DECISION, {}, now_s)
    assert evidence.close()
    assert next(path.parent.name for path in day_files(folder)) == "2026-10"
    assert verify(folder).ok


def test_a_day_that_a_leaping_clock_has_put_away_goes_on_there(
    folder: Path, logged: Logged, noon_s: float
) -> None:
    put_away(folder, "2027-06-01")
    logged([(Kind.DECISION, {"back": -5}, noon_s + 5 * DAY_S)], now_s=noon_s + 5 * DAY_S)
    assert [path.name for path in day_files(folder)].count("2026-12-03.jsonl") == 1
    assert lines(folder)[-2].body == {"back": -5}


def test_a_file_that_is_moved_while_a_check_reads_is_found(folder: Path) -> None:
    back = folder / "2026-10-15.jsonl"
    (folder / "2026-10" / back.name).rename(back)

    def moves(line: Line) -> None:
        if line.seq == 1 and back.exists():
            put_away(folder, "2026-12-03")

    found = verify(folder, (), moves)
    assert found.ok, found.fault
