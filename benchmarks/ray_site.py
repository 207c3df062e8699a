"""A real Ray cluster of three nodes on this host, and a whole site around it, as child processes.

The cluster is the tests' own (`tests/workload/ray_cluster.py`): a head and two raylets on loopback
with 300 W of `power_w` each. The site is started as `wattshift up --address` starts one: a
controller, a bridge, one agent with emulated ASICs. Two nodes hang on one rack's feeder, the third
on another's, and all of it with the ASICs on one connection.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.cannot import CannotRunHere
from benchmarks.rig import ROOT

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.demo.children import Child, listens
from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.wire.link import Link, LinkError
from wattshift_cluster.wire.token import create_token, read_token

NODE_W = 300.0
OTHER_W = 100.0
ASICS = 2
ASLEEP_W = 35.0
"""What an ASIC is leased when it sleeps, and a little more."""

UNMETERED_SHARE = 0.05
"""The site has no meter, so it keeps this margin below every cap."""

READY_S = 90.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Running:
    """A running site on a running cluster.

    Attributes:
        cluster: the tests' `RayCluster`.
        site: its processes.
        client: the controller's HTTP face.
        folder: its files.
        bridge: host and port of the bridge, and its token.
    """

    cluster: Any
    site: EmbeddedSite
    client: ControllerClient
    folder: Path
    bridge: tuple[str, int, bytes]

    async def get(self, path: str, **query: Any) -> Any:
        """GET of the controller."""
        return await asyncio.to_thread(lambda: self.client.get(path, **query))

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST to the controller."""
        return await asyncio.to_thread(self.client.post, path, body)

    async def job(self, job_id: str) -> dict[str, Any]:
        """One job; empty while the controller does not answer."""
        with suppress(WattshiftError):
            row: dict[str, Any] = await self.get(f"/v1/jobs/{job_id}")
            return row
        return {}

    async def report(self) -> dict[str, Any]:
        """What the bridge says now; empty while it does not answer."""
        link = Link(*self.bridge)
        try:
            return await link.call("report")
        except LinkError:
            return {}
        finally:
            await link.close()

    async def cap(self, watts_w: float, lasts_s: float) -> None:
        """An operator's cap, now."""
        await self.post("/v1/caps", {"limit": f"{watts_w:.0f}W", "for": f"{lasts_s:g}s"})


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """Start cluster and site; yield them when every node is up; end all of it.

    Raises:
        CannotRunHere: Ray is not installed, or the site does not get ready on this machine.
    """
    if importlib.util.find_spec("ray") is None:
        raise CannotRunHere("Ray is not installed")
    folder = Path(tempfile.mkdtemp(prefix="wattshift-admission-"))
    say("starting a Ray cluster of three nodes")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [_python_path()])])
    cluster = await asyncio.to_thread(_tests_cluster().RayCluster, folder / "ray", 3)
    os.environ.update(cluster.environment)
    site: EmbeddedSite | None = None
    try:
        site_file = _write(folder, cluster.address)
        site = EmbeddedSite(site_file, cluster.address)
        say("starting the site")
        await site.start(_world(folder))
        compute = site.config.compute
        assert compute is not None, "the site file has a compute section"
        host, port = compute.bridge.rsplit(":", 1)
        token = site.admin_token_file.read_text().strip()
        bridge = (host, int(port), read_token(compute.token_file))
        one = Running(cluster, site, ControllerClient(site.url, token), folder, bridge)
        try:
            await until(lambda: _ready(one), READY_S, "the site did not get ready")
        except NotInTime as slow:
            raise CannotRunHere(str(slow)) from None
        yield one
    finally:
        if site is not None:
            await site.stop()
        await asyncio.to_thread(cluster.close)
        _keep_logs(folder)
        shutil.rmtree(folder, ignore_errors=True)


class NotInTime(RuntimeError):
    """What the site should do it did not do in time; the text says what."""


async def until(holds: Callable[[], Awaitable[object]], within_s: float, otherwise: str) -> float:
    """Look until it holds; how long that took, s. Raises NotInTime when it never does."""
    began_s = time.monotonic()
    while not await holds():
        if time.monotonic() - began_s > within_s:
            raise NotInTime(f"{otherwise} within {within_s:g} s")
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - began_s


def cap_for_w(compute_w: float) -> float:
    """A cap that leaves so much for Ray once every ASIC sleeps, W."""
    return (OTHER_W + ASICS * ASLEEP_W + compute_w) / (1.0 - UNMETERED_SHARE)


