"""`[market]` of site.toml: one way in each, rates, and the sources that it becomes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.grid import curve_rig as rig_of

from wattshift_cluster.config.market import Market
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.steps import value_at
from wattshift_cluster.grid.market.sources import market_sources

NOON_S = rig_of.NOON_S
Clock = rig_of.Clock


def wrong(told: str, **keys: Any) -> None:
    with pytest.raises(ValidationError, match=told):
        Market.model_validate(keys)


def test_faults_say_what_is_allowed() -> None:
    wrong("exactly one way in", prices=[{"name": "a"}])
    wrong("exactly one way in", prices=[{"name": "a", "file": "x", "url": "http://h/x"}])
    wrong("exactly one way in", carbon=[{"name": "a", "file": "x", "moer": "y"}])
    wrong("a file is a CSV", prices=[{"name": "a", "file": "x", "table": {"format": "json"}}])
    wrong("currency EUR has no rate", prices=[{"name": "a", "file": "x", "currency": "EUR"}])
    wrong("named twice", prices=[{"name": "a", "file": "x"}], carbon=[{"name": "a", "file": "x"}])
    wrong("hours must rise", demand=[{"planned": "1MW", "hours": [18, 13]}])
    wrong("divide an hour", demand=[{"planned": "1MW", "interval": "25m"}])
    wrong("unknown time zone", demand=[{"planned": "1MW", "zone": "Mars/Phobos"}])
    account = {"region": "r", "username": "u", "password_file": "p", "url": "http://watt.example"}
    wrong("in the clear", carbon=[{"name": "w", "watttime": account}])
    maps = {"zone": "DE", "token_file": "t", "url": "http://[::1]:8080"}
    Market.model_validate({"carbon": [{"name": "w", "electricity_maps": maps}]})


def test_sources_are_made_and_the_first_price_that_knows_holds(tmp_path: Path) -> None:
    day = tmp_path / "day.csv"
    day.write_text("hour,eur\n2026-09-01T14:00,50\n2026-09-01T15:00,\n2026-09-01T16:00,60\n")
    flat = tmp_path / "flat.csv"
    flat.write_text("time,value,end\n2026-01-01T00:00Z,0.07,2027-01-01T00:00Z\n")
    moer = tmp_path / "moer.csv"
    moer.write_text("time,moer,f1\n2026-09-01T12:00Z,0.4,0.5\n")
    load = tmp_path / "load.csv"
    load.write_text("time,value\n2026-09-01T12:00Z,70000\n2026-09-01T13:00Z,75000\n")
    table = {"time": "hour", "value": "eur", "zone": "Europe/Berlin"}
    config = Market.model_validate(
        {
            "currencies": {"EUR": 1.1},
            "prices": [
                {"name": "day", "file": str(day), "currency": "EUR", "table": table},
                {"name": "flat", "file": str(flat), "per": "kWh"},
            ],
            "carbon": [{"name": "moer", "moer": str(moer)}],
            "peaks": [{"forecast": {"file": str(load)}, "cap": "200kW", "months": [9]}],
            "demand": [{"planned": "400kW"}],
        }
    )
    day.write_text(day.read_text().replace("15:00,", "15:00,1e9"))
    with pytest.raises(ConfigInvalid, match=r"day.csv:3.*outside"):
        market_sources(config, tmp_path, 1e6)
    day.write_text("hour,eur\n2026-09-01T14:00,50\n2026-09-01T16:00,60\n")
    found = market_sources(config, tmp_path, 1e6, clock_s=Clock())

    async def run() -> None:
        for source in (*found.prices, *found.carbon):
            await source.refresh()
        price = found.prices_ahead(NOON_S)
        known = [value_at(price, NOON_S + hour * 3600) for hour in range(-1, 5)]
        assert known == pytest.approx([70, 55, 55, 66, 66, 70])
        assert value_at(found.carbon[0].steps(NOON_S), NOON_S + 300) == pytest.approx(500)
        now = found.price_now(NOON_S)
        assert now.usd_per_mwh == pytest.approx(55.0)
        assert (now.source, now.age_s) == ("day", 0.0)
        assert found.price_now(NOON_S + 4 * 3600).source == "flat"
        assert value_at(found.carbon_ahead(NOON_S), NOON_S) == pytest.approx(400)
        (cap,) = (await found.peaks[0].refresh()).caps
        assert cap.limit_w == 2e5

    asyncio.run(run())
    assert [source.name for source in found.all] == ["day", "flat", "moer", "peaks", "demand"]
    assert found.demand[0].caps(NOON_S)[0].limit_w == 4e5
