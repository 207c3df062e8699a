"""`wattshift emulate vtn`: a utility's OpenADR server on this machine, for a dry run."""

import sys
from pathlib import Path

import click
import structlog

from wattshift_cluster.cli.output import talk
from wattshift_cluster.errors import ConfigInvalid, Fault

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--listen", default="127.0.0.1:8480", show_default=True, help="HTTP; loopback.")
@click.option("--mqtt", metavar="URL", help="Publish notices on this broker, too.")
@click.option("--clients", type=FILE, metavar="FILE", help="Who may log in, and as what.")
@click.option("--script", type=FILE, metavar="FILE", help="What the utility does, and when.")
@click.option(
    "--secrets",
    type=click.Path(file_okay=False, path_type=Path),
    default="emulated-vtn",
    show_default=True,
    help="Folder for secrets where no --clients are given.",
)
def vtn(
    listen: str, mqtt: str | None, clients: Path | None, script: Path | None, secrets: Path
) -> None:
    """Serve OpenADR 3.1 as a utility does: OAuth2, programs, events, reports, webhooks, MQTT.

    \b
      wattshift emulate vtn
      wattshift emulate vtn --script cut.yaml --mqtt mqtt://127.0.0.1:1883
      curl http://127.0.0.1:8480/auth/server

    Runs until Ctrl-C and forgets everything then. When it answers, one JSON line on stdout says
    where, and in which files the secrets of its clients are: a site (ven) and a utility (bl),
    unless --clients names others. A script is a list of steps such as
    {after: 5s, event: {...}}. Exit 1 where the port is in use, 3
    where something is invalid.
    """
    try:
        from wattshift_cluster.grid.vtn.process import Wanted, run
    except ModuleNotFoundError as missing:
        what = f"needs the extra 'site' ({missing.name} is not installed)"
        raise ConfigInvalid([Fault("command line", "", None, what)]) from missing
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    talk("A loopback VTN; Ctrl-C ends it")
    run(Wanted(listen, mqtt, clients, script, secrets))
