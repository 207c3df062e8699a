"""A simulated fleet that the site's feeders cannot carry at rest is refused before it runs."""

from pathlib import Path

import pytest

from wattshift_cluster.config import blueprint
from wattshift_cluster.config.load import load_site
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.simulate import fleet
from wattshift_cluster.simulate.run import run_simulation

SITE = """
[site]
name = "barn"
state_dir = "state"
margin_pct = 0
[[feeders]]
name = "main"
limit = "90kW"
[[feeders]]
name = "row"
parent = "main"
limit = "{row}"
[[agents]]
name = "rack"
address = "127.0.0.1:9"
token_file = "t"
feeder = "row"
"""


def test_a_fleet_that_cannot_be_carried_at_rest_is_refused_with_the_feeder(tmp_path: Path) -> None:
    site_file, fleet_file = tmp_path / "site.toml", tmp_path / "fleet.json"
    fleet_file.write_text('[{"count": 100, "model": "profiled-asic"}]')
    site_file.write_text(SITE.format(row="3kW"))
    with pytest.raises(ConfigInvalid) as told:
        run_simulation(site_file, fleet=fleet_file, days=0.001)
    (fault,) = told.value.faults
    assert isinstance(fault, Fault)
    assert fault.path == "feeder row"
    assert "3,150 W with every device at its lowest point" in fault.message
    site_file.write_text(SITE.format(row="4kW"))
    config = load_site(site_file, environ={})
    devices = fleet.read_fleet(fleet_file, config)
    assert fleet.fitting(blueprint.site_of(config), devices, "site.toml") is devices
