"""All inference services of one Ray cluster: Ray Serve applications whose replicas ask for watts.

    set_target ──▶ build (a Ray task) ──▶ deployed ──▶ scaled through one of two hooks
                       │ error                │ policy: an allowance for `scaling_policy`
                       ▼                      │ external: `update_deployment_replicas`
                    failed ◀──────────────────┘ unhealthy too long, crash loop

Serve answers a request that finds no replica by starting one, past any policy. A service that may
have none although requests wait is therefore *held*: deployed in a form without a policy and with
no replica, so that Ray is not asked for one that would take somebody else's watts. Its requests go
on waiting in Serve.

Every round looks at Serve once and compares: nothing is remembered that Serve or the file of
specifications does not say, so a restarted bridge, Serve controller or node is just another
difference. A replica is asked for only when its watts fit on some node; Serve would start what Ray
cannot place, and wait.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import NotFound
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.serving.allowances import Allowances
from wattshift_cluster.workload.serving.app_watts import EXTERNAL
from wattshift_cluster.workload.serving.builds import begin, cancel, ended
from wattshift_cluster.workload.serving.evictions import Evictions
from wattshift_cluster.workload.serving.room import Room
from wattshift_cluster.workload.serving.serve_link import Application, ServeLink, ServeSilent
from wattshift_cluster.workload.serving.service import Plan, Service, victims
from wattshift_cluster.workload.serving.stats_desk import StatsDesk, Subject
from wattshift_cluster.workload.specs import ServiceSpec

log = structlog.get_logger()

DEPLOY_AGAIN_S = 5.0
ERROR_MAX = 500
EVICT_ORDERS_MAX = 256


class Services:
    """All services of one Ray cluster. Blocking; for the engine's thread, if not said otherwise."""

    def __init__(self, http_host: str, http_port: int, gate_dir: str | None, memory: Path) -> None:
        """Prepare; Serve is started with the first service.

        Args:
            http_host, http_port: where Serve listens.
            gate_dir: given to replicas, so that they can say they are busy.
            memory: file that keeps specifications over a restart of the bridge.
        """
        self._link = ServeLink(http_host, http_port)
        self._gate_dir = gate_dir
        self._memory = memory
        self._services: dict[str, Service] = {}
        self._removed: list[str] = []
        self._orders: list[tuple[str, str, int]] = []
        self._remembered = ""
        self._allowances = Allowances()
        self._desk = StatsDesk(self._link.handle)
        self._evictions = Evictions(self._link.replica)

    def on_news(self, wake: Callable[[], object]) -> None:
        """Have `wake` called, from another thread, when a service's own wish has changed."""
        self._allowances.on_news = wake

    def stop(self) -> None:
        """Leave Ray alone from now on; what runs there goes on. From any thread."""
        self._allowances.stop()
        self._desk.stop()

    def recover(self, cluster: str) -> None:
        """Know again the services that an earlier bridge deployed on the same cluster."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._memory.read_text())
            if found["cluster"] == cluster:
                for name, row in found["services"].items():
                    service = Service(name, ServiceSpec(**row["spec"]), int(row["target"]))
                    service.plan = Plan(**row["plan"]) if row.get("plan") else None
                    service.failed = row.get("failed")
                    service.held = bool(row.get("held"))
                    self._services.setdefault(name, service)

    def remember(self, cluster: str) -> None:
        """Keep what `recover` needs, if it changed."""
        rows = {
            service.name: {
                "spec": asdict(service.spec),
                "target": service.target,
                "plan": None if service.plan is None else asdict(service.plan),
                "failed": service.failed,
                "held": service.held,
            }
            for service in self._all()
        }
        text = json.dumps({"cluster": cluster, "services": rows})
        if text != self._remembered:
            attempt = self._memory.with_suffix(".new")
            # What services get for their environment may be nobody else's business.
            handle = os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(text)
            attempt.replace(self._memory)
            self._remembered = text

    def names(self) -> frozenset[str]:
        """Known services. From any thread."""
        return frozenset(self._services)

    def target(self, name: str) -> int | None:
        """Replicas that are wanted of a service; None of one that nobody knows."""
        service = self._services.get(name)
        return None if service is None else service.target

    def set_target(
        self, name: str, spec: ServiceSpec, replicas: int, nodes: Mapping[str, int] | None = None
    ) -> None:
        """Want that many replicas; `poll` brings it about. From any thread.

        Args:
            name: the service.
            spec: what it is; a changed one is deployed anew, also after a failure.
            replicas: over all nodes.
            nodes: where the core has watts for them. Ray places, by `power_w`.
        """
        service = self._services.setdefault(name, Service(name, spec, replicas))
        if service.spec != spec:
            service.spec, service.redeploy, service.failed = spec, True, None
            service.crashes.clear()
        service.target, service.nodes = replicas, dict(nodes or {})
        self._allow(service)

    def evict(self, job: str, node: str, units: int) -> None:
        """End so many of a service's replicas on one node; `poll` does it. From any thread.

        Raises:
            NotFound: there is no such service.
        """
        if job not in self._services:
            raise NotFound(f"no service {job}")
        if len(self._orders) < EVICT_ORDERS_MAX:
            self._orders.append((job, node, units))

    def cancel(self, name: str) -> None:
        """Take a service down for good."""
        service = self._services.pop(name)
        cancel(service)
        self._allowances.forget(name)
        self._removed.append(name)
        self._take_down()

    def poll(self, nodes: Mapping[str, Node], now_s: float) -> None:
        """Look at every service once, and ask for what fits the nodes' watts."""
        self._take_down()
        if not self._services:
            return
        try:
            seen = self._link.look() if self._link.runs() else {}
        except ServeSilent as fault:
            log.warning("serve.silent", reason=str(fault))
            for service in self._all():
                service.trouble = str(fault)
            return
        room = Room(nodes)
        for service in self._all():
            try:
                self._drive(service, seen.get(service.name), room, nodes, now_s)
            except Exception as fault:  # a service that cannot be driven must not stop the others
                service.trouble = f"{type(fault).__name__}: {fault}"[:ERROR_MAX]
                log.warning("service.failed", service=service.name, error=service.trouble)
        self._carry_out(nodes)
        self._desk.watch(tuple(_subject(one) for one in self._all() if one.plan), nodes)

    def report(self) -> list[dict[str, Any]]:
        """A row of the bridge's report for each. From any thread."""
        rows = []
        for service in self._all():
            self._wishes(service)
            rows.append(service.row(self._link.host, self._link.port))
        return rows

    def _all(self) -> list[Service]:
        # A copy: commands come in from other threads.
        return list(self._services.values())

    def _take_down(self) -> None:
        """Delete the applications of services that are gone."""
        for name in self._removed.copy():
            with suppress(ServeSilent):
                self._link.delete(name)
                self._removed.remove(name)

    def _drive(
        self,
        service: Service,
        app: Application | None,
        room: Room,
        nodes: Mapping[str, Node],
        now_s: float,
    ) -> None:
        """Bring one service nearer to its target."""
        if service.failed:
            self._bury(service, app)
            return
        if service.plan is not None and app is not None:
            names = {node.id: node.name for node in nodes.values() if node.alive}
            leaving = frozenset(node.id for node in nodes.values() if node.draining)
            service.died(service.see(app, names, leaving), now_s)
        if service.build is not None:
            self._built(service, now_s)
            return
        unit_w, labels = service.unit_w, service.spec.labels
        fits = room.fits(unit_w, labels)
        if service.plan is None or service.redeploy or app is None:
            if now_s - service.tried_s >= DEPLOY_AGAIN_S:
                self._build(service, min(service.target, fits), now_s)
            return
        wanted = service.wanted(fits, now_s)
        short = wanted < service.target and not service.held_back(now_s)
        service.waits = room.words(unit_w, labels) if short else None
        placed = service.running + service.starting - service.unplaced
        room.take(max(0, wanted - placed), unit_w, labels)
        self._scale(service, wanted, now_s)
        service.judge(wanted, now_s)

    def _build(self, service: Service, replicas: int, now_s: float) -> None:
        """Have it built; with no watts for the first replica yet, too."""
        self._link.start()
        service.tried_s = service.build_began_s = now_s
        service.redeploy, service.trouble = False, None
        self._allowances.allow(service.name, replicas, 0)
        service.build = begin(service.name, service.spec, replicas, self._gate_dir)

    def _built(self, service: Service, now_s: float) -> None:
        """See whether the build has ended."""
        done = ended(service, now_s)
        if done is None:
            return
        service.build = None
        if "error" in done:
            service.fail(done["error"])
            return
        log.info("service.built", service=service.name, seconds=round(done.pop("took_s"), 2))
        service.forget_deployment()
        service.forms = {"run": done.pop("run"), "held": done.pop("held")}
        service.plan = Plan(**done)
        self._put(service, "run")

    def _put(self, service: Service, form: str) -> None:
        """Deploy a service in one of its forms."""
        assert service.plan is not None, "built"
        assert service.forms is not None, "built"
        external = form == "held" or service.plan.hook == EXTERNAL
        self._link.deploy(service.name, service.forms[form], external)
        service.held, service.settled = form == "held", False
        log.info("service.deployed", service=service.name, form=form)

    def _bury(self, service: Service, app: Application | None) -> None:
        """Free the watts of a service that has failed."""
        cancel(service)
        if app is not None and app.status != "DELETING":
            log.warning("service.given_up", service=service.name, reason=service.failed)
            self._link.delete(service.name)
            for replica in service.replicas:  # Serve would wait 20 s for one that hangs
                self._evictions.begin(replica.actor, slots=0)
        if app is None:
            self._allowances.forget(service.name)
            service.forget_deployment()

    def _scale(self, service: Service, wanted: int, now_s: float) -> None:
        """Tell Serve, through the service's hook, how many replicas it may have."""
        assert service.plan is not None, "deployed"
        wanted = self._handed_over(service, wanted)
        service.asked = wanted
        service.low = wanted if service.low is None else min(service.low, wanted)
        if service.follows_policy:
            self._allow(service)
            self._hold(service, wanted, now_s)
        elif service.serve_target != wanted:
            self._link.scale(service.name, service.plan.unit, wanted)

    def _hold(self, service: Service, wanted: int, now_s: float) -> None:
        """Hold a service, or let it run again; see the module."""
        if service.held and wanted > 0:
            if service.forms is None:  # built by an earlier bridge
                service.redeploy = True
            else:
                self._put(service, "run")
        elif not service.held and wanted == 0 and service.forms is not None:
            wish = self._allowances.wish(service.name)
            if service.pressed(0.0 if wish is None else wish.ongoing, now_s):
                self._put(service, "held")

    def _allow(self, service: Service) -> None:
        """Write the allowance; a lower target is in force without waiting for a round."""
        if service.asked is None or not service.follows_policy:
            return
        sleeping = service.sleeper.state in ("asleep", "waking", "falling asleep")
        most = service.asked if sleeping else min(service.asked, service.target)
        self._allowances.allow(service.name, most, most if sleeping else service.least)

    def _handed_over(self, service: Service, wanted: int) -> int:
        """Replicas to have where they sleep instead of going."""
        if service.spec.hand_over != "sleep" or service.plan is None:
            return wanted
        sleeper = service.sleeper
        url = f"http://{self._link.host}:{self._link.port}{service.plan.route.rstrip('/')}"
        if wanted == 0 and sleeper.state == "awake" and service.running:
            service.kept = service.running
            sleeper.sleep(url)
        elif wanted > 0 and sleeper.state == "asleep":
            sleeper.wake(url)
        if sleeper.state in ("refused", "asleep") and service.running == 0:
            sleeper.state = "awake"  # the replicas are gone, and new ones start awake
        if sleeper.state == "awake":
            return wanted
        return 0 if sleeper.state == "refused" else service.kept

    def _carry_out(self, nodes: Mapping[str, Node]) -> None:
        """Begin the evictions that were ordered."""
        orders, self._orders = self._orders, []
        for job, name, units in orders:
            service, node = self._services.get(job), nodes.get(name)
            if service is None or node is None:
                continue
            leaving = sum(
                one.node_id == node.id and one.state == "STOPPING" for one in service.replicas
            )
            for replica in victims(service, node.id, max(0, units - leaving)):
                if self._evictions.begin(replica.actor, service.slots):
                    service.ended.append(replica.id)
                    service.kept = max(0, service.kept - 1)

    def _wishes(self, service: Service) -> None:
        """Take over what the policy and the replicas told last."""
        stats = self._desk.of(service.name)
        told = service.follows_policy and not service.held
        wish = self._allowances.wish(service.name) if told else None
        service.desired = None if wish is None else wish.desired
        service.stats = stats if wish is None else stats.beside(wish.ongoing, wish.queued)


def _subject(service: Service) -> Subject:
    assert service.plan is not None, "deployed"
    return Subject(
        app=service.name,
        unit=service.plan.unit,
        tells=service.plan.tells,
        running=service.running,
        streams=service.spec.promised,
    )
