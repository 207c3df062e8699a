"""A history of the hashprice replayed in the simulator: mining follows it, so does the money."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wattshift_cluster.cli.main import main
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.simulate.feeds import read_hashprice
from wattshift_cluster.simulate.run import SimulationResult, run_simulation
from wattshift_scheduler.hashprice import Scheme

SITE = """
[site]
name = "sim"
state_dir = "state"
[[feeders]]
name = "main"
limit = "60kW"
[[agents]]
name = "one"
address = "127.66.0.1:7401"
token_file = "token"
feeder = "main"
[values]
hashprice_usd_per_ph_day = 60
pool_fee_pct = 0
[grid]
default_price_usd_per_mwh = 50
[mining]
devices = ["*"]
"""
FLAT = "time,usd_per_mwh\n0,50\n1,50\n"
HOURS = 0.5


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "flat.csv").write_text(FLAT)
    (tmp_path / "none.csv").write_text("starts,ends,limit,kind\n")
    return tmp_path / "site.toml"


def run(site: Path, history: str | None, **named: Any) -> SimulationResult:
    if history is not None:
        (site.parent / "h.csv").write_text(history)
        named["hashprice"] = str(site.parent / "h.csv")
    return run_simulation(
        site,
        prices=str(site.parent / "flat.csv"),
        signal=str(site.parent / "none.csv"),
        days=HOURS / 24,
        faults_per_day=0.0,
        **named,
    )


def mined(result: SimulationResult) -> float:
    return result.revenue_usd["mining"]


def test_a_constant_history_is_the_constant_of_the_site_file(site: Path) -> None:
    constant, replayed = run(site, None), run(site, "time,usd_per_ph_day\n0,60\n")
    assert constant.sources["hashprice"] == "site file"
    assert replayed.sources["hashprice"] == "h.csv (usd_per_ph_day)"
    assert mined(replayed) == pytest.approx(mined(constant), rel=0.01)
    assert mined(constant) > 1.0


def test_nothing_mines_while_the_hashprice_is_low_or_unknown(site: Path) -> None:
    whole = run(site, "time,usd_per_ph_day\n0,60\n")
    low = run(site, "time,usd_per_ph_day\n0,3\n")
    late = run(site, "time,usd_per_ph_day\n900,60\n")
    assert low.energy_mwh["mining"] < 0.1 * whole.energy_mwh["mining"]
    assert late.energy_mwh["mining"] == pytest.approx(0.5 * whole.energy_mwh["mining"], rel=0.15)
    assert mined(late) == pytest.approx(0.5 * mined(whole), rel=0.15)


def test_each_hash_is_booked_at_the_hashprice_of_its_time(site: Path) -> None:
    """Twice the hashprice for the second half, at which the same machines run: 1.5 times in all."""
    whole = run(site, "time,usd_per_ph_day\n0,100\n")
    risen = run(site, "time,usd_per_ph_day\n0,100\n900,200\n")
    assert risen.energy_mwh["mining"] == pytest.approx(whole.energy_mwh["mining"], rel=0.02)
    assert mined(risen) == pytest.approx(1.5 * mined(whole), rel=0.05)


FIGURES = "time,difficulty,usd_per_btc,height,fees_btc\n0,150e12,100000,905000,0.03\n"


def test_any_history_is_read(tmp_path: Path) -> None:
    file = tmp_path / "h.csv"
    file.write_text(FIGURES)
    assert read_hashprice(str(file), None, Scheme.FPPS).values[0] == pytest.approx(42.31, abs=0.01)
    assert read_hashprice(str(file), None, Scheme.PPS).values[0] == pytest.approx(41.91, abs=0.01)
    assert read_hashprice(str(file), "usd_per_btc", Scheme.PPS).source == "h.csv (usd_per_btc)"
    file.write_text("day,hash price\n2026-11-01,41.2\n2026-11-02,40.1\n")
    assert read_hashprice(str(file), "hash price", Scheme.FPPS).values == (41.2, 40.1)
    file.write_text("day,p\n2026-11-01,41.2\n2026-11-02,-1\n")
    with pytest.raises(ConfigInvalid, match="a hashprice of -1"):
        read_hashprice(str(file), None, Scheme.FPPS)


def test_the_command_says_what_it_replayed(site: Path) -> None:
    (site.parent / "h.csv").write_text("time,usd_per_ph_day\n0,60\n")
    files = {name: str(site.parent / f"{name}.csv") for name in ("flat", "none", "h")}
    asked = ["--prices", files["flat"], "--signal", files["none"], "--hashprice", files["h"]]
    result = CliRunner().invoke(main, ["simulate", str(site), *asked, "--days", "0.005"])
    assert result.exit_code == 0, result.output
    assert "hashprice from h.csv (usd_per_ph_day)" in result.stdout
