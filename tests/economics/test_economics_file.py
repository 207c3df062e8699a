"""`[economics]` of site.toml: what is read, and the faults that are named."""

from pathlib import Path

import pytest

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.hashprice import hashprice_feed
from wattshift_cluster.errors import ConfigInvalid
from wattshift_scheduler.hashprice import Scheme

SITE = """
[site]
name = "barn"
state_dir = "state"
[[feeders]]
name = "main"
limit = "14kW"
[economics]
"""


def site(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE + text)
    return path


def test_without_a_source_nobody_is_asked(tmp_path: Path) -> None:
    config = load_site(site(tmp_path, ""), environ={})
    assert hashprice_feed(config, 0.0) is None


def test_a_server_is_asked_as_the_file_says(tmp_path: Path) -> None:
    text = 'url = "http://127.66.0.3:8999/"\nscheme = "pps+"\npoll = "10m"\nstale_after = "1d"\n'
    config = load_site(site(tmp_path, text), environ={})
    feed = hashprice_feed(config, 0.0)
    assert feed is not None
    assert feed.source.name == "http://127.66.0.3:8999"
    terms = feed.terms
    assert (terms.scheme, terms.poll_s, terms.stale_after_s) == (Scheme.PPS_PLUS, 600.0, 86_400.0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('url = "http://h"\nhistory = "h.csv"', "has both history and url"),
        ('url = "http://h"\npoll = "1h"\nstale_after = "90m"', "at least twice poll, 2h"),
        ('url = "ftp://h"', "allowed: http://host"),
        ('scheme = "solo"', "scheme"),
        ("jump = 1", "1.5"),
        ("confirm_samples = 0", "1 to 1000"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_site(site(tmp_path, text), environ={})
    assert fault in str(refused.value)


def test_a_history_with_faults_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("time,usd_per_ph_day\n1,cheap\n")
    config = load_site(site(tmp_path, 'history = "h.csv"'), environ={})
    with pytest.raises(ConfigInvalid, match=r"h\.csv:2"):
        hashprice_feed(config, 0.0)
