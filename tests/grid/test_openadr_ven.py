"""The OpenADR source against a VTN in memory: polls, notices, losses, restarts, reports."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.grid import ven_rig as rig

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr import ven as ven_module
from wattshift_cluster.grid.openadr.asking import Wishes
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused, VtnUnreachable
from wattshift_cluster.grid.openadr.kept import KeptFile
from wattshift_cluster.grid.openadr.ven import OpenAdrVen
from wattshift_cluster.grid.openadr.words import (
    Notification,
    ObjectType,
    Operation,
    Program,
    SubscriptionWish,
    read_event,
)
from wattshift_scheduler.signals.arbitrate import arbitrate

NOW, TERMS, SLOW, FAST = rig.NOW, rig.TERMS, rig.SLOW, rig.FAST
FakeVtn, SteadyReadings = rig.FakeVtn, rig.SteadyReadings
event, notice, play, running = rig.event, rig.notice, rig.play, rig.running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ven_module, "NOTICE_GAP_S", 0.01)


def test_a_poll_brings_caps_and_the_next_takes_them_away(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300)])
        async with running(vtn, tmp_path) as site:
            assert site.cap_w() == 300e3
            assert site.last.fault is None
            assert site.last.heard_s == NOW + 1
            vtn.events_now = []
            await site.polled()
            assert site.cap_w() == 600e3
            assert [(one.id, one.cancelled_s) for one in site.last.events] == [("a", NOW + 1)]

    play(scene)


def test_it_polls_by_itself(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn()
        async with running(vtn, tmp_path, wishes=FAST) as site:
            vtn.events_now = [event("a", 300)]
            await site.until(lambda: site.cap_w() == 300e3)

    play(scene)


@pytest.mark.parametrize(
    "fails", [VtnUnreachable("gone"), VtnNonsense("babble"), VtnRefused("events", 401)]
)
def test_a_vtn_that_is_lost_takes_nothing_back_and_is_told(
    tmp_path: Path, fails: WattshiftError
) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300)])
        async with running(vtn, tmp_path, wishes=FAST) as site:
            await site.until(lambda: site.cap_w() == 300e3)
            vtn.fails = fails
            site.clock[0] = NOW + 1800
            await site.until(lambda: site.last.fault is not None)
            assert site.cap_w() == 300e3
            assert str(fails) in site.last.fault
            assert "s ago" in site.last.fault
            site.clock[0] = NOW + 3600
            assert site.cap_w() == 600e3, "the limit has run out: the subscription holds"
            vtn.fails = None
            await site.until(lambda: site.last.fault is None)

    play(scene)


def test_pauses_grow_while_nobody_answers_and_are_bounded(tmp_path: Path) -> None:
    source = OpenAdrVen(FakeVtn(), TERMS, Wishes(poll_s=10), KeptFile(tmp_path / "x.json"))
    pauses = []
    for failures in range(40):
        source._failures = failures
        pauses.append(source._pause_s())
    assert pauses[:4] == [10, 20, 40, 60]
    assert set(pauses[4:]) == {60}


def test_a_notice_lowers_at_once_and_raises_only_after_the_poll(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300)])
        async with running(vtn, tmp_path) as site:
            vtn.fails = VtnUnreachable("gone")
            site.source.notice(notice(event("a", 200, 2)))
            assert site.cap_w() == 200e3
            site.source.notice(notice(event("a", 900, 3)))
            assert site.cap_w() == 300e3
            site.source.notice(notice(event("a", 900, 3), Operation.DELETE))
            assert site.cap_w() == 300e3
            vtn.fails, vtn.events_now = None, [event("a", 900, 3)]
            await site.polled()
            await site.until(lambda: site.cap_w() == 900e3)

    play(scene)


def test_a_notice_causes_a_poll_though_the_next_is_far(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn()
        async with running(vtn, tmp_path) as site:
            vtn.events_now = [event("a", 100), event("b", 50)]
            site.source.notice(notice(event("a", 100), Operation.CREATE))
            await site.until(lambda: site.cap_w() == 50e3)

    play(scene)


def test_a_flood_of_notices_is_no_flood_of_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ven_module, "NOTICE_GAP_S", 0.5)

    async def scene() -> None:
        vtn = FakeVtn()
        async with running(vtn, tmp_path) as site:
            before = vtn.polls
            for turn in range(300):
                site.source.notice(notice(event("a", 100 + turn, 1)))
                await asyncio.sleep(0)
            assert vtn.polls <= before + 2

    play(scene)


def test_a_notice_during_a_poll_is_not_lost_to_its_older_answer(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 500)])
        async with running(vtn, tmp_path) as site:
            vtn.gate = asyncio.Event()
            polls = vtn.polls
            site.source.poll_now()
            await site.until(lambda: vtn.polls > polls)
            vtn.events_now = [event("a", 100, 2)]
            site.source.notice(notice(event("a", 100, 2)))
            heard = len(site.said)
            vtn.gate.set()
            vtn.gate = None
            await site.until(lambda: vtn.polls > polls + 1 and len(site.said) > heard + 1)
            watts = [arbitrate(word.caps, 10e6, NOW + 1).cap_w for word in site.said[heard:]]
            assert set(watts) == {100e3}

    play(scene)


def test_a_restart_remembers_though_nobody_answers(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300), event("s", 2, kind="SIMPLE")])
        terms = replace(TERMS, levels_w=(400e3, 350e3))
        async with running(vtn, tmp_path, terms=terms) as site:
            await site.until(lambda: (tmp_path / "openadr.json").exists())
        vtn.fails = VtnUnreachable("gone")
        async with running(vtn, tmp_path, terms=terms) as site:
            assert site.cap_w() == 300e3
        async with running(vtn, tmp_path, terms=terms, boot="boot-2") as site:
            assert site.cap_w() == 350e3, "limits are dropped, the rest holds"
            assert any("power outage" in note for note in site.last.notes)
            vtn.fails = None
            await site.polled()
            await site.until(lambda: site.cap_w() == 300e3)

    play(scene)


def test_power_that_was_lost_drops_limits_until_the_vtn_answers(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 900)])
        async with running(vtn, tmp_path) as site:
            assert site.cap_w() == 900e3
            vtn.fails = VtnUnreachable("gone")
            site.source.power_lost()
            assert site.cap_w() == 600e3
            vtn.fails = None
            await site.polled()
            await site.until(lambda: site.cap_w() == 900e3)

    play(scene)


RELATIVE = {
    "kind": "DISPATCH_SETPOINT_RELATIVE",
    "payloadDescriptors": [],
    "eventName": "evening\x1b[2J peak",
}


def test_a_finished_event_keeps_its_commitment_though_its_program_is_listed_no_longer(
    tmp_path: Path,
) -> None:
    """By the program's name, or by the shed that the units of the program tell; a restart too."""

    async def scene() -> None:
        units = [{"payloadType": "DISPATCH_SETPOINT_RELATIVE", "units": "KW"}]
        shed = Program.model_validate(
            {"id": "q", "programName": "shed", "payloadDescriptors": units}
        )
        told = [event("a", 300), event("b", 50, programID="q", **RELATIVE)]
        vtn = FakeVtn(told, programs_now=[Program(id="p", name="capacity"), shed])
        terms = replace(
            TERMS, commitments_w={"capacity": 2e5}, baseline_w=lambda name, starts_s, ends_s: 7e5
        )
        held = {
            ("a", "capacity", 2e5, "capacity"),
            ("b", "shed", 5e4, "shed: evening [2J peak"),
        }

        def events() -> set[tuple[str, str, float, str]]:
            return {(x.id, x.program, x.commitment_w, x.name) for x in site.last.events}

        async with running(vtn, tmp_path, terms=terms) as site:
            assert events() == held
            site.clock[0] = NOW + 4000
            vtn.events_now, vtn.programs_now = [], []
            await site.polled()
            await site.until(lambda: site.source.known.programs == {})
            assert events() == held
            await site.until(lambda: '"past":[{' in (tmp_path / "openadr.json").read_text())
        async with running(vtn, tmp_path, terms=terms, clock=[NOW + 4100]) as site:
            assert site.source.known.programs == {}
            assert events() == held
            assert all(one.cancelled_s is None for one in site.last.events)

    play(scene)


