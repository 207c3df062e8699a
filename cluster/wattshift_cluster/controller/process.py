"""The controller as a program: `python -m wattshift_cluster.controller.process --site SITE.toml`.

It opens the journal, turns the core, serves HTTP, and ends on SIGTERM. It imports no Ray: a Ray
driver dies with its cluster, a controller must not. Leases that it no longer renews end by
themselves on the agents.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import structlog

from wattshift_cluster.api import server
from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.tokens import TokenStore
from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.pages import keep_pages
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.process import die_with_parent, stop_event
from wattshift_cluster.wire.token import read_token

log = structlog.get_logger()


async def run_controller(config: SiteConfig) -> None:
    """Run until SIGTERM or SIGINT. Raises WattshiftError when it cannot start."""
    stop = stop_event()
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    try:
        controller = Controller(config, journal, SteadyClock(), _wire_tokens(config))
        feeds = feeds_of(controller)  # who waits for the API must not be told that all is well
        app = create_app(Front(controller), TokenStore(config.site.state_dir))
        host, port = config.api.listen.rsplit(":", 1)
        api = await server.start(app, host, int(port))
        log.info("controller up", site=config.site.name, epoch=controller.state.epoch)
        try:
            await controller.run(stop, feeds)
        finally:
            await api.close()
    finally:
        journal.close()


def _wire_tokens(config: SiteConfig) -> Tokens:
    agents = {agent.name: read_token(agent.token_file) for agent in config.agents}
    compute = config.compute
    return Tokens(agents, None if compute is None else read_token(compute.token_file))


def main(argv: list[str] | None = None) -> int:
    """Run the controller of a site file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="wattshift-controller", description=__doc__)
    parser.add_argument("--site", type=Path, required=True, help="the site file")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent ends")
    arguments = parser.parse_args(argv)
    if arguments.with_parent:
        die_with_parent()
    keep_pages()
    try:
        asyncio.run(run_controller(load_site(arguments.site)))
    except WattshiftError as fault:
        sys.stderr.write(f"{fault}\n")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
