"""Thousands of miners in one process, each a connection and little else: the loader of the proxy.

A line counts as received when the kernel had it for its miner (SO_TIMESTAMPING): what this one
process then takes to get round to all of its thousands is no machine's wait at a site. The time of
reading is kept beside it. A few miners at random make valid shares of a difficulty of four hashes.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import defaultdict, deque
from typing import Any

from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Extranonce, StratumJob

NOTIFY = b'"mining.notify","params":["'
DIFFICULTY = b'"mining.set_difficulty","params":['
HANDSHAKE = b"".join(
    json.dumps(body).encode() + b"\n"
    for body in (
        {"id": 1, "method": "mining.subscribe", "params": ["bench"]},
        {"id": 2, "method": "mining.extranonce.subscribe", "params": []},
    )
)
AT_ONCE = 200
"""Connections under way at one time."""


SO_TIMESTAMPING, SOFTWARE_RECEIVED = 37, (1 << 3) | (1 << 4)
"""From linux/socket.h and linux/net_tstamp.h: the kernel's own time of what was received."""

TIMES = struct.Struct("6q")
CONTROL_BYTES = socket.CMSG_SPACE(TIMES.size)
READ_BYTES = 64 * 1024


class Miner:
    """One of them."""

    def __init__(self, crowd: Miners, number: int, sock: socket.socket) -> None:
        """Args: number: part of its name; sock: connected."""
        self.number = number
        self.own: Extranonce | None = None
        self.notify: bytes | None = None
        self.difficulty = 0.0
        self._crowd = crowd
        self._sock = sock
        self._rest = b""
        self._next = 0
        loop = asyncio.get_running_loop()
        self.logged_in: asyncio.Future[None] = loop.create_future()
        loop.add_reader(sock, self._read)
        name = {"id": 3, "method": "mining.authorize", "params": [f"m{number}", "x"]}
        sock.send(HANDSHAKE + json.dumps(name).encode() + b"\n")

    def leave(self) -> None:
        """Hang up."""
        self._crowd.here.discard(self)
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        if not self.logged_in.done():
            self.logged_in.set_exception(ConnectionError("hung up before the first job"))

    def _read(self) -> None:
        try:
            data, control, _, _ = self._sock.recvmsg(READ_BYTES, CONTROL_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, control = b"", []
        if not data:
            self.leave()
            return
        read_s = time.monotonic()
        arrived_s = read_s - _waited_s(control)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._heard(line, arrived_s, read_s)

    def _heard(self, line: bytes, arrived_s: float, read_s: float) -> None:
        if (place := line.find(NOTIFY)) >= 0:
            start = place + len(NOTIFY)
            name = line[start : line.index(b'"', start)].decode()
            self.notify = line
            self._crowd.hears(self, name, arrived_s, read_s)
            if not self.logged_in.done():
                self.logged_in.set_result(None)
        elif (place := line.find(DIFFICULTY)) >= 0:
            self.difficulty = float(line[place + len(DIFFICULTY) : line.rindex(b"]")])
        elif self.own is None:
            result = json.loads(line)["result"]
            self.own = Extranonce(bytes.fromhex(result[1]), result[2])

    def submit_one(self) -> None:
        """Find a share of its job and send it."""
        if self.own is None or self.notify is None:
            return
        params = json.loads(self.notify)["params"]
        job = StratumJob.from_notify(params, extranonce=self.own, difficulty=self.difficulty)
        self._next += 1
        work = job.work(self._next.to_bytes(self.own.extranonce2_size, "big"))
        nonce = next((one for one in range(100_000) if work.is_share(one)), None)
        if nonce is not None:
            found = work.share(nonce).submit_params(f"m{self.number}", with_version=False)
            body = {"id": 9, "method": "mining.submit", "params": found}
            self._sock.send(json.dumps(body).encode() + b"\n")


class Miners:
    """All of them.

    Attributes:
        here: connected now.
        newest: number of the newest job that anybody heard.
    """

    def __init__(self, at: Endpoint, count: int) -> None:
        """Args: at: the proxy."""
        self.here: set[Miner] = set()
        self.newest = 0
        self._at = at
        self._count = count
        self._joined = 0
        self._arrived: dict[str, list[float]] = defaultdict(list)
        self._was_read: dict[str, list[float]] = defaultdict(list)
        self._work: dict[str, dict[bytes, Miner]] = defaultdict(dict)
        self._overlaps = 0
        self._rng = random.Random(5)

    def hears(self, miner: Miner, name: str, arrived_s: float, read_s: float) -> None:
        """A miner was told a job: nobody else may have had its part of it, ever."""
        if miner.logged_in.done():  # the first job of a newcomer is an answer to it alone
            self._arrived[name].append(arrived_s)
            self._was_read[name].append(read_s)
        self.newest = max(self.newest, int(name, 16))
        assert miner.own is not None, "a job before the answer to subscribe"
        holder = self._work[name].setdefault(miner.own.extranonce1, miner)
        self._overlaps += holder is not miner

    async def fill(self, deadline_s: float) -> None:
        """Connect until all are there and have a job."""
        waiting: deque[asyncio.Task[None]] = deque()
        async with asyncio.timeout(deadline_s):
            for _ in range(self._count - len(self.here)):
                waiting.append(asyncio.create_task(self._join()))
                if len(waiting) >= AT_ONCE:
                    await waiting.popleft()
            await asyncio.gather(*waiting)

    async def churn(self, count: int, deadline_s: float) -> None:
        """Some leave, as many come."""
        for miner in self._rng.sample(sorted(self.here, key=lambda one: one.number), count):
            miner.leave()
        await self.fill(deadline_s)

    async def grind(self, shares_per_s: float) -> None:
        """Submit shares, about so many a second, until cancelled."""
        while shares_per_s > 0:
            await asyncio.sleep(self._rng.expovariate(shares_per_s))
            if self.here:
                next(iter(self._rng.sample(list(self.here), 1))).submit_one()

    def report(self) -> dict[str, Any]:
        """What was heard when, by job."""
        return {
            "arrived": self._arrived,
            "read": self._was_read,
            "overlaps": self._overlaps,
            "joined": self._joined,
        }

    async def _join(self) -> None:
        number = self._joined
        self._joined += 1
        place = number % self._count
        source = f"127.65.{1 + place // 200}.{1 + place % 200}"
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, SOFTWARE_RECEIVED)
        sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, (self._at.host, self._at.port))
        miner = Miner(self, number, sock)
        self.here.add(miner)
        await miner.logged_in


def _waited_s(control: list[tuple[int, int, bytes]]) -> float:
    """How long what was just read had been there, s; 0 where the kernel does not say."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING) and len(data) >= TIMES.size:
            seconds, nanoseconds, *_ = TIMES.unpack_from(data)
            return max(0.0, time.time() - seconds - nanoseconds * 1e-9) if seconds else 0.0
    return 0.0
