"""Sweeps of watts and hashrate over many machines, here or in a process of its own.

python -m benchmarks.asic_poller < addresses      then one line in for each sweep, one line out
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wattshift_cluster.agent.asics.contact import connect_by_probe
from wattshift_cluster.asic.driver import AsicDriver, AsicRefused, AsicUnreachable
from wattshift_cluster.config.agent import Asic

AT_ONCE = 128
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Swept:
    """One sweep: seconds, processor time of this process, and machines without a hashrate."""

    wall_s: float
    cpu_s: float
    unread: int


async def connected(addresses: Sequence[str]) -> list[AsicDriver]:
    """A driver for each. Raises: AsicUnreachable, AsicRefused: one cannot be had."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, address: str) -> AsicDriver:
        async with room:
            driver = await connect_by_probe(
                Asic.model_validate({"id": f"m-{number}", "address": address, "emulated": True})
            )
            await driver.identify()
            return driver

    return await asyncio.gather(*(one(*pair) for pair in enumerate(addresses)))


async def sweep(drivers: Sequence[AsicDriver]) -> Swept:
    """Poll all of them once."""
    wall_s, cpu_s = time.monotonic(), time.process_time()
    rows = await asyncio.gather(*(driver.poll() for driver in drivers), return_exceptions=True)
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    unread = 0
    for row in rows:
        if isinstance(row, BaseException):
            if not isinstance(row, AsicUnreachable | AsicRefused):
                raise row
            unread += 1
        else:
            unread += row.hashrate_h_per_s is None
    return Swept(wall_s, cpu_s, unread)


class Poller:
    """A process that polls its part of the machines."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.asic_poller"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send(json.dumps(list(addresses)))

    def ready(self) -> int:
        """Wait until it is connected to all; machines that its first sweep could not read."""
        return self.swept().unread

    def begin(self) -> None:
        """Let it sweep."""
        self._send("sweep")

    def swept(self) -> Swept:
        """Wait for the end of a sweep. Raises: RuntimeError where the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a poller ended")
        return Swept(**json.loads(line))

    def rss_mb(self) -> float:
        """Its resident memory, 10^6 bytes."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("a poller ended")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


async def _serve() -> None:
    addresses = json.loads(sys.stdin.readline())
    drivers = await connected(addresses)
    while True:
        sys.stdout.write(json.dumps(asdict(await sweep(drivers))) + "\n")
        sys.stdout.flush()
        if not await asyncio.to_thread(sys.stdin.readline):
            return


if __name__ == "__main__":
    asyncio.run(_serve())
