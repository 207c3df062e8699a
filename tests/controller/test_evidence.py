"""A controller's evidence: what it logs settles an event and proves it."""

import asyncio
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.controller.evidence_yard import (
    EVENT,
    SITE_FILE,
    START_S,
    Yard,
    lines_of,
    reading,
    until,
)

from wattshift_cluster.cli.main import main
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import evidence
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.evidence import EvidenceFeed
from wattshift_cluster.controller.evidence_words import Batches, Energies
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_cluster.settle.bodies import SITE
from wattshift_cluster.settle.lines import Kind
from wattshift_cluster.settle.report import report
from wattshift_cluster.settle.verify import verify
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision, Moves
from wattshift_scheduler.jobs import Job, JobKind, JobState, Terms
from wattshift_scheduler.signals.words import Cap, GridEvent


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "yard")
    yield made
    made.journal.close()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence of half an hour: an event told ten minutes ahead, its cap, and its end."""
    yard = Yard(tmp_path_factory.mktemp("yard"))

    async def scene() -> None:
        async with yard.logging() as feed:
            yard.play(START_S - 600, feed)
            cap = Cap("c1", "utility", 1000.0, START_S, START_S + 700)
            yard.turn(ev.SignalChanged("utility", (cap,), events=(EVENT,)))
            yard.play(START_S + 600, feed)

    asyncio.run(scene())
    yard.journal.close()
    return yard.evidence


def test_an_event_is_settled_from_what_the_controller_logged(settled: Path) -> None:
    found = report(settled, START_S - 900, START_S + 600)
    assert found.verified.ok
    assert found.verified.closed, "the last line is signed"
    (one,) = found.settled
    assert (one.void, one.currency, found.terms.resource) == ("", "USD", "yard-1")
    assert [row.quality for row in one.rows] == ["emulated", "emulated"]
    # The line from the last sample before the start to the first one in it takes 7 W off.
    assert [row.baseline_kw for row in one.rows] == pytest.approx([3.4934, 3.4934], rel=1e-4)
    assert one.rows[1].metered_kw == pytest.approx(0.53, rel=1e-3)
    assert one.rows[1].payment == pytest.approx(2.0 / 12 * 100 / 1e3), "up to the commitment"
    assert one.rows[1].clock_offset_s == 0.0
    assert not any("no plan was logged" in note for note in one.notes)
    before, during = (found.plans.mean(at, at + 300) for at in (START_S - 900, START_S + 300))
    assert (before, during) == (3000.0 * 1.05 + 500.0, 30.0 * 1.05 + 500.0), "leases and the rest"
    caps = (found.caps.mean(at, at + 300) for at in (START_S - 300, START_S + 300))
    assert tuple(caps) == (10_000.0, 1000.0)
    acme = next(row for row in found.statements.rows if row.tenant == "acme")
    assert acme.energy_kwh == pytest.approx((900 * 3.0 + 600 * 0.03) / 3600, rel=0.01)
    assert acme.mining_usd > 0
    assert acme.unknown == 0
    assert acme.credit["USD"] == pytest.approx(one.payment), "its machine alone has shed"
    assert found.unread == 0


def test_the_command_line_settles_and_verifies_it(settled: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(settled, tmp_path / "evidence")
    folder = str(copy)
    span = ("--from", "2030-03-17T17:25:00Z", "--to", "2030-03-17T18:00:00Z")
    done = CliRunner().invoke(main, ["report", "--folder", folder, *span, "-o", "json"])
    assert done.exit_code == 0, done.output
    view = json.loads(done.stdout)
    assert [row["event"] for row in view["events"]] == ["e1"]
    assert view["evidence"]["ok"]
    checked = CliRunner().invoke(main, ["verify", folder, "-o", "json"])
    assert (checked.exit_code, json.loads(checked.stdout)["ok"]) == (0, True)
    day = next(copy.glob("2*.jsonl"))
    day.write_bytes(day.read_bytes().replace(b'"cap_w":1000.0', b'"cap_w":9000.0', 1))
    assert CliRunner().invoke(main, ["verify", folder]).exit_code == 1


def test_every_change_of_an_event_is_logged_once(yard: Yard) -> None:
    async def scene() -> None:
        async with yard.logging():
            later = GridEvent(
                "e1", "utility", "peak", START_S - 600, START_S, START_S + 900, 2000.0
            )
            for events in ((EVENT,), (EVENT,), (later,), (), (), (EVENT,)):
                yard.turn(ev.SignalChanged("utility", (), events=events))
            yard.clock.at_s = START_S + 700
            yard.turn(ev.SignalChanged("utility", ()))

    asyncio.run(scene())
    told = [
        (line.body["ends_s"] - START_S, line.body["cancelled_s"] is not None)
        for line in lines_of(yard.evidence, Kind.EVENT)
    ]
    assert told == [(600, False), (900, False), (900, True), (600, False)], (
        "one that is told no more is called off, unless it is over"
    )


def test_decisions_are_bounded_and_what_is_left_out_is_told(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "DECISIONS_A_MINUTE", 5)
    monkeypatch.setattr(evidence, "MOVES_A_MINUTE", 2)
    moves = Moves(
        START_S,
        ("a", "b", "c"),
        ("full", "full", "sleep"),
        np.array([math.nan, 10.0, 30.0]),
        np.array([10.0, 10.0, 3.0]),
        np.array([math.nan, 1.0, 2.0]),
        {"cap_w": math.nan},
    )

    async def scene() -> None:
        async with yard.logging() as feed:
            yard.clock.at_s += 61
            for n in range(4):
                feed.told([moves, Decision(START_S, "site", "note", f"{n}", {})])
            yard.clock.at_s += 61
            feed.told([Decision(START_S, "site", "note", "later", {})])

    asyncio.run(scene())
    rows = [line.body for line in lines_of(yard.evidence, Kind.DECISION)]
    assert [one["reason"] for one in rows if one["action"] == "note"] == ["0", "1", "2", "later"]
    summed = [one for one in rows if one["action"] == "moves"]
    assert len(summed) == 2
    assert summed[0]["inputs"] == {"cap_w": None, "leases": 2, "from_w": 40.0, "to_w": 23.0}
    (dropped,) = lines_of(yard.evidence, Kind.DROPPED)
    assert dropped.body["lines"] == 3
    assert verify(yard.evidence).dropped == 3


def test_samples_say_when_nothing_was_known_how_sure_and_whose_clock() -> None:
    batches = Batches()
    batches.add(SITE, reading(None, 0.0), 9.0, math.nan)
    for at_s, offset_s in ((10.0, -0.4), (10.0, -0.9), (11.0, -0.2)):
        batches.add(SITE, reading(100.0, at_s, 0.25), at_s + 0.25, offset_s)
    for at_s in (12.0, 13.0, 14.0):
        batches.add(SITE, MeterReading(None, 11.0, at_s - 11.0, None), at_s, math.nan)
    batches.add("row", MeterReading(5.0, 14.0, 0.0, None), 14.0, math.nan)
    site, row = batches.taken()
    assert repr(site.samples) == "((9.0, nan), (10.0, 100.0), (11.0, 100.0), (12.0, nan))"
    assert (site.offset_s, site.quality) == (-0.2, "emulated")
    assert (row.source, row.quality) == ("row", "modelled"), "what nobody vouches for"
    assert list(batches.taken()) == []
    batches.add(SITE, reading(100.0, 15.0), 15.0, 0.0)
    assert [one.samples for one in batches.taken()] == [((15.0, 100.0),)]


def test_energy_of_a_device_is_unknown_where_it_was_not_read(yard: Yard) -> None:
    energies = Energies(yard.c.books, yard.c.roster, yard.clock.at_s)
    for _ in range(15):
        yard.clock.at_s += 4.0
        yard.turn()
    (first,), tenants = energies.taken(yard.c.state, yard.clock.at_s)
    assert first["rows"]["rig"][0] == pytest.approx(14 * 4 * 3000.0)
    assert (first["quality"], tenants) == ("measured", [])
    row = {"device": "rig", "watts_w": None, "hashrate_h_per_s": None}
    for _ in range(15):
        yard.clock.at_s += 4.0
        yard.c.roster.read([row], yard.clock.at_s)
    (second,), _ = energies.taken(yard.c.state, yard.clock.at_s)
    assert second["rows"]["rig"] == [None, 0.0]
    assert (second["from_s"], first["to_s"]) == (first["to_s"], second["to_s"] - 60.0)


def test_energy_of_compute_is_what_was_granted_by_tenant(yard: Yard) -> None:
    def job(name: str, tenant: str, units: int, **more: Any) -> Job:
        terms = Terms(tenant=tenant)
        return Job(name, JobKind.SERVICE, name, {}, 0.0, 100.0, units=units, terms=terms, **more)

    energies = Energies(yard.c.books, yard.c.roster, 0.0)
    jobs = [
        job("a", "lab", 3),
        job("b", "lab", 3, by_node={"n": 1}),
        job("c", "art", 2, state=JobState.CANCELLED),
    ]
    energies.granted(jobs, 0.0)
    energies.granted([], 10.0)
    _, (tenants,) = energies.taken(yard.c.state, 60.0)
    assert tenants["rows"] == {"lab": [4000, 0.0]}
    assert tenants["quality"] == "granted"


METERED = SITE_FILE.replace("[grid]", '[meter]\nurl = "{url}"\n[grid]')


def test_a_running_controller_logs_its_meter_and_signs_the_end(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readline()).strip():
            while (await reader.readline()).strip():
                pass
            sample = {"watts_w": 700.0, "at_s": clock.now_s(), "quality": "measured"}
            body = json.dumps(sample).encode()
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            writer.write(head.encode() + b"\r\n\r\n" + body)

    async def scene() -> Path:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        (tmp_path / "site.toml").write_text(METERED.format(url=f"http://{host}:{port}/"))
        (tmp_path / "token").write_text("0" * 64)
        config = load_site(tmp_path / "site.toml", environ={})
        journal = Journal.open(config.site.state_dir / "journal.sqlite")
        c = Controller(config, journal, clock, Tokens({"rack": b"0" * 32}, None))
        stop = asyncio.Event()
        running = asyncio.create_task(c.run(stop, feeds_of(c)))
        feed = c.witness
        assert isinstance(feed, EvidenceFeed)
        await until(lambda: bool(feed._batches._samples) and not running.done())
        stop.set()
        await running
        journal.close()
        server.close()
        return config.site.state_dir / "evidence"

    clock = SteadyClock()
    folder = asyncio.run(scene())
    assert verify(folder).closed
    batch = lines_of(folder, Kind.METER)[0].body
    assert (batch["source"], batch["quality"]) == (SITE, "measured")
    assert batch["samples"][-1][1] == 700.0
    assert abs(batch["offset_s"]) < 5.0
    assert lines_of(folder, Kind.TERMS)[0].body["resource"] == "yard-1"
