"""A real agent with its workers and a loopback pool, and the controller's end of its wire.

The devices are this host's GPUs; where there is none, GPUs of an emulated NVML for which CPUs hash;
where that cannot be built, one CPU. WATTSHIFT_BENCH_DEVICES=gpu|emulated|cpu chooses.

Power is had twice. The controller's view is the agent's readings over the wire; beside them a
sampler of the bench's own looks at the cards a hundred times a second. A CPU has none.
"""

import asyncio
import itertools
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.agent_devices import BACKEND, CONFIG, HASHING, NAME, QUALITY, Kind, devices
from benchmarks.cannot import CannotRunHere
from benchmarks.rig import memory_folder

from wattshift_cluster.agent.gpu import Card, GpuSample, Library, Sampler, find_cards
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import GateInvalid, SeatView
from wattshift_cluster.wire.link import Link, LinkError, Unauthorized
from wattshift_cluster.wire.token import create_token

METER_S = 0.01
REFRESH_OVER_S = 30.0
DIFFICULTY = "1000"
"""Of shares: seconds apart on a GPU, so that submitting them disturbs nothing."""

TTL_S = 15.0
START_S = 150.0
"""Compiling kernels for the first time takes long."""

REACT_S = 10.0
LOOK_S = 0.02
END_S = 15.0


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the power of some devices.

    Attributes:
        at_ns: when it was in our hands, boot clock, ns.
        watts_w: their sum; None if one is unknown.
        age_ns: age of the oldest value among them, then: since the agent looked, or, by the bench's
            own sampler, since the card's value last changed.
    """

    at_ns: int
    watts_w: float | None
    age_ns: int


class AgentRig:
    """The controller's end, and the agent's processes.

    Attributes:
        kind, quality, backend: what the devices are, and how their watts are had.
        gates: the gates' folder; inference joins it there.
        devices: ids, in order.
    """

    def __init__(self, kind: Kind, folder: Path, gates: Path, env: Mapping[str, str]) -> None:
        """Start pool and agent; nothing is waited for."""
        self.kind: Kind = kind
        self.quality, self.backend = QUALITY[kind], BACKEND[kind]
        self.gates = gates
        self.devices: list[str] = []
        self._points: dict[str, tuple[float, float]] = {}
        self._meter: Sampler | None = None
        self._uuids: dict[str, str] = {}
        self._least_w: dict[str, float] = {}
        self._seats: dict[str, SeatView] = {}
        self._sequence = 0
        port, pool_port, status_port = (_free_port() for _ in range(3))
        self._link = Link("127.0.0.1", port, create_token(folder / "token"))
        pool = f"127.0.0.1:{pool_port}"
        text = CONFIG.format(name=NAME, port=port, pool=pool, gates=gates, hashing=HASHING[kind])
        (folder / "agent.toml").write_text(text, encoding="utf-8")
        status = f"--status=127.0.0.1:{status_port}"
        modules = (
            (
                "wattshift_cluster.mining.pool.process",
                f"--listen={pool}",
                status,
                f"--difficulty={DIFFICULTY}",
            ),
            ("wattshift_cluster.agent.service", "--config=agent.toml"),
        )
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=folder,
                env=dict(env),
                stdout=subprocess.DEVNULL,
            )
            for module in modules
        ]

    async def connect(self) -> None:
        """Wait until the agent answers and every worker hashes.

        Raises:
            CannotRunHere: one of them does not within START_S.
        """
        until_s = time.monotonic() + START_S
        while True:
            try:
                said = await self._link.call("hello")
                break
            except Unauthorized:
                raise
            except LinkError as fault:
                if time.monotonic() > until_s or self._processes[1].poll() is not None:
                    raise CannotRunHere(f"no agent: {fault}") from fault
                await asyncio.sleep(0.1)
        for device in said["devices"]:
            points = device["points"]
            if len(points) < 2:
                raise CannotRunHere(f"{device['id']} may not mine: {said['readings']}")
            self.devices.append(device["id"])
            self._points[device["id"]] = (points[0]["watts_w"], points[-1]["watts_w"])
        while len(self._seats) < len(self.devices):
            await self.lease(len(self.devices), 100)
            self._find_seats()
            if time.monotonic() > until_s:
                raise CannotRunHere(f"no worker: {(await self._ask())['readings']}")
            await asyncio.sleep(0.25)

    def measure_with(self, meter: Sampler, cards: Sequence[Card]) -> None:
        """Take a sampler that looks at the agent's cards, running."""
        self._meter = meter
        for card in cards:
            name = f"{NAME}-gpu{card.index}"
            self._uuids[name], self._least_w[name] = card.uuid, card.limit_least_w or 0.0

    def metered(self, count: int, since_ns: int) -> list[Look]:
        """What the bench's own sampler saw of these devices; [] without one."""
        if self._meter is None:
            return []
        span_s = (boot_ns() - since_ns) / 1e9
        uuids = [self._uuids[name] for name in self.devices[:count]]
        windows = [self._meter.window(uuid, span_s) for uuid in uuids]
        common = min(len(window) for window in windows)  # sweeps look at all; the first may differ
        rows = zip(*(window[len(window) - common :] for window in windows), strict=True)
        return [_sum(samples) for samples in rows]

    def refresh_ms(self) -> float | None:
        """How long the first card's power value stays before it changes; None where unknown."""
        if self._meter is None:
            return None
        samples = self._meter.window(self._uuids[self.devices[0]], REFRESH_OVER_S)
        pairs = itertools.pairwise(samples)
        changes = [b.at_boot_s for a, b in pairs if b.watts_w != a.watts_w]
        stays = [(b - a) * 1e3 for a, b in itertools.pairwise(changes)]
        return round(statistics.median(stays), 1) if stays else None

    def pids(self) -> list[int]:
        """Of the agent, the pool and the workers."""
        workers = [seat.read().pid for seat in self._seats.values()]
        return [process.pid for process in self._processes] + workers

    async def lease(self, count: int, pct: int) -> tuple[int, int]:
        """Lease the first `count` devices at once to this share of mining's watts, %.

        Returns:
            Just before the message was sent, and when its reply was in our hands; boot clock, ns.
        """
        now = await self._ask()
        self._sequence += 1
        leases = [self._granted(device, pct, now["boot_s"]) for device in self.devices[:count]]
        sent_ns = boot_ns()
        answer = await self._link.call("exchange", boot_id=now["boot_id"], leases=leases)
        reply_ns = boot_ns()
        refused = [row["reason"] for row in answer["results"] if not row["accepted"]]
        assert not refused, refused
        return sent_ns, reply_ns

    async def launching(self, count: int) -> None:
        """Wait until so many devices hash."""
        before = {name: self._seats[name].read().launches for name in self.devices[:count]}
        await _until(lambda: all(self._seats[n].read().launches > b + 3 for n, b in before.items()))

    async def last_launch_end_ns(self, count: int) -> int:
        """When the last of their launches ended, of those begun before now; boot clock, ns.

        Now is after a reply, so the gates were written. Once a heartbeat lies behind it, nothing is
        under way that had not seen them.
        """
        now_ns = boot_ns()
        seats = [self._seats[name] for name in self.devices[:count]]
        await _until(lambda: all(seat.read().heartbeat_ns > now_ns for seat in seats))
        return max(seat.read().last_launch_end_ns for seat in seats)

    async def watch(self, count: int, seconds: float) -> list[Look]:
        """Look at their power again and again."""
        wanted, looks = set(self.devices[:count]), []
        until_ns = boot_ns() + int(seconds * 1e9)
        while boot_ns() < until_ns:
            answer = await self._ask()
            at_ns = boot_ns()
            rows = [row for row in answer["readings"] if row["device"] in wanted]
            watts = [row["watts_w"] for row in rows if row["watts_w"] is not None]
            oldest_ns = int(min(row["at_boot_s"] for row in rows) * 1e9)
            total_w = sum(watts) if len(watts) == count else None
            looks.append(Look(at_ns, total_w, at_ns - oldest_ns))
            await asyncio.sleep(LOOK_S)
        return looks

    async def limit(self, count: int, limit_w: float) -> tuple[int, int]:
        """Set the power limits of the first `count` devices to this, W, with one message.

        Returns:
            Just before the message was sent, and when its reply was in our hands; boot clock, ns.
        """
        limits = dict.fromkeys(self.devices[:count], limit_w)
        sent_ns = boot_ns()
        await self._link.call("limit", limits=limits)
        return sent_ns, boot_ns()

    def least_limit_w(self, count: int) -> float:
        """The lowest limit that all of these take, W."""
        return max(self._least_w[name] for name in self.devices[:count])

    async def release(self, count: int) -> None:
        """To the safe point, and to the limits that were there before."""
        for device in self.devices[:count]:
            await self._link.call("release", device=device)

    async def close(self) -> None:
        """Hang up."""
        await self._link.close()

    def end(self) -> None:
        """End agent and pool; the agent leaves its devices at their safe points."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _granted(self, device: str, pct: int, boot_s: float) -> dict[str, Any]:
        idle_w, top_w = self._points[device]
        return {
            "device": device,
            "epoch": 1,
            "sequence": self._sequence,
            "mode": "hash" if pct else "idle",
            "watts_w": idle_w + (top_w - idle_w) * pct / 100,
            "valid_until_boot_s": boot_s + TTL_S,
        }

    async def _ask(self) -> dict[str, Any]:
        return await self._link.call("exchange", leases=[])

    def _find_seats(self) -> None:
        for name in set(self.devices) - set(self._seats):
            try:
                seat = SeatView(self.gates / f"{name}.worker")
            except GateInvalid:  # it is still starting
                continue
            if seat.read().launches:
                self._seats[name] = seat
            else:
                seat.close()


@contextmanager
def agent_rig() -> Iterator[AgentRig]:
    """The agent with everything around it. Raises: CannotRunHere."""
    with ExitStack() as stack:
        gates = stack.enter_context(memory_folder())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattshift-bench-")))
        kind, environment = devices(stack, folder, gates)
        rig = AgentRig(kind, folder, gates, environment)
        stack.callback(rig.end)
        if kind != "cpu":
            _meter(stack, rig)
        yield rig


def _meter(stack: ExitStack, rig: AgentRig) -> None:
    """A sampler of the bench's own."""
    library = Library()
    cards = find_cards(library)
    stack.callback(library.close)
    meter = Sampler(library, cards, period_s=METER_S)
    meter.start()
    stack.callback(meter.close)
    rig.measure_with(meter, cards)


async def _until(condition: Any) -> None:
    until_s = time.monotonic() + REACT_S
    while not condition():
        if time.monotonic() > until_s:
            raise RuntimeError(f"a worker did not react within {REACT_S:g} s")
        await asyncio.sleep(0.0003)


def _sum(samples: Sequence[GpuSample]) -> Look:
    watts = [sample.watts_w for sample in samples if sample.watts_w is not None]
    ages = [sample.power_age_s or 0.0 for sample in samples]
    total_w = sum(watts) if len(watts) == len(samples) else None
    at_s = max(sample.at_boot_s for sample in samples)
    return Look(int(at_s * 1e9), total_w, int(max(ages) * 1e9))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