def test_an_update_is_read_in_the_units_of_a_program_that_is_listed_no_longer(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        units = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}]
        program = {"id": "p", "programName": "capacity", "payloadDescriptors": units}
        vtn = FakeVtn([event("a", 300, payloadDescriptors=[])])
        vtn.programs_now = [Program.model_validate(program)]
        async with running(vtn, tmp_path) as site:
            assert site.cap_w() == 300e3
            vtn.programs_now = []
            vtn.events_now = [event("a", 200, 2, payloadDescriptors=[])]
            await site.polled()
            await site.until(lambda: site.cap_w() == 200e3)

    play(scene)


def test_an_event_that_is_called_off_keeps_the_shed_that_it_asked(tmp_path: Path) -> None:
    async def scene() -> None:
        units = {"payloadDescriptors": [{"payloadType": RELATIVE["kind"], "units": "KW"}]}
        vtn = FakeVtn([event("a", 50, **{**RELATIVE, **units}), event("b", 9, kind="PRICE")])
        terms = replace(
            TERMS, commitments_w={"capacity": 2e5}, baseline_w=lambda name, starts_s, ends_s: 7e5
        )
        async with running(vtn, tmp_path, terms=terms) as site:
            vtn.events_now = []
            await site.polled()
            await site.until(lambda: any(x.cancelled_s is not None for x in site.last.events))
            assert [(x.id, x.commitment_w) for x in site.last.events] == [("a", 5e4)], (
                "and one that asked for nothing is none that can be settled"
            )
            assert site.last.targets == ()

    play(scene)


