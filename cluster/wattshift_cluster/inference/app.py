"""The sentence encoder as a Ray Serve application.

    POST {"texts": ["…", …]}
    →    {"embeddings": [[384 numbers], …], "model": name, "queue_ms": n, "compute_ms": n}

A replica computes one request at a time on one core and tells the gates of its host that it is busy
from the admission of a request to its answer, and while it loads the model. `build` is what a
service's import path names, a builder as Serve has them. It says nothing of watts and replicas: the
bridge lays the watts in and chooses the number, as for any application.
Ray is imported there and not above, so that this module is importable where Ray is not installed.
"""

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from wattshift_cluster.gate import GATE_DIR_VARIABLE, ClientGate
from wattshift_cluster.inference import minilm

BODY_BYTES_MAX = 1 << 20
TEXTS_MAX = 64
TEXT_CHARS_MAX = 8192
WINDOW_REQUESTS = 512
WINDOW_S = 30.0

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a replica, in force before NumPy is loaded: its watts are those of one core."""


class BadRequest(ValueError):
    """A body that is not {"texts": [...]} within the limits."""


def parse_texts(body: bytes) -> list[str]:
    """The texts of a request's body.

    Raises:
        BadRequest: says what is wrong and what is allowed.
    """
    if len(body) > BODY_BYTES_MAX:
        raise BadRequest(f"a body of {len(body)} bytes; allowed: {BODY_BYTES_MAX}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    texts = document.get("texts") if isinstance(document, dict) else None
    if not isinstance(texts, list) or not 1 <= len(texts) <= TEXTS_MAX:
        raise BadRequest(f"texts: allowed: a list of 1 to {TEXTS_MAX} texts")
    for text in texts:
        if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
            raise BadRequest(f"texts: allowed: texts of at most {TEXT_CHARS_MAX} characters")
    return texts


class Latencies:
    """Latencies of the last requests of one replica, for its report."""

    def __init__(self) -> None:
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW_REQUESTS)

    def add(self, now_s: float, latency_ms: float) -> None:
        """Note one answered request."""
        self._window.append((now_s, latency_ms))

    def recent_ms(self, now_s: float) -> list[float]:
        """Latencies of the last 30 s, ms, at most 512 of them."""
        return [latency_ms for at_s, latency_ms in self._window if now_s - at_s <= WINDOW_S]

    def rate_per_s(self, now_s: float) -> float:
        """Answers per second over the last 30 s, or over the last 512 answers if those are less."""
        times_s = [at_s for at_s, _ in self._window if now_s - at_s <= WINDOW_S]
        span_s = now_s - times_s[0] if len(times_s) == WINDOW_REQUESTS else WINDOW_S
        return round(len(times_s) / max(1e-3, span_s), 3)


class Embed:
    """One replica."""

    def __init__(self) -> None:
        """Load the model, busy at the gates meanwhile, and warm it up."""
        gate_dir = os.environ.get(GATE_DIR_VARIABLE)
        self._gate = ClientGate(gate_dir) if gate_dir else None
        self._latencies = Latencies()
        self._ongoing = 0
        self._computing = 0
        with self._busy():
            self._model = minilm.load()
            self._model.encode(["the first product also allocates"])
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")

    async def __call__(self, request: Any) -> Any:
        """Answer one HTTP request (a Starlette request)."""
        from starlette.responses import Response

        status, document = await self.answer(await request.body())
        return Response(json.dumps(document), status, media_type="application/json")

    async def answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """HTTP status and document for a request's body."""
        came_s = time.monotonic()
        self._ongoing += 1
        try:
            with self._busy():
                texts = parse_texts(body)
                loop = asyncio.get_running_loop()
                embeddings, began_s = await loop.run_in_executor(self._worker, self._encode, texts)
        except BadRequest as fault:
            return 400, {"error": str(fault)}
        finally:
            self._ongoing -= 1
        done_s = time.monotonic()
        self._latencies.add(done_s, (done_s - came_s) * 1000)
        return 200, {
            "embeddings": embeddings,
            "model": "all-MiniLM-L6-v2",
            "queue_ms": round((began_s - came_s) * 1000, 3),
            "compute_ms": round((done_s - began_s) * 1000, 3),
        }

    def wattshift_stats(self) -> dict[str, Any]:
        """What the bridge collects: requests here, those computing, and recent latencies."""
        now_s = time.monotonic()
        return {
            "ongoing": self._ongoing,
            "queued": self._ongoing - self._computing,
            "recent_ms": self._latencies.recent_ms(now_s),
            "rate_per_s": self._latencies.rate_per_s(now_s),
            "gates": list(self._gate.gates) if self._gate else [],
        }

    def _encode(self, texts: list[str]) -> tuple[list[list[float]], float]:
        began_s = time.monotonic()
        self._computing = 1
        try:
            vectors = self._model.encode(texts)
        finally:
            self._computing = 0
        return [[round(float(x), 6) for x in vector] for vector in vectors], began_s

    def _busy(self) -> AbstractContextManager[None]:
        return self._gate.busy() if self._gate else nullcontext()


def build(args: Mapping[str, Any]) -> Any:
    """The bound Serve application.

    Args:
        args: `max_ongoing_requests` at one replica before others queue (64);
            `target_ongoing_requests`, above which Serve would have one replica more (2).
    """
    from ray import serve

    deployment = serve.deployment(
        name="Embed",
        max_ongoing_requests=int(args.get("max_ongoing_requests", 64)),
        autoscaling_config={
            "target_ongoing_requests": float(args.get("target_ongoing_requests", 2)),
        },
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=5.0,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        ray_actor_options={"runtime_env": {"env_vars": ONE_THREAD}},
    )(Embed)
    return deployment.bind()


app = build
"""The name that a site file gives after the colon, as with other servers of applications."""