def say(text: str) -> None:
    """Tell a person, on stderr."""
    print(f"ray-admission: {text}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


async def _ready(one: Running) -> bool:
    report, rows = await one.report(), (await one.get("/v1/devices"))["devices"]
    up = [row for row in report.get("nodes", ()) if row.get("alive")]
    obeying = len(rows) == ASICS and all(row["state"] == "confirmed" for row in rows)
    return len(up) == 3 and obeying


def _tests_cluster() -> ModuleType:
    path = ROOT / "tests" / "workload" / "ray_cluster.py"
    spec = importlib.util.spec_from_file_location("ray_cluster", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise CannotRunHere("the tests' cluster is not here: it lies in the repository alone")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _python_path() -> str:
    return os.environ.get("PYTHONPATH", "")


def _keep_logs(folder: Path) -> None:
    """Where a folder for them is named, the logs outlive the run."""
    kept = os.environ.get("WATTSHIFT_BENCH_LOGS")
    if kept:
        shutil.copytree(folder / "state" / "logs", kept, dirs_exist_ok=True)
        shutil.copy(folder / "ray" / "cluster.log", kept)


def _world(folder: Path) -> tuple[Child, ...]:
    truth = (folder / "truth.address").read_text()
    argv = (
        sys.executable, "-m", "wattshift_cluster.emulate.process",
        "--config", str(folder / "emulator.json"), "--truth", truth,
    )  # fmt: skip
    return (Child("emulator", argv, ready=lambda: listens(truth)),)


def truth(folder: Path) -> dict[str, Any]:
    """The emulated machines' true watts."""
    address = (folder / "truth.address").read_text()
    with urllib.request.urlopen(f"http://{address}/v1/truth", timeout=5.0) as answer:
        body: dict[str, Any] = json.load(answer)
        return body


def _write(folder: Path, ray_address: str) -> Path:
    """All files of the site; where the site file is."""
    net = f"127.26.{os.getpid() % 250 + 1}"
    for name in ("rack", "compute"):
        create_token(folder / f"{name}.token")
    (folder / "truth.address").write_text(f"127.0.0.1:{free_port()}")
    machines = [
        {"id": f"lux-{i}", "kind": "luxos", "address": f"{net}.{i}", "seed": i}
        for i in range(1, ASICS + 1)
    ]
    (folder / "emulator.json").write_text(json.dumps({"machines": machines}))
    agent = f"127.0.0.1:{free_port()}"
    (folder / "agent.toml").write_text(_agent(agent, machines, folder))
    site_file = folder / "site.toml"
    site_file.write_text(_site(agent, ray_address))
    return site_file


def _agent(address: str, machines: list[dict[str, Any]], folder: Path) -> str:
    asics = "".join(
        f'\n[[asics]]\nid = "{m["id"]}"\naddress = "{m["address"]}"\nemulated = true\n'
        for m in machines
    )
    return f"""\
[agent]
name = "rack"
listen = "{address}"
token_file = "rack.token"
state_dir = "agent-rack"
gate_dir = "{folder / "gates"}"

[hashing]
devices = "none"
{asics}"""


def _site(agent: str, ray_address: str) -> str:
    nodes = "".join(
        f'\n[[compute.nodes]]\nname = "n{i}"\nfeeder = "{feeder}"\nmax = "{NODE_W:.0f}W"\n'
        for i, feeder in enumerate(("rack-a", "rack-a", "rack-b"))
    )
    return f"""\
[site]
name = "admission"
state_dir = "state"
other_load = "{OTHER_W:.0f}W"
margin_pct = 1

[[feeders]]
name = "main"
limit = "8kW"

[[feeders]]
name = "rack-a"
parent = "main"
limit = "660W"

[[feeders]]
name = "rack-b"
parent = "main"
limit = "330W"

[[agents]]
name = "rack"
address = "{agent}"
token_file = "rack.token"
feeder = "main"
config = "agent.toml"

[compute]
name = "host"
bridge = "127.0.0.1:{free_port()}"
serve = "127.0.0.1:{free_port()}"
token_file = "compute.token"
child = true
gated_by_host = false
ray_address = "{ray_address}"
{nodes}
[grid]
default_price_usd_per_mwh = 45

[values]
hashprice_usd_per_ph_day = 42.3

[mining]
devices = ["*"]

[api]
listen = "127.0.0.1:{free_port()}"
"""
