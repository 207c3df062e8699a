"""A controller without agents, and a clock that stands still until it is moved."""

from collections.abc import Mapping
from pathlib import Path

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens

NOW_S = 1_900_000_020.0
SITE = """
[site]
name = "s"
state_dir = "state"
margin_pct = 0
other_load = "500W"
[[feeders]]
name = "main"
limit = "10MW"
[grid]
default_price_usd_per_mwh = 20
"""


class HandClock:
    """Unix time as it is set."""

    def __init__(self, at_s: float = NOW_S) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s


def controller(folder: Path, clock: Clock, more: str = "") -> Controller:
    """A controller with the journal of `folder`; close it with `stop`."""
    file = folder / "site.toml"
    file.write_text(SITE + more)
    environ: Mapping[str, str] = {}
    config = load_site(file, environ=environ)
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    made = Controller(config, journal, clock, Tokens({}, None))
    made.turn(made.inbox.take())
    return made


def turned(made: Controller) -> Controller:
    """The same, after a turn."""
    made.turn(made.inbox.take())
    return made
