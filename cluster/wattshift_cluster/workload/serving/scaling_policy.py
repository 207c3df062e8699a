"""Serve's own wish for replicas, clamped to what wattshift allows. Runs in the Serve controller.

Ray Serve instantiates `Clamped` from a service's autoscaling configuration and calls it on every
turn of its control loop, so a call may not block. A thread of its own exchanges with the bridge
through Ray's internal key-value store: it reads what is allowed and writes what Serve would like.

    wattshift:allow:<app>     {"replicas": n, "least": n}
    wattshift:desire:<app>    {"desired": n, "ongoing": x, "queued": x, "beat": n}

Serve copies this module by value to the controller, which therefore need not have wattshift: only
the standard library is imported here, and Ray inside functions.

One case goes past a policy in Ray 2.60: with no replica and a waiting request Serve asks for the
first replica by itself. Then Ray's `power_w` is the clamp, and the desire says that one is wanted.
"""

import json
import logging
import threading
import time
import weakref
from typing import Any

log = logging.getLogger("ray.serve")

ALLOW = "wattshift:allow:"
DESIRE = "wattshift:desire:"
REFRESH_S = 0.2
"""A changed allowance is in force after that long, plus a turn of Serve's loop (0.1 s)."""

HUNGRY_S = 0.1
"""The same while more is wished than allowed: then every tenth is one that a burst waits."""

BEAT_S = 2.0
"""An unchanged desire is written again after that long, so that a dead writer can be told."""

COLD_S = 0.5
"""Not called for so long with no replica: Serve serves a cold start by itself; see the module."""

UPSCALE_DELAY_S = 0.0
DOWNSCALE_DELAY_S = 10.0
"""How long Serve's wish must be lower before it counts. The core has a quiet time of its own."""


class Clamped:
    """The policy object of one deployment."""

    def __init__(
        self,
        app: str,
        least: int = 0,
        upscale_delay_s: float = UPSCALE_DELAY_S,
        downscale_delay_s: float = DOWNSCALE_DELAY_S,
        threaded: bool = True,
    ) -> None:
        """Begin to exchange with the bridge.

        Args:
            app: the Serve application.
            least: replicas below which Serve's own wish does not fall.
            upscale_delay_s, downscale_delay_s: how long the wish must last; the user's own values
                of the autoscaling configuration, because Serve's are applied after the clamp and
                would delay that.
            threaded: exchange in a thread of its own.
        """
        self._app = app
        self._least = least
        self._up_s = upscale_delay_s
        self._down_s = downscale_delay_s
        self._held: int | None = None
        self._higher_since_s: float | None = None
        self._lower_since_s: float | None = None
        self._lower_most = 0
        self._called_s = time.monotonic()
        self._running = 0
        self._load: tuple[float, float] = (0.0, 0.0)
        self._written: dict[str, Any] = {}
        self._written_s = 0.0
        self._beat = 0
        self.allowed: dict[str, int] | None = None
        self._news = threading.Event()
        if threaded:
            arguments = (weakref.ref(self), self._news)
            exchange = threading.Thread(target=_exchange_forever, args=arguments, daemon=True)
            exchange.start()

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Replicas to have, and no state for Serve to keep (an AutoscalingContext comes in)."""
        from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy

        wish, _ = replica_queue_length_autoscaling_policy(ctx)
        self._load = (ctx.total_num_requests, ctx.total_queued_requests or 0.0)
        self._running = ctx.current_num_replicas
        self._called_s = time.monotonic()
        whole = min(-int(-wish // 1), ctx.capacity_adjusted_max_replicas)
        before = self._held
        desired = self.steady(max(whole, self._least), ctx.target_num_replicas, self._called_s)
        if desired != before:
            self._news.set()
        return self.clamped(desired, ctx.target_num_replicas), {}

    def clamped(self, desired: int, target: int) -> int:
        """What of a desire is allowed; before the first allowance no more than there are."""
        if self.allowed is None:
            return min(desired, target)
        most = self.allowed["replicas"]
        return min(max(desired, self.allowed["least"]), most)

    def steady(self, wish: int, target: int, now_s: float) -> int:
        """The wish once it has lasted: higher after the one delay, lower after the other."""
        if self._held is None:
            self._held = max(wish, target)
        if wish > self._held:
            self._lower_since_s = None
            if self._higher_since_s is None:
                self._higher_since_s = now_s
            if now_s - self._higher_since_s >= self._up_s:
                self._held, self._higher_since_s = wish, None
        elif wish < self._held:
            self._higher_since_s = None
            if self._lower_since_s is None:
                self._lower_since_s, self._lower_most = now_s, wish
            self._lower_most = max(self._lower_most, wish)
            if now_s - self._lower_since_s >= self._down_s:
                self._held, self._lower_since_s = self._lower_most, None
        else:
            self._higher_since_s = self._lower_since_s = None
        return self._held

    def desire(self, now_s: float) -> dict[str, Any]:
        """What the bridge is told, without the beat."""
        desired = max(self._held or 0, self._least)
        if self._running == 0 and now_s - self._called_s > COLD_S:
            desired = max(desired, 1)
        ongoing, queued = self._load
        return {"desired": desired, "ongoing": round(ongoing, 2), "queued": round(queued, 2)}

    def exchange(self) -> None:
        """Read the allowance and write the desire. Blocks for the key-value store."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        text = _internal_kv_get(ALLOW + self._app)
        if text:
            row = json.loads(text)
            self.allowed = {"replicas": int(row["replicas"]), "least": int(row.get("least", 0))}
        now_s = time.monotonic()
        row = self.desire(now_s)
        if row != self._written or now_s - self._written_s > BEAT_S:
            self._beat += 1
            _internal_kv_put(DESIRE + self._app, json.dumps({**row, "beat": self._beat}))
            self._written, self._written_s = row, now_s

    def pause_s(self) -> float:
        """How long until the next exchange, s."""
        hungry = self.allowed is not None and (self._held or 0) > self.allowed["replicas"]
        return HUNGRY_S if hungry else REFRESH_S


def _exchange_forever(reference: Any, news: threading.Event) -> None:
    """Exchange until the policy object is gone: Serve makes a new one with each configuration."""
    said, pause_s = "", REFRESH_S
    while True:
        news.wait(pause_s)
        news.clear()
        policy = reference()
        if policy is None:
            return
        pause_s = policy.pause_s()
        try:
            policy.exchange()
            said = ""
        except (
            Exception
        ) as fault:  # Ray's own types differ by what broke; the next turn tries again
            if str(fault) != said:
                said = str(fault)
                log.warning("wattshift: allowances are not exchanged: %s", said)
        del policy
