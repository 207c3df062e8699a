"""A small in-memory controller behind the port, and a real server around it, for tests."""

import asyncio
import contextlib
import fnmatch
import json
import secrets
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.idempotency import Answers
from wattshift_cluster.api.server import start
from wattshift_cluster.api.tokens import Role, TokenStore, rfc3339
from wattshift_cluster.errors import NotFound, Refused, Unreachable

FLOOR_W = 800.0


def _beside(name: str) -> Any:
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    if name not in sys.modules:
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


_devices, _jobs = _beside("fakedevices"), _beside("fakejobs")
_plan = _beside("fakeplan")
FakeGpu: Any = _devices.FakeGpu
FakeAsic: Any = _devices.FakeAsic


@dataclass
class FakePort:
    """Remembers what it is told and streams what `publish` gives it."""

    power_w: float | None = 9_400.0
    cap_w: float = 14_000.0
    tick: int = 7
    submitted: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    held_caps: list[dict[str, Any]] = field(default_factory=list)
    lifted: list[dict[str, Any]] = field(default_factory=list)
    binding: dict[str, Any] = field(default_factory=dict)
    injected: list[dict[str, Any]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    delay_s: float = 0.0
    fails: Exception | None = None
    mix_w: tuple[float, float, float, float] = (2_400.0, 300.0, 6_540.0, 160.0)
    gpus: dict[str, FakeGpu] = field(default_factory=dict)
    asics: dict[str, FakeAsic] = field(default_factory=dict)
    orders: list[dict[str, Any]] = field(default_factory=list)
    taught: list[dict[str, Any]] = field(default_factory=list)
    learnt: dict[str, Any] = field(default_factory=dict)
    agent_away: bool = False
    mode: str = "control"
    held_figure: str | None = None
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    never: Exception | None = None
    printed: list[str] | None = None
    planned: dict[str, Any] | None = None
    unseen_rows: list[dict[str, Any]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget everything but the running server's subscription."""
        kept = (self._queues, self._event_id, self.loop)
        self.__dict__.clear()
        type(self).__init__(self)
        self._queues, self._event_id, self.loop = kept

    def __post_init__(self) -> None:
        self._queues: set[asyncio.Queue[tuple[int, str, Mapping[str, Any]]]] = set()
        self._event_id = 1000
        self.loop: asyncio.AbstractEventLoop | None = None
        self.start_s = time.time()

    def site(self) -> dict[str, Any]:
        if self.fails is not None:
            raise self.fails
        inference_w, batch_w, mining_w, other_w = self.mix_w
        return {
            "name": "yard-7",
            "mode": self.mode,
            "at": rfc3339(time.time()),
            "power_w": self.power_w,
            "power_quality": "unknown" if self.power_w is None else "emulated",
            "power_age_s": 0.4 if self.power_w is not None else None,
            "cap_w": self.cap_w,
            "cap_origin": "schedule",
            "cap_id": "s-1",
            "cap_kind": "contract",
            "cap_stated_w": self.cap_w,
            "cap_waits": None,
            "cap_advice": None,
            "target_w": None,
            "target_id": None,
            "cap_name": None,
            "target_name": None,
            "notice_name": None,
            "mining_target_w": None,
            "notice": None,
            "next_change_at": None,
            **dict.fromkeys(("next_cap_w", "next_cap_at", "next_cap_origin", "next_cap_name")),
            "carbon_g_per_kwh": None,
            **self.binding,
            "margin_w": 280.0,
            "headroom_w": 4_100.0,
            "committed_w": 9_620.0,
            "budget_w": 13_720.0,
            "inference_w": inference_w,
            "mining_w": mining_w,
            "batch_w": batch_w,
            "other_w": other_w,
            "price_usd_per_mwh": 41.25,
            "tick": self.tick,
            "epoch": 3,
            "meter_stale": self.power_w is None,
            "alarms": [],
            "feeders": [
                {"id": "root", "parent": None, "limit_w": 14_000.0, "committed_w": 9_620.0},
                {"id": "row-a", "parent": "root", "limit_w": 7_000.0, "committed_w": 6_900.0},
            ],
            "hashes_total": 4.2e13,
            "shares": {"accepted": 1234, "rejected": 0, "lost": 2},
            "jobs": {"batch": {"running": 1}},
            "compute": [dict(node) for node in self.nodes.values()],
        }

    def unseen(self) -> list[Mapping[str, Any]]:
        return list(self.unseen_rows)

    def devices(self) -> list[Mapping[str, Any]]:
        def device(name: str, **changes: Any) -> dict[str, Any]:
            return {
                "id": name,
                "kind": "asic",
                "model": "Antminer S19j Pro",
                "agent": "row-a",
                "feeder": "row-a",
                "mode": "profile-2",
                "leased_w": 3_000.0,
                "ceiling_w": 3_150.0,
                "watts_w": 2_950.0,
                "quality": "emulated",
                "age_s": 0.6,
                "hashrate_h_per_s": 96.2e12,
                "state": "confirmed",
                "value_usd_per_h": 0.12,
                "reason": "it runs at its top under cap 14,000 W (schedule)",
                "reported_mode": "profile-2",
                "asleep": None,
                "error": None,
                "note": None,
                **changes,
            }

        lost = {"watts_w": None, "age_s": None, "hashrate_h_per_s": None, "state": "unreachable"}
        return [
            device("asic-1"),
            device("asic-2", mode="sleep", state="settling", watts_w=1_420.0, leased_w=60.0),
            device("asic-3", reason="no answer for 12 s; counted at its ceiling", **lost),
            device("host-cpu", kind="cpu", model="2 cores", quality="modelled", watts_w=41.0),
            *(
                device(
                    name,
                    kind="gpu",
                    model="Emulated H200",
                    agent="host",
                    feeder="root",
                    mode="hash" if gpu.lease_w else "idle",
                    leased_w=gpu.lease_w,
                    ceiling_w=gpu.enforced_w,
                    watts_w=92.0,
                    hashrate_h_per_s=0.0,
                    reason="seen to obey its lease",
                )
                for name, gpu in self.gpus.items()
            ),
            *(self._rig(device(name), rig) for name, rig in self.asics.items()),
        ]

    def _rig(self, row: dict[str, Any], rig: FakeAsic) -> dict[str, Any]:
        rig.look()
        asleep = None if rig.watts_w is None else rig.watts_w < 100.0
        changes: dict[str, Any] = {"watts_w": rig.watts_w, "asleep": asleep, "age_s": 0.01}
        changes |= {"error": rig.error, "note": rig.note}
        if not rig.leased:
            changes |= {"mode": "sleep", "reason": "its next rung is worth less than its energy"}
        if rig.away:
            changes |= {"state": "unreachable", "age_s": 12.0, "watts_w": None, "asleep": None}
        return row | changes

    def _gpu(self, device_id: str) -> FakeGpu | None:
        """Returns a card, None for another device, as the controller and an agent would."""
        if device_id not in {one["id"] for one in self.devices()}:
            raise NotFound(f"no device {device_id}; see wattshift fleet list")
        if self.agent_away:
            raise Unreachable("agent host: no answer in 2 s")
        return self.gpus.get(device_id)

    async def command_fleet(
        self,
        action: str,
        devices: Sequence[str],
        *,
        by: str,
        by_id: str | None = None,
        reason: str | None,
        watts_w: float | None,
        override: bool,
        dry_run: bool,
    ) -> list[Mapping[str, Any]]:
        assert by_id, "a lock belongs to a token, not to its name"
        order = {"action": action, "devices": list(devices), "by": by, "reason": reason}
        self.orders.append(order | {"watts_w": watts_w, "override": override, "dry_run": dry_run})
        if self.mode == "shadow":
            raise Refused("shadow mode: nothing is commanded here")
        known = [one["id"] for one in self.devices()]
        for name in devices:
            if not fnmatch.filter(known, name):
                raise NotFound(f"no device matches {name!r}; see wattshift fleet list")
        chosen = [n for n in known if any(fnmatch.fnmatchcase(n, p) for p in devices)]
        return [self._ordered(n, action, by, watts_w, override, dry_run) for n in chosen]

    def _ordered(
        self, name: str, action: str, by: str, watts_w: float | None, override: bool, dry_run: bool
    ) -> dict[str, Any]:
        row = {"device": name, "ok": False, "state": None, "fault": "refused"}
        rig = self.asics.get(name)
        if rig is None:
            return row | {"error": f"{name} is no ASIC of this test"}
        if rig.away:
            return row | {"fault": "unreachable", "error": "agent row-a: no answer in 5 s"}
        if dry_run:
            return row | {"ok": True, "fault": None, "error": None, "state": f"would {action}"}
        error = rig.order(action, by, watts_w, override)
        self.decide(name, action, f"by {by} ({error or 'taken'})", ok=error is None)
        if error is not None:
            return row | {"error": error}
        return row | {"ok": True, "fault": None, "error": None, "state": "commanded"}

    async def teach_fleet(
        self, findings: Mapping[str, Mapping[str, Any]], *, by: str, reason: str | None
    ) -> list[Mapping[str, Any]]:
        rows = []
        for name, learnt in findings.items():
            row = {"device": name, "ok": name in self.asics, "fault": None, "error": None}
            if name in self.asics:
                self.taught.append({"device": name, "by": by, "reason": reason, "learnt": learnt})
                rows.append(row | {"state": "as-found at most 3,400 W"})
            else:
                rows.append(row | {"state": None, "fault": "refused", "error": "no such rig"})
        return rows

    async def learnt_device(self, device_id: str) -> dict[str, Any]:
        if device_id not in self.asics:
            raise Refused(f"{device_id} is no ASIC of this test")
        view: dict[str, Any] = {"device": device_id, "down_s": None, "up_s": None}
        view |= {"factor": None, "factor_error": None, "factor_n": 0, "points": []}
        return view | self.learnt

    async def limit_devices(self, wanted_w: Mapping[str, float]) -> list[Mapping[str, Any]]:
        found = {name: self._gpu(name) for name in wanted_w}
        rows = []
        for name, gpu in found.items():
            if gpu is None:
                raise Refused(f"{name} is no GPU: its power is set by its leases alone")
            enforced_w, error = gpu.limit(wanted_w[name])
            row = {"device": name, "asked_w": wanted_w[name], "enforced_w": enforced_w}
            rows.append(row | {"error": error, "took_s": 0.012})
        return rows

    async def release_device(self, device_id: str) -> dict[str, Any]:
        gpu = self._gpu(device_id)
        first_w = None if gpu is None else gpu.release()
        row = {"device": device_id, "asked_w": first_w, "enforced_w": first_w}
        restored = None if first_w is None else row | {"error": None, "took_s": 0.011}
        return {"device": device_id, "limit": restored}

    async def profile_device(
        self,
        device_id: str,
        *,
        start: bool,
        stop: bool = False,
        dry_run: bool = False,
        with_sleep: bool = False,
        points: int | None = None,
    ) -> dict[str, Any]:
        if (rig := self.asics.get(device_id)) is not None:
            if rig.away:
                raise Unreachable("agent row-a: no answer in 5 s")
            how = {"with_sleep": with_sleep, "points": points}
            return rig.walk(device_id, start=start, stop=stop, dry_run=dry_run, how=how)
        gpu = self._gpu(device_id)
        if gpu is None:
            raise Refused(f"{device_id} is no GPU: it has no power curve to be measured here")
        if start:
            if gpu.lease_w is None:
                raise Refused(f"{device_id} cannot be measured: it has no lease")
            if gpu.state == "running":
                raise Refused(f"{device_id} cannot be measured: it is being measured already")
            gpu.state, gpu.steps = "running", 0
        else:
            gpu.advance()
        return gpu.profile(device_id)

    def jobs(self, state: str | None = None) -> list[Mapping[str, Any]]:
        return [job for job in self.submitted.values() if state in (None, job["state"])]

    def job(self, job_id: str) -> dict[str, Any]:
        if job_id not in self.submitted:
            raise NotFound(f"no job {job_id}")
        return self.submitted[job_id]

    async def job_logs(self, job_id: str, lines: int) -> dict[str, Any]:
        told = [f"{self.job(job_id)['submitted_at']} submitted"]
        trouble = "no answer in 5 s" if self.agent_away else None
        return {"job": job_id, "lines": told, "printed": self.printed, "trouble": trouble}

    async def drain_node(self, node: str, *, by: str) -> dict[str, Any]:
        if node not in self.nodes:
            raise NotFound(f"no compute node {node}; there are: {', '.join(self.nodes)}")
        self.nodes[node]["draining"] = True
        self.decide(node, "drain", f"by {by}: its work leaves")
        return {**self.nodes[node], "note": "its work leaves"}

    async def forget_node(self, node: str, *, by: str) -> dict[str, Any]:
        if node not in self.nodes:
            raise NotFound(f"no compute node {node}; there are: {', '.join(self.nodes)}")
        if self.nodes[node]["up"]:
            raise Refused(f"{node} cannot be forgotten: Ray answers there")
        self.nodes[node].update(forgotten=True, power_w=0.0)
        self.decide(node, "forget", f"by {by}, who vouches that the machine is off")
        return {**self.nodes[node], "note": "its watts are free again"}

    def signals(self) -> dict[str, Any]:
        caps = [
            {
                **row,
                "id": row.get("id") or "c",
                "starts_at": None,
                "ends_at": None,
                "in_force": True,
            }
            for signal in self.injected
            for row in signal["caps"]
        ]
        nothing: dict[str, Any] = {"targets": [], "events": [], "alerts": [], "notes": []}
        nothing |= {"left_out": 0, "prices": None, "carbon": None, "heard_age_s": 2.0}
        source = {"kind": "injected", "caps": caps, "fault": None, **nothing}
        return {
            "price_usd_per_mwh": 41.25,
            "price_from_feed": True,
            "carbon_g_per_kwh": None,
            "overrides": self.lifted,
            "sources": {"event": source},
        }

    def overrides(self) -> list[Mapping[str, Any]]:
        return list(self.lifted)

    async def override_cap(
        self, source: str, cap: str, limit_w: float, ends_s: float, *, by: str, reason: str
    ) -> dict[str, Any]:
        if source == "connection":
            raise Refused("the connection's own limit is never overridden")
        one = {"source": source, "cap": cap, "limit_w": limit_w, "stated_w": 9_000.0}
        one |= {"ends_at": rfc3339(ends_s), "by": by, "reason": reason}
        self.lifted.append(one)
        return one

    async def clear_override(self, source: str | None, cap: str | None, *, by: str) -> None:
        stay = [o for o in self.lifted if source and (o["source"], o["cap"]) != (source, cap)]
        if source is not None and len(stay) == len(self.lifted):
            raise NotFound(f"no override of cap {cap} of {source}")
        self.lifted = stay

    def caps(self) -> list[Mapping[str, Any]]:
        return list(self.held_caps)

    def decisions(
        self, subject: str | None, since: float | None, limit: int
    ) -> list[Mapping[str, Any]]:
        found = [d for d in self.told if subject in (None, d["subject"])]
        return [d for d in found if since is None or d["at_s"] >= since][:limit]

    def flexibility(self) -> list[Mapping[str, Any]]:
        step = {"deliverable_w": 540.0, "duration_s": None, "rearm_s": 0.0}
        step |= {"sure_share": 0.9, "promised_w": 0.0}
        return [{"deadline_s": 0.25, **step}, {"deadline_s": 600.0, **step}]

    def plan(self, hours: float | None) -> dict[str, Any]:
        view: dict[str, Any] = self.planned or _plan.view(36.0 if hours is None else hours)
        return view

    def economics(self, pattern: str | None, limit: int) -> dict[str, Any]:
        view: dict[str, Any] = json.loads(Path(__file__).with_name("economics.json").read_text())
        wanted = [d for d in view["devices"] if fnmatch.fnmatchcase(d["device"], pattern or "*")]
        held = [] if self.held_figure is None else [self.held_figure]
        view["hashprice"]["held"] = held
        return view | {"devices": wanted[:limit], "devices_left_out": len(wanted[limit:])}

    async def confirm_hashprice(self, by: str) -> list[str]:
        if self.held_figure is None:
            raise Refused("no figure is held that could be confirmed")
        self.held_figure = None
        return [f"usd_per_btc by {by}"]

    def metrics_snapshot(self) -> dict[str, Any]:
        return {
            "site_power_w": {"meter": self.power_w, "devices": 9_380.0},
            "cap_w": {"schedule": self.cap_w},
            "headroom_w": None,
            "energy_j": [("asic-1", "mining", 1.5e6)],
            "overcap_s": 2.5,
            "leases": {"confirmed": 3},
            "reading_age_s": {"asic-1": 0.6, "asic-3": None},
            "decision_s": {"buckets": {0.001: 3, 0.01: 5}, "sum": 0.02, "count": 6},
            "hashes": [("sha256d", "asic-1", 4.2e13)],
            "shares": [("127.0.0.1:3333", "accepted", 1234)],
            "jobs": [("batch", "running", 1)],
        }

    async def submit_job(
        self, spec: dict[str, Any], idempotency_key: str | None, wanted: str | None = None
    ) -> dict[str, Any]:
        await asyncio.sleep(self.delay_s)
        if self.never is not None:
            raise self.never
        if idempotency_key in self.keys:
            return self.submitted[self.keys[idempotency_key]]
        job_id = wanted or f"{spec['kind']}-{secrets.token_hex(4)}"
        if job_id in self.submitted:
            raise Refused(f"{job_id} exists: a {spec['kind']} named {spec['name']}")
        self.submitted[job_id] = _jobs.job_view(job_id, spec)
        if idempotency_key is not None:
            self.keys[idempotency_key] = job_id
        return self.submitted[job_id]

    async def job_action(self, job_id: str, action: str) -> dict[str, Any]:
        job = self.job(job_id)
        if job["state"] == "cancelled":
            raise Refused(f"{job_id} is cancelled")
        state = {"pause": "paused", "resume": "running", "cancel": "cancelled"}[action]
        job.update(state=state, reason=f"{action} by a person")
        return job

    async def set_cap(
        self,
        limit_w: float,
        starts_s: float | None,
        ends_s: float | None,
        origin: str,
        strict: bool,
    ) -> dict[str, Any]:
        short_w = FLOOR_W - limit_w
        if strict and short_w > 0:
            raise Refused(f"the site cannot go below {FLOOR_W:.0f} W: short by {short_w:.0f} W")
        cap = {
            "id": f"cap-{secrets.token_hex(4)}",
            "source": "operator",
            "origin": origin,
            "kind": "operator",
            "limit_w": limit_w,
            "window_s": 0.0,
            "confidence": 1.0,
            "starts_at": None if starts_s is None else rfc3339(starts_s),
            "ends_at": None if ends_s is None else rfc3339(ends_s),
            "in_force": True,
            "overridden_w": None,
            "shortfall_w": short_w if short_w > 0 else None,
        }
        self.held_caps.append(cap)
        return cap

    async def clear_cap(self, cap_id: str | None) -> None:
        if cap_id is not None and cap_id not in {cap["id"] for cap in self.held_caps}:
            raise NotFound(f"no operator cap {cap_id}")
        self.held_caps = [c for c in self.held_caps if cap_id is not None and c["id"] != cap_id]

    async def inject_signal(self, signal: dict[str, Any]) -> dict[str, Any]:
        self.injected.append(signal)
        return self.signals()

    async def subscribe(self, last_id: int | None) -> AsyncIterator[tuple[int, str, Any]]:
        queue: asyncio.Queue[tuple[int, str, Mapping[str, Any]]] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    def publish(self, event: str, data: Mapping[str, Any]) -> int:
        """Send an event to every subscriber, from any thread, and return its id."""
        self._event_id += 1
        event_id = self._event_id
        assert self.loop is not None
        for queue in list(self._queues):
            self.loop.call_soon_threadsafe(queue.put_nowait, (event_id, event, data))
        return event_id

    def decide(
        self, subject: str, action: str, reason: str, at_s: float | None = None, **inputs: Any
    ) -> None:
        """Note a decision and stream it."""
        at_s = time.time() if at_s is None else at_s
        row = {"at": rfc3339(at_s), "at_s": at_s, "subject": subject, "action": action}
        row |= {"reason": reason, "inputs": {"cap_w": self.cap_w, **inputs}}
        self.told.insert(0, row)
        self.publish("decision", row)


@dataclass
class Served:
    """A running server: where, who may enter, and what is behind it."""

    url: str
    port: FakePort
    store: TokenStore
    secrets: dict[str, str]
    app: Any

    def reset(self) -> None:
        """Make the server as good as new for the next test, tokens and event ids apart."""
        self.port.reset()
        self.app.state.answers = Answers()


@contextlib.contextmanager
def serving(state_dir: Path, port: FakePort | None = None, listen: int = 0) -> Iterator[Served]:
    """Serve a fake controller on a real socket from a thread of its own."""
    port = port or FakePort()
    store = TokenStore(state_dir)
    kept = {role.name.lower(): store.create(role.name.lower(), role)[0] for role in Role}
    ready, stop = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        port.loop = asyncio.get_running_loop()
        api = await start(create_app(port, store), "127.0.0.1", listen)
        found["url"], found["app"] = api.url, api.app
        ready.set()
        await asyncio.to_thread(stop.wait)
        await api.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10), "the server did not start"
    try:
        yield Served(found["url"], port, store, kept, found["app"])
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"
