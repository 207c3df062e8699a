"""Tables that a site file names are read before anything starts: each fault by file and line."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.ports import free_port

from wattshift_cluster.cli.main import main
from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller import process
from wattshift_cluster.controller.named_files import check_files
from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.errors import ConfigInvalid

SITE = """
[site]
name = "s"
state_dir = "state"
other_load = "1kW"
[[feeders]]
name = "main"
limit = "10kW"
[api]
listen = "127.0.0.1:{port}"
[grid]
schedule = "schedule.csv"
prices = "prices.csv"
[economics]
history = "hashprice.csv"
[[market.prices]]
name = "day-ahead"
file = "ahead.csv"
[[market.prices]]
name = "feed"
url = "http://127.0.0.1:9/prices"
[[market.prices]]
name = "entsoe"
currency = "USD"
entsoe = {{ zone = "DE_LU", key_file = "nowhere" }}
[[market.carbon]]
name = "own"
file = "carbon.csv"
[[market.carbon]]
name = "moer"
watttime = {{ region = "CAISO_NORTH", username = "ada", password_file = "nowhere" }}
[[market.peaks]]
zone = "America/Chicago"
cap = "3kW"
forecast = {{ url = "http://127.0.0.1:9/load" }}
actual = {{ file = "load.csv" }}
"""
GOOD = {
    "schedule.csv": "starts,ends,limit,kind\n2030-01-01T10:00:00Z,2030-01-01T11:00:00Z,5kW,cap\n",
    "prices.csv": "time,usd_per_mwh\n2030-01-01T10:00:00Z,40\n2030-01-01T11:00:00Z,41\n",
    "hashprice.csv": "time,usd_per_ph_day\n2030-01-01T10:00:00Z,40\n",
    "ahead.csv": "time,value\n2030-01-01T10:00:00Z,40\n2030-01-01T11:00:00Z,41\n",
    "carbon.csv": "time,value\n2030-01-01T10:00:00Z,400\n2030-01-01T11:00:00Z,410\n",
    "load.csv": "time,value\n2030-01-01T10:00:00Z,4\n2030-01-01T11:00:00Z,5\n",
}
Change = Callable[[str, str, str], None]


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    for name, text in GOOD.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "site.toml").write_text(SITE.format(port=free_port()))
    return tmp_path / "site.toml"


@pytest.fixture
def site(site_file: Path) -> SiteConfig:
    return load_site(site_file, environ={})


@pytest.fixture
def change(tmp_path: Path) -> Change:
    def changed(name: str, old: str, new: str) -> None:
        assert old in GOOD[name]
        (tmp_path / name).write_text(GOOD[name].replace(old, new, 1))

    return changed


def test_sound_tables_pass_and_nobody_is_asked(site: SiteConfig) -> None:
    check_files(site)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("schedule.csv", "5kW", "500W", ":2: limit = 500 W: below what the site can shed to"),
        ("schedule.csv", "5kW", "nanW", ":2: limit"),
        ("prices.csv", ",40", ",nan", ":2: usd_per_mwh"),
        ("hashprice.csv", ",40", ",soon", ":2: usd_per_ph_day"),
        ("ahead.csv", ",41", ",cheap", ":3: value"),
        ("carbon.csv", ",410", ",", ":3: value"),
        ("load.csv", "T11", "T31", ":3: time"),
    ],
)
def test_each_table_is_read_and_its_fault_named(
    site: SiteConfig, change: Change, name: str, old: str, new: str, told: str
) -> None:
    change(name, old, new)
    with pytest.raises(ConfigInvalid) as invalid:
        check_files(site)
    assert f"{name}{told}" in str(invalid.value)


def test_all_faults_of_all_tables_are_told_at_once(
    site_file: Path, site: SiteConfig, change: Change, tmp_path: Path
) -> None:
    change("schedule.csv", "5kW", "500W")
    change("prices.csv", ",40", ",nan")
    (tmp_path / "carbon.csv").unlink()
    with pytest.raises(ConfigInvalid) as invalid:
        check_files(site)
    named = [Path(str(fault).partition(":")[0]).name for fault in invalid.value.faults]
    assert named == ["schedule.csv", "prices.csv", "carbon.csv"]
    checked = CliRunner().invoke(main, ["config", "check", str(site_file)])
    assert (checked.exit_code, checked.stdout) == (3, "")
    assert checked.stderr == f"wattshift: {invalid.value}\n"
    doctor = CliRunner().invoke(main, ["doctor", "--quick", str(site_file)])
    assert "3 fault(s)" in doctor.stdout
    assert doctor.exit_code == 1


def test_up_starts_nothing_where_one_has_faults(site_file: Path, change: Change) -> None:
    change("schedule.csv", "5kW", "500W")
    embedded = EmbeddedSite(site_file)
    with pytest.raises(ConfigInvalid, match="below what the site can shed to"):
        asyncio.run(embedded.start())
    assert not embedded.config.site.state_dir.exists(), "no token, no log, no child"


def test_a_controller_that_refuses_its_tables_never_listens(
    site: SiteConfig, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts it waits for its API: one that opens and closes would be taken for a start."""

    async def listened(*_: object) -> None:
        raise AssertionError("it listens, and was not ready to")

    monkeypatch.setattr("wattshift_cluster.api.server.start", listened)
    change("prices.csv", ",40", ",nan")
    with pytest.raises(ConfigInvalid, match=r"prices\.csv:2"):
        asyncio.run(process.run_controller(site))
