"""What doctor says of feeders: from the site file, and from the controller that runs."""

from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.cli.checks import CHECKS
from wattshift_cluster.cli.feeder_check import feeders
from wattshift_cluster.cli.findings import Place
from wattshift_cluster.cli.status import site_text

SITE = """
[site]
name = "yard"
state_dir = "state"
margin_pct = 0
[[feeders]]
name = "main"
limit = "14kW"
[[feeders]]
name = "a"
parent = "main"
limit = "9kW"
[[feeders]]
name = "b"
parent = "main"
limit = "{b}"
[[feeders]]
name = "rack"
parent = "a"
second_parent = "b"
limit = "8kW"
[api]
listen = "127.0.0.1:18097"
"""


def site_file(folder: Path, b: str) -> Path:
    path = folder / "site.toml"
    path.write_text(SITE.format(b=b))
    return path


def test_a_side_that_carries_less_than_the_rack_may_is_a_warning(tmp_path: Path) -> None:
    found = feeders(Place(site_file(tmp_path, "9kW")))
    assert (found.level, found.text) == ("ok", "4 feeder(s), 1 fed from two sides")
    found = feeders(Place(site_file(tmp_path, "6kW")))
    assert found.level == "warn"
    assert "rack may carry 8kW, but b alone carries 6kW" in found.text
    assert found.mend.startswith("wattshift config show")


@pytest.mark.parametrize(
    ("name", "severity", "level"),
    [
        ("feeder-below-floor:rack", "critical", "fail"),
        ("feeder-below-floor:rack", "warning", "warn"),
        ("device-unseen:rack", "warning", "warn"),
    ],
)
def test_what_the_controller_says_of_feeders_goes_before(
    reach: Any, monkeypatch: pytest.MonkeyPatch, name: str, severity: str, level: str
) -> None:
    site = reach.port.site
    alarm = {
        "id": name, "severity": severity, "text": "feeder rack: too much",
        "since": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    monkeypatch.setattr(reach.port, "site", lambda: site() | {"alarms": [alarm]})
    found = feeders(Place(None, reach.url, reach.secrets["admin"]))
    assert (found.level, found.text) == (level, "feeder rack: too much")
    assert found.mend == f"wattshift explain {name}"
    assert feeders in CHECKS


def test_status_names_both_sides_of_a_feeder_without_a_meter(reach: Any) -> None:
    site = dict(reach.port.site())
    assert "FED BY" not in site_text(site)
    rack = {"id": "rack", "parent": "a", "second_parent": "b", "limit_w": 8e3, "committed_w": 1e3}
    site["feeders"] = [*site["feeders"], rack]
    line = next(line for line in site_text(site).splitlines() if line.startswith("rack "))
    assert " ".join(line.split()[1:]) == "no meter 8.00 kW 1.00 kW a or b"
