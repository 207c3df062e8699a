"""What a batch job has done, as files in its output folder. The files are the truth.

    job.json                       the plan: input, its hash, items, items per chunk
    attempts/00000012.<token>      a chunk being written by one attempt
    chunks/00000012.jsonl          a committed chunk, one row per item: {"index": n, "output": …},
                                   or {"index": n, "error": …} for an item that is not JSON
    results.jsonl                  all chunks in order, once the job is complete
    outcome.json                   how the job ended

A chunk is committed by linking its attempt's file to its name. link(2) fails if the name exists, so
of two workers that did the same chunk, one commits and the other learns that it came too late:
however often workers die or are doubled, each item has one output. The folder has to lie where all
nodes that may run the worker see it, on a file system with hard links.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import Refused, WattshiftError

LINE_BYTES_MAX = 1 << 20
ITEMS_MAX = 10_000_000
NAME_DIGITS = 8


class InputInvalid(WattshiftError):
    """The input of a batch job cannot be read, or is beyond its limits."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job works on.

    Attributes:
        job: id of the job that owns the folder.
        callable: "package.module:function".
        input: path of the JSONL file.
        sha256: of the whole input, hexadecimal.
        items: non-empty lines of the input.
        chunk_items: items per chunk; the last may have fewer.
    """

    job: str
    callable: str
    input: str
    sha256: str
    items: int
    chunk_items: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.items // self.chunk_items)

    def items_of(self, chunk: int) -> int:
        """Number of items of a chunk."""
        return min(self.chunk_items, self.items - chunk * self.chunk_items)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, "completed" or "failed", why, and the items with an error for output."""

    state: str
    error: str | None = None
    items_failed: int = 0


def survey(path: Path, chunk_items: int) -> tuple[str, int, list[int]]:
    """Hash and number of items of an input, and the byte at which each chunk begins.

    Raises:
        InputInvalid: unreadable, or beyond the limits.
    """
    digest, items, position = hashlib.sha256(), 0, 0
    starts: list[int] = []
    try:
        with path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX + 1):
                if len(line) > LINE_BYTES_MAX:
                    raise InputInvalid(
                        f"{path}: item {items} is longer than {LINE_BYTES_MAX} bytes"
                    )
                digest.update(line)
                if line.strip():
                    if items % chunk_items == 0:
                        starts.append(position)
                    items += 1
                    if items > ITEMS_MAX:
                        raise InputInvalid(f"{path}: more than {ITEMS_MAX} items")
                position += len(line)
    except OSError as fault:
        raise InputInvalid(f"{path}: {fault.strerror or fault}") from fault
    return digest.hexdigest(), items, starts


def read_chunk(path: Path, start: int, count: int) -> list[bytes]:
    """The lines of a chunk. Raises: InputInvalid when they are not there any more."""
    lines: list[bytes] = []
    try:
        with path.open("rb") as file:
            file.seek(start)
            while len(lines) < count and (line := file.readline(LINE_BYTES_MAX + 1)):
                if line.strip():
                    lines.append(line)
    except OSError as fault:
        raise InputInvalid(f"{path}: {fault.strerror or fault}") from fault
    if len(lines) != count:
        raise InputInvalid(f"{path} became shorter while the job ran")
    return lines


class ChunkStore:
    """The output folder of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks = folder / "chunks"
        self._attempts = folder / "attempts"

    def open(self, plan: Plan) -> None:
        """Make the folder this job's, or check that it is.

        Raises:
            Refused: it belongs to another job, or the input changed since the job began.
            InputInvalid: the folder cannot be written.
        """
        try:
            self._chunks.mkdir(parents=True, exist_ok=True)
            self._attempts.mkdir(exist_ok=True)
            self._put_once(self.folder / "job.json", _document(asdict(plan)))
        except OSError as fault:
            raise InputInvalid(f"{self.folder}: {fault.strerror or fault}") from fault
        found = self.plan()
        if found != plan:
            owner = "another job" if found is None or found.job != plan.job else "another input"
            raise Refused(f"{self.folder} holds the output of {owner}; name another output")

    def plan(self) -> Plan | None:
        """The plan; None before the job began."""
        try:
            return Plan(**json.loads((self.folder / "job.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (TypeError, ValueError) as fault:
            raise InputInvalid(f"{self.folder}/job.json: {fault}") from fault

    def committed(self) -> set[int]:
        """Numbers of the chunks that are done."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(self._chunks)
            return {int(name[:NAME_DIGITS]) for name in names if name.endswith(".jsonl")}
        return set()

    def done_items(self, plan: Plan) -> int:
        """Items of the chunks that are done."""
        return sum(plan.items_of(chunk) for chunk in self.committed())

    def commit(self, chunk: int, rows: Sequence[dict[str, Any]]) -> bool:
        """Write a chunk for good; whether it was ours that counted.

        Raises:
            OSError: nothing was committed.
        """
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        return self._put_once(self._chunks / f"{chunk:0{NAME_DIGITS}d}.jsonl", text.encode())

    def finish(self, plan: Plan) -> Outcome:
        """Join the chunks to results.jsonl and record that the job is complete."""
        target = self.folder / "results.jsonl"
        attempt = self._attempts / f"results.{secrets.token_hex(8)}"
        failed = 0
        with attempt.open("wb") as out:
            for row in self._rows(plan):
                failed += b'"error"' in row[:64] and "error" in json.loads(row)
                out.write(row)
            out.flush()
            os.fsync(out.fileno())
        attempt.replace(target)
        return self.end(Outcome("completed", None, failed))

    def end(self, outcome: Outcome) -> Outcome:
        """Record how the job ended; the outcome that was recorded first holds."""
        self._put_once(self.folder / "outcome.json", _document(asdict(outcome)))
        return self.outcome() or outcome

    def reopen(self) -> None:
        """Forget a failure, so that what is left is tried again."""
        outcome = self.outcome()
        if outcome is not None and outcome.state == "failed":
            (self.folder / "outcome.json").unlink(missing_ok=True)

    def outcome(self) -> Outcome | None:
        """How the job ended; None while it has not."""
        try:
            return Outcome(**json.loads((self.folder / "outcome.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _rows(self, plan: Plan) -> Iterator[bytes]:
        for chunk in range(plan.chunks):
            with (self._chunks / f"{chunk:0{NAME_DIGITS}d}.jsonl").open("rb") as file:
                yield from file

    def _put_once(self, path: Path, content: bytes) -> bool:
        """Create `path` with `content`, all or nothing; False if it exists already."""
        attempt = self._attempts / f"{path.stem}.{secrets.token_hex(8)}"
        self._attempts.mkdir(parents=True, exist_ok=True)
        try:
            with attempt.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(attempt, path)
        except FileExistsError:
            return False
        finally:
            attempt.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True


def _document(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    """A name is durable only when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
