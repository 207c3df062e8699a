"""Inputs of batch jobs: files in order, read from any chunk on, and noticed when they change."""

import csv
import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.workload.batch import datasets, formats
from wattshift_cluster.workload.batch.datasets import Dataset, Index, SurveyEnded, find, survey
from wattshift_cluster.workload.batch.formats import InputInvalid, Item


def values(path: Path, chunk_items: int, wanted: str = "auto") -> list[list[Any]]:
    """All chunks, read from the last to the first."""
    index = Index.parsed(survey(str(path), wanted, chunk_items).document())
    data = Dataset(index)
    chunks = range(len(index.starts))
    found = {n: [item.value for item in data.chunk(n)] for n in reversed(chunks)}
    again = {n: [item.value for item in data.chunk(n)] for n in chunks}
    assert found == again
    return [found[n] for n in chunks]


def test_lines_are_counted_and_chunks_begin_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "items"
    path.write_bytes(b'1\n\n2\n"three"\n   \n4\n5')
    assert values(path, 2) == [[1, 2], ["three", 4], [5]]
    assert values(path, 5) == [[1, 2, "three", 4, 5]]


def test_chunks_run_on_over_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, text in (("b.jsonl", "3\n4\n"), ("a.jsonl", "0\n1\n2\n"), ("c.jsonl", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.jsonl").write_text("9\n")
    (tmp_path / "README.md").write_text("9\n")
    assert values(tmp_path, 2) == [[0, 1], [2, 3], [4]]
    assert values(tmp_path / "[ab].jsonl", 4) == [[0, 1, 2, 3], [4]]
    assert find(str(tmp_path / "*.md")) == ("jsonl", [tmp_path / "README.md"])


def test_what_cannot_be_an_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="No such file"):
        survey(str(tmp_path / "none"), "auto", 2)
    with pytest.raises(InputInvalid, match="no jsonl, csv or parquet files there"):
        find(str(tmp_path))
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.jsonl").write_text("1\n")
    with pytest.raises(InputInvalid, match=r"several kinds \(.csv, .jsonl\); name the format"):
        find(str(tmp_path))
    assert find(str(tmp_path), "csv") == ("csv", [tmp_path / "a.csv"])
    with pytest.raises(InputInvalid, match="no parquet files there"):
        find(str(tmp_path), "parquet")


def test_limits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"1\n" + b"x" * ((1 << 20) + 2))
    with pytest.raises(InputInvalid, match="line 2 is longer"):
        survey(str(path), "auto", 2)
    path.write_text("1\n" * 9)
    monkeypatch.setattr(datasets, "ITEMS_MAX", 8)
    with pytest.raises(InputInvalid, match="more than 8 items"):
        survey(str(path), "auto", 2)
    monkeypatch.setattr(datasets, "ITEMS_MAX", 9)
    monkeypatch.setattr(datasets, "CHUNKS_MAX", 4)
    with pytest.raises(InputInvalid, match="larger chunk_items"):
        survey(str(path), "auto", 2)
    for number in range(4):
        (tmp_path / f"{number}.jsonl").write_text("1\n")
    monkeypatch.setattr(datasets, "SHARDS_MAX", 4)
    for source in (str(tmp_path), str(tmp_path / "*.jsonl")):
        with pytest.raises(InputInvalid, match="more than 4 files"):
            find(source)


