"""The input of a batch job: a file, a folder or a pattern of shards, in chunks that lie anywhere.

    find ─▶ shards in the order of their names ─▶ survey ─▶ Index: where each chunk begins
                                                              │
    Dataset(index).chunk(n) ─▶ the items of chunk n  ◀────────┘

The index remembers size, time and hash of each shard. A shard that changes while the job is under
way is noticed before anything of it is read: the outputs of a job belong to one input.
"""

import glob
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from wattshift_cluster.workload.batch.formats import (
    FORMATS,
    SUFFIXES,
    Format,
    InputInvalid,
    Item,
    taken,
)

ITEMS_MAX = 100_000_000
SHARDS_MAX = 10_000
CHUNKS_MAX = 200_000
"""Each chunk is a file of one folder."""

LOOK_ITEMS = 10_000
"""Items of a survey between two looks whether it is still needed."""

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the input: its size and time, and a hash of its content."""

    path: str
    size_b: int
    mtime_ns: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Index:
    """Where everything of an input is.

    Attributes:
        format: "jsonl", "csv" or "parquet".
        items: how many there are.
        chunk_items: items per chunk; the last may have fewer.
        shards: the files, in order.
        starts: of each chunk, the number of the shard and the position in it where it begins.
    """

    format: str
    items: int
    chunk_items: int
    shards: tuple[Shard, ...]
    starts: tuple[tuple[int, int], ...]

    def document(self) -> bytes:
        """As a file."""
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def parsed(cls, document: bytes) -> "Index":
        """From a file. Raises: ValueError, KeyError, TypeError."""
        row = json.loads(document)
        shards = tuple(Shard(**shard) for shard in row.pop("shards"))
        starts = tuple((int(shard), int(at)) for shard, at in row.pop("starts"))
        return cls(**row, shards=shards, starts=starts)


class SurveyEnded(Exception):
    """A survey that nobody needs any more."""


def find(source: str, wanted: str = AUTO) -> tuple[str, list[Path]]:
    """The format of an input, and its files in the order of their names.

    Args:
        source: a file, a folder, or a pattern with * ? [ ] (** for folders below).
        wanted: a format, or "auto": told by the names' endings, and JSON lines for one other file.

    Raises:
        InputInvalid: nothing there, several formats, or too many files.
    """
    path = Path(source)
    if path.is_dir():
        paths = _listed(sorted(path.iterdir()), wanted)
    elif path.exists() or not glob.has_magic(source):
        paths = [path]
    else:
        found = glob.iglob(source, recursive=True)
        paths = sorted(Path(name) for name in islice(found, SHARDS_MAX + 1))
        paths = [path for path in paths if path.is_file()]
    if not paths:
        what = "jsonl, csv or parquet files" if wanted == AUTO else f"{wanted} files"
        raise InputInvalid(f"{source}: no {what} there")
    if len(paths) > SHARDS_MAX:
        raise InputInvalid(f"{source}: more than {SHARDS_MAX} files")
    if wanted != AUTO:
        return wanted, paths
    formats = sorted({SUFFIXES.get(path.suffix.lower(), "") for path in paths})
    if len(formats) > 1:
        endings = ", ".join(sorted({path.suffix or path.name for path in paths})[:5])
        raise InputInvalid(f"{source}: files of several kinds ({endings}); name the format")
    if not formats[0] and len(paths) > 1:
        raise InputInvalid(f"{source}: files of an unknown kind; name the format")
    return formats[0] or "jsonl", paths


def _listed(paths: list[Path], wanted: str) -> list[Path]:
    """Files of a folder that are data; its other files are notes."""
    return [
        path
        for path in paths
        if path.is_file()
        and not path.name.startswith((".", "_"))
        and (kind := SUFFIXES.get(path.suffix.lower()))
        and wanted in (AUTO, kind)
    ]


def survey(
    source: str, wanted: str, chunk_items: int, needless: Callable[[], bool] = lambda: False
) -> Index:
    """Read an input through once, and tell where its chunks begin.

    Args:
        source, wanted: as in `find`.
        chunk_items: items per chunk.
        needless: asked now and then whether somebody else has done it meanwhile.

    Raises:
        InputInvalid: unreadable, changed while it was read, or beyond the limits.
        SurveyEnded: it was needless.
    """
    kind, paths = find(source, wanted)
    read = FORMATS[kind]()
    shards: list[Shard] = []
    starts: list[tuple[int, int]] = []
    items = 0
    for number, path in enumerate(paths):
        before = _seen(path)
        for position in _positions(read, path):
            if items % chunk_items == 0:
                starts.append((number, position))
            if items % LOOK_ITEMS == 0 and needless():
                raise SurveyEnded
            items += 1
            if items > ITEMS_MAX:
                raise InputInvalid(f"{source}: more than {ITEMS_MAX} items")
        if len(starts) > CHUNKS_MAX:
            raise InputInvalid(f"{source}: more than {CHUNKS_MAX} chunks; use a larger chunk_items")
        shards.append(Shard(str(path), *before, _fingerprint(read, path)))
        if _seen(path) != before:
            raise InputInvalid(f"{path} changed while it was read")
    return Index(kind, items, chunk_items, tuple(shards), tuple(starts))


def _positions(read: Format, path: Path) -> Iterator[int]:
    try:
        yield from read.positions(path)
    except OSError as fault:
        raise InputInvalid(f"{path}: {fault.strerror or fault}") from fault


def _fingerprint(read: Format, path: Path) -> str:
    try:
        return read.fingerprint(path)
    except OSError as fault:
        raise InputInvalid(f"{path}: {fault.strerror or fault}") from fault


def _seen(path: Path) -> tuple[int, int]:
    """Size and time. Raises: InputInvalid."""
    try:
        status = os.stat(path)
    except OSError as fault:
        raise InputInvalid(f"{path}: {fault.strerror or fault}") from fault
    return status.st_size, status.st_mtime_ns


class Dataset:
    """Reads the chunks of an input that was surveyed."""

    def __init__(self, index: Index) -> None:
        """Raises: InputInvalid when the format cannot be read here."""
        self._index = index
        self._format = FORMATS[index.format]()
        self._sound: dict[str, tuple[int, int]] = {
            shard.path: (shard.size_b, shard.mtime_ns) for shard in index.shards
        }

    def check(self, source: str, wanted: str) -> None:
        """See that the input is the one that was surveyed. Raises: InputInvalid."""
        kind, paths = find(source, wanted)
        shards = self._index.shards
        if kind != self._index.format or [str(path) for path in paths] != [s.path for s in shards]:
            raise InputInvalid(f"{source} has other files than when the job began")
        for shard in shards:
            self._unchanged(shard)

    def chunk(self, number: int) -> list[Item]:
        """The items of a chunk.

        Raises:
            InputInvalid: a shard changed, is gone or cannot be read.
        """
        shard, position = self._index.starts[number]
        count = min(self._index.chunk_items, self._index.items - number * self._index.chunk_items)
        items: list[Item] = []
        for part in self._index.shards[shard:]:
            self._unchanged(part)
            try:
                items += taken(self._format.read(Path(part.path), position), count - len(items))
            except OSError as fault:
                raise InputInvalid(f"{part.path}: {fault.strerror or fault}") from fault
            if len(items) == count:
                return items
            position = 0
        raise InputInvalid(f"{self._index.shards[shard].path} became shorter while the job ran")

    def _unchanged(self, shard: Shard) -> None:
        """A file with another time may still be the same: it was copied, or is seen elsewhere."""
        seen = _seen(Path(shard.path))
        if seen == self._sound[shard.path]:
            return
        if (
            seen[0] != shard.size_b
            or _fingerprint(self._format, Path(shard.path)) != shard.fingerprint
        ):
            raise InputInvalid(f"{shard.path} changed since the job began")
        self._sound[shard.path] = seen
