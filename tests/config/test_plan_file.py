"""`[plan]` of site.toml: what is read, what is refused, and where a plan is made by default."""

from pathlib import Path

import pytest

from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.errors import ConfigInvalid

SITE = """
[site]
name = "s"
state_dir = "state"
[[feeders]]
name = "main"
limit = "10MW"
"""
METER = '[meter]\nurl = "http://127.0.0.1:9/p"\n'
PRICES = '[[market.prices]]\nname = "day-ahead"\nfile = "p.csv"\n'


def load(folder: Path, more: str) -> SiteConfig:
    (folder / "site.toml").write_text(SITE + more)
    return load_site(folder / "site.toml", environ={})


def faults(folder: Path, more: str) -> str:
    with pytest.raises(ConfigInvalid) as refused:
        load(folder, more)
    return str(refused.value)


def test_what_the_file_says(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        METER + '[plan]\nhorizon = "24h"\nstep = "5m"\nperiod = "2m"\ndemand_charge = 12.5\n'
        'carbon_usd_per_t = 80\ntime_limit = "10s"\n',
    ).plan
    assert plan.intervals == 288
    assert (plan.period_s, plan.time_limit_s) == (120.0, 10.0)
    assert (plan.demand_charge_usd_per_kw, plan.carbon_usd_per_t) == (12.5, 80.0)
    usual = load(tmp_path, "").plan
    assert (usual.intervals, usual.period_s) == (144, 300.0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[plan]\nstep = "7m"\n', "must be whole minutes that divide an hour"),
        ('[plan]\nhorizon = "5h"\n', "out of range; allowed: 6h to 2d"),
        ('[plan]\ntime_limit = "60s"\nperiod = "30s"\n', "time_limit is longer than period"),
        ("[plan]\ndemand_charge = -1\n", "out of range; allowed: 0USD/kW to 10000USD/kW"),
        ("[plan]\ndemand_charge = 12\n", "plan.demand_charge = 12.0: is counted by the site meter"),
        ("[plan]\npeak_charge = 60\n", "allowed: with [[market.peaks]]"),
        ("[plan]\nhorizont = 60\n", "did you mean horizon?"),
        (
            '[plan]\nenabled = "maybe"\n',
            'plan.enabled = "maybe": not a boolean; allowed: true, false',
        ),
        ("[plan]\nenabled = 2\n", "plan.enabled = 2: not a boolean; allowed: true, false"),
    ],
)
def test_what_is_refused(tmp_path: Path, more: str, told: str) -> None:
    assert told in faults(tmp_path, more)


def test_a_plan_is_made_where_something_is_known_beforehand(tmp_path: Path) -> None:
    assert not load(tmp_path, "").wants_plan, "one price and no events: the ladder does as well"
    assert load(tmp_path, PRICES).wants_plan
    assert load(tmp_path, METER + "[plan]\ndemand_charge = 1\n").wants_plan
    assert load(tmp_path, "[plan]\nenabled = true\n").wants_plan
    assert not load(tmp_path, PRICES + "[plan]\nenabled = false\n").wants_plan
    assert load(tmp_path, '[plan]\nenabled = "yes"\n').wants_plan, "the environment has only text"
    assert not load(tmp_path, PRICES + '[plan]\nenabled = "False"\n').wants_plan
    drill = '[[drills]]\nname = "weekly"\ndays = ["tue"]\nat = "14:00"\nduration = "10m"\n'
    assert not load(tmp_path, drill + 'shed = "2kW"\n').wants_plan, "practice is no use"
