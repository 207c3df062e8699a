"""The loopback VTN as a program, until SIGTERM.

    python -m wattshift_cluster.grid.vtn.process --listen 127.0.0.1:8480

When it answers, one line goes to stdout: {"ready": true, "vtn": "http://host:port", "mqtt": null,
"clients": [{"id", "role", "secret_file"}]}. Exit codes: 0 after SIGTERM or SIGINT (the parent's
death sends SIGTERM), 1 where the port is in use, 3 where something is invalid.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import structlog

from wattshift_cluster.errors import ConfigInvalid, Fault, WattshiftError
from wattshift_cluster.grid.vtn.clients_file import Placed, made_up, read_clients
from wattshift_cluster.grid.vtn.publisher import BrokerSettings
from wattshift_cluster.grid.vtn.script import Step, play, read_script
from wattshift_cluster.grid.vtn.server import OPERATOR, LoopbackVtn, VtnSettings
from wattshift_cluster.process import die_with_parent, stop_event

LISTEN, SECRETS = "127.0.0.1:8480", Path("emulated-vtn")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        listen: host:port, on loopback.
        mqtt: address of a broker; None: no MQTT.
        clients: who may log in; None: two clients with secrets in `secrets`.
        script: what the utility does; None: nothing.
    """

    listen: str = LISTEN
    mqtt: str | None = None
    clients: Path | None = None
    script: Path | None = None
    secrets: Path = SECRETS


def run(wanted: Wanted) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigInvalid: an option or a file.
        WattshiftError: the port is in use.
    """
    host, port = _endpoint(wanted.listen)
    steps = () if wanted.script is None else read_script(wanted.script)
    broker = None if wanted.mqtt is None else BrokerSettings(wanted.mqtt)
    placed = made_up(wanted.secrets) if wanted.clients is None else read_clients(wanted.clients)
    if any(one.client.id == OPERATOR for one in placed):
        raise _wrong("clients", OPERATOR, "this name is the VTN's own")
    asyncio.run(_serve(host, port, steps, broker, placed))


async def _serve(
    host: str,
    port: int,
    steps: tuple[Step, ...],
    broker: BrokerSettings | None,
    placed: Sequence[Placed],
) -> None:
    stopped = stop_event()
    clients = tuple(one.client for one in placed)
    vtn = LoopbackVtn(VtnSettings(clients=clients, broker=broker))
    try:
        url = await vtn.start(host, port)
        told = [
            {"id": one.client.id, "role": one.client.role, "secret_file": str(one.secret_file)}
            for one in placed
        ]
        mqtt = None if broker is None else broker.url
        sys.stdout.write(json.dumps({"ready": True, "vtn": url, "mqtt": mqtt, "clients": told}))
        sys.stdout.write("\n")
        sys.stdout.flush()
        playing = asyncio.create_task(play(steps, vtn), name="vtn-script")
        await stopped.wait()
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    finally:
        await vtn.close()


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    given = _parser().parse_args(argv)
    # stdout carries the ready line only.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    die_with_parent()
    try:
        run(Wanted(given.listen, given.mqtt, given.clients, given.script, given.secrets))
    except WattshiftError as fault:
        sys.stderr.write(f"vtn: {fault}\n")
        return fault.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wattshift emulate vtn", description=__doc__)
    add = parser.add_argument
    add("--listen", default=LISTEN, help="host:port, on loopback")
    add("--mqtt", help="broker to publish on: mqtt://host[:port]")
    add("--clients", type=Path, help="file of those who may log in")
    add("--script", type=Path, help="file of what the utility does")
    add("--secrets", type=Path, default=SECRETS, help="folder for secrets that are made up")
    return parser


def _endpoint(text: str) -> tuple[str, int]:
    """Host and port. Raises ConfigInvalid."""
    host, _, port = text.rpartition(":")
    try:
        fine = ip_address(host.strip("[]")).is_loopback
    except ValueError:
        fine = False
    if not fine or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise _wrong("listen", text, "wanted host:port, with a loopback address")
    return host, int(port)


def _wrong(key: str, value: str, message: str) -> ConfigInvalid:
    return ConfigInvalid([Fault("command line", key, value, message)])


if __name__ == "__main__":
    sys.exit(main())
