"""What a batch job has done, as files in its output folder. The files are the truth.

    job.json                       the plan: work, items, items per chunk, and which input
    input.<hash>.json              where each chunk of that input begins (`datasets.Index`)
    attempts/00000012.<token>      a chunk being written by one attempt
    chunks/00000012.jsonl          a committed chunk, one row per item (`rows`)
    claims/00000012                a worker is at it (`claims`)
    claims/left.0                  why the first worker ended, if it did so by itself
    dead/00000012.jsonl            the dead letters of a committed chunk
    results.jsonl                  all chunks in order, once the job is complete
    dead_letters.jsonl             items that failed whatever was tried, with the error
    outcome.json                   how the job ended
    log.txt                        what the work printed (`job_log`)

A chunk is committed by linking its attempt's file to its name. link(2) fails if the name exists, so
of two workers that did the same chunk, one commits and the other learns that it came too late:
however often workers die or are doubled, each item has one output. A worker keeps the folder of
chunks open: if that is removed and the path becomes another job's, a late commit fails instead of
appearing there. The folder has to lie where all nodes that may run the worker see it, on a file
system with hard links.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import Refused
from wattshift_cluster.workload.batch.datasets import Index
from wattshift_cluster.workload.batch.formats import InputInvalid
from wattshift_cluster.workload.batch.plans import NAME_DIGITS, Outcome, Plan, chunk_name
from wattshift_cluster.workload.batch.rows import as_letter, as_result, error_of, is_dead


class ChunkStore:
    """The output folder of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.claims = folder / "claims"
        self._chunks = folder / "chunks"
        self._attempts = folder / "attempts"
        self._dead = folder / "dead"
        self._handle: int | None = None

    def close(self) -> None:
        """Give back the folder that is kept open."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def open(self, plan: Plan, index: bytes) -> Plan:
        """Make the folder this job's, or find it to be; the plan that holds.

        Raises:
            Refused: it belongs to another job.
            InputInvalid: the folder cannot be written.
        """
        try:
            for folder in (self._chunks, self._attempts, self.claims, self._dead):
                folder.mkdir(parents=True, exist_ok=True)
            self._put_once(self._index_path(plan), index)
            self._put_once(self.folder / "job.json", _document(asdict(plan)))
        except OSError as fault:
            raise InputInvalid(f"{self.folder}: {fault.strerror or fault}") from fault
        return self.held(plan.job, plan.work)

    def held(self, job: str, work: str) -> Plan:
        """The plan of a folder that has one, kept open from now on.

        Raises:
            Refused: it belongs to another job, or to other work.
            InputInvalid: it cannot be read.
        """
        found = self.plan()
        if found is None or found.job != job:
            raise Refused(f"{self.folder} holds the output of another job; name another output")
        if found.work != work:
            raise Refused(f"{self.folder} holds the output of {found.work}; name another output")
        try:
            self._handle = os.open(self._chunks, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as fault:
            raise InputInvalid(f"{self._chunks}: {fault.strerror or fault}") from fault
        return found

    def check(self) -> None:
        """See that the folder is still the one that was opened.

        Raises:
            Refused: it was removed, and may be another job's by now.
        """
        if self._handle is None:
            return
        with suppress(OSError):
            if os.fstat(self._handle).st_ino == self._chunks.stat().st_ino:
                return
        raise Refused(f"{self._chunks} was removed while the job ran")

    def plan(self) -> Plan | None:
        """The plan; None before the job began. Raises: InputInvalid."""
        try:
            return Plan(**json.loads((self.folder / "job.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (TypeError, ValueError, OSError) as fault:
            raise InputInvalid(f"{self.folder}/job.json: {fault}") from fault

    def index(self, plan: Plan) -> Index:
        """Where the chunks of its input begin. Raises: InputInvalid."""
        path = self._index_path(plan)
        try:
            document = path.read_bytes()
            if hashlib.sha256(document).hexdigest() != plan.sha256:
                raise ValueError("not what the plan names")
            return Index.parsed(document)
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise InputInvalid(f"{path}: {fault}") from fault

    def committed(self) -> set[int]:
        """Numbers of the chunks that are done."""
        return _numbers(self._chunks)

    def is_committed(self, chunk: int) -> bool:
        """Whether a chunk is done."""
        return self._chunk(chunk).exists()

    def committed_at_s(self) -> float | None:
        """When the last chunk was committed, Unix time as the file system tells it, s."""
        with suppress(OSError):
            return self._chunks.stat().st_mtime
        return None

    def commit(self, chunk: int, rows: Sequence[bytes]) -> bool:
        """Write a chunk for good; whether it was ours that counted.

        Raises:
            OSError: nothing was committed.
        """
        ours = self._put_once(self._chunk(chunk), b"".join(rows))
        if ours and any(map(is_dead, rows)):
            self._bury(chunk, rows)
        return ours

    def dead_letters(self, known: dict[int, int]) -> int:
        """Dead letters so far; `known` remembers those of chunks that were counted."""
        for chunk in _numbers(self._dead) - known.keys():
            with suppress(OSError), self._letters(chunk).open("rb") as file:
                known[chunk] = sum(1 for _ in file)
        return sum(known.values())

    def join_letters(self) -> None:
        """Make `dead_letters.jsonl` of what there is now."""
        numbers = sorted(_numbers(self._dead))
        if numbers:
            self._join("dead_letters.jsonl", map(self._letters, numbers))

    def finish(self, plan: Plan) -> Outcome:
        """Join the chunks to results.jsonl and record that the job is complete.

        Where not one item has an output, it has failed.

        Raises:
            Refused: the folder was removed.
            OSError: it could not be written; what is done stays done.
        """
        self.check()
        failed, error = 0, ""
        for chunk in range(plan.chunks):
            with self._chunk(chunk).open("rb") as file:
                rows = [row for row in file if is_dead(row)]
            if rows:
                failed += len(rows)
                error = error or error_of(rows[0])
                self._bury(chunk, rows)
        self.join_letters()
        self._join("results.jsonl", map(self._chunk, range(plan.chunks)))
        if 0 < plan.items == failed:
            return self.end(Outcome("failed", f"all {failed} items failed, first: {error}", failed))
        return self.end(Outcome("completed", None, failed))

    def end(self, outcome: Outcome) -> Outcome:
        """Record how the job ended; the outcome that was recorded first holds.

        Raises:
            Refused: the folder was removed.
            OSError: it could not be written.
        """
        self.check()
        self._put_once(self.folder / "outcome.json", _document(asdict(outcome)))
        return self.outcome() or outcome

    def reopen(self) -> None:
        """Forget a failure, so that what is left is tried again, and so are the dead letters."""
        outcome = self.outcome()
        if outcome is None or outcome.state != "failed":
            return
        for chunk in sorted(_numbers(self._dead)):
            self._chunk(chunk).unlink(missing_ok=True)
            self._letters(chunk).unlink(missing_ok=True)
        (self.folder / "dead_letters.jsonl").unlink(missing_ok=True)
        (self.folder / "outcome.json").unlink(missing_ok=True)

    def outcome(self) -> Outcome | None:
        """How the job ended; None while it has not."""
        try:
            return Outcome(**json.loads((self.folder / "outcome.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (TypeError, ValueError, OSError) as fault:
            raise InputInvalid(f"{self.folder}/outcome.json: {fault}") from fault

    def leave(self, worker: int, why: str) -> None:
        """Note that a worker ends by itself, and why. Lost notes cost nothing but patience."""
        with suppress(OSError):
            (self.claims / f"left.{worker}").write_text(why)

    def left(self, worker: int) -> str | None:
        """Why a worker ended; None if it did not say."""
        with suppress(OSError):
            return (self.claims / f"left.{worker}").read_text()[:100]
        return None

    def arrive(self, worker: int) -> None:
        """Forget why the worker before ended."""
        with suppress(OSError):
            (self.claims / f"left.{worker}").unlink(missing_ok=True)

    def _chunk(self, chunk: int) -> Path:
        return self._chunks / f"{chunk_name(chunk)}.jsonl"

    def _letters(self, chunk: int) -> Path:
        return self._dead / f"{chunk_name(chunk)}.jsonl"

    def _index_path(self, plan: Plan) -> Path:
        return self.folder / f"input.{plan.sha256[:16]}.json"

    def _bury(self, chunk: int, rows: Sequence[bytes]) -> None:
        """Keep the dead letters of a committed chunk; without them `finish` does it."""
        with suppress(OSError):
            letters = b"".join(as_letter(row) for row in rows if is_dead(row))
            self._put_once(self._letters(chunk), letters)

    def _join(self, name: str, paths: Iterator[Path]) -> None:
        """Put files together under a name, all or nothing."""
        attempt = self._attempts / f"{name}.{secrets.token_hex(8)}"
        try:
            with attempt.open("wb") as out:
                for path in paths:
                    with path.open("rb") as file:
                        out.writelines(map(as_result, file))
                out.flush()
                os.fsync(out.fileno())
            attempt.replace(self.folder / name)
        finally:
            attempt.unlink(missing_ok=True)
        _sync_folder(self.folder)

    def _put_once(self, path: Path, content: bytes) -> bool:
        """Create `path` with `content`, all or nothing; False if it exists already."""
        attempt = self._attempts / f"{path.stem}.{secrets.token_hex(8)}"
        self._attempts.mkdir(parents=True, exist_ok=True)
        try:
            with attempt.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.parent == self._chunks and self._handle is not None:
                os.link(attempt, path.name, dst_dir_fd=self._handle)
            else:
                os.link(attempt, path)
        except FileExistsError:
            return False
        finally:
            attempt.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True


def _numbers(folder: Path) -> set[int]:
    """Numbers of the chunks that have a file in a folder; none if there is no folder."""
    with suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(folder)
        return {int(name[:NAME_DIGITS]) for name in names if name.endswith(".jsonl")}
    return set()


def _document(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    """A name is durable only when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
