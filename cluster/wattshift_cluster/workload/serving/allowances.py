"""What Serve's policy is allowed, and what it would like: the bridge's end of the exchange.

A thread of its own, because the engine may be busy for seconds and a burst may not wait for it. It
writes a changed allowance at once and looks at the wishes ten times a second.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from wattshift_cluster.workload.cluster.ray_link import internal
from wattshift_cluster.workload.serving.scaling_policy import ALLOW, DESIRE

log = structlog.get_logger()

LOOK_S = 0.1
STALE_S = 10.0
"""Five missed beats of the policy: its Serve controller is gone, and its wish is unknown."""

REWRITE_S = 5.0
"""An unchanged allowance is written again after that long: a store may have lost it."""

END_S = 1.0
"""The store answers within this, or the Ray behind it is gone."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a service's policy last told.

    Attributes:
        desired: replicas that Serve's own rule would have.
        ongoing: requests in progress or queued, as Serve's handles count them.
        queued: of those, the ones that no replica has yet.
    """

    desired: int
    ongoing: float
    queued: float


class Store(Protocol):
    """A key-value store that bridge and policy share."""

    def get(self, key: str) -> bytes | None:
        """A value, or None."""
        ...

    def put(self, key: str, value: str) -> None:
        """Set a value."""
        ...

    def drop(self, key: str) -> None:
        """Forget a key, if there is one."""
        ...


class RayStore:
    """Ray's internal key-value store, in the GCS."""

    def get(self, key: str) -> bytes | None:
        """See Store."""
        value: bytes | None = internal("ray.experimental.internal_kv")._internal_kv_get(key)
        return value

    def put(self, key: str, value: str) -> None:
        """See Store."""
        internal("ray.experimental.internal_kv")._internal_kv_put(key, value)

    def drop(self, key: str) -> None:
        """See Store."""
        internal("ray.experimental.internal_kv")._internal_kv_del(key)


@dataclass(slots=True)
class _Line:
    """One service's two keys."""

    allow: str
    written: str | None = None
    written_s: float = -1.0
    beat: int = -1
    beat_s: float = -1.0
    wish: Wish | None = None


class Allowances:
    """All allowances of one bridge. Its methods return at once and may come from any thread."""

    def __init__(
        self, store: Store | None = None, on_news: Callable[[], object] | None = None
    ) -> None:
        """`on_news` is called from this object's thread when a wish has changed."""
        self._store = RayStore() if store is None else store
        self.on_news = on_news or (lambda: None)
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._dropped: list[str] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""
        self._ended = False

    def allow(self, app: str, replicas: int, least: int) -> None:
        """Let a service have so many replicas, `least` of them whether Serve wants them or not."""
        text = json.dumps({"replicas": replicas, "least": min(least, replicas)})
        with self._lock:
            line = self._lines.setdefault(app, _Line(text))
            line.allow = text
            news = line.written != text
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="allowances", daemon=True)
            self._thread.start()
        if news:
            self._wake.set()

    def wish(self, app: str) -> Wish | None:
        """What the service's policy told last; None if it is silent."""
        with self._lock:
            line = self._lines.get(app)
            return None if line is None else line.wish

    def forget(self, app: str) -> None:
        """Drop a service's keys."""
        with self._lock:
            if self._lines.pop(app, None) is not None:
                self._dropped.append(app)
        self._wake.set()

    def stop(self) -> None:
        """Exchange no more: Ray's client library is about to be shut down."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(END_S)

    def turn(self, now_s: float) -> bool:
        """Write and read what is due; whether a wish changed. Blocks for the store."""
        with self._lock:
            dropped, self._dropped = self._dropped, []
            lines = list(self._lines.items())
        for app in dropped:
            self._store.drop(ALLOW + app)
            self._store.drop(DESIRE + app)
        changed = False
        for app, line in lines:
            allow = line.allow
            if line.written != allow or now_s - line.written_s > REWRITE_S:
                self._store.put(ALLOW + app, allow)
                line.written, line.written_s = allow, now_s
            changed |= self._read(app, line, now_s)
        return changed

    def _read(self, app: str, line: _Line, now_s: float) -> bool:
        text, before = self._store.get(DESIRE + app), line.wish
        row = json.loads(text) if text else None
        if row is not None and row["beat"] != line.beat:
            line.beat, line.beat_s = row["beat"], now_s
            line.wish = Wish(int(row["desired"]), float(row["ongoing"]), float(row["queued"]))
        elif now_s - line.beat_s > STALE_S:
            line.wish = None
        desired = None if line.wish is None else line.wish.desired
        return desired != (None if before is None else before.desired)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if self._ended:
                return
            try:
                if self.turn(time.monotonic()):
                    self.on_news()
                self._said = ""
            except Exception as fault:  # Ray's own types differ by what broke; it tries again
                if str(fault) != self._said:
                    self._said = str(fault)
                    log.warning("allowances.failed", reason=self._said[:300])