def test_caps_and_targets_bear_the_name_of_their_event(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300, eventName="cut")])
        vtn.events_now.append(event("c", 200, kind="DISPATCH_SETPOINT", eventName="hold"))
        async with running(vtn, tmp_path) as site:
            assert {(x.id.split("/")[0], x.name) for x in site.last.caps} == {
                ("a", "capacity: cut"),
                ("subscription", ""),
            }
            assert [x.name for x in site.last.targets] == ["capacity: hold"]

    play(scene)


def test_a_damaged_memory_is_told_and_counts_as_an_outage(tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "openadr.json").write_text("{")
        vtn = FakeVtn([event("a", 900)], fails=VtnUnreachable("gone"))
        async with running(vtn, tmp_path) as site:
            assert site.cap_w() == 600e3
            assert any("damaged" in note for note in site.last.notes)
            vtn.fails = None
            await site.polled()
            await site.until(lambda: site.cap_w() == 900e3)

    play(scene)


def test_an_event_for_our_group_is_ours_and_stays_so_through_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300, targets=["zone-7"])], targets=("zone-7",))
        async with running(vtn, tmp_path) as site:
            await site.until(lambda: (tmp_path / "openadr.json").exists())
            assert site.cap_w() == 300e3
            assert site.source.ven_id == "v"
        vtn.registered, vtn.refuses = 0, {"register"}
        async with running(vtn, tmp_path) as site:
            assert site.cap_w() == 300e3
            assert "register" in (site.last.fault or ""), "an answer without targets is not whole"

    play(scene)


def test_targets_that_are_granted_later_are_asked_for_when_a_notice_says_so(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300, targets=["zone-7"])])
        async with running(vtn, tmp_path) as site:
            vtn.targets = ("zone-7",)
            await site.polled()
            assert site.cap_w() == 600e3
            site.source.notice(
                Notification(
                    object_type=ObjectType.VEN, operation=Operation.UPDATE, object={"id": "v"}
                )
            )
            await site.until(lambda: site.cap_w() == 300e3)

    play(scene)


def test_a_vtn_that_registers_nobody_is_followed_all_the_same(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300)], refuses={"register", "programs"})
        async with running(vtn, tmp_path) as site:
            assert site.cap_w() == 300e3
            assert any("does not register" in note for note in site.last.notes)

    play(scene)


def test_it_follows_the_programs_that_it_is_told_to(tmp_path: Path) -> None:
    async def scene() -> None:
        other = Program(id="q", name="prices")
        vtn = FakeVtn(
            [event("a", 300), event("b", 100, programID="q")],
            programs_now=[Program(id="p", name="capacity"), other],
        )
        wishes = replace(SLOW, programs=("capacity", "reserves"))
        async with running(vtn, tmp_path, wishes=wishes) as site:
            assert site.cap_w() == 300e3
            assert vtn.asked == ["p"]
            assert any("no program reserves" in note for note in site.last.notes)
            site.source.notice(notice(event("b", 50, 2, programID="q")))
            assert site.cap_w() == 300e3

    play(scene)


