"""What people ask of jobs and of compute nodes: submit, act, read the log, drain, forget.

A job is answered for only after it is on disk (I5). What could never run is refused before that,
and so is an id that another job has, or the path at which another service answers.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from wattshift_cluster.config import blueprint
from wattshift_cluster.controller import compute_views, feasible, places_taken, views
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.errors import ConfigInvalid, Fault, NotFound, Refused, TryLater
from wattshift_cluster.wire.link import LinkError, OpFailed
from wattshift_scheduler import events as ev
from wattshift_scheduler.compute import forgetting
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.errors import JobInvalid
from wattshift_scheduler.jobs import Job, JobKind

JOBS_MAX = 10_000
"""Jobs that are not final; more are refused with `try later`."""

LINES_MAX = 1000
View = dict[str, Any]


class JobDesk:
    """Jobs and nodes, as people ask of them."""

    def __init__(self, controller: Controller) -> None:
        """Wrap a controller that runs in this event loop."""
        self._c = controller
        self._accepting: set[str] = set()
        self._keys: set[str] = set()

    def found(self, job_id: str) -> Job:
        """One job, of long ago too. Raises NotFound."""
        job = self._c.state.jobs.get(job_id) or self._c.journal.job(job_id)
        if job is None:
            raise NotFound(f"no job {job_id}")
        return job

    def view(self, job: Job) -> View:
        """A job, with the address at which a service answers and its side's last error."""
        report = self._c.bridge.report if self._c.bridge is not None else {}
        rows = {str(row.get("name")): row for row in report.get("services", ())}
        rows |= {str(row.get("job")): row for row in report.get("jobs", ())}
        row = rows.get(job.id, {})
        view = {**views.job(job), "url": row.get("url"), "error": row.get("error")}
        if view["learnt"] is not None:
            note = self._c.replica_watts.note(job.id) or None
            view["learnt"] = {**view["learnt"], "note": note}
        return view

    async def submit(self, spec: dict[str, Any], key: str | None, wanted: str | None) -> View:
        """Write a job down, then take it. Raises ConfigInvalid, Refused, TryLater."""
        c = self._c
        if spec["kind"] != JobKind.MINING:
            c.outlet.commanding()
        digest = _digest(spec, wanted)
        if key is not None and (known := c.journal.job_of_key(key)) is not None:
            if known[0] != digest:
                raise Refused("this Idempotency-Key was used for another job")
            return self.view(self.found(known[1]))
        if key in self._keys:
            raise TryLater("the first request with this Idempotency-Key is being written down")
        if sum(not job.state.final for job in c.state.jobs.values()) >= JOBS_MAX:
            raise TryLater(f"{JOBS_MAX} jobs are open; finish or cancel some")
        _absolute(spec)
        job_id = f"{spec['kind']}-{secrets.token_hex(4)}" if wanted is None else wanted
        self._free(job_id)
        now_s = c.clock.now_s()
        try:
            job = blueprint.job_of(job_id, spec, now_s)
        except JobInvalid as fault:
            raise ConfigInvalid([Fault("job", "", None, fault.reason)]) from None
        self._alone(job)
        feasible.check(c.state, job, now_s)
        await self._accept(job, key, digest)
        c.inbox.put([ev.JobSubmitted(job)])
        c.turn(c.inbox.take())
        late = feasible.late(c.state, job, now_s)
        if late is not None:
            c.tell(Decision(now_s, job_id, "warned", late, {}))
        return {**self.view(self.found(job_id)), "warnings": [] if late is None else [late]}

    async def _accept(self, job: Job, key: str | None, digest: str) -> None:
        """Have a job on disk. Meanwhile nobody else gets its id, its place or its key."""
        names = {name for name in (job.id, places_taken.place_of(job)) if name is not None}
        keys = set() if key is None else {key}
        self._accepting |= names
        self._keys |= keys
        try:
            await self._c.journal.accept(job, key, digest)
        finally:
            self._accepting -= names
            self._keys -= keys

    def _alone(self, job: Job) -> None:
        """Raise Refused if another job answers or writes where this one would."""
        place = places_taken.place_of(job)
        if place is None:
            return
        other = places_taken.holder(self._c.state.jobs.values(), job)
        if other is not None:
            raise Refused(places_taken.taken(place, other))
        if place in self._accepting:
            raise Refused(f"a job at {place} is being submitted by somebody else right now")

    def _free(self, job_id: str) -> None:
        """Raise Refused if the id is a job's, a device's or a node's: `explain` takes all three."""
        c = self._c
        job = c.state.jobs.get(job_id) or c.journal.job(job_id)
        if job is not None:
            told = f"a {job.kind.value} named {job.name}, {job.state.value} ({job.reason})"
            raise Refused(f"{job_id} exists: {told}; an id is never given twice")
        if job_id in self._accepting:
            raise Refused(f"{job_id} is being submitted by somebody else right now")
        if job_id in c.state.nodes or job_id in c.roster.entries:
            raise Refused(f"{job_id} is the name of a node or a device; choose another id")

    async def act(self, job_id: str, action: str) -> View:
        """Pause, resume or cancel a job. Raises NotFound, Refused."""
        job = self.found(job_id)
        if job.kind is not JobKind.MINING:
            self._c.outlet.commanding()
        if job.state.final:
            raise Refused(f"{job_id} is {job.state.value}")
        self._c.inbox.put([ev.JobActed(job_id, action)])
        self._c.turn(self._c.inbox.take())
        return self.view(self.found(job_id))

    async def logs(self, job_id: str, lines: int) -> View:
        """What was decided about a job, and what its code printed (api.compute_views.LogView)."""
        job = self.found(job_id)
        count = min(lines, LINES_MAX)
        decided = [views.decision(d) for d in self._c.journal.decisions(job_id, None, count)]
        told = [f"{one['at']} {one['action']}: {one['reason']}" for one in reversed(decided)]
        printed, trouble = None, None
        if job.kind is JobKind.BATCH and self._c.compute_link is not None:
            try:
                printed = await self._printed(job_id, count)
            except OpFailed:
                trouble = "the compute side keeps no log of it"
            except LinkError as fault:
                trouble = str(fault)
        return {"job": job_id, "lines": told, "printed": printed, "trouble": trouble}

    async def _printed(self, job_id: str, count: int) -> list[str]:
        answer = await self._ask("log", job=job_id, lines=count)
        rows = answer.get("lines")
        return [str(row) for row in rows][-count:] if isinstance(rows, list) else []

    async def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        link = self._c.compute_link
        assert link is not None, "asked only where there is compute"
        try:
            return await link.call(op, **fields)
        finally:
            await link.close()

    async def drain(self, node: str, by: str) -> View:
        """Have a node's work leave, for good. Raises NotFound, Refused, Unreachable."""
        c = self._c
        self._known(node)
        c.outlet.commanding()
        try:
            answer = await self._ask("drain", node=node)
        except OpFailed as fault:
            raise Refused(f"{node} cannot be drained: {fault.reason}") from None
        note = str(answer.get("note") or "its work leaves, and nothing new is placed there")
        c.tell(Decision(c.clock.now_s(), node, "drain", f"by {by}: {note}", {}))
        return {**self._node_view(node), "note": note}

    async def forget(self, node: str, by: str) -> View:
        """Count nothing of a lost node: `by` vouches that its machine is off.

        The bridge has to hear of it first: what it remembers of the node's watts it would give the
        node again as soon as it is back.

        Raises:
            NotFound: there is no such node.
            Refused: it is not lost, or not for long enough.
            Unreachable: the bridge does not answer.
        """
        c = self._c
        self._known(node)
        c.outlet.commanding()
        self._off(node)
        try:
            await self._ask("forget", node=node)
        except OpFailed as fault:
            raise Refused(f"{node} cannot be forgotten: {fault.reason}") from None
        self._off(node)  # it may have come back meanwhile
        c.inbox.put([ev.NodeForgotten(node, by)])
        c.turn(c.inbox.take())
        note = "its watts are free again; it counts anew as soon as Ray answers there"
        return {**self._node_view(node), "note": note}

    def _off(self, node: str) -> None:
        why = forgetting.refusal(self._c.state.nodes[node], self._c.clock.now_s())
        if why is not None:
            raise Refused(f"{node} cannot be forgotten: {why}")

    def _known(self, node: str) -> None:
        if node not in self._c.state.nodes:
            names = ", ".join(sorted(self._c.state.nodes)) or "none"
            raise NotFound(f"no compute node {node}; there are: {names}")

    def _node_view(self, node: str) -> View:
        return next(one for one in compute_views.nodes(self._c.state) if one["node"] == node)


def _absolute(spec: Mapping[str, Any]) -> None:
    """Raise ConfigInvalid for a relative path: each worker would look for it in a folder of Ray's.

    The command line makes them absolute; a body over HTTP may not have.
    """
    paths = [(key, spec[key]) for key in ("input", "output") if key in spec]
    paths += [("python_path", folder) for folder in spec.get("python_path", ())]
    allowed = "allowed: a path from the root, the same on every node"
    wrong = [Fault("job", key, path, allowed) for key, path in paths if not path.startswith("/")]
    if wrong:
        raise ConfigInvalid(wrong)


def _digest(spec: dict[str, Any], wanted: str | None) -> str:
    """What tells one request from another: all that was given, and nothing of the clock."""
    whole = spec if wanted is None else {**spec, "id": wanted}
    if "deadline_in_s" in whole:
        whole = {key: value for key, value in whole.items() if key != "deadline_at_s"}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
