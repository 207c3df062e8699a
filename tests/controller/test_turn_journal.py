"""A turn writes of a job what the journal keeps, and nothing where only a verdict has moved."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import service
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import AnyDecision
from wattshift_scheduler.jobs import Job, JobKind

TOKEN = b"0123456789abcdef0123456789abcdef"
SITE = """
[site]
name = "hall"
state_dir = "state"
[[feeders]]
name = "main"
limit = "2kW"
[compute]
name = "ray"
bridge = "127.0.0.1:9"
token_file = "bridge.token"
[[compute.nodes]]
name = "gpu-1"
feeder = "main"
max = "1kW"
"""


@dataclass
class Hands:
    """A clock that a test moves."""

    at_s: float = 1000.0

    def now_s(self) -> float:
        return self.at_s


def _written(folder: Path) -> list[list[str]]:
    """The jobs that each of some turns writes, while a service tells the same every second."""
    folder.mkdir()
    (folder / "site.toml").write_text(SITE)
    journal = Journal.open(folder / "journal.sqlite")
    clock, rows, was = Hands(), list[list[str]](), journal.note

    def note(jobs: Iterable[Job], decisions: Iterable[AnyDecision]) -> None:
        kept = list(jobs)
        rows.append([job.id for job in kept])
        was(kept, decisions)

    journal.note = note  # type: ignore[method-assign]
    config = load_site(folder / "site.toml", environ={})
    controller = Controller(config, journal, clock, Tokens({}, TOKEN))
    job = Job("svc", JobKind.SERVICE, "svc", {}, 1.0, unit_w=100.0, slo_p95_ms=500.0)
    try:
        for ongoing in (None, 1.0, 1.0, 1.0, 2.0):
            clock.at_s += 1.0
            told = ev.JobReported("svc", "running", running=0, ongoing=ongoing, p95_ms=90.0)
            before = controller.state.jobs.get("svc")
            controller.turn([ev.JobSubmitted(job) if ongoing is None else told])
            assert controller.state.jobs["svc"] is not before, "it remembers each report"
    finally:
        journal.close()
    return rows


def test_what_the_journal_does_not_keep_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _written(tmp_path / "as-is") == [["svc"], ["svc"], [], [], ["svc"]]
    monkeypatch.setattr(service, "_tells", lambda *_: True)
    assert _written(tmp_path / "all") == [["svc"]] * 5, "the guard is needed"
