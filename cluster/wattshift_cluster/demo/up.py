"""`wattshift up SITE.toml`: every part of a site on one machine, as children of this process.

Agents that the site file gives a config for, the compute bridge with its local Ray, and the
controller. Ctrl-C ends them in reverse order; each leaves its devices at their safe point.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from wattshift_cluster.api.tokens import Role, TokenStore, write_private
from wattshift_cluster.client import remove_runtime, write_runtime
from wattshift_cluster.config.compute import Compute
from wattshift_cluster.config.load import load_agent, load_site
from wattshift_cluster.config.site import AgentRef, SiteConfig
from wattshift_cluster.controller.named_files import check_files
from wattshift_cluster.demo.children import Child, Children, listens
from wattshift_cluster.errors import ConfigInvalid, Fault, TryLater
from wattshift_cluster.process import stop_event
from wattshift_cluster.wire.token import create_token

LOCAL_RAY = "local"
BRIDGE_STOP_S = 30.0
"""Ray needs a while to end its own children."""

log = structlog.get_logger()


class PortInUse(TryLater):
    """Something else listens where a part of the site must. `address` says where."""

    def __init__(self, part: str, address: str) -> None:
        super().__init__(
            f"{part}: {address} is in use; end what listens there (ss -ltnp) or choose another "
            "port in the site file"
        )
        self.address = address


class EmbeddedSite:
    """A running site of child processes. `start` it, and always `stop` it."""

    def __init__(self, site_file: Path, ray_address: str | None = None) -> None:
        """Read the site file. Raises ConfigInvalid with every fault, nothing started."""
        flags = {} if ray_address is None else {"compute.ray_address": ray_address}
        if ray_address is not None:
            _uses_ray(load_site(site_file), ray_address)
        self.file = site_file
        self.config: SiteConfig = load_site(site_file, flags=flags)
        self.children = Children(self.config.site.state_dir / "logs")
        self.url = f"http://{self.config.api.listen}"

    @property
    def admin_token_file(self) -> Path:
        """The admin token that `up` writes for the local command line."""
        return self.config.site.state_dir / "admin.token"

    async def start(self, world: Sequence[Child] = ()) -> None:
        """Start everything, outer world first, and wait until each part serves.

        Raises:
            ConfigInvalid: a file that the site file names has faults; nothing was started.
            WattshiftError: a port is taken, or a part could not be started.
        """
        check_files(self.config)
        self._check_ports()
        self._make_tokens()
        for child in world:
            await self.children.start(child)
        await asyncio.gather(
            *(self.children.start(child, deadline_s=90.0) for child in self._parts())
        )
        write_runtime(self.url, self.admin_token_file, self.config.site.state_dir)

    async def stop(self) -> None:
        """End every child in reverse order."""
        await self.children.stop()
        remove_runtime(self.url)

    def _check_ports(self) -> None:
        config = self.config
        _free("api", config.api.listen)
        for path in _agent_files(config.agents):
            agent = load_agent(path)
            _free(f"agent {agent.agent.name}", agent.agent.listen)
        if config.compute is not None and config.compute.child:
            _free("compute bridge", config.compute.bridge)
            if config.compute.ray_address == LOCAL_RAY:
                # On a cluster that runs already, Serve may listen there, and that is right.
                _free("services", config.compute.serve)

    def _make_tokens(self) -> None:
        config = self.config
        config.site.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = [agent.token_file for agent in config.agents if agent.config is not None]
        if config.compute is not None and config.compute.child:
            files.append(config.compute.token_file)
        for path in files:
            if not path.exists():
                create_token(path)
        if not self.admin_token_file.exists():
            secret, _ = TokenStore(config.site.state_dir).create("up", Role.ADMIN)
            write_private(self.admin_token_file, secret + "\n")

    def _parts(self) -> list[Child]:
        parts = [_agent(path) for path in _agent_files(self.config.agents)]
        compute = self.config.compute
        if compute is not None and compute.child:
            parts.append(_bridge(self.config, compute))
        parts.append(_controller(self.file, self.config))
        return parts


def _agent_files(agents: Sequence[AgentRef]) -> list[Path]:
    """Each agent file once, also when several references share it."""
    return list(dict.fromkeys(agent.config for agent in agents if agent.config is not None))


def _agent(path: Path) -> Child:
    agent = load_agent(path).agent
    argv = (sys.executable, "-m", "wattshift_cluster.agent.service", "--config", str(path))
    return Child(f"agent-{agent.name}", argv, ready=lambda: listens(agent.listen))


def _uses_ray(config: SiteConfig, address: str) -> None:
    """Raise ConfigInvalid where `--address` would go unheeded."""
    if config.compute is None:
        why = "this site has no [compute], so it uses no Ray"
    elif not config.compute.child:
        why = "the site file says child = false: its bridge is started elsewhere, with the address"
    elif "://" in address:
        why = "not the address of a cluster; allowed: host:port of its GCS, or local"
    else:
        return
    raise ConfigInvalid([Fault("command line", "--address", address, why)])


def _bridge(config: SiteConfig, compute: Compute) -> Child:
    """The bridge; what Ray's own variables say of tokens it inherits from here."""
    own_w = {node.name: node.max_w for node in compute.nodes}
    serve_host, serve_port = compute.serve.rsplit(":", 1)
    gates = [load_agent(p).agent.gate_dir for p in _agent_files(config.agents)]
    own = compute.gcs_storage if compute.ray_address == LOCAL_RAY else None
    storage = () if own is None else ("--gcs-storage", str(own))
    argv = (
        sys.executable, "-m", "wattshift_cluster.workload.bridge",
        "--listen", compute.bridge, "--name", compute.name,
        "--token-file", str(compute.token_file), "--ray-address", compute.ray_address,
        "--state-dir", str(config.site.state_dir / "compute"),
        "--power-w", str(own_w.get(compute.name, 0.0)),
        "--serve-host", serve_host, "--serve-port", serve_port,
        "--watts-per-core", str(compute.watts_per_core_w),
        "--watts-per-gpu", str(compute.watts_per_gpu_w), *storage,
    )  # fmt: skip
    env = {"WATTSHIFT_GATE_DIR": str(gates[0])} if gates and compute.gated_by_host else {}
    return Child(
        "compute", argv, ready=lambda: listens(compute.bridge), env=env, stop_s=BRIDGE_STOP_S
    )


