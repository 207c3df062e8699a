"""What the agent itself costs a host of eight GPUs: processor time and memory of its process.

A real agent process finds eight emulated H200s through the emulated NVML library, samples them at
its own rate, and exchanges leases once a second with a client that takes the controller's part. No
owner has consented to mining, so no worker runs and every cycle counted is the agent's own. The
emulator's physics runs inside the library, so its cycles are counted too; a real driver's calls
cost something else, which is why the figures are marked as emulated.

    cpu_pct     processor time of the process and its threads, of one core
    rss_mb      the most resident memory seen, 10^6 bytes
    sample_hz   looks per second at the card that was looked at least often, as the emulated cards
                themselves count them: calls less than `ONE_LOOK_NS` apart are one look
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere

from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.build import NvmlNotBuilt, build, child_environment
from wattshift_cluster.emulate.nvml.control import EmulatedCard, EmulatedDriver
from wattshift_cluster.wire.link import Link, LinkError
from wattshift_cluster.wire.token import create_token, read_token

GPUS = 8
WARM_UP_S = 5.0
WINDOW_S = 30.0
EXCHANGE_S = 1.0
LEASE_S = 15.0
START_S = 60.0
ANSWER_S = 10.0
"""A late answer on a busy host is no fault of the agent; what it cost is counted all the same."""

END_S = 15.0
WATCH_S = 0.004
ONE_LOOK_NS = 25_000_000
"""Half of a period at 20 Hz: a look is a row of calls, and the cards' clock ticks every 10 ms."""

CONFIG = """
[agent]
name = "cost"
listen = "127.0.0.1:{port}"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
host = "cost"
[hashing]
devices = "auto"
emulated = true
[pool]
url = "stratum+tls://pool.invalid:3333"
user = "nobody"
"""
"""A pool for which nobody consented: the agent neither asks for its address nor starts a worker."""


def run() -> dict[str, object]:
    """Measure. Raises: CannotRunHere: without a C compiler NVML is not emulated."""
    shared = Path("/dev/shm")
    base = shared if os.access(shared, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="wattshift-bench-", dir=base) as memory,
        tempfile.TemporaryDirectory(prefix="wattshift-bench-") as disk,
    ):
        folder = Path(memory)
        try:
            library = build(Path(disk))  # shared memory is often mounted without execution
        except NvmlNotBuilt as why:
            raise CannotRunHere(str(why)) from why
        with EmulatedDriver(folder / "cards", [models.H200] * GPUS) as driver:
            for place, card in enumerate(driver.cards):
                card.load(place / GPUS)  # a card that never changes might be cheaper to read
            environment = child_environment(library, driver.path)
            with agent(folder, environment) as (pid, link):
                return asyncio.run(_measure(pid, link, driver.cards))


