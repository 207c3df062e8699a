"""The loopback pool as a program, until SIGTERM.

    python -m wattshift_cluster.mining.pool.process --listen 127.0.0.1:3333 --status 127.0.0.1:3334

GET /v1/status on the status address tells what was accepted and rejected. When both addresses
listen, one line goes to stdout: {"ready": true, "stratum": "host:port", "status": "host:port"}.
Exit codes: 0 after SIGTERM or SIGINT (the parent's death sends SIGTERM), 1 where a port is in use,
3 where a flag is invalid, 6 where an address is not on loopback. It pays nobody.
"""

import argparse
import asyncio
import json
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from wattshift_cluster.errors import ConfigInvalid, Fault, WattshiftError
from wattshift_cluster.jsonhttp import serve_json
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.coins.server import TONGUES, CoinPool
from wattshift_cluster.mining.pool.listening import NotLoopback
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.process import die_with_parent, stop_event

LISTEN, STATUS = "127.0.0.1:3333", "127.0.0.1:3334"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the pool listens for miners and for questions, and with which certificate and key."""

    listen: str = LISTEN
    status: str = STATUS
    tls_cert: Path | None = None
    tls_key: Path | None = None


def serve(settings: PoolSettings, places: Places) -> None:
    """Run the pool until SIGTERM or SIGINT.

    Raises:
        EndpointInvalid, ConfigInvalid: an address, or the certificate, cannot be used.
        NotLoopback: an address is not on loopback.
        WattshiftError: a port is in use.
    """
    listen, status = Endpoint.parse(places.listen), Endpoint.parse(places.status)
    tls = _tls(places)
    try:
        asyncio.run(_run(settings, listen, status, tls))
    except OSError as fault:
        raise WattshiftError(f"cannot listen: {fault.strerror or fault}") from fault


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # stdout carries the ready line only.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    die_with_parent()
    try:
        settings = PoolSettings(
            difficulty=arguments.difficulty,
            seed=arguments.seed,
            job_every_s=arguments.job_every_s,
            clean_every_s=arguments.clean_every_s,
            algorithm=arguments.algorithm,
        )
        serve(settings, Places(arguments.listen, arguments.status))
    except ValueError as fault:
        sys.stderr.write(f"pool: {fault}\n")
        return 3
    except WattshiftError as fault:
        sys.stderr.write(f"pool: {fault}\n")
        return fault.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wattshift pool serve", description=__doc__)
    add = parser.add_argument
    default = PoolSettings()
    add("--listen", default=LISTEN, help="Stratum address, on loopback")
    add("--status", default=STATUS, help="HTTP address of the status, on loopback")
    add("--difficulty", type=float, default=default.difficulty, help="of shares; 1 is 2^32 hashes")
    add("--algorithm", choices=("sha256d", *TONGUES), default=default.algorithm)
    add("--seed", type=int, default=default.seed, help="of the synthetic templates")
    add("--job-every-s", type=float, default=default.job_every_s, help="time between jobs")
    add("--clean-every-s", type=float, default=default.clean_every_s, help="time between tips")
    return parser


def _tls(places: Places) -> ssl.SSLContext | None:
    if places.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(places.tls_cert, places.tls_key)
    except OSError as fault:  # ssl.SSLError is one
        raise ConfigInvalid([Fault(str(places.tls_cert), "", None, str(fault))]) from fault
    return context


def _pool(settings: PoolSettings, tls: ssl.SSLContext | None) -> LoopbackPool | CoinPool:
    if settings.algorithm == "sha256d":
        return LoopbackPool(settings, tls=tls)
    return CoinPool(TONGUES[settings.algorithm](), settings, tls=tls)


async def _run(
    settings: PoolSettings, listen: Endpoint, status: Endpoint, tls: ssl.SSLContext | None
) -> None:
    stopped = stop_event()
    pool = _pool(settings, tls)
    if not status.is_loopback:
        raise NotLoopback(f"{status}: the status of a loopback pool stays on loopback")
    server = await serve_json(status.host, status.port, {"/v1/status": pool.status})
    try:
        bound = await pool.start(listen)
        page = Endpoint(*server.sockets[0].getsockname()[:2])
        ready = {"ready": True, "stratum": str(bound), "status": str(page)}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        server.close()
        await pool.stop()


if __name__ == "__main__":
    sys.exit(main())
