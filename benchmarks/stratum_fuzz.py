"""Both ends of Stratum under made-up bytes, led by the lines of code that an input has reached.

Each run is a whole conversation: a client session that a pool talks to, or the loopback pool that a
miner talks to, over streams in memory. Inputs are mutated from good conversations; one that reaches
a line, or a pair of lines, that none had reached before is kept and mutated further. What may come
of it is the end of that connection, with a reason. Anything else is a fault, and its input is
printed: another exception, one that nobody retrieved, or a conversation that does not end.

    seconds              how long (WATTSHIFT_BENCH_SECONDS, 20 without; a night takes what it likes)
    runs, corpus         conversations, and those that were kept
    lines                lines of the mining room that were reached
    faults               see above
    rss_growth_mb        of the process from a tenth of the time to the end
"""

import asyncio
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Extranonce
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.session import Deadlines, Login, Resume, Session, SessionEnded

SECONDS_VARIABLE = "WATTSHIFT_BENCH_SECONDS"
SECONDS = 20.0
LONGEST_RUN_S = 5.0
MOST_LINES, MOST_CORPUS, MOST_FAULTS = 16, 4096, 20

ZEROS = "00" * 32
NOTIFY = ["j", ZEROS, "01", "02", [ZEROS], "20000000", "1d00ffff", "65000000", True]
WILD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**64, 10**400, 0.5, -0.0, 1e300, math.nan, math.inf,
    "", "0", "zz", "00", "\ud800", "\x00\x1b[31m", "f" * 65, "00" * 40_000, [], {}, [[]],
    [None] * 40, {"code": 21, "message": "stale"}, [20, "x", None], {"version-rolling": True},
)  # fmt: skip

Conversation = tuple[bool, tuple[bytes, ...]]
"""Whether it is the pool that speaks, and its lines."""


def line(**body: Any) -> bytes:
    """One message."""
    return json.dumps(body).encode()


def seeds() -> list[Conversation]:
    """Good conversations, each message type in one of them."""
    mask = {"version-rolling": True, "version-rolling.mask": "1fffe000", "minimum-difficulty": True}
    told: dict[str, list[Any]] = {
        "mining.set_difficulty": [0.5],
        "mining.notify": NOTIFY,
        "mining.set_extranonce": ["aa", 2],
        "mining.set_version_mask": ["00006000"],
        "client.show_message": ["hello"],
        "client.get_version": [],
        "mining.ping": [],
        "client.reconnect": ["", 3333, 1],
    }
    asked: dict[str, list[Any]] = {
        "mining.configure": [["version-rolling"], {"version-rolling.mask": "1fffe000"}],
        "mining.subscribe": ["miner", "1"],
        "mining.authorize": ["rig", "x"],
        "mining.extranonce.subscribe": [],
        "mining.suggest_difficulty": [0.5],
        "mining.submit": ["rig", "1.1", "00000000", "65000000", "00000000", "00002000"],
    }
    pool = (
        line(id=1, result=mask, error=None),
        line(id=2, result=[[["mining.notify", "s"]], "aabb", 4], error=None),
        line(id=3, result=True, error=None),
        *(line(id=None, method=method, params=params) for method, params in told.items()),
        line(id=4, result=False, error=[21, "Stale", None]),
    )
    miner = (line(id=n, method=name, params=asked[name]) for n, name in enumerate(asked))
    return [(True, pool), (False, tuple(miner))]


