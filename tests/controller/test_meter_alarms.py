"""The site meter's flaws, and that it and the devices disagree, as alarms of the controller."""

from pathlib import Path
from typing import Any

import pytest
from tests.controller import feeds_rig as rig

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import feeds
from wattshift_cluster.controller.meter_alarms import FLAW_HELD_S, MeterAlarms
from wattshift_cluster.grid.meters.reading import Finding, Flaw, MeterReading

OTHER = 'other_load = "500W"\n'


@pytest.fixture
def alarms(tmp_path: Path) -> MeterAlarms:
    text = rig.SITE.replace("[[feeders]]", OTHER + "[[feeders]]") + '[meter]\nurl = "http://m/p"\n'
    (tmp_path / "site.toml").write_text(text)
    return MeterAlarms(load_site(tmp_path / "site.toml", environ={}))


def reading(watts_w: float | None, *findings: Finding) -> MeterReading:
    return MeterReading(watts_w, 1.0, 0.0, "measured", findings=findings)


def test_a_flaw_is_one_alarm_until_a_while_after(alarms: MeterAlarms) -> None:
    flaw = Finding(Flaw.NEGATIVE, "-900 W at a site that cannot export")
    (came,) = alarms.judge(reading(None, flaw), None, 0.0)
    assert (came.subject, came.action) == ("meter-flaw:negative", "alarm")
    assert "-900 W" in alarms.alarms["meter-flaw:negative"].text
    assert not alarms.judge(reading(8e3), None, FLAW_HELD_S - 1)
    assert not alarms.judge(reading(None, flaw), None, FLAW_HELD_S)
    assert not alarms.judge(reading(8e3), None, 2 * FLAW_HELD_S)
    (went,) = alarms.judge(reading(8e3), None, 2 * FLAW_HELD_S + 1)
    assert (went.action, alarms.alarms) == ("all clear", {})


def test_two_figures_that_stay_apart_are_told_with_both(alarms: MeterAlarms) -> None:
    assert not alarms.judge(reading(9e3), 5e3, 0.0)
    (came,) = alarms.judge(reading(9e3), 5e3, 60.0)
    assert came.subject == "meter-differs"
    assert "9,000 W" in came.reason
    assert "5,500 W" in came.reason, "the load that nobody leases explains as much"
    assert not alarms.judge(reading(None), 5e3, 61.0), "what is unknown clears nothing"
    assert alarms.alarms["meter-differs"].text == came.reason
    assert not alarms.judge(reading(5.2e3), 5e3, 62.0)
    assert [one.action for one in alarms.judge(reading(5.2e3), 5e3, 122.0)] == ["all clear"]


def test_a_meter_that_cannot_be_believed_is_an_alarm_of_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "METER_PERIOD_S", 0.05)

    async def scenario(play: Any) -> None:
        await play.until(lambda: play.front.site()["power_w"] == 9e3)
        play.watts_w = -20e3
        await play.until(lambda: "meter-flaw:negative" in play.alarms())
        await play.until(lambda: play.front.site()["power_age_s"] > 0.3)
        assert play.c.state.meter_w == 9e3, "the core is told none of it"

    rig.play(tmp_path, rig.METER.replace("exports = true", 'stale_after = "300ms"'), scenario)
