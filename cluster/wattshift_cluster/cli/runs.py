"""Commands that run something here until it ends: up, demo, agent.

Each one only parses its arguments; the work is in the room that it names. Rooms are imported when
they are called, so that an agent's host needs nothing of the others.
"""

import asyncio
import sys
from pathlib import Path

import click
import structlog

from wattshift_cluster.cli.options import DURATION
from wattshift_cluster.errors import WattshiftError

FILE = click.Path(dir_okay=False, path_type=Path)


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
    from wattshift_cluster.demo.up import run_up

    sys.exit(run_up(site_file, address))


@click.command()
@click.option("--seconds", type=DURATION, default="120s", show_default=True, help="From ready on.")
@click.option("--headless", is_flag=True, help="No live view.")
@click.option("--report-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def demo(seconds: float, headless: bool, report_dir: Path | None, output: str) -> None:
    """Run the embedded site through bursts and a cut, and judge its promise from measurements.

    \b
      wattshift demo
      wattshift demo --headless --seconds 60 -o json

    Exit 0 if the promise was kept, 1 if it was broken. JSON is the last line of stdout.
    """
    from wattshift_cluster.demo.run import run_demo

    sys.exit(run_demo(seconds, headless, output, report_dir))


@click.command()
@click.argument("config_file", metavar="CONFIG.toml", type=FILE)
def agent(config_file: Path) -> None:
    """Run the agent of one host or one LAN segment of miners.

    \b
      wattshift agent agent.toml
    """
    from wattshift_cluster.agent.service import serve
    from wattshift_cluster.config.load import load_agent

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        asyncio.run(serve(load_agent(config_file)))
    except OSError as fault:
        raise WattshiftError(str(fault)) from fault