def _controller(site_file: Path, config: SiteConfig) -> Child:
    argv = (
        sys.executable, "-m", "wattshift_cluster.controller.process",
        "--site", str(site_file), "--with-parent",
    )  # fmt: skip
    return Child("controller", argv, ready=lambda: listens(config.api.listen))


def _free(part: str, address: str) -> None:
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_server((host, int(port))):
            return
    except OSError:
        raise PortInUse(part, address) from None


async def _run(site_file: Path, ray_address: str | None) -> int:
    site = EmbeddedSite(site_file, ray_address)
    stop = stop_event()
    starting = asyncio.create_task(site.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            sys.stderr.write(f"site {site.config.site.name} is up: {_page(site)}\n")
            await stopping
        return 0
    finally:
        starting.cancel()
        stopping.cancel()
        sys.stderr.write("ending: every device goes to its safe point\n")
        await site.stop()


def _page(site: EmbeddedSite) -> str:
    return f"{site.url}/#token={site.admin_token_file.read_text().strip()}"


def run_up(site_file: Path, address: str | None = None) -> int:
    """Run a site until Ctrl-C; returns the exit code.

    Args:
        site_file: the site file.
        address: a running Ray cluster to use instead of the site file's choice.

    Raises:
        ConfigInvalid: the file has faults; nothing was started.
        WattshiftError: a part could not be started; everything has ended again.
    """
    # Files that we make are ours alone.
    os.umask(0o077)
    return asyncio.run(_run(site_file, address))
