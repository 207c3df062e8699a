"""A fleet of emulated machines on loopback, what is true of them, and an agent that leases them."""

import asyncio
import json
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere

from wattshift_cluster.wire.link import Link, LinkError
from wattshift_cluster.wire.token import create_token, read_token

START_S = 60.0
END_S = 15.0
ASK_S = 10.0
LEASE_S = 15.0

MIX = "luxos:30,whatsminer:20,whatsminer_v2:10,antminer:15,braiins:10,vnish:10,bitaxe:5"
"""Shares of the kinds: a guess at what a larger site has."""

UNPRIVILEGED = "luxos:50,whatsminer:35,whatsminer_v2:15"
"""Without the right to listen on port 80 there are no machines that speak HTTP."""

AGENT = """
[agent]
name = "fleet"
listen = "127.0.0.1:{port}"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
devices = "none"
"""


def mix() -> str:
    """The kinds that can be emulated here. Raises: CannotRunHere."""
    try:
        with socket.create_server(("127.29.255.254", 80)):
            return MIX
    except PermissionError:
        return UNPRIVILEGED
    except OSError as why:
        raise CannotRunHere(f"port 80 of a loopback address: {why}") from why


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running emulator.

    Attributes:
        truth: host:port of its own HTTP, one for each of its processes.
        asics: the [[asics]] sections for an agent.toml.
    """

    truth: tuple[str, ...]
    asics: str

    def look(self) -> list[dict[str, Any]]:
        """What every machine really does now."""
        return [row for one in self.truth for row in call(one, "/v1/truth")["machines"]]

    def fault(self, ids: Sequence[str], fault: str) -> None:
        """Make machines misbehave, or behave again with "none"."""
        wanted = set(ids)
        for one in self.truth:
            here = [row["id"] for row in call(one, "/v1/truth")["machines"]]
            mine = [name for name in here if name in wanted]
            if mine:
                call(one, "/v1/faults", {"ids": mine, "fault": fault})


@contextmanager
def fleet(folder: Path, count: int, kinds: str, net: str, *, shards: int = 1) -> Iterator[Fleet]:
    """Emulated machines, all hashing, until the block ends."""
    fragment = folder / f"asics-{count}.toml"
    command = [
        *(sys.executable, "-m", "wattshift_cluster.cli", "emulate", "asic"),
        *(f"--fleet={count}", f"--mix={kinds}", f"--net={net}", "--start=full"),
        *("--truth=127.0.0.1:0", f"--shards={shards}", f"--write={fragment}"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else ""
        if not line:
            raise RuntimeError(f"the emulator did not start: {' '.join(command)}")
        said = json.loads(line)
        yield Fleet(tuple(said.get("truths", (said["truth"],))), fragment.read_text())
    finally:
        _end(process)


class FleetAgent:
    """A real agent of these machines, and the controller's end of its wire."""

    def __init__(self, link: Link, process: subprocess.Popen[bytes]) -> None:
        """Nothing is leased."""
        self.link = link
        self.process = process
        self._sequence = 0

    async def ready(self, count: int) -> dict[str, dict[str, Any]]:
        """Its devices by id, once all are identified and have been read."""
        ends_s = time.monotonic() + START_S
        while True:
            try:
                said = await self.link.call("hello")
            except LinkError:
                said = {"devices": [], "readings": []}
            errors = [row for row in said["readings"] if row["error"]]
            known = [one for one in said["devices"] if len(one["points"]) > 1]
            if len(said["readings"]) == count and not errors and len(known) >= 0.95 * count:
                return {one["id"]: one for one in said["devices"]}
            if time.monotonic() > ends_s:
                told = "; ".join(f"{row['device']}: {row['error']}" for row in errors[:5])
                raise RuntimeError(f"{len(errors)} of {count} machines are not ready: {told}")
            await asyncio.sleep(0.5)

    async def clock(self) -> dict[str, Any]:
        """The agent's clock, as a controller has it from the last answer."""
        return await self.link.call("exchange", leases=[])

    async def lease(
        self, wanted: Mapping[str, dict[str, Any]], clock: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Lease points (by device); the readings. Raises: RuntimeError where one is refused."""
        self._sequence += 1
        clock = clock or await self.clock()
        leases = [
            {
                "device": name,
                "epoch": 1,
                "sequence": self._sequence,
                "mode": point["mode"],
                "watts_w": point["watts_w"],
                "valid_until_boot_s": clock["boot_s"] + LEASE_S,
            }
            for name, point in wanted.items()
        ]
        said = await self.link.call("exchange", boot_id=clock["boot_id"], leases=leases)
        refused = [row for row in said["results"] if not row["accepted"]]
        if refused:
            raise RuntimeError(f"{refused[0]['device']} refused a lease: {refused[0]['reason']}")
        readings: list[dict[str, Any]] = said["readings"]
        return readings


@contextmanager
def agent(folder: Path, machines: Fleet) -> Iterator[FleetAgent]:
    """A running agent, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = int(held.getsockname()[1])
    create_token(folder / "token")
    (folder / "agent.toml").write_text(AGENT.format(port=port) + machines.asics)
    command = [sys.executable, "-m", "wattshift_cluster.agent.service", "--config", "agent.toml"]
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stderr=log)
    link = Link("127.0.0.1", port, read_token(folder / "token"), deadline_s=ASK_S)
    try:
        yield FleetAgent(link, process)
    finally:
        _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def call(where: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the truth port of an emulator (see `emulate.truth`)."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{where}{path}", data, ASK_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
