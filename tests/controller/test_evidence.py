"""A controller's evidence: what it logs settles an event and proves it, whatever the disk does."""

import asyncio
import contextlib
import errno
import json
import math
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from wattshift_cluster.cli.main import main
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import evidence
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.evidence import EvidenceFeed
from wattshift_cluster.controller.evidence_words import Batches, Energies, planned_w
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_cluster.settle import log as settle_log
from wattshift_cluster.settle.bodies import SITE
from wattshift_cluster.settle.day_file import DayFile
from wattshift_cluster.settle.lines import Kind, Line
from wattshift_cluster.settle.log import Evidence, Pace
from wattshift_cluster.settle.report import report
from wattshift_cluster.settle.verify import verify
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.decisions import Decision, Moves
from wattshift_scheduler.jobs import Job, JobKind, JobState, Terms
from wattshift_scheduler.signals.words import Cap, GridEvent
from wattshift_scheduler.site import Device, OperatingPoint

START_S = 1_900_000_200.0
"""The event's start, on a border of the intervals; it is told 10 minutes before."""

SITE_FILE = """
[site]
name = "yard"
state_dir = "state"
margin_pct = 0
other_load = "500W"
[[feeders]]
name = "main"
limit = "10kW"
[[agents]]
name = "rack"
address = "127.0.0.1:1"
token_file = "token"
feeder = "main"
[grid]
default_price_usd_per_mwh = 20
[mining]
devices = ["*"]
[settlement]
resource = "yard-1"
[[settlement.programs]]
name = "peak"
method = "before_after"
price = 100
[[settlement.hosted]]
tenant = "acme"
devices = ["rig"]
overhead_pct = 10
"""
RIG = Device(
    "rig",
    "asic",
    "rack",
    "main",
    (OperatingPoint("sleep", 30, 0, 5), OperatingPoint("full", 3000, 1e14, 5)),
    3000.0,
)
EVENT = GridEvent("e1", "utility", "peak", START_S - 600, START_S, START_S + 600, 2000.0)


