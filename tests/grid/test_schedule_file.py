"""Schedules of caps: typed entries, faults with file and line, and edits while running."""

import os
from pathlib import Path

import pytest

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.schedule import Schedule, parse_schedule

CSV = """# caps of November
starts,ends,limit,kind

2026-11-23T14:30:00Z,2026-11-23T17:00:00+01:00,9.8kW,event
1795000000,,12000,
"""


def faults(text: str, name: str = "caps.csv") -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        parse_schedule(text, name)
    return str(caught.value).splitlines()


def test_entries_come_typed_and_by_start() -> None:
    open_end, event = parse_schedule(CSV, "caps.csv")
    assert (open_end.starts_s, open_end.ends_s) == (1795000000.0, None)
    assert (open_end.limit_w, open_end.kind, open_end.line) == (12000.0, "cap", 5)
    assert (event.starts_s, event.ends_s) == (1795444200.0, 1795449600.0)
    assert (event.limit_w, event.kind, event.line) == (9800.0, "event", 4)
    assert event.id != open_end.id


def test_the_end_is_exclusive() -> None:
    (entry,) = parse_schedule("starts,ends,limit\n1000,2000,5kW\n", "caps.csv")
    assert [entry.in_force(at) for at in (999.9, 1000, 1999.9, 2000)] == [False, True, True, False]


def test_every_fault_is_told_with_its_line() -> None:
    text = (
        "starts,ends,limit,kind\n"
        "2026-11-23T14:00:00,,9kW,event\n"
        "1000,900,9KW,event\n"
        ",,5kW,cap\n"
        "1000,,-3,cap\n"
        "1000,,5kW,breakfast\n"
        "1000,,,cap\n"
    )
    found = faults(text)
    expected = [
        ("caps.csv:2: starts", "no zone"),
        ("caps.csv:3: limit", "kW"),
        ("caps.csv:3: ends", "after starts"),
        ("caps.csv:4: starts", "missing"),
        ("caps.csv:5: limit", "negative"),
        ("caps.csv:6: kind", "allowed: cap"),
        ("caps.csv:7: limit", "missing"),
    ]
    assert len(found) == len(expected)
    for line, (place, words) in zip(found, expected, strict=True):
        assert line.startswith(place), line
        assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no header line"),
        ("starts,ends\n1,2\n", "limit: column missing"),
        ("starts,limit,colour\n", "colour: unknown column"),
        ("starts,limit\n1000,5,6\n", "3 cells for 2 columns"),
        ("starts,limit\n-5,5kW\n", "between 1970 and 2100"),
        ("starts,limit\nnan,5kW\n", "between 1970 and 2100"),
        ("starts,limit\n1000,nan\n", "not a power"),
    ],
)
def test_a_table_that_is_none(text: str, words: str) -> None:
    assert words in "\n".join(faults(text))


def test_toml_says_the_same_and_names_the_table() -> None:
    good = '# x\n[[caps]]\nstarts = 2026-11-23T14:00:00Z\nlimit = "9kW"\nkind = "operator"\n'
    (entry,) = parse_schedule(good, "caps.toml")
    assert (entry.starts_s, entry.limit_w, entry.kind, entry.line) == (
        1795442400.0,
        9000.0,
        "operator",
        2,
    )
    bad = good + "\n[[caps]]\nstarts = 5\nlimit = 1\nends = 3\n[[caps]]\nlimti = 3\n"
    assert faults(bad, "caps.toml")[0].startswith("caps.toml:11: limti")
    only_ends = good + "\n[[caps]]\nstarts = 5\nlimit = 1\nends = 3\n"
    assert faults(only_ends, "caps.toml")[0].startswith("caps.toml:7: ends")
    assert faults("[[caps]\n", "caps.toml")[0].startswith("caps.toml:1")
    assert "unknown key" in faults("[cap]\n", "caps.toml")[0]


def test_an_edit_holds_at_once_and_a_broken_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "caps.csv"
    file.write_text("starts,limit\n1000,5kW\n")
    schedule = Schedule(file)
    assert [entry.limit_w for entry in schedule.entries()] == [5000.0]

    replaced = tmp_path / "new"
    replaced.write_text("starts,limit\n1000,4kW\n")
    os.replace(replaced, file)
    assert [entry.limit_w for entry in schedule.entries()] == [4000.0]

    file.write_text("starts,limit\n1000,fourkW,\n")
    assert [entry.limit_w for entry in schedule.entries()] == [4000.0]
    assert schedule.fault is not None
    assert f"{file}:2" in str(schedule.fault)

    file.unlink()
    assert [entry.limit_w for entry in schedule.entries()] == [4000.0]
    assert "cannot be read" in str(schedule.fault)

    file.write_text("starts,limit\n1000,3kW\n")
    assert [entry.limit_w for entry in schedule.entries()] == [3000.0]
    assert schedule.fault is None


def test_a_file_that_was_away_and_comes_back_unchanged_is_in_force_again(tmp_path: Path) -> None:
    file = tmp_path / "caps.csv"
    file.write_text("starts,limit\n1000,5kW\n")
    schedule = Schedule(file)
    file.rename(tmp_path / "away")
    assert schedule.entries()[0].limit_w == 5000.0
    assert schedule.fault is not None
    (tmp_path / "away").rename(file)
    assert schedule.entries()[0].limit_w == 5000.0
    assert schedule.fault is None


def test_a_file_that_was_never_good_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        Schedule(tmp_path / "none.csv")
