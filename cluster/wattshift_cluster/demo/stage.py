"""The demo's site, written as the same files that a real site has, into a folder of its own.

Everything listens on loopback: emulated ASICs on addresses of 127.20.0.0/16 with their firmware's
own ports, the rest on free ports. Tokens are made afresh, mode 0600.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.demo.children import Child, listens
from wattshift_cluster.demo.scenario import Scenario
from wattshift_cluster.demo.utility import CLIENT
from wattshift_cluster.grid.vtn.clients_file import made_up
from wattshift_cluster.wire.token import create_token

PAGE = "127.0.0.1:8080"
"""Where the demo's page is promised to be."""

HOST_IDLE_W = 90.0
CORE_W = 110.0
"""Model of this machine's power: idle, and watts per busy core. A CPU has no meter here, so every
figure that rests on these is marked as modelled."""

REPLICA_W = 100.0
BATCH_W = 100.0
HASHPRICE_USD_PER_PH_DAY = 42.3
"""Example of the economics page: difficulty 150T, 100,000 USD/BTC, fees 0.03 BTC a block."""

RESERVE_USD_PER_MWH = 80.0
DIFFICULTY = 4e-4
"""One share per 1.7 million hashes: enough for the statistics from a core that mostly yields, and
some tens a second from one that never does."""

SEED = 7
"""Of the crowd's arrivals and texts."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One emulated ASIC: its id, its firmware, and the rack it hangs in."""

    id: str
    kind: str
    rack: str


MACHINES = (
    Machine("lux-1", "luxos", "rack-a"),
    Machine("lux-2", "luxos", "rack-a"),
    Machine("lux-3", "luxos", "rack-a"),
    Machine("wm-1", "whatsminer", "rack-b"),
    Machine("wm-2", "whatsminer", "rack-b"),
)

RACKS = tuple(sorted({machine.rack for machine in MACHINES}))
"""Each rack is a feeder with an agent of its own."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything of one demo is: folder, addresses, files.

    `calm_factor` is how much the crowd was slowed before the scenario began; 1: not at all.
    """

    folder: Path
    api: str
    truth: str
    meter: str
    pool: str
    pool_status: str
    vtn: str
    bridge: str
    serve: str
    agents: dict[str, str]
    machines: Sequence[Machine]
    addresses: dict[str, str]
    scenario: Scenario
    calm_factor: float = 1.0

    @property
    def site_file(self) -> Path:
        """The site file."""
        return self.folder / "site.toml"

    @property
    def samples_file(self) -> Path:
        """Every sample of the meter."""
        return self.folder / "meter.jsonl"

    @property
    def requests_file(self) -> Path:
        """Every request of the load generator."""
        return self.folder / "requests.jsonl"

    @property
    def load_control_file(self) -> Path:
        """What the load generator re-reads to raise its rate."""
        return self.folder / "load.json"

    @property
    def secrets(self) -> Path:
        """Folder of the secrets of the VTN's clients."""
        return self.folder / "vtn"

    @property
    def utility_secret(self) -> Path:
        """The secret of the utility's own login at the VTN."""
        return self.secrets / f"{CLIENT}.secret"

    @property
    def prices_file(self) -> Path:
        """The price feed."""
        return self.folder / "prices.csv"


def build(folder: Path, scenario: Scenario, api: str = PAGE) -> Stage:
    """Write the demo's site into `folder` (which is made) and return where everything is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    agents = ("host", *RACKS)
    ports = iter(_free_ports(7 + len(agents)))
    # Two demos at once on one machine do not meet: each takes a /24 of its own.
    net = f"127.20.{os.getpid() % 250 + 1}"
    stage = Stage(
        folder=folder,
        api=api,
        truth=f"127.0.0.1:{next(ports)}",
        meter=f"127.0.0.1:{next(ports)}",
        pool=f"127.0.0.1:{next(ports)}",
        pool_status=f"127.0.0.1:{next(ports)}",
        vtn=f"127.0.0.1:{next(ports)}",
        bridge=f"127.0.0.1:{next(ports)}",
        serve=f"127.0.0.1:{next(ports)}",
        agents={name: f"127.0.0.1:{next(ports)}" for name in agents},
        machines=MACHINES,
        addresses={m.id: f"{net}.{i}" for i, m in enumerate(MACHINES, 1)},
        scenario=scenario,
    )
    for name in (*stage.agents, "compute"):
        create_token(folder / f"{name}.token")
    made_up(stage.secrets)  # before the VTN starts: the site's file names one of them
    (folder / "emulator.json").write_text(_emulator(stage))
    (folder / "agent-host.toml").write_text(_host_agent(stage))
    for rack in RACKS:
        (folder / f"agent-{rack}.toml").write_text(_rack_agent(stage, rack))
    stage.site_file.write_text(_site(stage))
    return stage


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _emulator(stage: Stage) -> str:
    rows = [
        {"id": m.id, "kind": m.kind, "address": stage.addresses[m.id], "seed": i}
        for i, m in enumerate(stage.machines, 1)
    ]
    return json.dumps({"machines": rows}, indent=2)


def _host_agent(stage: Stage) -> str:
    return f"""\
