"""`[rules]` and the names of sources: what the file says, what the core gets, what is refused."""

import math
from pathlib import Path

import pytest

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.quantities import parse_ramp
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
RULES = """
[rules]
act_at_confidence = 0.8
ramp_up = "6MW/min"
ramp_down = 500
hold = "5m"
stagger = "60s"
min_on = "10m"
min_off = 60
burst_reserve_pct = 95
"""
VTN = """
[[{kind}]]
name = "{name}"
url = "https://vtn.example.org"
ven_name = "me"
"""


def load(folder: Path, more: str) -> SiteConfig:
    file = folder / "site.toml"
    file.write_text(SITE + more)
    return load_site(file, environ={})


def test_the_rules_reach_the_core(tmp_path: Path) -> None:
    rules = blueprint.site_of(load(tmp_path, RULES)).rules
    assert (rules.act_at_confidence, rules.hold_s, rules.stagger_s) == (0.8, 300.0, 60.0)
    assert (rules.ramp_up_w_per_s, rules.ramp_down_w_per_s) == (pytest.approx(1e5), 500.0)
    assert (rules.min_up_s, rules.min_down_s, rules.burst_share) == (600.0, 60.0, 0.95)
    usual = blueprint.site_of(load(tmp_path, "")).rules
    assert (usual.min_up_s, usual.min_down_s, usual.burst_share) == (300.0, 300.0, 0.99)
    assert (usual.ramp_up_w_per_s, usual.ramp_down_w_per_s) == (math.inf, math.inf)
    assert (usual.hold_s, usual.stagger_s) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "w_per_s"), [("60W/min", 1.0), ("30MW/min", 5e5), ("2kW/s", 2e3), (7, 7.0)], ids=str
)
def test_a_ramp_has_a_unit(text: object, w_per_s: float) -> None:
    assert parse_ramp(text) == pytest.approx(w_per_s)


@pytest.mark.parametrize(
    "line",
    ['ramp_up = "30MW"', 'ramp_up = "30mw/min"', "ramp_up = 0", "ramp_down = -5", "ramp_up = nan"],
)
def test_what_is_no_ramp_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"rules\.ramp"):
        load(tmp_path, f"[rules]\n{line}\n")


def test_sources_are_told_apart_by_name(tmp_path: Path) -> None:
    made = load(
        tmp_path, VTN.format(kind="openadr", name="b") + VTN.format(kind="openadr2", name="a")
    )
    assert made.signal_sources == ("b", "a")
    for kind in ("openadr", "openadr2"):
        with pytest.raises(ConfigInvalid, match=rf"{kind}\[0\].name"):
            load(tmp_path, VTN.format(kind=kind, name="operator"))
    with pytest.raises(ConfigInvalid, match=r"openadr2\[0\].name"):
        load(tmp_path, VTN.format(kind="openadr", name="x") + VTN.format(kind="openadr2", name="x"))
