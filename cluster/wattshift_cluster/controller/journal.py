"""The journal: what must survive a kill -9, in one SQLite file (WAL).

It holds the epoch, every job, known devices, what each source of signals said, idempotency keys,
nodes that are said to be off, and every decision with its inputs (I5, I7). A job is acknowledged
only after its row is on disk. All writes go through one thread in the order in which they were
handed over; reads have a connection of their own.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from wattshift_cluster.config import blueprint
from wattshift_cluster.controller import kept_signals
from wattshift_cluster.controller.kept_signals import Kept
from wattshift_cluster.errors import WattshiftError
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.events import SignalChanged
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState, Learnt, remembered
from wattshift_scheduler.signals.standing import OPERATOR
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, OperatingPoint

SCHEMA_VERSION = 2
SIGNALS = """
CREATE TABLE signals (source TEXT PRIMARY KEY, fed INTEGER NOT NULL, body TEXT NOT NULL)
"""
SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (id TEXT PRIMARY KEY, body TEXT NOT NULL);
{SIGNALS};
CREATE TABLE devices (id TEXT PRIMARY KEY, agent TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE keys (key TEXT PRIMARY KEY, digest TEXT NOT NULL, job TEXT NOT NULL);
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s REAL NOT NULL, subject TEXT NOT NULL, action TEXT NOT NULL,
    reason TEXT NOT NULL, inputs TEXT NOT NULL
);
CREATE INDEX decisions_by_subject ON decisions (subject, at_s);
"""
DECISIONS_KEPT = 1_000_000
"""Oldest decisions beyond this are dropped at start: about a gigabyte, years of a small site."""

REMADE = (
    "not_before_s",
    "terms",
    "verdict",
    "wanted",
    "load",
    "refused",
    "shelved",
    "shelved_s",
    "counted",
)
"""Fields of a job that are not kept: they follow from the rest, or from the next decision."""

BUSY_S = 5.0
T = TypeVar("T")


class JournalFailed(WattshiftError):
    """The journal cannot be opened or written: nothing may be promised without it."""