[agent]
name = "host"
listen = "{stage.agents["host"]}"
token_file = "host.token"
state_dir = "agent-host"
gate_dir = "{gate_dir(stage)}"
host = "host"

[hashing]
devices = "auto"
cpu_w = "{CORE_W:.0f}W"

[pool]
url = "stratum+tcp://{stage.pool}"
user = "demo.host"
"""


def gate_dir(stage: Stage) -> Path:
    """Where the demo's gates lie: in memory where there is /dev/shm, else in its folder."""
    shared = Path("/dev/shm")
    base = shared if shared.is_dir() and os.access(shared, os.W_OK) else stage.folder
    return base / f"wattshift-demo-{os.getuid()}-{stage.folder.name}"


def _rack_agent(stage: Stage, rack: str) -> str:
    rows = "".join(
        f'\n[[asics]]\nid = "{m.id}"\naddress = "{stage.addresses[m.id]}"\nemulated = true\n'
        for m in stage.machines
        if m.rack == rack
    )
    return f"""\
[agent]
name = "{rack}"
listen = "{stage.agents[rack]}"
token_file = "{rack}.token"
state_dir = "agent-{rack}"
gate_dir = "{gate_dir(stage)}"

[hashing]
devices = "none"
{rows}"""


def _site(stage: Stage) -> str:
    feeders = "".join(
        f'\n[[feeders]]\nname = "{rack}"\nparent = "main"\n'
        "amps = 20\nphases = 3\nmin_voltage = 218\npower_factor = 0.95\n"
        for rack in RACKS
    )
    agents = "".join(_rack_ref(stage, rack) for rack in RACKS)
    return f"""\
[site]
name = "demo"
state_dir = "state"
other_load = "{HOST_IDLE_W + 0.6 * CORE_W:.0f}W"
margin_pct = 1.5

[[feeders]]
name = "main"
limit = "24kW"
{feeders}
[[agents]]
name = "host"
address = "{stage.agents["host"]}"
token_file = "host.token"
feeder = "main"
config = "agent-host.toml"
{agents}
[compute]
name = "host"
bridge = "{stage.bridge}"
serve = "{stage.serve}"
token_file = "compute.token"
feeder = "main"
max = "{2 * REPLICA_W + BATCH_W:.0f}W"
child = true

[meter]
url = "http://{stage.meter}/v1/power"
stale_after = "3s"

[[openadr]]
name = "grid-utility"
url = "http://{stage.vtn}"
client_id = "site"
secret_file = "vtn/site.secret"
ven_name = "demo"
poll = "1s"

[grid]
prices = "prices.csv"
default_price_usd_per_mwh = {stage.scenario.price_usd_per_mwh}

[values]
hashprice_usd_per_ph_day = {HASHPRICE_USD_PER_PH_DAY}
reserve_usd_per_mwh = {RESERVE_USD_PER_MWH}

[mining]
devices = ["*"]

[[services]]
name = "embed"
import_path = "wattshift_cluster.inference.app:app"
watts_per_replica = "{REPLICA_W:.0f}W"
min_replicas = 1
max_replicas = 2
slo_p95 = "400ms"
value_usd_per_h = 5

[api]
listen = "{stage.api}"
"""


def _rack_ref(stage: Stage, rack: str) -> str:
    return f"""
[[agents]]
name = "{rack}"
address = "{stage.agents[rack]}"
token_file = "{rack}.token"
feeder = "{rack}"
config = "agent-{rack}.toml"
"""


def world(stage: Stage) -> tuple[Child, ...]:
    """The processes that stand for the outside world: utility, machines, pool, meter."""
    python = sys.executable
    return (
        # Nobody waits for it: the site asks again, and the utility speaks much later.
        Child(
            "vtn",
            (python, "-m", "wattshift_cluster.grid.vtn.process",
             "--listen", stage.vtn, "--secrets", str(stage.secrets)),
        ),
        Child(
            "emulator",
            (python, "-m", "wattshift_cluster.emulate.process",
             "--config", str(stage.folder / "emulator.json"), "--truth", stage.truth),
            ready=lambda: listens(stage.truth),
        ),
        Child(
            "pool",
            (python, "-m", "wattshift_cluster.mining.pool.process", "--listen", stage.pool,
             "--status", stage.pool_status, "--difficulty", repr(DIFFICULTY)),
            ready=lambda: listens(stage.pool),
        ),
        Child(
            "meter",
            (python, "-m", "wattshift_cluster.grid.own_meter.process", "--listen", stage.meter,
             "--truth", f"http://{stage.truth}/v1/truth",
             "--host-idle-w", str(HOST_IDLE_W), "--host-core-w", str(CORE_W),
             "--log", str(stage.samples_file)),
            ready=lambda: listens(stage.meter),
        ),
    )  # fmt: skip


def load(stage: Stage, url: str) -> Child:
    """The load generator against the inference service at `url`."""
    return Child(
        "load",
        (sys.executable, "-m", "wattshift_cluster.inference.load", "--url", url,
         "--rate", str(stage.scenario.rate_per_s), "--seed", str(SEED),
         "--log", str(stage.requests_file), "--burst-control", str(stage.load_control_file)),
        stop_s=5.0,
    )  # fmt: skip
