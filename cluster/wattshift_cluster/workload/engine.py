"""The threads that do the slow work with Ray and leave a report behind for those who ask.

    engine   commands in ──▶ queue ──▶ [connect] ─▶ services.poll ─▶ batch.poll ──▶ report out
                                          ▲  │ lost: start over, with back-off
                                          └──┘
    nodes    what nodes there are, and the watts of each      meter   what draws without asking
    health   whether Ray is still there

Nobody who asks waits for any of them: an answer over the wire comes from the last report, which
says how old it is. Watts have threads of their own (`power_keeper`), because a cut must not wait
for a service that is just being deployed.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.batch.jobs import BatchJobs
from wattshift_cluster.workload.bulletin import Bulletin
from wattshift_cluster.workload.cluster.local_ray import LocalRay
from wattshift_cluster.workload.cluster.meters import Meters, living_actors
from wattshift_cluster.workload.cluster.node_desk import NodeDesk
from wattshift_cluster.workload.cluster.node_power import Remembered
from wattshift_cluster.workload.cluster.ray_link import RayLink, RayUnavailable, listens, preload
from wattshift_cluster.workload.cluster.unasked import ESTIMATE, Rates
from wattshift_cluster.workload.serving.services import Services
from wattshift_cluster.workload.telling import Told, tell

log = structlog.get_logger()

PERIOD_S = 0.5
MOVING_PERIOD_S = 0.1
LOOK_S = 0.5
NEWS_S = 0.1
"""So soon somebody who waits for news is told of a burst of requests or of a job's end."""

NEWS_SHARE = 20.0
"""A report of a thousand jobs takes some ms; looking for news may take a twentieth of a core."""

METER_S = 2.0
HEALTH_PERIOD_S = 2.0
HEALTH_FAILURES = 3
STALE_S = 10.0
STUCK_S = 90.0
"""A first deployment on a small machine takes some 20 s."""

BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
QUEUE_MAX = 1000
CANCELLED_MAX = 1000
END_S = 4.0
APP_KEY = "wattshift:app:"
"""Marks a Serve application as one of ours, for whoever has to clean up without us."""