class Journal:
    """The open journal. Make one with `Journal.open`; `close` waits for the last write."""

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        """Wrap two connections to one file; use `open` instead."""
        self.path = path
        self._writer = writer
        self._reader = reader
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._kept: Future[None] | None = None

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Open or make the journal. Raises JournalFailed on a damaged or newer file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer = _connected(path)
            _migrate(writer, path)
            return cls(path, writer, _connected(path))
        except (sqlite3.Error, OSError) as fault:
            raise JournalFailed(f"{path}: the journal cannot be opened: {fault}") from fault

    def close(self) -> None:
        """Finish every write that was handed over, then close."""
        self._thread.shutdown(wait=True)
        self._writer.close()
        self._reader.close()

    def next_epoch(self) -> int:
        """Take the next epoch and write it down before anybody can use it (I6)."""
        with self._writer:
            row = self._writer.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
            epoch = 1 if row is None else int(row[0]) + 1
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(epoch),))
        return epoch

    def jobs(self) -> dict[str, Job]:
        """The jobs that a controller starts with, oldest first: all but batch jobs long ended."""
        rows = self._reader.execute("SELECT body FROM jobs").fetchall()
        jobs = sorted((_job(json.loads(body)) for (body,) in rows), key=lambda j: j.submitted_s)
        return dict(remembered({job.id: job for job in jobs}))

    def job(self, job_id: str) -> Job | None:
        """One job of all that were ever accepted; None if there never was one of that id."""
        row = self._reader.execute("SELECT body FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job(json.loads(row[0]))

    def forgotten(self) -> frozenset[str]:
        """Compute nodes that an operator vouched are off, and that were not seen since."""
        row = self._reader.execute("SELECT value FROM meta WHERE key = 'forgotten'").fetchone()
        return frozenset() if row is None else frozenset(json.loads(row[0]))

    def keep_forgotten(self, nodes: Set[str]) -> None:
        """Replace those nodes, and return once that is on disk. Raises JournalFailed.

        It blocks for a write: whoever forgets one or meets it again must not be a step ahead of
        what the next controller would know.
        """
        text = json.dumps(sorted(nodes))

        def write() -> None:
            with self._writer:
                self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('forgotten', ?)", (text,))

        try:
            self._thread.submit(write).result(BUSY_S)
        except (sqlite3.Error, TimeoutError) as fault:
            raise JournalFailed(f"{self.path}: cannot be written: {fault}") from fault

    def signals(self) -> dict[str, Kept]:
        """What each source of signals said last. Raises JournalFailed where a row cannot be read.

        A cap that cannot be read must not be taken for none.
        """
        rows = self._reader.execute("SELECT source, fed, body FROM signals ORDER BY source")
        try:
            return {
                name: Kept(kept_signals.read(name, body), bool(fed)) for name, fed, body in rows
            }
        except ValueError as fault:
            raise JournalFailed(f"{self.path}: {fault}") from fault

    def keep_signals(self, words: Iterable[Kept]) -> None:
        """Replace what these sources said; written soon, in order (see `signals_kept`)."""
        wanted = tuple(words)

        def write() -> None:
            with self._writer:
                for one in wanted:
                    name = one.word.source
                    self._writer.execute("DELETE FROM signals WHERE source = ?", (name,))
                    if not one.empty:
                        row = (name, int(one.fed), kept_signals.body(one.word))
                        self._writer.execute("INSERT INTO signals VALUES (?, ?, ?)", row)

        self._kept = self._thread.submit(write)

    async def signals_kept(self) -> None:
        """Return once the last of `keep_signals` is on disk. Raises JournalFailed."""
        if self._kept is None:
            return
        try:
            await asyncio.shield(asyncio.wrap_future(self._kept))
        except sqlite3.Error as fault:
            raise JournalFailed(f"{self.path}: cannot be written: {fault}") from fault

    def baselines(self) -> dict[str, list[float]]:
        """Baselines of grid events by source and event: W, and the event's start and end, s."""
        row = self._reader.execute("SELECT value FROM meta WHERE key = 'baselines'").fetchone()
        return {} if row is None else dict(json.loads(row[0]))

    def keep_baselines(self, found: Mapping[str, Sequence[float]]) -> None:
        """Replace those baselines; written soon, in order."""
        text = json.dumps(found)

        def write() -> None:
            with self._writer:
                self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('baselines', ?)", (text,))

        self._thread.submit(write)

    def devices(self, agents: Iterable[str]) -> list[Device]:
        """Devices that these agents have ever offered and that nobody removed.

        A controller that starts while an agent is silent must count its devices, not forget them.
        One that an older version took and this one refuses is left out: its agent announces it
        again, and then a person is told.
        """
        wanted = set(agents)
        found: list[Device] = []
        rows = self._reader.execute("SELECT agent, body FROM devices ORDER BY id").fetchall()
        for body in (body for agent, body in rows if agent in wanted):
            with contextlib.suppress(SiteInvalid):
                found.append(_device(json.loads(body)))
        return found

    def keep_devices(self, devices: Iterable[Device]) -> None:
        """Remember what an agent offers; written soon, in order."""
        rows = [(d.id, d.agent, json.dumps(asdict(d))) for d in devices]

        def write() -> None:
            with self._writer:
                self._writer.executemany("INSERT OR REPLACE INTO devices VALUES (?, ?, ?)", rows)

        self._thread.submit(write)

    def job_of_key(self, key: str) -> tuple[str, str] | None:
        """The digest and the job of an idempotency key, None if it is new."""
        row = self._reader.execute("SELECT digest, job FROM keys WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row[0], row[1])

    def decisions(self, subject: str | None, since_s: float | None, limit: int) -> list[Decision]:
        """Decisions, newest first, of one subject or all, since a Unix time."""
        query = (
            "SELECT at_s, subject, action, reason, inputs FROM decisions"
            " WHERE (?1 IS NULL OR subject = ?1) AND at_s >= ?2 ORDER BY seq DESC LIMIT ?3"
        )
        rows = self._reader.execute(query, (subject, since_s or 0.0, limit)).fetchall()
        return [Decision(at, who, act, why, json.loads(facts)) for at, who, act, why, facts in rows]

    async def accept(self, job: Job, key: str | None, digest: str) -> None:
        """Write a job down and return once it is on disk. Raises JournalFailed."""

        def write() -> None:
            with self._writer:
                self._writer.execute("INSERT INTO jobs VALUES (?, ?)", (job.id, _job_body(job)))
                if key is not None:
                    self._writer.execute("INSERT INTO keys VALUES (?, ?, ?)", (key, digest, job.id))

        await self._wait(write)

    def note(self, jobs: Iterable[Job], decisions: Iterable[AnyDecision]) -> None:
        """Hand over changed jobs and decisions; they are written soon, in order."""
        job_rows = [(job.id, _job_body(job)) for job in jobs]
        told = list(decisions)
        if not (job_rows or told):
            return

        def write() -> None:
            rows = [_decision_row(one) for decision in told for one in _spelled(decision)]
            with self._writer:
                self._writer.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?)", job_rows)
                self._writer.executemany(
                    "INSERT INTO decisions (at_s, subject, action, reason, inputs)"
                    " VALUES (?, ?, ?, ?, ?)",
                    rows,
                )

        self._thread.submit(write)

    async def _wait(self, write: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, write)
        except sqlite3.Error as fault:
            raise JournalFailed(f"{self.path}: cannot be written: {fault}") from fault


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: an acknowledged job survives a power cut, not only a kill.
    connection.execute("PRAGMA synchronous = FULL")
    path.chmod(0o600)
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise JournalFailed(f"{path}: written by a newer wattshift (schema {version})")
    if version == 0:
        with connection:
            connection.executescript(SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    if version == 1:
        _signals_from_caps(connection)
    with connection:
        newest = connection.execute("SELECT max(seq) FROM decisions").fetchone()[0] or 0
        connection.execute("DELETE FROM decisions WHERE seq <= ?", (newest - DECISIONS_KEPT,))


def _signals_from_caps(connection: sqlite3.Connection) -> None:
    """From schema 1, which kept the operator's caps alone."""
    with connection:
        connection.execute("BEGIN")
        connection.execute(SIGNALS)
        rows = connection.execute("SELECT body FROM caps ORDER BY id").fetchall()
        if rows:
            caps = tuple(Cap(**json.loads(body)) for (body,) in rows)
            text = kept_signals.body(SignalChanged(OPERATOR, caps))
            connection.execute("INSERT INTO signals VALUES (?, 0, ?)", (OPERATOR, text))
        connection.execute("DROP TABLE caps")
        connection.execute("PRAGMA user_version = 2")


def _spelled(decision: AnyDecision) -> Iterable[Decision]:
    return decision.rows() if isinstance(decision, Moves) else (decision,)


def _decision_row(one: Decision) -> tuple[float, str, str, str, str]:
    return one.at_s, one.subject, one.action, one.reason, json.dumps(dict(one.inputs))


def _device(body: Mapping[str, Any]) -> Device:
    points = tuple(OperatingPoint(**point) for point in body["points"])
    return Device(**{**body, "points": points})


def _job_body(job: Job) -> str:
    fields: dict[str, Any] = {name: getattr(job, name) for name in Job.__slots__}
    fields["spec"] = dict(job.spec)
    fields["admission"] = int(job.admission)
    fields["learnt"] = None if job.learnt is None else asdict(job.learnt)
    for name in REMADE:
        del fields[name]
    return json.dumps(fields)


def _job(body: Mapping[str, Any]) -> Job:
    fields = dict(body)
    fields["kind"] = JobKind(fields["kind"])
    fields["state"] = JobState(fields["state"])
    fields["admission"] = Admission(fields["admission"])
    learnt = fields.get("learnt")
    fields["learnt"] = None if learnt is None else Learnt(**learnt)
    for name in REMADE:  # an older file may have written them
        fields.pop(name, None)
    return Job(**fields, terms=blueprint.terms_of(fields["spec"]))
