"""Pools made for one test each: they say what the test wants, over real sockets."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Share
from wattshift_cluster.mining.session import Deadlines

EASIEST = 1e-9
"""About four hashes a share."""

SHORT = Deadlines(connect_s=1.0, configure_s=0.2, answer_s=0.3, idle_s=1.0)

CALM = Deadlines(connect_s=5.0, configure_s=5.0, answer_s=5.0, idle_s=20.0)
"""Where no deadline is to be met: a busy machine may stall for a second."""

NOTIFY: list[Any] = [
    "j1", "00" * 32, "01", "02", [], "20000000", "1d00ffff", "65000000", True
]  # fmt: skip

Script = Callable[["Miner"], Awaitable[None]]


class Miner:
    """The server's end of one connection, for scripted pools."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.heard: list[str] = []

    async def hear(self) -> dict[str, Any]:
        """The next request but for the one that no old pool ever answers."""
        while True:
            line = await self.reader.readline()
            if not line:
                raise ConnectionResetError
            body: dict[str, Any] = json.loads(line)
            self.heard.append(body.get("method", "answer"))
            if body.get("method") != "mining.extranonce.subscribe":
                return body

    def say(self, **body: Any) -> None:
        self.writer.write(json.dumps(body).encode() + b"\n")

    async def log_in(self, *, authorized: bool = True) -> None:
        """Answer like a pool without extensions and without suggest_difficulty."""
        while True:
            request = await self.hear()
            if request["method"] == "mining.configure":
                self.say(id=request["id"], result={}, error=None)
            if request["method"] == "mining.subscribe":
                self.say(id=request["id"], result=[[], "aabbccdd", 4], error=None)
            if request["method"] == "mining.authorize":
                self.say(id=None, method="mining.set_difficulty", params=[1e-7])
                self.say(id=request["id"], result=authorized, error=None)
                return

    def notify(self, **changes: Any) -> None:
        params = list(NOTIFY)
        for index, value in changes.items():
            params[int(index[1:])] = value
        self.say(id=None, method="mining.notify", params=params)


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[Endpoint, list[Miner]]]:
    miners: list[Miner] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        miner = Miner(reader, writer)
        miners.append(miner)
        try:
            await script(miner)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Endpoint(*server.sockets[0].getsockname()[:2]), miners
    finally:
        server.close()
        for miner in miners:
            miner.writer.transport.abort()


@asynccontextmanager
async def mining_on(at: Endpoint, **more: Any) -> AsyncIterator[StratumClient]:
    backoff = Backoff(random.Random(3), least_s=0.01, first_s=0.02, most_s=0.05)
    more.setdefault("deadlines", SHORT)
    client = StratumClient(f"stratum+tcp://{at}", "rig", backoff=backoff, **more)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 3)


async def until(condition: Callable[[], object], timeout_s: float = 8.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any state of either side, not one event
            await asyncio.sleep(0.005)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await body()

    asyncio.run(bounded())


def found(client: StratumClient) -> Share:
    """A valid share of the client's current job."""
    work = client.next_work()
    assert work is not None
    return work.share(next(nonce for nonce in range(1 << 20) if work.is_share(nonce)))


class JudgingPool:
    """Serves connections; `verdicts` say what becomes of each share, in turn, then all is accepted.

    accept, reject   answer so (a share that it has already is a duplicate)
    cut              take the share, but hang up instead of answering
    drop             hang up without taking it
    deaf             take it and never answer

    Attributes:
        resumes: whether a session id that is given to subscribe again is honoured.
        taken: shares that it has, without the user.
        asked: every mining.submit that came.
        job_id, prevhash: of the job that it tells on each connection.
    """

    def __init__(self, verdicts: Iterable[str] = (), *, resumes: bool = True) -> None:
        self.verdicts = list(verdicts)
        self.resumes = resumes
        self.taken: set[tuple[str, ...]] = set()
        self.asked: list[tuple[str, ...]] = []
        self.logins = 0
        self.job_id, self.prevhash = "j1", "00" * 32
        self.clean = True
        self.heard: list[dict[str, Any]] = []
        self._names = 0

    async def __call__(self, miner: "Miner") -> None:
        while True:
            request = await miner.hear()
            self.heard.append(request)
            answer, error = self._answer(request["method"], request["params"])
            if answer == "hang up":
                return
            if answer is not None:
                miner.say(id=request["id"], result=answer, error=error)
            if request["method"] == "mining.authorize":
                self.logins += 1
                self.tell(miner)

    def tell(self, miner: "Miner") -> None:
        miner.say(id=None, method="mining.set_difficulty", params=[EASIEST])
        miner.notify(_0=self.job_id, _1=self.prevhash, _8=self.clean)

    def _answer(self, method: str, params: list[Any]) -> tuple[Any, Any]:
        match method:
            case "mining.subscribe":
                if len(params) < 2 or not self.resumes:
                    self._names += 1
                name = f"s{self._names}"
                return [[["mining.notify", name]], f"{self._names:08x}", 4], None
            case "mining.configure":
                return {}, None
            case "mining.authorize":
                return True, None
            case "mining.submit":
                return self._judge(tuple(params[1:]))
        return None, None

    def _judge(self, share: tuple[str, ...]) -> tuple[Any, Any]:
        self.asked.append(share)
        verdict = self.verdicts.pop(0) if self.verdicts else "accept"
        if share in self.taken:
            return False, [22, "Duplicate", None]
        if verdict in ("accept", "cut", "deaf"):
            self.taken.add(share)
        answers: dict[str, tuple[Any, Any]] = {
            "accept": (True, None),
            "reject": (False, [20, "Why not", None]),
            "cut": ("hang up", None),
            "drop": ("hang up", None),
            "deaf": (None, None),
        }
        return answers[verdict]
