"""The proxy as a program, until SIGTERM: from its file to sockets, once the owner agrees.

When it listens, one line goes to stdout: {"ready": true, "stratum": "host:port", "status":
"host:port"}.
"""

import asyncio
import json
import ssl
import sys
from collections.abc import Callable, Collection

from wattshift_cluster.config.proxy import ProxyConfig
from wattshift_cluster.errors import ConfigInvalid, Fault, Refused, WattshiftError
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pools import Account, PoolRotation
from wattshift_cluster.mining.proxy.page import serve_page
from wattshift_cluster.mining.proxy.server import OnJob, ProxyServer
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_cluster.mining.proxy.sockets import room_for
from wattshift_cluster.mining.standing import Patience
from wattshift_cluster.process import stop_event

MayMine = Callable[[str, str], str | None]
"""Pool and account → why the owner does not allow to mine there; None when he does."""


def serve(
    config: ProxyConfig, may_mine: MayMine, consented: Collection[Endpoint] | None = None
) -> None:
    """Run the proxy until SIGTERM or SIGINT.

    Args:
        config: the parsed proxy.toml.
        may_mine: asked for every pool before anything else happens.
        consented: addresses that the owner has named; see `mining.redirect`.

    Raises:
        Refused: the owner has not agreed to one of the pools or accounts.
        ConfigInvalid, EndpointInvalid: a certificate or an address cannot be used.
        WattshiftError: a port is in use, or too few open files are allowed.
    """
    for pool in (config.pool, *config.pool.fallback):
        if (why := may_mine(pool.url, pool.user)) is not None:
            raise Refused(why)
    room_for(config.proxy.max_sessions)
    tls = _tls(config)
    try:
        asyncio.run(_run(config, consented, tls))
    except OSError as fault:
        raise WattshiftError(f"cannot listen: {fault.strerror or fault}") from fault


def settings_of(config: ProxyConfig) -> ProxySettings:
    """What the file says of miners."""
    section = config.proxy
    return ProxySettings(
        max_sessions=section.max_sessions,
        max_per_address=section.max_per_address,
        hold_s=config.pool.hold_s,
        per_worker=section.per_worker,
        start_difficulty=section.start_difficulty,
        least_difficulty=section.least_difficulty,
        shares_per_minute=section.shares_per_minute,
        workers={worker.name: worker.device for worker in config.workers},
        only_known=section.only_known,
        idle_s=section.idle_s,
    )


def _upstream(
    config: ProxyConfig, consented: Collection[Endpoint] | None, on_job: OnJob
) -> PoolRotation:
    pool = config.pool
    return PoolRotation(
        [Account.of(one) for one in (pool, *pool.fallback)],
        on_job=on_job,
        patience=Patience(give_up_s=pool.give_up_s, return_after_s=pool.return_after_s),
        consented=consented,
    )


def _tls(config: ProxyConfig) -> ssl.SSLContext | None:
    """What the miners are spoken to with; None: plain text."""
    certificate, key = config.proxy.tls_cert, config.proxy.tls_key
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as fault:  # ssl.SSLError is one
        raise ConfigInvalid([Fault(str(certificate), "", None, str(fault))]) from fault
    return context


async def _run(
    config: ProxyConfig, consented: Collection[Endpoint] | None, tls: ssl.SSLContext | None
) -> None:
    stopped = stop_event()
    proxy = ProxyServer(settings_of(config), lambda on_job: _upstream(config, consented, on_job))
    page = await serve_page(proxy, Endpoint.parse(config.proxy.status))
    mining = asyncio.create_task(proxy.run())
    try:
        bound = await proxy.start(Endpoint.parse(config.proxy.listen), tls)
        status = Endpoint(*page.sockets[0].getsockname()[:2])
        ready = {"ready": True, "stratum": str(bound), "status": str(status)}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await _until(stopped, mining)
    finally:
        page.close()
        await proxy.stop()
        mining.cancel()
        await asyncio.gather(mining, return_exceptions=True)


async def _until(stopped: asyncio.Event, mining: asyncio.Task[None]) -> None:
    """Wait for the stop; an upstream that ends before is a fault and is raised."""
    stopping = asyncio.create_task(stopped.wait())
    done, _ = await asyncio.wait({stopping, mining}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if mining in done:
        mining.result()