class HandClock:
    """Unix time as it is set."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s


def reading(watts_w: float | None, at_s: float, age_s: float = 0.0) -> MeterReading:
    return MeterReading(watts_w, at_s, age_s, "emulated")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - a thread has no event for tests
            await asyncio.sleep(0.002)


class Yard:
    """A site of one machine that follows its lease at once, its agent played by the test."""

    def __init__(self, folder: Path, at_s: float = START_S - 1600) -> None:
        self.folder, self.clock = folder, HandClock(at_s)
        folder.mkdir(exist_ok=True)
        (folder / "site.toml").write_text(SITE_FILE)
        (folder / "token").write_text("0" * 64)
        config = load_site(folder / "site.toml", environ={})
        self.journal = Journal.open(config.site.state_dir / "journal.sqlite")
        self.c = Controller(config, self.journal, self.clock, Tokens({"rack": b"0" * 32}, None))
        self.c.outlet.send = self._granted  # type: ignore[method-assign]
        self.c.roster.offered("rack", [{"id": "rig", "quality": "measured"}])
        self.c.inbox.put([ev.DeviceJoined((RIG,))])
        self.watts_w = 3000.0
        self.evidence = config.site.state_dir / "evidence"

    @contextlib.asynccontextmanager
    async def logging(self) -> AsyncIterator[EvidenceFeed]:
        """The evidence feed at work, cancelled in the end as the controller does."""
        feed = EvidenceFeed(self.c, self.evidence, pace=Pace(retry_s=0.01), again_s=0.01)
        task = asyncio.create_task(feed.run())
        try:
            await until(lambda: feed._energies is not None or task.done())
            yield feed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def turn(self, *events: ev.Event) -> None:
        """One turn, with fresh readings of the machine and of the meter."""
        now_s = self.clock.at_s
        hashes = 1e14 if self.watts_w > 30.0 else 0.0
        row = {"device": "rig", "watts_w": self.watts_w, "hashrate_h_per_s": hashes}
        self.c.roster.read([row], now_s)
        one, no = np.ones(1), np.zeros(1, dtype=np.bool_)
        read = (("rig",), now_s * one, self.watts_w * one, math.nan * one, hashes * one)
        held = (self.watts_w * one, 10.0 * one, ("full" if hashes else "sleep",), no, no)
        self.c.inbox.put([ev.AgentSeen("rack", "boot", now_s, now_s), ev.Readings(*read, *held)])
        self.c.inbox.put(list(events))
        self.c.turn(self.c.inbox.take())
        if self.c.witness is not None:
            told_w = 500.0 + self.watts_w + 0.01 * (now_s % 7)
            self.c.witness.sampled(SITE, reading(told_w, now_s), now_s)

    def _granted(self, command: Any) -> None:
        """Do as the core commands, at once."""
        assert isinstance(command, GrantLeases)
        self.watts_w = 30.0 if command.modes[-1] == "sleep" else 3000.0
        yes = np.ones(len(command.devices), dtype=np.bool_)
        words = ("",) * len(command.devices)
        reply = ev.LeasesReplied(command.id, command.devices, command.sequence, yes, words)
        self.c.inbox.put([reply])

    def play(self, to_s: float, feed: EvidenceFeed) -> None:
        while self.clock.at_s < to_s:
            self.clock.at_s += 4.0
            self.turn()
            feed.look()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "yard")
    yield made
    made.journal.close()


def lines_of(folder: Path, kind: Kind | None = None) -> list[Line]:
    """The lines of a log that must hold."""
    lines: list[Line] = []
    found = verify(folder, (), lines.append)
    assert found.ok, found.fault
    return [line for line in lines if kind in (None, line.kind)]


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


def test_a_kill_leaves_a_log_that_the_next_controller_goes_on_with(
    yard: Yard, tmp_path: Path
) -> None:
    async def killed() -> None:
        async with yard.logging() as feed:
            yard.turn(ev.SignalChanged("drill", (), events=(EVENT,)))
            yard.play(yard.clock.at_s + 60, feed)
            held = feed._log
            assert held is not None
            await until(lambda: held.health().waiting == 0)
            await yard.journal.signals_kept()
            shutil.copytree(yard.folder, tmp_path / "left")

    asyncio.run(killed())
    assert not verify(tmp_path / "left" / "state" / "evidence").closed
    again = Yard(tmp_path / "left", yard.clock.at_s + 30)

    async def goes_on() -> None:
        async with again.logging() as feed:
            again.turn()
            again.play(again.clock.at_s + 60, feed)

    asyncio.run(goes_on())
    again.journal.close()
    found = verify(again.evidence)
    assert (found.ok, found.closed, len(found.gaps)) == (True, True, 1)
    told = [line.body["id"] for line in lines_of(again.evidence, Kind.EVENT)]
    assert told == ["e1", "e1"], "the event was not heard anew: the journal knew it"


def test_a_full_disk_is_an_alarm_and_control_goes_on(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DayFile.append
    full = True

    def append(self: DayFile, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, data)

    def alarms() -> dict[str, str]:
        return {one["id"]: one["text"] for one in Front(yard.c).site()["alarms"]}

    def looked(feed: EvidenceFeed) -> bool:
        feed.look()
        return "evidence" in alarms()

    async def scene() -> None:
        nonlocal full
        async with yard.logging() as feed:
            yard.turn()
            monkeypatch.setattr(DayFile, "append", append)
            yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 7000.0),)))
            await until(lambda: looked(feed))
            assert "No space left" in alarms()["evidence"]
            yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 6000.0),)))
            assert yard.c.state.outlook.cap_w == 6000.0, "control goes on"
            full = False
            await until(lambda: not looked(feed))

    asyncio.run(scene())
    caps = [line.body["cap_w"] for line in lines_of(yard.evidence, Kind.CAP)]
    assert caps == [None, 10_000.0, 7000.0, 6000.0, None], "nothing was lost meanwhile"
    actions = {line.body["action"] for line in lines_of(yard.evidence, Kind.DECISION)}
    assert {"alarm", "all clear"} <= actions


def test_lines_that_are_lost_are_an_alarm(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with yard.logging() as feed:
            monkeypatch.setattr(settle_log, "QUEUE_MOST", 0)
            yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 7000.0),)))
            feed.look()
            assert "were lost" in feed.alarms["evidence-lost"].text
            monkeypatch.undo()
            for _ in range(2):  # the alarm's own line was lost too
                yard.clock.at_s += 601
                feed.look()
            assert not feed.alarms
            yard.turn()

    asyncio.run(scene())
    assert verify(yard.evidence).dropped > 0
    assert lines_of(yard.evidence, Kind.CAP)[-2].body["cap_w"] == 7000.0, "it is told later"


def test_a_fault_of_ours_ends_the_log_and_not_the_controller(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(state: Any) -> float:
        raise KeyError("node")

    monkeypatch.setattr(evidence, "LOOK_S", 0.01)

    async def scene() -> None:
        async with yard.logging() as feed:
            yard.turn()
            monkeypatch.setattr(evidence, "planned_w", broken)
            yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 7000.0),)))
            assert yard.c.state.outlook.cap_w == 7000.0
            await until(lambda: "evidence" in feed.alarms)
            assert "it has stopped" in feed.alarms["evidence"].text
            monkeypatch.setattr(evidence, "planned_w", planned_w)
            await until(lambda: not feed.alarms)
            yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 6000.0),)))

    asyncio.run(scene())
    found = verify(yard.evidence)
    assert (found.ok, found.closed) == (True, True)
    assert len(found.gaps) >= 1, "it says that there was a time without it"
    caps = [line.body["cap_w"] for line in lines_of(yard.evidence, Kind.CAP)]
    assert caps[-3:] == [7000.0, 6000.0, None]


def test_a_disk_that_is_nearly_full_is_left_to_the_journal(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = evidence.FREE_LEAST_BYTES

    async def scene() -> None:
        async with yard.logging() as feed:
            monkeypatch.setattr(evidence, "FREE_LEAST_BYTES", 1 << 62)
            feed.look()
            assert "nearly full" in feed.alarms["evidence"].text
            yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 7000.0),)))
            monkeypatch.setattr(evidence, "FREE_LEAST_BYTES", least)
            feed.look()
            assert not feed.alarms
            assert 7000.0 not in [line.body["cap_w"] for line in lines_of(yard.evidence, Kind.CAP)]
            yard.turn()

    asyncio.run(scene())
    assert lines_of(yard.evidence, Kind.CAP)[-2].body["cap_w"] == 7000.0, "it is told later"
    assert [*lines_of(yard.evidence, Kind.DROPPED)[0].body["why"]] == ["the disk is nearly full"]


def test_a_log_that_cannot_be_opened_is_an_alarm_and_tried_again(yard: Yard) -> None:
    yard.evidence.parent.mkdir(exist_ok=True)
    yard.evidence.write_text("not a folder")

    async def scene() -> None:
        feed = EvidenceFeed(yard.c, yard.evidence, again_s=0.01)
        task = asyncio.create_task(feed.run())
        await until(lambda: "evidence" in feed.alarms)
        yard.turn(ev.SignalChanged("drill", (Cap("c", "drill", 7000.0),)))
        assert yard.c.state.outlook.cap_w == 7000.0
        yard.evidence.unlink()
        await until(lambda: not feed.alarms)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert 7000.0 in [line.body["cap_w"] for line in lines_of(yard.evidence, Kind.CAP)]


def test_stopped_while_it_opens_it_closes_what_it_opened(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun = Evidence.open.__func__, asyncio.Event()  # type: ignore[attr-defined]

    async def scene() -> None:
        loop = asyncio.get_running_loop()

        def slow(*args: Any, **more: Any) -> Evidence:
            loop.call_soon_threadsafe(begun.set)
            opened = real(Evidence, *args, **more)
            assert isinstance(opened, Evidence)
            return opened

        monkeypatch.setattr(Evidence, "open", slow)
        task = asyncio.create_task(EvidenceFeed(yard.c, yard.evidence).run())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert verify(yard.evidence).closed
    assert real(Evidence, yard.evidence, site="yard").close(), "nobody holds it any more"


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
        while (await reader.readuntil(b"\r\n\r\n")).strip():
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