def test_it_asks_for_notices_again_after_the_vtn_was_lost(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn()
        wish = SubscriptionWish(client_name="v", callback_url="https://x/cb", bearer="secret")
        wishes = replace(FAST, callback=wish)
        async with running(vtn, tmp_path, wishes=wishes) as site:
            await site.until(lambda: len(vtn.wishes) == 1 and vtn.polls > 3)
            vtn.fails = VtnUnreachable("gone")
            await site.until(lambda: site.last.fault is not None)
            vtn.fails = None
            await site.until(lambda: len(vtn.wishes) == 2)
            assert vtn.registered == 2
            assert "secret" not in repr(wish)

    play(scene)


def test_a_clock_that_is_off_is_told_and_beyond_the_bound_alarmed(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn(skew_s=-5.0)
        async with running(vtn, tmp_path) as site:
            assert any("off by -5.0 s" in note for note in site.last.notes)
            assert site.last.alerts == ()
            vtn.skew_s = 31.0
            await site.polled()
            await site.until(lambda: [x.name for x in site.last.alerts] == ["CLOCK_SKEW"])
            vtn.skew_s = 0.2
            await site.polled()
            await site.until(lambda: site.last.alerts == ())

    play(scene)


def test_a_flood_of_events_takes_no_cap_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300)])
        async with running(vtn, tmp_path) as site:
            monkeypatch.setattr("wattshift_cluster.grid.openadr.kept.MAX_EVENTS", 5)
            vtn.events_now = [event(name, 900) for name in "bcdefgh"]
            await site.polled()
            await site.until(lambda: "more than 5" in (site.last.fault or ""))
            assert site.cap_w() == 300e3

    play(scene)


def test_a_broken_update_does_not_lift_the_cap(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn([event("a", 300)])
        async with running(vtn, tmp_path) as site:
            furlongs = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "FURLONGS"}]
            for broken in (
                read_event({"id": "a", "programID": "p", "intervals": 7}),
                event("a", 900, 2, payloadDescriptors=furlongs),
                event("a", -1, 3),
                event("a", 900, 4, intervalPeriod={"start": "soon"}),
            ):
                vtn.events_now = [broken]
                await site.polled()
                await site.until(lambda: any("last good one" in x for x in site.last.notes))
                assert site.cap_w() == 300e3
            vtn.events_now = [event("a", 700, 5)]
            await site.polled()
            await site.until(lambda: site.cap_w() == 700e3)

    play(scene)


def test_reports_are_sent_once_when_due_and_not_again_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        asks = [{"payloadType": "USAGE"}, {"payloadType": "STORAGE_CHARGE_LEVEL"}]
        vtn = FakeVtn([event("a", 300, reportDescriptors=asks)])
        readings = SteadyReadings()
        async with running(vtn, tmp_path, readings=readings, wishes=FAST) as site:
            assert any("no storage" in note for note in site.last.notes)
            assert vtn.reports == []
            site.clock[0] = NOW + 3601
            await site.until(lambda: len(vtn.reports) == 1)
            (report,) = vtn.reports
            (interval,) = report.resources[0].intervals
            assert interval.payloads[0].values == (500.0,)
            await site.until(lambda: dict(site.source.known.sent) == {"a/0": 1})
            polls = vtn.polls
            await site.until(lambda: vtn.polls > polls + 2)
        async with running(
            vtn, tmp_path, readings=readings, clock=[NOW + 3700], wishes=FAST
        ) as site:
            polls = vtn.polls
            await site.until(lambda: vtn.polls > polls + 2)
            assert len(vtn.reports) == 1

    play(scene)


def test_a_refused_report_is_told_and_not_repeated(tmp_path: Path) -> None:
    async def scene() -> None:
        vtn = FakeVtn(
            [event("a", 300, reportDescriptors=[{"payloadType": "USAGE"}])], refuses={"report"}
        )
        async with running(
            vtn, tmp_path, readings=SteadyReadings(), clock=[NOW + 3601], wishes=FAST
        ) as site:
            await site.until(lambda: any("refuses a report" in x for x in site.last.notes))
            assert dict(site.source.known.sent) == {"a/0": 1}

    play(scene)


def test_the_memory_is_written_when_something_changes_and_not_at_every_poll(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        vtn, file = FakeVtn([event("a", 300)]), tmp_path / "openadr.json"
        async with running(vtn, tmp_path, wishes=FAST) as site:
            await site.until(file.exists)
            before, polls = file.stat().st_mtime_ns, vtn.polls
            await site.until(lambda: vtn.polls > polls + 5)
            assert file.stat().st_mtime_ns == before
            vtn.events_now = [event("a", 200, 2)]
            await site.until(lambda: file.stat().st_mtime_ns != before)

    play(scene)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    (folder / "openadr.json").mkdir()
    try:
        yield
    finally:
        (folder / "openadr.json").rmdir()


def test_a_memory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        with unwritable(tmp_path):
            async with running(FakeVtn([event("a", 300)]), tmp_path, wishes=FAST) as site:
                await site.until(lambda: any("cannot be kept" in x for x in site.last.notes))
                assert site.cap_w() == 300e3

    play(scene)
