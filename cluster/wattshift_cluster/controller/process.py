"""The controller as a program: `python -m wattshift_cluster.controller.process --site SITE.toml`.

It opens the journal, turns the core, serves HTTP, and ends on SIGTERM. It imports no Ray: a Ray
driver dies with its cluster, a controller must not. Leases that it no longer renews end by
themselves on the agents.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.tokens import TokenStore
from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.process import die_with_parent, stop_event
from wattshift_cluster.wire.token import read_token

DRAIN_S = 2
"""Time for open HTTP requests to end after SIGTERM, s."""

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """uvicorn inside our own event loop: the signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handlers alone."""
        yield


async def run_controller(config: SiteConfig) -> None:
    """Run until SIGTERM or SIGINT. Raises WattshiftError when it cannot start."""
    stop = stop_event()
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    try:
        controller = Controller(config, journal, SteadyClock(), _wire_tokens(config))
        app = create_app(Front(controller), TokenStore(config.site.state_dir))
        server = _server(app, config.api.listen)
        serving = asyncio.create_task(server.serve())
        turning = asyncio.create_task(controller.run(stop, feeds_of(controller)))
        log.info("controller up", site=config.site.name, epoch=controller.state.epoch)
        await asyncio.wait({serving, turning}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        server.should_exit = True
        await asyncio.gather(serving, turning)
    finally:
        journal.close()


def _server(app: object, listen: str) -> _Server:
    host, port = listen.rsplit(":", 1)
    settings = uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host,
        port=int(port),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_S,
        limit_concurrency=256,
    )
    return _Server(settings)


def _wire_tokens(config: SiteConfig) -> dict[str, bytes]:
    tokens = {agent.name: read_token(agent.token_file) for agent in config.agents}
    if config.compute is not None:
        tokens[config.compute.name] = read_token(config.compute.token_file)
    return tokens


def main(argv: list[str] | None = None) -> int:
    """Run the controller of a site file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="wattshift-controller", description=__doc__)
    parser.add_argument("--site", type=Path, required=True, help="the site file")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent ends")
    arguments = parser.parse_args(argv)
    if arguments.with_parent:
        die_with_parent()
    try:
        asyncio.run(run_controller(load_site(arguments.site)))
    except WattshiftError as fault:
        sys.stderr.write(f"{fault}\n")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
