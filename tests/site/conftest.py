"""A small real site: emulated machines, their agent, the meter and the controller as processes."""

import asyncio
import json
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.demo.children import Child, listens
from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.wire.token import create_token

TTL_S = 6.0
MACHINES = 3


@dataclass(frozen=True, slots=True)
class SmallSite:
    """Where the parts of the site under test are."""

    folder: Path
    truth: str
    embedded: EmbeddedSite
    world: tuple[Child, ...]

    def client(self) -> ControllerClient:
        token = self.embedded.admin_token_file.read_text().strip()
        return ControllerClient(self.embedded.url, token, deadline_s=3.0)

    def true_w(self) -> float:
        """What the machines really draw now, W."""
        with urllib.request.urlopen(f"http://{self.truth}/v1/truth", timeout=5) as answer:
            body: dict[str, Any] = json.load(answer)
        return float(sum(machine["watts_w"] for machine in body["machines"]))

    async def until(self, holds: Callable[[], bool], deadline_s: float) -> None:
        """Wait until something holds; fail after the deadline."""
        for _ in range(int(deadline_s / 0.1)):
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"{holds.__name__} did not come to hold within {deadline_s} s")


@pytest.fixture
def small_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallSite:
    """The files of the site and the processes of its outer world; nothing runs yet."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    truth, meter, agent, api = (f"127.0.0.1:{free_port()}" for _ in range(4))
    rows = [
        {"id": f"rig-{i}", "kind": "luxos", "address": f"127.21.9.{i}", "seed": i, "start": "full"}
        for i in range(1, MACHINES + 1)
    ]
    (tmp_path / "emulator.json").write_text(json.dumps({"machines": rows}))
    create_token(tmp_path / "agent.token")
    asics = "".join(
        f'[[asics]]\nid = "{r["id"]}"\naddress = "{r["address"]}"\nemulated = true\n' for r in rows
    )
    (tmp_path / "agent.toml").write_text(
        f'[agent]\nname = "rack"\nlisten = "{agent}"\ntoken_file = "agent.token"\n'
        f'state_dir = "agent"\ngate_dir = "gates"\n[hashing]\ndevices = "none"\n{asics}'
    )
    (tmp_path / "schedule.csv").write_text("starts,ends,limit,kind\n")
    (tmp_path / "site.toml").write_text(
        f'[site]\nname = "small"\nstate_dir = "state"\nother_load = "60W"\n'
        f'lease_ttl = "{TTL_S}s"\nlease_renew = "1s"\n'
        '[[feeders]]\nname = "main"\nlimit = "12kW"\n'
        f'[[agents]]\nname = "rack"\naddress = "{agent}"\ntoken_file = "agent.token"\n'
        'feeder = "main"\nconfig = "agent.toml"\n'
        f'[meter]\nurl = "http://{meter}/v1/power"\n'
        '[grid]\nschedule = "schedule.csv"\ndefault_price_usd_per_mwh = 20\n'
        f'[mining]\ndevices = ["*"]\n[api]\nlisten = "{api}"\n'
    )
    world = (
        Child(
            "emulator",
            (sys.executable, "-m", "wattshift_cluster.emulate.process",
             "--config", str(tmp_path / "emulator.json"), "--truth", truth),
            ready=lambda: listens(truth),
        ),
        Child(
            "meter",
            (sys.executable, "-m", "wattshift_cluster.grid.own_meter.process", "--listen", meter,
             "--truth", f"http://{truth}/v1/truth", "--host-idle-w", "50", "--host-core-w", "1",
             "--log", str(tmp_path / "meter.jsonl")),
            ready=lambda: listens(meter),
        ),
    )  # fmt: skip
    return SmallSite(tmp_path, truth, EmbeddedSite(tmp_path / "site.toml"), world)
