"""A log of evidence that is killed, full, shut or broken: control goes on, and it is told."""

import asyncio
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.controller.evidence_yard import (
    EVENT,
    Yard,
    lines_of,
    until,
)

from wattshift_cluster.controller import evidence
from wattshift_cluster.controller.evidence import EvidenceFeed
from wattshift_cluster.controller.evidence_words import planned_w
from wattshift_cluster.controller.front import Front
from wattshift_cluster.settle import log as settle_log
from wattshift_cluster.settle.day_file import DayFile
from wattshift_cluster.settle.lines import Kind
from wattshift_cluster.settle.log import Evidence
from wattshift_cluster.settle.verify import verify
from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import Cap


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "yard")
    yield made
    made.journal.close()


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