def test_a_survey_that_another_worker_has_done_ends(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("1\n")
    with pytest.raises(SurveyEnded):
        survey(str(tmp_path / "items.jsonl"), "auto", 2, lambda: True)


def test_a_line_that_is_not_json_is_handed_on_as_such(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(b"1\n{broken\n\xff\n" + b"[" * 9000 + b"\n2\n")
    items = Dataset(survey(str(tmp_path / "items.jsonl"), "auto", 9)).chunk(0)
    assert items[0] == Item(1)
    assert items[1] == Item("{broken", "not JSON")
    assert [item.wrong for item in items] == [None, "not JSON", "not JSON", "not JSON", None]


def test_csv_rows_are_objects_and_a_quoted_field_may_span_lines(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    rows = [["a", 'say "hi"'], ["two\nlines, and\r\nmore", "ü"], ["c", ""], ["d", "e"]]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["name", "text"], *rows])
    expected = [{"name": name, "text": text} for name, text in rows]
    assert values(path, 1) == [[row] for row in expected]
    assert values(path, 3) == [expected[:3], expected[3:]]


def test_csv_rows_of_another_length_are_bad_items_and_broken_files_are_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "items.csv"
    path.write_text("\na,b\n1,2\n\n3\n4,5,6\n")
    items = Dataset(survey(str(path), "auto", 9)).chunk(0)
    assert items == [
        Item({"a": "1", "b": "2"}),
        Item("3", "1 fields where the header has 2"),
        Item("4,5,6", "3 fields where the header has 2"),
    ]
    path.write_text('a,b\n1,"' + "x" * formats.LINE_BYTES_MAX + "\n")
    with pytest.raises(InputInvalid, match="longer than"):
        survey(str(path), "auto", 2)
    path.write_text('a,b\n1,"' + "xxxxxxx\n" * (formats.LINE_BYTES_MAX // 4))
    with pytest.raises(InputInvalid, match="field larger than"):
        survey(str(path), "auto", 2)
    path.write_text("a,b\n" + '"xxx\nxxx",' * (formats.LINE_BYTES_MAX // 8) + "1\n")
    with pytest.raises(InputInvalid, match="record that ends in line"):
        survey(str(path), "auto", 2)
    path.write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(InputInvalid, match="line 2 is not UTF-8"):
        survey(str(path), "auto", 2)
    path.write_text("a,a\n1,2\n")
    with pytest.raises(InputInvalid, match="names a column twice"):
        survey(str(path), "auto", 2)


def parquet(path: Path, columns: dict[str, list[Any]], group: int) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    written.write_table(pyarrow.table(columns), path, row_group_size=group)


def test_parquet_rows_are_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    at = datetime(2026, 11, 28, tzinfo=UTC)
    parquet(tmp_path / "a.parquet", {"n": list(range(7)), "t": [at] * 7}, 3)
    parquet(tmp_path / "b.pq", {"n": [7, 8], "t": [at, None]}, 3)
    rows = [{"n": n, "t": at if n < 8 else None} for n in range(9)]
    for size in (1, 2, 3, 4, 9, 20):
        assert values(tmp_path, size) == [rows[n : n + size] for n in range(0, 9, size)]


def test_parquet_rows_keep_their_types_and_rows_ahead_are_not_decoded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"d": Decimal("1.50"), "b": b"\x00", "l": [1, 2], "s": {"x": "y"}}
    parquet(tmp_path / "a.parquet", {key: [value] * 5 for key, value in row.items()}, 5)
    data = Dataset(survey(str(tmp_path / "a.parquet"), "auto", 1))
    begun: list[int] = []
    usual = formats.Parquet._from

    def noted(self: formats.Parquet, path: Path, position: int) -> Any:
        begun.append(position)
        return usual(self, path, position)

    monkeypatch.setattr(formats.Parquet, "_from", noted)
    assert [data.chunk(n)[0].value for n in (0, 1, 2, 4, 3)] == [row] * 5
    assert begun == [0, 4, 3]


def test_a_broken_or_unreadable_parquet_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputInvalid, match=r"a\.parquet"):
        survey(str(tmp_path / "a.parquet"), "auto", 2)

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(formats, "internal", missing)
    with pytest.raises(InputInvalid, match=r"wattshift\[batch\]"):
        survey(str(tmp_path / "a.parquet"), "auto", 2)


def test_a_shard_that_changes_is_noticed_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n3\n")
    data = Dataset(survey(str(tmp_path), "auto", 2))
    # Touched, or copied: the content decides.
    os.utime(path, ns=(1, 1))
    assert [item.value for item in data.chunk(1)] == [3]
    path.write_text("1\n2\n4\n")
    with pytest.raises(InputInvalid, match=r"a\.jsonl changed since the job began"):
        data.chunk(1)
    path.unlink()
    with pytest.raises(InputInvalid, match="No such file"):
        data.chunk(0)


def test_files_that_came_or_went_since_the_job_began_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n")
    data = Dataset(survey(str(tmp_path), "auto", 2))
    data.check(str(tmp_path), "auto")
    (tmp_path / "a.jsonl").write_text("2\n")
    with pytest.raises(InputInvalid, match=r"a\.jsonl changed since"):
        data.check(str(tmp_path), "auto")
    (tmp_path / "b.jsonl").write_text("1\n")
    with pytest.raises(InputInvalid, match="has other files"):
        data.check(str(tmp_path), "auto")


def test_a_changed_parquet_file_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"n": [1, 2, 3]}, 3)
    data = Dataset(survey(str(tmp_path), "auto", 2))
    size_b = (tmp_path / "a.parquet").stat().st_size
    parquet(tmp_path / "a.parquet", {"n": [1, 2, 4]}, 3)
    assert (tmp_path / "a.parquet").stat().st_size == size_b
    with pytest.raises(InputInvalid, match="changed since"):
        data.chunk(0)


def test_an_index_is_the_same_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n2\n3\n")
    index = survey(str(tmp_path), "auto", 2)
    assert Index.parsed(index.document()) == index
    assert json.loads(index.document())["starts"] == [[0, 0], [0, 4]]
