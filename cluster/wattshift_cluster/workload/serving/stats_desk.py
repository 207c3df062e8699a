"""Asks services how they do, in a thread of its own: an answer may take a second, a round may not.

Replicas whose class has `wattshift_stats` are asked once a second, Ray's metrics are read every 5 s
and only while some service does not tell everything itself.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.serving.serve_metrics import Metrics, fetched
from wattshift_cluster.workload.serving.service_stats import Stats, of_replicas, with_metrics

log = structlog.get_logger()

ASK_S = 1.0
ANSWER_S = 1.0
SCRAPE_S = 5.0
METHOD = "wattshift_stats"
IDLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A service to ask.

    Attributes:
        app: its application.
        unit: the deployment that is counted.
        tells: its class has the method.
        running: replicas that answer.
        streams: its time to the first part and the gaps are of interest.
    """

    app: str
    unit: str
    tells: bool
    running: int
    streams: bool


class StatsDesk:
    """The last figures of each service. Its methods return at once, from any thread."""

    def __init__(self, handle_of: Callable[[str, str], Any]) -> None:
        """`handle_of` gives a Serve handle by application and deployment."""
        self._handle_of = handle_of
        self._subjects: tuple[Subject, ...] = ()
        self._nodes: tuple[Node, ...] = ()
        self._handles: dict[tuple[str, str], Any] = {}
        self._metrics = Metrics()
        self._scraped_s = -SCRAPE_S
        self._found: dict[str, Stats] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask nobody any more, soon; an answer that is awaited may take `ANSWER_S` yet."""
        self._stop.set()

    def watch(self, subjects: tuple[Subject, ...], nodes: Mapping[str, Node]) -> None:
        """Ask these from now on."""
        self._subjects, self._nodes = subjects, tuple(nodes.values())
        if self._thread is None and subjects:
            self._thread = threading.Thread(target=self._run, name="service-stats", daemon=True)
            self._thread.start()

    def of(self, app: str) -> Stats:
        """A service's figures; all unknown before the first answer."""
        return self._found.get(app, Stats())

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            subjects = self._subjects
            self._turn(subjects, time.monotonic())
            wait_s = ASK_S if subjects else IDLE_S

    def _turn(self, subjects: tuple[Subject, ...], now_s: float) -> None:
        found = {one.app: self._asked(one) for one in subjects if one.running}
        hungry = any(not one.tells or one.streams for one in subjects if one.running)
        if hungry and now_s - self._scraped_s >= SCRAPE_S:
            self._scraped_s = now_s
            ports = {(n.address, n.metrics_port) for n in self._nodes if n.alive and n.metrics_port}
            texts = [fetched(address, port) for address, port in sorted(ports) if port]
            self._metrics.look([text for text in texts if text is not None], now_s)
        if hungry:
            alone = len(subjects) == 1
            for one in subjects:
                if one.running:
                    seen = self._metrics.seen(one.app, one.unit, alone)
                    found[one.app] = with_metrics(found[one.app], seen)
        # Nothing runs, so nothing is in work; what waits at Serve's door is not known here.
        idle = {one.app: Stats(ongoing=0) for one in subjects if not one.running}
        self._found = {**found, **idle}
        kept = {(one.app, one.unit) for one in subjects}
        self._handles = {key: handle for key, handle in self._handles.items() if key in kept}

    def _asked(self, one: Subject) -> Stats:
        if not one.tells:
            return Stats()
        key = (one.app, one.unit)
        try:
            if key not in self._handles:
                self._handles[key] = self._handle_of(*key)
            answer = self._handles[key].broadcast(METHOD)
            return of_replicas(answer.results(timeout_s=ANSWER_S))
        except Exception as fault:  # the user's method, or Ray's own types; unknown is told as such
            log.debug("service.no_stats", service=one.app, error=str(fault)[:200])
            return Stats()
