"""The thread that does the slow work with Ray and leaves a report behind for those who ask.

    commands in ──▶ queue ──▶ [connect] ─▶ services.poll ─▶ batch.poll ──▶ report out
                                 ▲  │ lost: start over, with back-off
                                 └──┘

Nobody waits for this thread: an answer over the wire comes from the last report, which says how old
it is. Watts have a thread of their own (`power_keeper`), because a cut must not wait for a service
that is just being deployed.
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

from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.workload.batch import BatchJobs
from wattshift_cluster.workload.local_ray import LocalRay, remember_watts
from wattshift_cluster.workload.power_keeper import PowerKeeper, actuator
from wattshift_cluster.workload.ray_link import Node, RayLink, RayUnavailable, listens, preload
from wattshift_cluster.workload.services import Services

log = structlog.get_logger()

PERIOD_S = 0.5
HALTING_PERIOD_S = 0.1
POWER_WAIT_S = 0.7
HEALTH_PERIOD_S = 2.0
HEALTH_FAILURES = 3
STALE_S = 10.0
STUCK_S = 90.0
"""A first deployment on a small machine takes some 20 s."""

BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
QUEUE_MAX = 1000
CANCELLED_MAX = 1000
END_S = 4.0

Task = Callable[[], None]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine runs with.

    Attributes:
        name: of the bridge, in its report.
        state_dir: where it keeps what must outlive it.
        http_host, http_port: where Serve listens.
        gate_dir: folder of this host's gates; None without mining beside it.
        ray_address: host:port of a running cluster; None for a Ray of our own.
    """

    name: str
    state_dir: Path
    http_host: str
    http_port: int
    gate_dir: str | None
    ray_address: str | None


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
        self._keeper: PowerKeeper | None = None
        self._link: RayLink | None = None
        self._node: Node | None = None
        self._error: str | None = "not connected yet"
        self._seen_s = self._healthy_s = time.monotonic()
        self.batch = BatchJobs(settings.state_dir / "jobs", settings.gate_dir)
        self.services = Services(
            settings.http_host,
            settings.http_port,
            settings.gate_dir,
            settings.state_dir / "services.json",
        )
        self._cancelled_services: deque[str] = deque(maxlen=CANCELLED_MAX)
        self._threads = [
            threading.Thread(target=self._run, name="engine", daemon=True),
            threading.Thread(target=self._watch, name="ray-health", daemon=True),
        ]

    def start(self) -> None:
        """Begin to connect and to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to end, wait a moment for them, and leave the cluster."""
        self._stop.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.stop()
        self._threads[0].join(END_S)
        if self._link is not None and not self._threads[0].is_alive():
            self._link.close()

    def submit(self, task: Task) -> None:
        """Have something done in the engine's thread, soon. Raises: queue.Full."""
        self._queue.put_nowait(task)
        self._wake.set()

    def wake(self) -> None:
        """Have the next look at everything now."""
        self._wake.set()

    def set_power(self, watts_w: float) -> float:
        """Set the node's watts; the total there is now, W. Blocks for 0.7 s at most.

        Raises:
            RayUnavailable: no answer yet; the keeper goes on trying, once there is a node.
        """
        remember_watts(self._settings.state_dir, watts_w)
        if self._keeper is None:
            raise RayUnavailable(self._error or "no Ray")
        total_w = self._keeper.ask(watts_w, POWER_WAIT_S)
        if total_w is None:
            raise RayUnavailable(self._keeper.error or "Ray has not answered yet")
        return total_w

    def cancel_service(self, name: str) -> None:
        """Take a service down; in the engine's thread."""
        if name in self.services.names():
            # Noted first: a report between the two must not miss it.
            self._cancelled_services.append(name)
            self.services.cancel(name)

    def report(self) -> dict[str, Any]:
        """The body of `hello` and `report`; never waits."""
        now_s = time.monotonic()
        node, keeper = self._node, self._keeper
        error = self._error
        if error is None and now_s - self._healthy_s > STALE_S:
            error = f"no answer from Ray for {now_s - self._healthy_s:.0f} s"
        total_w = None if node is None else node.power_w_total
        if keeper is not None and keeper.total_w is not None:
            total_w = keeper.total_w
        return {
            "bridge": self._settings.name,
            "boot_id": boot_id(),
            "boot_s": boot_s(),
            "ray": {
                "up": error is None and node is not None,
                "address": self._link.address if self._link else None,
                "error": error,
                "age_s": round(now_s - self._seen_s, 3),
            },
            "node": {
                "id": None if node is None else node.id,
                "power_w_total": total_w,
                "power_w_available": None if node is None else node.power_w_available,
            },
            "services": self.services.report(),
            "jobs": self._job_rows(),
        }

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
            self._wake.wait(HALTING_PERIOD_S if self.batch.halting() else PERIOD_S)
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
        node = link.node()
        self._keeper = PowerKeeper(actuator(link.address, link.node_id, node.power_w_total))
        self.services.recover(link.address)
        self._link, self._node, self._error = link, node, None
        self._seen_s = self._healthy_s = time.monotonic()
        log.info("ray.connected", address=link.address, node=link.node_id)

    def _round(self) -> None:
        """Do what was asked, look at everything once, and leave a report."""
        assert self._link is not None, "connected before the first round"
        while True:
            try:
                task = self._queue.get_nowait()
            except queue.Empty:
                break
            self._do(task)
        self.services.remember(self._link.address)
        now_s = time.monotonic()
        try:
            node = self._link.node()
            self.services.poll(node, now_s)
            self.batch.poll(node, now_s)
        except RayUnavailable as fault:
            self._error = str(fault)
            return
        except Exception as fault:  # Serve raises types of its own when its controller is gone
            log.warning("engine.round", reason=f"{type(fault).__name__}: {fault}"[:300])
        else:
            self._error = None
        self._node, self._seen_s = node, time.monotonic()

    def _do(self, task: Task) -> None:
        try:
            task()
        except Exception:
            log.exception("engine.task")

    def _job_rows(self) -> list[dict[str, Any]]:
        ended = [
            {"job": name, "state": "cancelled", "done": None, "total": None, "error": None}
            for name in dict.fromkeys(self._cancelled_services.copy())
            if name not in self.services.names()
        ]
        return [*self.batch.report(), *ended]

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
            stuck_s = time.monotonic() - self._seen_s
            if (failures >= HEALTH_FAILURES or stuck_s > STUCK_S) and not self._stop.is_set():
                sign = "no sign of life" if failures else f"no round ended for {stuck_s:.0f} s"
                self._on_lost(f"{self._link.address}: {sign}")
                return
