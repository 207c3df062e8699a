"""A controller without agents, and a clock that stands still until it is moved."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import Clock
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.said import Say

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
BRIDGE_TOKEN = b"0123456789abcdef0123456789abcdef"
HALL = """
[site]
name = "hall"
state_dir = "state"
margin_pct = 0
[compute]
name = "ray"
bridge = "127.0.0.1:{port}"
token_file = "bridge.token"
[[feeders]]
name = "main"
"""
"""A site with compute; the limit of its main feeder, and its nodes, come after."""
VTN = """
[[openadr]]
name = "utility"
url = "http://127.0.0.1:1/vtn"
ven_name = "site"
"""


class Quiet:
    """A source that says nothing by itself."""

    def __init__(self, name: str = "utility") -> None:
        self.name = name

    async def run(self, say: Say) -> None:
        await asyncio.Event().wait()


class HandClock:
    """Unix time as it is set."""

    def __init__(self, at_s: float = NOW_S) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s


def controller(
    folder: Path, clock: Clock, more: str = "", site: str = SITE, bridge: bytes | None = None
) -> Controller:
    """A controller with the journal of `folder`, to be closed; `bridge` is the bridge's token."""
    file = folder / "site.toml"
    file.write_text(site + more)
    environ: Mapping[str, str] = {}
    config = load_site(file, environ=environ)
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    made = Controller(config, journal, clock, Tokens({}, bridge))
    made.turn(made.inbox.take())
    return made


def turned(made: Controller) -> Controller:
    """The same, after a turn."""
    made.turn(made.inbox.take())
    return made