Task = Callable[[], None]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine runs with.

    Attributes:
        name: of the bridge, in its report; and of its own node, if no label names that.
        state_dir: where it keeps what must outlive it.
        http_host, http_port: where Serve listens.
        gate_dir: folder of this host's gates; None without mining beside it.
        ray_address: host:port of a running cluster; None for a Ray of our own.
        rates: what CPU and GPU time of unasked work is taken to draw.
        meter_here: whether raylets of this host are metered without an actor.
    """

    name: str
    state_dir: Path
    http_host: str
    http_port: int
    gate_dir: str | None
    ray_address: str | None
    rates: Rates = ESTIMATE
    meter_here: bool = True


class Engine:
    """One bridge's work.

    `on_connected` is called once Ray's client library runs in this process, `on_lost` when that Ray
    is gone. Then the process has to start anew: Ray ends one that lost its cluster after a minute.
    """

    def __init__(
        self,
        settings: EngineSettings,
        local: LocalRay | None,
        on_lost: Callable[[str], None],
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._local = local
        self._on_lost = on_lost
        self._on_connected = on_connected
        self._queue: queue.Queue[Task] = queue.Queue(QUEUE_MAX)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._link: RayLink | None = None
        self._error: str | None = "not connected yet"
        self._round_s = self._healthy_s = time.monotonic()
        meters = Meters(settings.rates, living_actors, look_here=settings.meter_here)
        self.nodes = NodeDesk(settings.name, Remembered(settings.state_dir), meters)
        self.batch = BatchJobs(settings.state_dir / "jobs", settings.gate_dir)
        self.services = Services(
            settings.http_host,
            settings.http_port,
            settings.gate_dir,
            settings.state_dir / "services.json",
        )
        self._cancelled_services: deque[str] = deque(maxlen=CANCELLED_MAX)
        self._marked: set[str] = set()
        self.bulletin = Bulletin(self._body, first=int(boot_s() * 1000))
        self.services.on_news(self.bulletin.report)
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in {
                "engine": self._run,
                "nodes": self._look_again,
                "meter": self._meter,
                "ray-health": self._watch,
            }.items()
        ]

    def start(self) -> None:
        """Begin to connect and to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to end, wait a moment for them, and leave the cluster."""
        self._stop.set()
        self._wake.set()
        self.nodes.stop()
        self.services.stop()
        ends_s = time.monotonic() + END_S
        for thread in self._threads[:3]:
            thread.join(max(0.0, ends_s - time.monotonic()))
        if self._link is not None and not any(one.is_alive() for one in self._threads[:3]):
            self._link.close()

    def submit(self, task: Task) -> None:
        """Have something done in the engine's thread, soon. Raises: queue.Full."""
        self._queue.put_nowait(task)
        self._wake.set()

    def wake(self) -> None:
        """Have the next look at everything now."""
        self._wake.set()

    def evict(self, node: str, job: str, units: int) -> None:
        """Have so many units of a job end on a node. Raises: NotFound."""
        owner = self.services if job in self.services.names() else self.batch
        owner.evict(job, node, units)
        self._wake.set()

    def cancel_service(self, name: str) -> None:
        """Take a service down; in the engine's thread."""
        if name in self.services.names():
            # Noted first: a report between the two must not miss it.
            self._cancelled_services.append(name)
            self.services.cancel(name)

    def _body(self) -> dict[str, Any]:
        """The body of `hello` and `report`; never waits."""
        now_s = time.monotonic()
        error = self._error
        if error is None and now_s - self._healthy_s > STALE_S:
            error = f"no answer from Ray for {now_s - self._healthy_s:.0f} s"
        told = Told(
            bridge=self._settings.name,
            address=self._link.address if self._link else None,
            release=self._link.release if self._link else None,
            resize=self.nodes.resize,
            error=error,
            age_s=now_s - self.nodes.seen_s,
        )
        return tell(told, self.nodes.rows(), self.services.report(), self._job_rows())

    def _job_rows(self) -> list[dict[str, Any]]:
        ended = [
            {"job": name, "state": "cancelled", "done": None, "total": None, "error": None}
            for name in dict.fromkeys(self._cancelled_services.copy())
            if name not in self.services.names()
        ]
        return [*self.batch.report(), *ended]

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            try:
                self._connect()
                break
            except WattshiftError as fault:
                self._error = str(fault)
                log.warning("ray.unavailable", reason=self._error)
                self._stop.wait(BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)])
                attempt += 1
        while not self._stop.is_set():
            self._round()
            self.bulletin.report()
            moving = self.batch.moving(time.monotonic())
            self._wake.wait(MOVING_PERIOD_S if moving else PERIOD_S)
            self._wake.clear()

    def _connect(self) -> None:
        address = self._settings.ray_address
        if self._local is not None:
            self._local.begin()
            preload()  # while Ray starts
            address = self._local.address(self._stop)
        assert address is not None, "a cluster of our own or an address"
        link = RayLink(address)
        self._on_connected()
        self.nodes.connect(link, own=self._local is not None, bulletin=self.bulletin)
        self.services.recover(link.address)
        self._link, self._error = link, None
        self._round_s = self._healthy_s = time.monotonic()
        log.info("ray.connected", address=link.address, node=link.node_id, release=link.release)

    def _round(self) -> None:
        """Do what was asked, look at everything once, and leave a report."""
        assert self._link is not None, "connected before the first round"
        while True:
            try:
                task = self._queue.get_nowait()
            except queue.Empty:
                break
            self._do(task)
        try:
            self.nodes.see()
            self._mark()
            self.services.remember(self._link.address)
            now_s = time.monotonic()
            self.services.poll(self.nodes.nodes, now_s)
            self.batch.poll(self.nodes.nodes, now_s)
        except RayUnavailable as fault:
            self._error = str(fault)
            return
        except Exception as fault:  # Serve raises types of its own when its controller is gone
            log.warning("engine.round", reason=f"{type(fault).__name__}: {fault}"[:300])
        else:
            self._error = None
        self._round_s = time.monotonic()

    def _mark(self) -> None:
        """Leave word in Ray that these applications are ours, before they are deployed."""
        assert self._link is not None, "connected before the first round"
        for name in self.services.names() - self._marked:
            self._link.keep(APP_KEY + name, b"1")
            self._marked.add(name)

    def _do(self, task: Task) -> None:
        try:
            task()
        except Exception:
            log.exception("engine.task")

    def _look_again(self) -> None:
        """Nodes come and go while the engine's thread deploys something for half a minute."""
        wait_s = NEWS_S
        while not self._stop.wait(wait_s):
            if self._link is not None and time.monotonic() - self.nodes.seen_s >= LOOK_S:
                try:
                    self.nodes.see()
                except RayUnavailable as fault:
                    log.debug("nodes.unseen", reason=str(fault))
            began_s = time.monotonic()
            self.bulletin.refresh()
            wait_s = max(NEWS_S, NEWS_SHARE * (time.monotonic() - began_s))

    def _meter(self) -> None:
        while not self._stop.wait(METER_S):
            if self._link is None:
                continue
            try:
                self.nodes.meter()
            except Exception as fault:  # a node without a reading is unknown, and told as such
                log.debug("meter.turn", reason=f"{type(fault).__name__}: {fault}"[:300])

    def _watch(self) -> None:
        """Notice a Ray that is gone, whatever the engine's thread is stuck in."""
        failures = 0
        while not self._stop.wait(HEALTH_PERIOD_S):
            if self._link is None:
                continue
            healthy = listens(self._link.address)
            failures = 0 if healthy else failures + 1
            if healthy:
                self._healthy_s = time.monotonic()
            stuck_s = time.monotonic() - self._round_s
            if (failures >= HEALTH_FAILURES or stuck_s > STUCK_S) and not self._stop.is_set():
                sign = "no sign of life" if failures else f"no round ended for {stuck_s:.0f} s"
                self._on_lost(f"{self._link.address}: {sign}")
                return
