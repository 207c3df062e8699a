"""vLLM: busy from the loading of its plugins (weights, graph capture) until the server is ready.

A general plugin: vLLM calls `register` in every process that it makes, before that process works,
and in the first of them when the engine's arguments are read. That first process marks the gate;
the others find its listener and leave it at that. The BusyMiddleware, which vLLM adds to its server
only when the engine is up, ends the span and marks the requests:

    vllm serve MODEL --middleware wattshift_cluster.gate.hooks.asgi.BusyMiddleware

Written against vLLM's documented interfaces (`vllm.general_plugins`, `--middleware`) and its source
at commit 0001948bc769; vLLM is not imported.
"""

import logging
import os
import threading
import time

from wattshift_cluster.gate.environment import busy_here, gate_here
from wattshift_cluster.gate.readiness import ReadyListener, listened_to

log = logging.getLogger("wattshift.gate")

LOADING_MAX_S = 1800.0
"""A server without the middleware never says that it is ready."""

_WAIT_S = 1.0
_begun_by: int | None = None


def register(loading_max_s: float = LOADING_MAX_S) -> None:
    """The plugin: mark the gate until this server is ready. May be called again and again.

    Args:
        loading_max_s: the longest that it counts as loading, s.
    """
    global _begun_by
    if listened_to() or _begun_by == os.getpid():
        return  # this process or a parent marks, or did; a parent may be `wattshift busy`
    if gate_here() is None:
        return
    _begun_by = os.getpid()
    try:
        listener = ReadyListener()
    except OSError as fault:
        log.warning("gate: the loading of vLLM is not marked: %s", fault)
        return
    begun = threading.Event()
    threading.Thread(
        target=_loading,
        args=(listener, begun, loading_max_s),
        name="gate-loading",
        daemon=True,
    ).start()
    begun.wait(_WAIT_S)


def _loading(listener: ReadyListener, begun: threading.Event, loading_max_s: float) -> None:
    end_s = time.monotonic() + loading_max_s
    with busy_here():
        begun.set()
        while True:
            left_s = end_s - time.monotonic()
            if listener.heard(min(_WAIT_S, max(0.0, left_s))):
                break
            if left_s <= 0:
                log.warning(
                    "gate: vLLM did not get ready within %g s, or has no BusyMiddleware; "
                    "from now on mining yields to it only where something else marks it",
                    loading_max_s,
                )
                break
    listener.close()
