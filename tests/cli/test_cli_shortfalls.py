"""A cap or a feeder below what is drawn at the least: the same two figures in every command."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from wattshift_cluster.cli.status import site_text
from wattshift_cluster.cli.top import feeder_table

Command = Callable[..., Result]
ROW = {
    "id": "row-b", "parent": "root", "limit_w": 1_000.0, "committed_w": 6_300.0, "margin_w": 20.0,
    "shortfall_w": 220.0, "shortfall_counted_w": 5_320.0,
}  # fmt: skip
TEXT = "feeder row-b may carry 980 W (…), and what hangs on it can be asked down to 1,200 W"
ALARM = {
    "id": "feeder-below-floor:row-b", "severity": "critical", "text": TEXT,
    "since": "2026-01-01T00:00:00Z",
}  # fmt: skip
OTHER = {**ALARM, "id": "feeder-over:row-b", "text": "row-b carries 1,400 W"}


@pytest.fixture
def short(reach: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A site with a feeder that is short."""
    site = reach.port.site
    monkeypatch.setattr(
        reach.port,
        "site",
        lambda: {**site(), "feeders": [*site()["feeders"], ROW], "alarms": [ALARM, OTHER]},
    )
    return reach


def test_the_caps_are_told_with_the_feeder_that_is_short_beneath(
    wattshift: Command, short: Any
) -> None:
    assert wattshift("cap", "set", "8kW").exit_code == 0
    lines = wattshift("cap", "show").stdout.splitlines()
    assert lines[-1] == TEXT, "what is above its limit, by its meter, is no shortfall"
    assert lines[-2] == ""
    json = wattshift("cap", "show", "-o", "json").stdout
    assert "row-b" not in json, "a script finds the caps alone there"


def test_a_cap_tells_what_is_asked_and_what_is_counted(wattshift: Command, reach: Any) -> None:
    assert wattshift("cap", "set", "500W").exit_code == 0
    reach.port.held_caps[0]["shortfall_counted_w"] = 2_900.0
    header, row = wattshift("cap", "show").stdout.splitlines()
    end = header.index("COUNTED") + len("COUNTED")
    assert row[:end].split()[-4:] == ["300", "W", "2.90", "kW"]
    assert "SHORTFALL" in header


@pytest.mark.parametrize(
    ("asked_w", "counted_w", "told"),
    [
        (300.0, 300.0, ["stays 300 W above this cap."]),
        (300.0, 900.0, ["stays 300 W above", "Until all is seen to obey, 900 W above it are"]),
        (None, 900.0, ["can be asked down to this cap", "900 W above it are counted"]),
        (None, None, []),
    ],
)
def test_who_sets_a_cap_is_told_what_it_misses(
    wattshift: Command,
    reach: Any,
    monkeypatch: pytest.MonkeyPatch,
    asked_w: float | None,
    counted_w: float | None,
    told: list[str],
) -> None:
    set_cap = reach.port.set_cap

    async def missed(*args: Any) -> dict[str, Any]:
        return {**await set_cap(*args), "shortfall_w": asked_w, "shortfall_counted_w": counted_w}

    monkeypatch.setattr(reach.port, "set_cap", missed)
    stderr = wattshift("cap", "set", "9kW").stderr
    assert [one for one in told if one not in stderr] == []
    assert bool(stderr) == bool(told)
    assert ("counted" in stderr) == (counted_w not in (None, asked_w))


def test_status_and_top_tell_the_site_and_the_feeder(short: Any) -> None:
    site = {**short.port.site(), "shortfall_w": 80.0, "shortfall_counted_w": 2_980.0}
    text = site_text(site)
    assert "shortfall  80 W asked, 2.98 kW counted" in text
    row = next(line for line in text.splitlines() if line.startswith("row-b "))
    assert row.endswith("220 W asked, 5.32 kW counted")
    plain = {**site, "feeders": [{**ROW, "shortfall_counted_w": None, "power_w": 5.0,
                                  "power_age_s": 0.1}]}  # fmt: skip
    assert "SHORT" not in site_text(plain)
    metered = {"id": "m", "limit_w": 9.0, "committed_w": 1.0, "power_w": None, "power_age_s": None}
    table = feeder_table([metered, ROW])
    shorts = list(table.columns[-1].cells)
    assert [str(cell) for cell in shorts] == ["220 W asked, 5.32 kW counted", ""]
    assert [str(one.header) for one in feeder_table([metered]).columns][-1] == "age"


def test_top_shows_a_short_feeder_that_has_no_meter(wattshift: Command, short: Any) -> None:
    told = wattshift("top", "--once").stdout
    assert "feeders (1)" in told
    assert "no meter" in told


def test_explain_says_of_a_feeder_what_it_carries_and_what_lacks(
    wattshift: Command, short: Any
) -> None:
    told = wattshift("explain", "row-b").stdout
    assert "feeder     row-b, fed by root" in told
    assert "limit      1.00 kW, margin 20 W" in told
    assert "short      220 W asked, 5.32 kW counted" in told
    assert TEXT in told
    assert "row-b carries 1,400 W" in told, "all that is told of it"
    well = wattshift("explain", "row-a").stdout
    assert "feeder     row-a, fed by root" in well
    assert "short" not in well
    assert wattshift("explain", "row-c").exit_code == 4


def test_explain_tells_what_the_alarms_of_a_feeder_came_from(
    wattshift: Command, short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decisions(subject: str | None, *_args: Any, **_more: Any) -> list[dict[str, Any]]:
        at = {"row-b": "2026-01-01T00:00:01Z", ALARM["id"]: "2026-01-01T00:00:02Z"}.get(
            subject or ""
        )
        row: dict[str, Any] = {
            "at": at,
            "subject": subject,
            "action": "alarm",
            "reason": f"of {subject}",
            "inputs": {},
        }
        return [row] if at else []

    monkeypatch.setattr(short.port, "decisions", decisions)
    lines = wattshift("explain", "row-b").stdout.splitlines()
    assert [line.split()[-1] for line in lines[-2:]] == [ALARM["id"], "row-b"], "the newest first"
