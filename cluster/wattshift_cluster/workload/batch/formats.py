"""How the items of a shard are laid out: JSON lines, CSV with a header row, Parquet.

A format tells where each item begins (once, when a job begins), and reads from such a position on,
so that a worker gets its chunk without reading what lies before it. In JSON lines and CSV a
position is a byte, in Parquet a row. What is no item (a line that is not JSON, a row with too few
fields) is handed on as what is wrong with it: one bad row must not end a job.
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.cluster.ray_link import internal

LINE_BYTES_MAX = 1 << 20
"""The longest line of JSON, and the longest record of CSV."""

FOOTER_BYTES_MAX = 1 << 20
"""So much of a Parquet file's end is hashed: its footer knows where and how large everything is."""

BATCH_ROWS = 1024
"""Rows of a Parquet file that are decoded at a time."""


class InputInvalid(WattshiftError):
    """The input or the work of a batch job cannot be read or begun, or is beyond its limits."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the input; `wrong` says why it is none, and `value` is then its text."""

    value: Any
    wrong: str | None = None


class Format(Protocol):
    """How one kind of shard is read. Methods raise InputInvalid and OSError."""

    def fingerprint(self, path: Path) -> str:
        """A hash that changes with the content, hexadecimal."""
        ...

    def positions(self, path: Path) -> Iterator[int]:
        """Where each item begins; checks all limits on the way."""
        ...

    def read(self, path: Path, position: int) -> Iterator[Item]:
        """The items from a position on."""
        ...


class JsonLines:
    """One JSON value per line; blank lines count for nothing."""

    def fingerprint(self, path: Path) -> str:
        """SHA-256 of the whole file."""
        return _sha256(path)

    def positions(self, path: Path) -> Iterator[int]:
        """The byte at which each line begins."""
        position = 0
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file), 1):
                if len(line) > LINE_BYTES_MAX:
                    raise InputInvalid(f"{path}: line {number} is longer than {LINE_BYTES_MAX} B")
                if line.strip():
                    yield position
                position += len(line)

    def read(self, path: Path, position: int) -> Iterator[Item]:
        """The values of the lines."""
        with path.open("rb") as file:
            file.seek(position)
            for line in _lines(file):
                if line.strip():
                    yield _parsed(line)


class Csv:
    """Comma-separated text in UTF-8 with a header row; items are objects of texts."""

    def __init__(self) -> None:
        csv.field_size_limit(LINE_BYTES_MAX)

    def fingerprint(self, path: Path) -> str:
        """SHA-256 of the whole file."""
        return _sha256(path)

    def positions(self, path: Path) -> Iterator[int]:
        """The byte at which each record begins; a quoted field may span lines."""
        with path.open("rb") as file:
            lines = _Texts(path, file)
            for number, (position, fields) in enumerate(_records(path, lines)):
                if number == 0 and len(set(fields)) < len(fields):
                    raise InputInvalid(f"{path}: its header names a column twice")
                if lines.position - position > LINE_BYTES_MAX:
                    raise InputInvalid(
                        f"{path}: the record that ends in line {lines.number} is longer than"
                        f" {LINE_BYTES_MAX} B"
                    )
                if number > 0:
                    yield position

    def read(self, path: Path, position: int) -> Iterator[Item]:
        """One object per record."""
        with path.open("rb") as file:
            _, header = next(_records(path, _Texts(path, file)), (0, []))
            file.seek(position)
            for _, fields in _records(path, _Texts(path, file, position)):
                if len(fields) == len(header):
                    yield Item(dict(zip(header, fields, strict=True)))
                else:
                    wrong = f"{len(fields)} fields where the header has {len(header)}"
                    yield Item(",".join(fields), wrong)


class Parquet:
    """Rows of a Parquet file as objects, a row group at a time.

    Chunks are mostly read one after the other, so the place in the last file is kept.
    """

    def __init__(self) -> None:
        """Raises: InputInvalid when pyarrow is missing."""
        try:
            self._parquet = internal("pyarrow.parquet")
            self._fault: type[Exception] = internal("pyarrow").ArrowException
        except ImportError:
            raise InputInvalid(
                "Parquet needs pyarrow on every node that works on it:"
                " pip install 'wattshift[batch]'"
            ) from None
        self._rows: Iterator[Any] = iter(())
        self._at: tuple[Path, int] | None = None

    def fingerprint(self, path: Path) -> str:
        """SHA-256 of the footer, which holds sizes, offsets and statistics of every column."""
        with path.open("rb") as file:
            file.seek(-min(FOOTER_BYTES_MAX, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return hashlib.sha256(file.read()).hexdigest()

    def positions(self, path: Path) -> Iterator[int]:
        """Row numbers; only the footer is read."""
        yield from range(self._open(path).metadata.num_rows)

    def read(self, path: Path, position: int) -> Iterator[Item]:
        """Rows as Python objects: times as datetime, decimals as Decimal, bytes as bytes."""
        if self._at != (path, position):
            self._rows = self._from(path, position)
        self._at = None
        try:
            for row in self._rows:
                position += 1
                self._at = (path, position)
                yield Item(row)
        except self._fault as fault:
            self._at = None
            raise InputInvalid(f"{path}: {fault}") from fault

    def _open(self, path: Path) -> Any:
        try:
            return self._parquet.ParquetFile(path)
        except self._fault as fault:
            raise InputInvalid(f"{path}: {fault}") from fault

    def _from(self, path: Path, position: int) -> Iterator[Any]:
        file, first = self._open(path), 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first + rows > position:
                skip = max(0, position - first)
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    if batch.num_rows > skip:
                        yield from batch.slice(skip).to_pylist()
                    skip = max(0, skip - batch.num_rows)
            first += rows


class _Texts:
    """Lines of a file as text for the csv reader, and how far it has read."""

    def __init__(self, path: Path, file: BinaryIO, position: int = 0) -> None:
        self._path = path
        self._lines = _lines(file)
        self.position = position
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        if len(line) > LINE_BYTES_MAX:
            raise InputInvalid(
                f"{self._path}: line {self.number} is longer than {LINE_BYTES_MAX} B"
            )
        encoding = "utf-8" if self.position else "utf-8-sig"
        self.position += len(line)
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            raise InputInvalid(f"{self._path}: line {self.number} is not UTF-8") from None


def _records(path: Path, lines: _Texts) -> Iterator[tuple[int, list[str]]]:
    """Records with the position each begins at. The csv reader takes no line ahead of its need."""
    reader = csv.reader(lines)
    while True:
        position = lines.position
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            raise InputInvalid(f"{path}: line {lines.number}: {fault}") from fault
        if fields:
            yield position, fields


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, cut where they are too long."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        yield line


def _parsed(line: bytes) -> Item:
    try:
        return Item(json.loads(line))
    except (ValueError, RecursionError):
        return Item(line.decode(errors="replace").rstrip("\r\n"), "not JSON")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FORMATS: dict[str, type[JsonLines] | type[Csv] | type[Parquet]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def taken(items: Iterator[Item], count: int) -> list[Item]:
    """At most `count` of them, with the file closed behind."""
    found = list(islice(items, count))
    if close := getattr(items, "close", None):
        close()
    return found
