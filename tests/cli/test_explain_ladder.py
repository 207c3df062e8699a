"""`wattshift explain` of a device on the ladder, and of a job that takes watts from mining."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from click.testing import Result

Command = Callable[..., Result]

RUNG = {
    "now": None,
    "next": {"mode": "290MHz", "watts_w": 1188.0, "usd_per_mwh": 41.0},
    "marginal_usd_per_mwh": 52.0,
    "price_usd_per_mwh": 20.0,
    "shadow_usd_per_mwh": None,
    "binding": "root",
    "binding_usd_per_mwh": 51.0,
    "cycle_usd": 0.5,
    "payback_s": 1800.0,
    "rule": "cap",
    "why": "it is off because its next rung is worth 41 USD/MWh and the cap's marginal watt 52",
}


def fake(name: str) -> Callable[..., Any]:
    made: Callable[..., Any] = getattr(sys.modules["fakejobs"], name)
    return made


def test_a_device_is_explained_by_its_rung(
    wattshift: Command, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    economics = reach.port.economics

    def told(pattern: str | None, limit: int) -> dict[str, Any]:
        view = economics(pattern, limit)
        return {**view, "devices": [{**one, "rung": RUNG} for one in view["devices"][:1]]}

    monkeypatch.setattr(reach.port, "economics", told)
    text = wattshift("explain", "asic-1").stdout
    for part in (
        "rule       cap: it is off because its next rung is worth 41 USD/MWh",
        "rung       none: it is at its lowest point",
        "next rung  290MHz, 1.19 kW: worth 41.00 USD/MWh",
        "marginal   52.00 USD/MWh",
        "energy     20.00 USD/MWh\n",
        "binds      root: 51.00 USD/MWh with a watt more",
        "cycle      0.50 USD keeps it, paid back in",
    ):
        assert part in text, text
    view = json.loads(wattshift("explain", "asic-1", "-o", "json").stdout)
    assert view["economics"]["rung"] == RUNG
    assert yaml.safe_load(wattshift("explain", "asic-1", "-o", "yaml").stdout) == view


def test_a_controller_that_tells_no_rung_is_no_trouble(wattshift: Command, reach: Any) -> None:
    shown = wattshift("explain", "asic-1")
    assert (shown.exit_code, "next rung" in shown.stdout) == (0, False)


@pytest.mark.parametrize(
    ("usd", "words"),
    [
        (55.0, "mining that goes without would earn 55 USD/MWh with one more"),
        (0.0, "no mining goes without watts for them"),
        (None, "what mining would do with them is not known yet"),
    ],
)
def test_a_job_is_explained_by_what_it_is_worth_and_displaces(
    wattshift: Command, reach: Any, usd: float | None, words: str
) -> None:
    spec = {"kind": "batch", "name": "b", "watts_w": 300.0, "value_usd_per_h": 0.6}
    reach.port.submitted = {
        "b": fake("job_view")("b", spec, state="running", units=2, nodes={"gpu-1": 2}, unit_w=300.0)
    }
    reach.port.nodes = {"gpu-1": fake("node_view")("gpu-1", displaces_usd_per_mwh=usd)}
    feeder = reach.port.nodes["gpu-1"]["feeder"]
    text = wattshift("explain", "b").stdout
    assert "a unit is worth 0.60 USD/h, 2,000 USD/MWh of its watts" in text
    assert f"600 W on gpu-1, feeder {feeder}: {words}" in text
    view = json.loads(wattshift("explain", "b", "-o", "json").stdout)
    assert view["places"] == [
        {
            "node": "gpu-1", "units": 2, "watts_w": 600.0, "feeder": feeder,
            "displaces_usd_per_mwh": usd,
        }
    ]  # fmt: skip
