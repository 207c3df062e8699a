"""A schedule or price file that is mistyped while the site runs: the old one holds, it is said."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.controller import feeds_rig as rig

from wattshift_cluster.controller import sources

FILES = """
[grid]
schedule = "schedule.csv"
prices = "prices.csv"
poll = "100ms"
"""
HEAD = "starts,ends,limit,kind\n"


def hour(ahead: int) -> str:
    """Of now and later ones, as text."""
    begun_s = time.time() // 3600.0 * 3600.0
    return datetime.fromtimestamp(begun_s + 3600.0 * ahead, UTC).isoformat()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNHEARD_ALARM_S", 0.2)


@pytest.mark.parametrize(
    ("source", "name", "good", "bad", "told"),
    [
        (
            "schedule",
            "schedule.csv",
            f"{HEAD}{hour(0)},{hour(48)},5kW,cap\n",
            f"{HEAD}{hour(0)},{hour(48)},3kv,cap\n",
            "schedule.csv:2: limit = 3kv",
        ),
        (
            "price",
            "prices.csv",
            f"time,usd_per_mwh\n{hour(0)},40\n{hour(24)},41\n",
            f"time,usd_per_mwh\n{hour(0)},dear\n{hour(24)},41\n",
            "prices.csv:2: usd_per_mwh = dear",
        ),
    ],
    ids=["schedule", "price"],
)
def test_what_is_not_in_force_is_an_alarm_until_it_is(
    tmp_path: Path, source: str, name: str, good: str, bad: str, told: str
) -> None:
    (tmp_path / "schedule.csv").write_text(f"{HEAD}{hour(0)},{hour(48)},5kW,cap\n")
    (tmp_path / "prices.csv").write_text(f"time,usd_per_mwh\n{hour(0)},40\n{hour(24)},41\n")

    async def scenario(play: Any) -> None:
        def holds() -> bool:
            site = play.front.site()
            return bool(site["cap_w"] == 5e3 and site["price_usd_per_mwh"] == 40.0)

        await play.until(holds)
        alarm = f"source:{source}"
        assert alarm not in play.alarms()
        (tmp_path / name).write_text(bad)
        await play.until(lambda: alarm in play.alarms())
        assert told in play.alarms()[alarm]
        assert told in play.source(source)["fault"]
        assert holds(), "a typing error lifts no cap and makes no price unknown"
        (tmp_path / name).unlink()
        await play.until(lambda: "cannot be read" in play.alarms().get(alarm, ""))
        (tmp_path / name).write_text(good)
        await play.until(lambda: alarm not in play.alarms())
        assert play.source(source)["fault"] is None
        assert holds()

    rig.play(tmp_path, FILES, scenario)


def test_what_the_files_say_holds_from_the_first_decision_on(tmp_path: Path) -> None:
    """Else each start raises the alarm of an unknown price, and decides once without a cap."""
    (tmp_path / "schedule.csv").write_text(f"{HEAD}{hour(0)},{hour(48)},5kW,cap\n")
    (tmp_path / "prices.csv").write_text(f"time,usd_per_mwh\n{hour(0)},40\n{hour(24)},41\n")

    async def scenario(play: Any) -> None:
        seen: list[tuple[float, float | None]] = []

        def turned() -> None:
            site = play.front.site()
            seen.append((site["cap_w"], site["price_usd_per_mwh"]))

        play.c.after_turn.append(turned)
        await play.until(lambda: seen)
        assert seen[0] == (5e3, 40.0)

    rig.play(tmp_path, FILES, scenario)