class Sink(asyncio.Transport):
    """The other end of a stream in memory: takes what is written, and forgets it."""

    def __init__(self, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self._protocol, self._closing = protocol, False

    def write(self, data: Any) -> None:
        """Forget it."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def close(self) -> None:
        """The connection is lost a moment later, as with a socket."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


def stream() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Both halves of a connection that a test feeds."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=lines.MAX_LINE_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = Sink(protocol)
    protocol.connection_made(transport)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def converse(talk: Conversation, pool: LoopbackPool) -> None:
    """One conversation to its end. Raises: what is a fault."""
    from_pool, said = talk
    reader, writer = stream()
    if from_pool:
        login = Login("rig", resume=Resume("s", Extranonce(b"\xaa\xbb", 4)))
        session = Session(1, Endpoint("127.0.0.1", 1), Deadlines(), lambda job: None)
        ends = asyncio.create_task(session.converse(reader, writer, login, lambda: None))
    else:
        ends = asyncio.create_task(pool._serve(reader, writer))
    for one in said:
        for _ in range(3):
            await asyncio.sleep(0)
        if ends.done() or writer.is_closing():
            break
        reader.feed_data(one + b"\n")
    for _ in range(3):
        await asyncio.sleep(0)
    if not ends.done() and not writer.is_closing():
        reader.feed_eof()
    done, _ = await asyncio.wait({ends}, timeout=LONGEST_RUN_S)
    if not done:
        ends.cancel()
        raise AssertionError("the conversation does not end")
    try:
        ends.result()
    except SessionEnded:
        assert from_pool, "the pool ended as a client does"


class Coverage:
    """Which lines of the mining room, and which pairs of them, have run."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int, int]] = set()
        self.lines: set[tuple[int, int]] = set()
        self._last = 0
        self._room = str(Path(lines.__file__).parent)
        self._known: dict[int, bool] = {}

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, _event: str, _arg: Any) -> Callable[..., Any] | None:
        code = id(frame.f_code)
        if code not in self._known:
            self._known[code] = frame.f_code.co_filename.startswith(self._room)
        return self._line if self._known[code] else None

    def _line(self, frame: FrameType, _event: str, _arg: Any) -> Callable[..., Any]:
        code, at = id(frame.f_code), frame.f_lineno
        self.lines.add((code, at))
        self.seen.add((code, self._last, at))
        self._last = at
        return self._line


class Mutator:
    """Makes a conversation into another one."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def mutated(self, corpus: list[Conversation]) -> Conversation:
        """One to four changes to a random one of them."""
        rng = self._rng
        from_pool, kept = corpus[rng.randrange(len(corpus))]
        said = list(kept)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(said)) if said else 0
            match rng.randrange(8) if said else 0:
                case 0:
                    other = corpus[rng.randrange(len(corpus))][1]
                    said[at:at] = other[: rng.randint(0, len(other))]
                case 1:
                    del said[at]
                case 2:
                    said.insert(at, said[rng.randrange(len(said))])
                case 3:
                    said[at] = self._bytes(said[at])
                case 4:
                    said[at] = b"[" * rng.choice((10, 900, 60_000, 70_000)) + said[at]
                case _:
                    said[at] = self._value(said[at])
        return from_pool, tuple(said[:MOST_LINES])

    def _bytes(self, text: bytes) -> bytes:
        rng, data = self._rng, bytearray(text)
        for _ in range(rng.randint(1, 4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    def _value(self, text: bytes) -> bytes:
        """The message with one value, however deep, exchanged for a wild one."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return self._bytes(text)
        places: list[tuple[Any, Any]] = []
        stack = [body]
        while stack and len(places) < 500:
            inside = stack.pop()
            keys = inside if isinstance(inside, dict) else range(len(inside))
            for key in keys if isinstance(inside, dict | list) else ():
                places.append((inside, key))
                if isinstance(inside[key], dict | list):
                    stack.append(inside[key])
        if places:
            inside, key = places[self._rng.randrange(len(places))]
            inside[key] = WILD[self._rng.randrange(len(WILD))]
        try:
            return json.dumps(body).encode()
        except (ValueError, RecursionError):  # an integer too long to print
            return b'{"id":1,"result":' + b"9" * 5000 + b"}"


async def fuzz(seconds: float, seed: int, *, most_runs: int | None = None) -> dict[str, object]:
    """Fuzz for so long; the figures are those of the module's docstring."""
    pool = LoopbackPool(PoolSettings(max_connections=8))
    await pool.start(Endpoint("127.0.0.1", 0))
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: faults.append(str(context.get("exception") or context["message"]))
    )
    corpus, mutator, coverage = seeds(), Mutator(seed), Coverage()
    started_s, early_mb, runs = time.monotonic(), 0.0, 0
    while len(faults) < MOST_FAULTS and (most_runs is None or runs < most_runs):
        elapsed_s = time.monotonic() - started_s
        if elapsed_s >= seconds:
            break
        if not early_mb and elapsed_s >= seconds / 10:
            early_mb = rss_mb()
        talk = corpus[runs] if runs < len(corpus) else mutator.mutated(corpus)
        runs += 1
        before = len(coverage.seen)
        try:
            with coverage:
                await converse(talk, pool)
        except Exception as fault:
            faults.append(f"{fault!r} from {talk!r:.2000}")
        if len(coverage.seen) > before and len(corpus) < MOST_CORPUS:
            corpus.append(talk)
    await pool.stop()
    for told in faults:
        print(f"stratum-fuzz: {told}", file=sys.stderr)
    return {
        "quality": "measured",
        "seed": seed,
        "seconds": time.monotonic() - started_s,
        "runs": runs,
        "corpus": len(corpus),
        "lines": len(coverage.lines),
        "faults": len(faults),
        "rss_growth_mb": rss_mb() - (early_mb or rss_mb()),
    }


def rss_mb() -> float:
    """This process's resident memory, 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run() -> dict[str, object]:
    """The benchmark."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
    )
    seconds = float(os.environ.get(SECONDS_VARIABLE, SECONDS))
    return asyncio.run(fuzz(seconds, seed=random.SystemRandom().randrange(2**32)))
