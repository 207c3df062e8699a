"""`[market]` in the controller: prices set the price, carbon is shown, demand is a cap."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.controller import feeds_rig as rig

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import feeds
from wattshift_cluster.controller.sources import Sources
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.said import Said, Steps


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter is asked more often than in a site."""
    monkeypatch.setattr(feeds, "METER_PERIOD_S", 0.05)


def curve(path: Path, *rows: tuple[float, float, float]) -> None:
    lines = [f"{_at(starts_s)},{_at(ends_s)},{value}" for starts_s, ends_s, value in rows]
    path.write_text("\n".join(["time,end,value", *lines]) + "\n")


def _at(when_s: float) -> str:
    return datetime.fromtimestamp(when_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


PRICES = """
[[market.prices]]
name = "day-ahead"
file = "late.csv"
[[market.prices]]
name = "contract"
file = "now.csv"
[[market.carbon]]
name = "air"
file = "air.csv"
"""


def test_the_first_price_that_is_known_is_the_site_s(tmp_path: Path) -> None:
    now_s = time.time()
    curve(tmp_path / "late.csv", (now_s + 9e4, now_s + 1e5, 10.0))
    curve(tmp_path / "now.csv", (now_s - 60, now_s + 3600, 41.5))
    curve(tmp_path / "air.csv", (now_s - 60, now_s + 3600, 250.0))

    async def scenario(play: Any) -> None:
        await play.until(lambda: play.front.site()["price_usd_per_mwh"] == 41.5)
        await play.until(lambda: play.front.signals()["carbon_g_per_kwh"] == 250.0)
        assert play.source("contract")["prices"]["now"] == 41.5
        assert play.source("day-ahead")["prices"]["now"] is None, "a gap is no price"
        kinds = {play.source(name)["kind"] for name in ("day-ahead", "contract", "air")}
        assert kinds == {"feed"}

    rig.play(tmp_path, PRICES, scenario)


def test_carbon_is_the_first_source_s_of_the_file_whoever_spoke_first() -> None:
    sources = Sources(("first", "second"))
    for name, value in (("second", 300.0), ("first", 250.0)):
        steps = Steps((0.0,), (value,), 100.0, 0.0)
        sources.heard(name, Said(name, 1.0, carbon_g_per_kwh=steps), 1.0)
    assert sources.carbon_g_per_kwh(2.0) == 250.0


def test_a_price_that_nobody_knows_is_unknown(tmp_path: Path) -> None:
    now_s = time.time()
    curve(tmp_path / "late.csv", (now_s + 9e4, now_s + 1e5, 10.0))

    async def scenario(play: Any) -> None:
        await play.until(lambda: play.c.sources.speaks_of_price("day-ahead"))
        assert play.front.site()["price_usd_per_mwh"] is None

    rig.play(tmp_path, '[[market.prices]]\nname = "day-ahead"\nfile = "late.csv"\n', scenario)


DEMAND = """
[[market.demand]]
name = "charge"
planned = "20kW"
interval = "1m"
"""


def test_a_demand_charge_hears_every_sample_of_the_site_meter(tmp_path: Path) -> None:
    async def scenario(play: Any) -> None:
        await play.until(lambda: 20e3 in play.caps("charge").values())
        heard: list[tuple[float | None, float]] = []
        play.c.samplers.append(lambda watts_w, at_s: heard.append((watts_w, at_s)))
        await play.until(lambda: (9e3, play.c.state.meter_at_s) in heard)
        play.watts_w = None
        await play.until(lambda: any(watts_w is None for watts_w, _ in heard))
        # The source's own sampler: minutes as a meter would fill them, in an interval to come.
        whole_s = (play.c.clock.now_s() // 60 + 2) * 60.0
        for second in range(0, 121, 10):
            play.c.samplers[0](30e3, whole_s + second)
        await play.until(lambda: 30e3 in play.caps("charge").values())

    rig.play(tmp_path, rig.METER + DEMAND, scenario)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (DEMAND, "with [meter]"),
        (rig.METER + DEMAND.replace("charge", "price"), "a source of the controller"),
        (
            rig.METER + DEMAND + '[[openadr2]]\nurl = "http://127.0.0.1:1/"\nven_name = "s"\n'
            'name = "charge"\n',
            "a source of [[openadr2]]",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, more: str, told: str) -> None:
    (tmp_path / "site.toml").write_text(rig.SITE + more.replace("{meter}", "127.0.0.1:1"))
    with pytest.raises(ConfigInvalid, match=told.replace("[", r"\[")):
        load_site(tmp_path / "site.toml", environ={})


def test_a_faulty_file_is_found_at_the_start(tmp_path: Path) -> None:
    async def never(_: Any) -> None:
        pytest.fail("the controller started")

    (tmp_path / "late.csv").write_text("time,end,value\nyesterday,today,1\n")
    with pytest.raises(ConfigInvalid, match=r"late\.csv:2"):
        rig.play(tmp_path, '[[market.prices]]\nname = "d"\nfile = "late.csv"\n', never)
