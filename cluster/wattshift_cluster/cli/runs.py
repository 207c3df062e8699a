"""Commands that run something here until it ends: up, demo, agent, simulate.

Each one only parses its arguments; the work is in the room that it names.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.options import DURATION
from wattshift_cluster.cli.output import output_option

FILE = click.Path(dir_okay=False, path_type=Path)


def run(module: str, function: str, *args: Any, **named: Any) -> None:
    """Call a long-running function of another room and end with the exit code it returns."""
    entry = getattr(importlib.import_module(f"wattshift_cluster.{module}"), function)
    sys.exit(entry(*args, **named))


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=FILE)
@click.option("--address", metavar="RAY", help="Ray cluster to use instead of a local one.")
def up(site_file: Path, address: str | None) -> None:
    """Run a whole site on this machine: controller, agents and a local Ray, as children.

    \b
      wattshift up site.toml
      wattshift up site.toml --address 10.0.0.5:6379

    Ctrl-C ends all of it and leaves every device at its safe point.
    """
    run("demo.up", "run_up", site_file, address)


@click.command()
@click.option("--seconds", type=DURATION, default="60s", show_default=True, help="From ready on.")
@click.option("--headless", is_flag=True, help="No live view.")
@output_option
def demo(seconds: float, headless: bool, output: str) -> None:
    """Run the embedded site through bursts and a cut, and judge its promise from measurements.

    \b
      wattshift demo
      wattshift demo --headless --seconds 60 -o json

    Exit 0 if the promise was kept, 1 if it was broken. JSON is the last line of stdout.
    """
    run("demo.run", "run_demo", seconds, headless, output)


@click.command()
@click.argument("config_file", metavar="CONFIG.toml", type=FILE)
def agent(config_file: Path) -> None:
    """Run the agent of one host or one LAN segment of miners.

    \b
      wattshift agent agent.toml
    """
    run("agent.service", "run_agent", config_file)


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=FILE)
@click.option("--prices", type=FILE, help="CSV: time,usd_per_mwh.")
@click.option("--demand", type=FILE, help="CSV: time,watts of inference.")
@click.option("--signal", type=FILE, help="CSV: starts,ends,limit,kind.")
@click.option("--days", type=click.FloatRange(0, 3660, min_open=True), default=1.0)
@click.option("--seed", type=int, default=0, help="Seed of the faults.")
@output_option
def simulate(site_file: Path, **named: Any) -> None:
    """Run a site file against modelled devices on a simulated clock, with faults from a seed.

    \b
      wattshift simulate site.toml --days 7 --seed 3
      wattshift simulate site.toml --prices prices.csv --signal events.csv -o json
    """
    run("simulate.run", "run_simulation", site_file, **named)
