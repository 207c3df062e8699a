"""What is known of a VTN through answers, notices, restarts and damage."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.grid.openadr.failures import VtnNonsense
from wattshift_cluster.grid.openadr.kept import (
    KEEP_CANCELLED_S,
    KeptFile,
    Known,
    answered,
    counted,
    noticed,
)
from wattshift_cluster.grid.openadr.words import Event, Program, read_event

NOW = 1_800_000_000.0
PROGRAM = Program(id="p", name="capacity")


def event(name: str = "e", value: object = 1, modified: str = "01", **more: Any) -> Event:
    body = {
        "id": name,
        "programID": "p",
        "modificationDateTime": f"2027-01-01T00:00:{modified}Z",
        "intervalPeriod": {"start": "0001-01-01", "duration": "PT1H", "randomizeStart": "PT1M"},
        "intervals": [{"id": 0, "payloads": [{"type": "SIMPLE", "values": [value]}]}],
        **more,
    }
    return read_event(body)


def told(known: Known, *events: Event, now_s: float = NOW, fault: str | None = None) -> Known:
    return answered(known, events, [PROGRAM], lambda one, first_s: fault, "boot", now_s)


def test_an_event_is_first_heard_once() -> None:
    known = told(Known(seed="s"), event())
    known = told(known, event(value=2, modified="02"), now_s=NOW + 100)
    assert known.heard["e"].first_s == NOW
    assert known.heard["e"].event == event(value=2, modified="02")
    assert known.asked_s == NOW + 100


def test_what_a_whole_answer_does_not_hold_is_called_off_and_kept_for_a_day() -> None:
    known = told(told(Known(seed="s"), event()), now_s=NOW + 60)
    assert known.heard["e"].cancelled_s == NOW + 60
    known = told(known, now_s=NOW + 120)
    assert known.heard["e"].cancelled_s == NOW + 60
    assert told(known, now_s=NOW + 60 + KEEP_CANCELLED_S).heard == {}


def test_an_event_that_was_over_is_not_called_off_when_it_is_listed_no_longer() -> None:
    known = told(told(Known(seed="s"), event()), now_s=NOW + 4000)
    assert known.heard["e"].cancelled_s is None
    assert told(known, now_s=NOW + 4000 + KEEP_CANCELLED_S).heard == {}


def test_no_length_in_year_one_calls_an_event_off_and_keeps_what_it_was() -> None:
    off = {"start": "0001-01-01", "duration": "PT0S"}
    known = told(told(Known(seed="s"), event()), event(intervalPeriod=off), now_s=NOW + 60)
    assert known.heard["e"].cancelled_s == NOW + 60
    assert known.heard["e"].event == event()


def test_a_broken_update_keeps_the_last_good_version_and_says_why() -> None:
    known = told(Known(seed="s"), event())
    broken = read_event({"id": "e", "programID": "p", "intervals": 7})
    held = told(known, broken, fault="nonsense")
    assert held.heard["e"].event == event()
    assert held.heard["e"].fault == "nonsense"
    mended = told(held, event(value=3, modified="03"))
    assert mended.heard["e"].fault is None


def test_a_notice_stands_beside_what_was_known_until_an_answer_holds_it() -> None:
    known = told(Known(seed="s"), event())
    known = noticed(known, event(value=2, modified="02"), NOW + 1)
    heard = known.heard["e"]
    assert (heard.event, heard.before) == (event(value=2, modified="02"), event())
    assert not heard.confirmed
    again = noticed(known, event(value=3, modified="03"), NOW + 2).heard["e"]
    assert again.before == event(), "what a whole answer held stays until the next one"
    known = told(known, event(value=2, modified="02"))
    assert known.heard["e"].before is None
    assert known.heard["e"].confirmed


def test_a_replayed_or_unreadable_notice_changes_nothing() -> None:
    known = told(Known(seed="s"), event(modified="05"))
    assert noticed(known, event(value=9, modified="04"), NOW) is known
    assert noticed(known, read_event({"id": "e", "intervals": 7}), NOW) is known


def test_a_notice_that_no_answer_ever_held_is_forgotten() -> None:
    known = noticed(told(Known(seed="s")), event(), NOW)
    assert "e" in known.heard
    assert told(known).heard == {}


def test_a_program_that_is_listed_no_longer_is_kept_as_long_as_its_events() -> None:
    known = told(Known(seed="s"), event())
    gone = answered(known, (), (), lambda one, first_s: None, "boot", NOW + 4000)
    assert (dict(gone.programs), gone.program("p")) == ({}, PROGRAM)
    renamed = PROGRAM.model_copy(update={"name": "shed"})
    back = answered(gone, (), [renamed], lambda one, first_s: None, "boot", NOW + 4001)
    assert (back.program("p"), dict(back.past)) == (renamed, {}), "what is listed holds"
    later_s = NOW + 4000 + KEEP_CANCELLED_S
    assert answered(gone, (), (), lambda one, first_s: None, "boot", later_s).program("p") is None


def test_a_file_of_before_programs_were_kept_is_read(tmp_path: Path) -> None:
    file = KeptFile(tmp_path / "openadr.json")
    file.write(told(Known(seed="s"), event()))
    body = json.loads(file.path.read_text())
    assert body.pop("past") == []
    file.path.write_text(json.dumps(body))
    known, fault = file.read()
    assert (fault, known.program("p")) == (None, PROGRAM)


def test_an_event_that_comes_back_is_heard_anew() -> None:
    known = told(told(Known(seed="s"), event()), now_s=NOW + 10)
    known = told(known, event(), now_s=NOW + 20)
    assert (known.heard["e"].first_s, known.heard["e"].cancelled_s) == (NOW + 20, None)


def test_draws_are_the_same_for_one_event_and_differ_between_events() -> None:
    known = Known(seed="s")
    draws = [known.draw(name, -1) for name in "abcdefgh"]
    assert draws == [Known(seed="s").draw(name, -1) for name in "abcdefgh"]
    assert len(set(draws)) == len(draws)
    assert all(-1 <= one <= 1 for one in draws)
    assert Known(seed="t").draw("a", -1) != draws[0]


def test_all_of_it_survives_a_restart_in_a_private_file(tmp_path: Path) -> None:
    file = KeptFile(tmp_path / "state" / "openadr.json", lambda: "seed-1")
    known, fault = file.read()
    assert fault is None
    assert known.boot == ""
    known = counted(told(known, event(), event("f", float("nan"))), "e/0", 3)
    known = noticed(known, event(value=2, modified="02"), NOW + 5)
    file.write(known)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["openadr.json"]
    read, fault = file.read()
    assert fault is None
    assert str(read) == str(known)


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2}', b"\xff\xfe", b"[]"])
def test_a_damaged_file_is_told_and_nothing_of_it_is_believed(
    tmp_path: Path, content: bytes
) -> None:
    file = KeptFile(tmp_path / "openadr.json", lambda: "seed-2")
    file.path.write_bytes(content)
    known, fault = file.read()
    assert fault is not None
    assert "openadr.json" in fault
    assert (known.heard, known.boot, known.seed) == ({}, "", "seed-2")


def test_a_file_beyond_the_bound_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KeptFile(tmp_path / "openadr.json")
    file.write(told(Known(seed="s"), event()))
    monkeypatch.setattr("wattshift_cluster.grid.openadr.kept.MAX_BYTES", 10)
    assert file.read()[1] is not None


def test_the_number_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattshift_cluster.grid.openadr.kept.MAX_EVENTS", 3)
    known = told(Known(seed="s"), event("a"), event("b"))
    known = told(known, event("c"), event("d"), now_s=NOW + 1)
    assert {"c", "d"} < set(known.heard), "what was called off makes room for what stands"
    assert len(known.heard) == 3
    assert noticed(known, event("z"), NOW + 2) is known
    with pytest.raises(VtnNonsense):
        told(known, *(event(name) for name in "abcd"))


def test_events_that_are_long_over_are_left_out() -> None:
    past = {"start": "2027-01-01T00:00:00Z", "duration": "PT1H"}
    lately = {"start": "2027-01-15T06:00:00Z", "duration": "PT1H"}
    rows = [event("old", intervalPeriod=past), event("late", intervalPeriod=lately), event("new")]
    assert set(told(Known(seed="s"), *rows).heard) == {"late", "new"}