@contextmanager
def agent(folder: Path, environment: dict[str, str]) -> Iterator[tuple[int, Link]]:
    """A running agent's process id and a link to it. Raises: RuntimeError when it does not run."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = int(held.getsockname()[1])
    create_token(folder / "token")
    (folder / "agent.toml").write_text(CONFIG.format(port=port))
    said = folder / "agent.log"
    command = [sys.executable, "-m", "wattshift_cluster.agent.service", "--config", "agent.toml"]
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
    try:
        token = read_token(folder / "token")
        yield process.pid, Link("127.0.0.1", port, token, deadline_s=ANSWER_S)
    except LinkError as fault:
        tail = said.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the agent does not answer: {fault}\n{tail}") from fault
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _measure(pid: int, link: Link, cards: Sequence[EmulatedCard]) -> dict[str, object]:
    devices = await _devices(pid, link)
    exchanges = 0
    watch = CardWatch(cards)
    most_b = 0
    begin: Spent | None = None
    began_s = time.monotonic()
    try:
        while True:
            await _exchange(link, devices, exchanges + 1)
            exchanges += 1
            now = Spent.now(pid)
            if begin is None and now.at_s - began_s >= WARM_UP_S:
                begin, first_exchange = now, exchanges
                watch.start()
            if begin is not None:
                most_b = max(most_b, resident_b(pid))
                if now.at_s - begin.at_s >= WINDOW_S:
                    break
            await asyncio.sleep(EXCHANGE_S - (time.monotonic() - began_s) % EXCHANGE_S)
    finally:
        looks, watched_s = watch.end()
        await link.close()
    return {
        "cpu_pct": round(now.since(begin) * 100, 3),
        "rss_mb": round(most_b / 1e6, 1),
        "sample_hz": round(min(looks) / watched_s, 2),
        "gpus": len(devices),
        "seconds": round(now.at_s - begin.at_s, 1),
        "samples": {"exchanges": exchanges - first_exchange, "looks": sum(looks)},
        "quality": "emulated",
    }


async def _devices(pid: int, link: Link) -> list[dict[str, Any]]:
    """The agent's GPUs, once it listens. Raises: RuntimeError, LinkError."""
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            said = await link.call("hello")
            break
        except LinkError:
            if time.monotonic() > deadline_s or _ended(pid):
                raise
            await asyncio.sleep(0.1)
    devices = [one for one in said["devices"] if one["kind"] == "gpu"]
    wrong = [one["id"] for one in devices if one["quality"] != "emulated"]
    if len(devices) != GPUS or wrong:
        raise RuntimeError(f"{len(devices)} GPUs instead of {GPUS}; not emulated: {wrong}")
    return devices


async def _exchange(link: Link, devices: Sequence[dict[str, Any]], sequence: int) -> None:
    """Renew the lease of every device, as a controller does."""
    clock = await link.call("exchange", leases=[])
    leases = [
        {
            "device": one["id"],
            "epoch": 1,
            "sequence": sequence,
            "mode": one["points"][0]["mode"],
            "watts_w": one["points"][0]["watts_w"],
            "valid_until_boot_s": clock["boot_s"] + LEASE_S,
        }
        for one in devices
    ]
    answer = await link.call("exchange", boot_id=clock["boot_id"], leases=leases)
    refused = [row["reason"] for row in answer["results"] if not row["accepted"]]
    if refused:
        raise RuntimeError(f"a lease was refused: {refused[0]}")


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time of a process and all its threads so far, s, and when that was read."""

    at_s: float
    cpu_s: float

    @classmethod
    def now(cls, pid: int) -> "Spent":
        """Read it from /proc/PID/stat (proc_pid_stat(5): fields 14 and 15)."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return cls(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"))

    def since(self, before: "Spent") -> float:
        """Share of one core since then."""
        return (self.cpu_s - before.cpu_s) / (self.at_s - before.at_s)


class CardWatch:
    """Counts the looks at each emulated card in their shared memory; costs the agent nothing."""

    def __init__(self, cards: Sequence[EmulatedCard]) -> None:
        self._cards = tuple(cards)
        self._looks = [0] * len(self._cards)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began_s = self._ended_s = time.monotonic()

    def start(self) -> None:
        """Count from now on."""
        self._began_s = time.monotonic()
        self._thread.start()

    def end(self) -> tuple[list[int], float]:
        """Stop; looks at each card, and over how many seconds."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self._looks, max(self._ended_s - self._began_s, 1e-9)

    def _watch(self) -> None:
        last_ns = [card.truth().at_ns for card in self._cards]
        while not self._over.wait(WATCH_S):
            for place, card in enumerate(self._cards):
                at_ns = card.truth().at_ns
                if at_ns - last_ns[place] >= ONE_LOOK_NS:
                    last_ns[place] = at_ns
                    self._looks[place] += 1
        self._ended_s = time.monotonic()


def resident_b(pid: int) -> int:
    """Resident memory of a process, bytes (VmRSS of /proc/PID/status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS: it has ended")


def _ended(pid: int) -> bool:
    """Whether our child has ended; it stays a zombie until it is waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
