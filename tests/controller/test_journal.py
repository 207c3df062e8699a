"""The journal survives: epochs rise, jobs and caps come back, a newer file is refused."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from wattshift_cluster.controller.journal import Journal, JournalFailed
from wattshift_cluster.controller.kept_signals import Kept
from wattshift_scheduler import jobs as jobs_module
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.events import SignalChanged
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.signals.words import Cap, CapKind, GridEvent, Override, Target, Work
from wattshift_scheduler.site import Device, OperatingPoint


def _job(number: int = 1) -> Job:
    return Job(
        f"batch-{number}", JobKind.BATCH, "name", {"kind": "batch"}, float(number), unit_w=100.0
    )


def test_epochs_only_rise(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    epochs = []
    for _ in range(3):
        journal = Journal.open(path)
        epochs.append(journal.next_epoch())
        journal.close()
    assert epochs == [1, 2, 3]


def test_jobs_caps_devices_and_decisions_come_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal.open(path)
    cap = Cap("cap-1", "operator", 9000.0, None, 50.0)
    lift = Override("utility", "evt", 1e6, 70.0, "ann", "by phone")
    device = Device(
        "lux-1", "asic", "racks", "main", (OperatingPoint("sleep", 30, 0, 5),), 2794.0, host=None
    )

    async def write() -> None:
        await journal.accept(_job(), "key", "digest")
        journal.keep_signals(
            [Kept(SignalChanged("operator", (cap,), overrides=(lift,)), fed=False)]
        )
        await journal.signals_kept()

    asyncio.run(write())
    journal.keep_devices([device])
    moved = _job().moved(JobState.STARTING, "100 W on host", units=1)
    journal.note([moved], [Decision(5.0, "site", "cap", "why", {"cap_w": 9000.0})])
    journal.close()

    again = Journal.open(path)
    assert again.jobs() == {"batch-1": moved}
    word = again.signals()["operator"].word
    assert (word.caps, word.overrides) == ((cap,), (lift,))
    assert again.devices(["racks"]) == [device]
    assert again.devices(["other"]) == []
    assert again.job_of_key("key") == ("digest", "batch-1")
    assert [d.reason for d in again.decisions("site", None, 10)] == ["why"]
    assert again.decisions("site", 6.0, 10) == []
    again.close()


def test_every_word_of_a_source_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    cap = Cap("c", "utility", 9e3, 1.0, None, CapKind.INTERVAL, 900.0, 3, 0.7, 25.0)
    target = Target("t", "utility", 5e3, None, 9.0, 2, Work.MINING)
    event = GridEvent("e", "utility", "p", 1.0, 2.0, None, 4e3, 3.0)
    said = SignalChanged("utility", (cap,), 41.0, True, (target,), events=(event,))
    journal = Journal.open(path)
    journal.keep_signals([Kept(said, fed=True), Kept(SignalChanged("drill", (cap,)), fed=False)])
    journal.keep_signals([Kept(SignalChanged("drill", (), 9.0, True), fed=False)])
    journal.close()
    again = Journal.open(path)
    kept = again.signals()
    assert set(kept) == {"utility"}, "a source that says nothing any more leaves no row"
    assert kept["utility"].fed
    assert kept["utility"].word == replace(said, price_usd_per_mwh=None, sets_price=False)
    again.close()


def test_a_word_that_cannot_be_read_is_no_lifted_cap(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal.open(path).close()
    with sqlite3.connect(path) as connection:
        row = (
            '{"caps": [{"id": "c", "limit_w": NaN}], "targets": [], "overrides": [], "events": []}'
        )
        connection.execute("INSERT INTO signals VALUES ('utility', 1, ?)", (row,))
    journal = Journal.open(path)
    with pytest.raises(JournalFailed, match="utility"):
        journal.signals()
    journal.close()


OLD = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE caps (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE devices (id TEXT PRIMARY KEY, agent TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE keys (key TEXT PRIMARY KEY, digest TEXT NOT NULL, job TEXT NOT NULL);
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s REAL NOT NULL, subject TEXT NOT NULL, action TEXT NOT NULL,
    reason TEXT NOT NULL, inputs TEXT NOT NULL
);
INSERT INTO meta VALUES ('epoch', '7');
INSERT INTO caps VALUES (
    'cap-1',
    '{"id": "cap-1", "origin": "operator", "limit_w": 9000.0, "starts_s": null, "ends_s": 50.0}'
);
PRAGMA user_version = 1;
"""


def test_a_journal_of_the_first_schema_keeps_its_caps(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
    for epoch in (8, 9):
        journal = Journal.open(path)
        assert journal.next_epoch() == epoch
        (cap,) = journal.signals()["operator"].word.caps
        assert (cap.id, cap.limit_w, cap.ends_s) == ("cap-1", 9000.0, 50.0)
        journal.close()


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalFailed, match="newer"):
        Journal.open(path)


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(JournalFailed, match="cannot be opened"):
        Journal.open(path)


WRITER = """
import asyncio, sys
from pathlib import Path
from wattshift_cluster.controller.journal import Journal
from wattshift_scheduler.jobs import Job, JobKind
journal = Journal.open(Path(sys.argv[1]))
async def main():
    for n in range(10_000):
        await journal.accept(Job(f"b{n}", JobKind.BATCH, "n", {"kind": "batch"}, n), None, "")
        print(n, flush=True)
asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.wait(timeout=10)
    journal = Journal.open(path)
    kept = journal.jobs()
    journal.close()
    assert {f"b{n}" for n in acknowledged} <= set(kept)


def test_batch_jobs_long_ended_are_in_the_journal_and_not_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "FINAL_KEPT", 2)
    journal = Journal.open(tmp_path / "journal.sqlite")
    ended = [_job(n).moved(JobState.COMPLETED, "9/9 items") for n in range(5)]
    old = Job("service-x", JobKind.SERVICE, "x", {}, 0.0).moved(JobState.CANCELLED, "by a person")
    journal.note([*ended, old, _job(9)], ())
    journal.close()
    again = Journal.open(tmp_path / "journal.sqlite")
    # A cancelled service of the site file must not come back as new.
    assert set(again.jobs()) == {"batch-3", "batch-4", "service-x", "batch-9"}
    assert again.job("batch-0") == ended[0]
    assert again.job("batch-77") is None
    again.close()
