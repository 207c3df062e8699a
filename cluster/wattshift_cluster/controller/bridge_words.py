"""The compute bridge's words (docs/protocol.md): commands go in, answers and reports come out.

A bridge that knows of one node only speaks of `node` instead of `nodes`; it is understood. What a
report does not say is unknown, never zero (I3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    EvictUnits,
    LimitUnits,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.jobs import REPORTED

LABELS_MAX = 64
UNASKED_MAX = 16
"""Bounds on what is kept of one node's report."""

BURST = 2.0
"""A rise of the requests of a service by so many is news at once; less waits for the next turn."""

Row = Mapping[str, Any]


def command(one: ComputeCommand) -> dict[str, Any]:
    """A command in the bridge's words."""
    match one:
        case SetNodePower(number, node, watts_w):
            return {"id": number, "kind": "set_node_power", "node": node, "watts_w": watts_w}
        case SetReplicas(number, _, job, replicas, spec, nodes):
            said = {"service": job, "spec": spec, "replicas": replicas, "nodes": dict(nodes)}
            return {"id": number, "kind": "set_replicas", **said}
        case StartJob(number, _, job, spec, nodes):
            said = {"job": job, "spec": spec, "nodes": dict(nodes)}
            return {"id": number, "kind": "start_job", **said}
        case PauseJob(number, _, job):
            return {"id": number, "kind": "pause_job", "job": job}
        case CancelJob(number, _, job):
            return {"id": number, "kind": "cancel_job", "job": job}
        case EvictUnits(number, node, job, units):
            return {"id": number, "kind": "evict_units", "node": node, "job": job, "units": units}
        case LimitUnits():
            raise AssertionError("power limits are the agents' and never reach the bridge")


def ended(answer: Row, asked: Sequence[ComputeCommand]) -> list[ev.Event]:
    """The end of every command that was asked; one without a row in the answer has failed.

    Raises:
        KeyError, TypeError, ValueError: the answer is not what the protocol says.
    """
    rows = {int(row["id"]): row for row in answer["results"]}
    missing = {"ok": False, "error": "the bridge did not answer this command"}
    return [_end(one.id, rows.get(one.id, missing)) for one in asked]


def _end(number: int, row: Row) -> ev.CommandEnded:
    return ev.CommandEnded(
        number, bool(row["ok"]), str(row.get("error") or ""), _float(row, "watts_w")
    )


@dataclass(frozen=True, slots=True)
class Names:
    """The nodes that the site file has.

    Attributes:
        bridge: the name of the bridge's own node, as older bridges mean it.
        site: names of all nodes.
    """

    bridge: str
    site: tuple[str, ...]

    def down(self, reason: str) -> list[ev.Event]:
        """No node answers."""
        return [ev.ComputeSeen(name, False, None, reason) for name in self.site]

    def nodes(self, report: Row) -> list[ev.ComputeSeen]:
        """What a report says of every node: the site's, told of or not, and Ray's others.

        Raises:
            KeyError, TypeError, ValueError: the report is not what the protocol says.
        """
        ray = report.get("ray", {})
        if not ray.get("up"):
            reason = str(ray.get("error") or "Ray is down")
            return [ev.ComputeSeen(name, False, None, reason) for name in self.site]
        rows = self._rows(report)
        absent = "Ray has no node of this name"
        seen = [
            _seen(name, rows[name]) if name in rows else ev.ComputeSeen(name, False, None, absent)
            for name in self.site
        ]
        return seen + [_seen(name, row) for name, row in rows.items() if name not in self.site]

    def _rows(self, report: Row) -> dict[str, Row]:
        told = report.get("nodes")
        if told is None:
            return {self.bridge: {"alive": True, **report.get("node", {})}}
        rows: dict[str, Row] = {}
        for row in told:
            name = str(row["name"])
            # A node that came back has a row of its former life, too: the living one speaks.
            if name not in rows or row.get("alive"):
                rows[name] = row
        return rows


def _seen(name: str, row: Row) -> ev.ComputeSeen:
    if not row.get("alive"):
        return ev.ComputeSeen(name, False, None, str(row.get("error") or "Ray has lost the node"))
    total_w, free_w = _float(row, "power_w_total"), _float(row, "power_w_available")
    labels = list((row.get("labels") or {}).items())[:LABELS_MAX]
    return ev.ComputeSeen(
        name,
        True,
        total_w,
        str(row.get("error") or ""),
        used_w=None if total_w is None or free_w is None else max(total_w - free_w, 0.0),
        unasked_w=_float(row, "unasked_w"),
        system_w=_float(row, "system_w"),
        unasked=tuple(str(one) for one in list(row.get("unasked") or ())[:UNASKED_MAX]),
        labels={str(key): str(value) for key, value in labels},
        gpus=_float(row, "gpus"),
        draining=bool(row.get("draining")),
    )


def jobs(report: Row) -> list[ev.JobReported]:
    """What a report says of services and batch jobs. Raises: as `Names.nodes`."""
    services = [_service(row) for row in report.get("services", ())]
    return services + [_batch(row) for row in report.get("jobs", ())]


def _service(row: Row) -> ev.JobReported:
    running = int(row.get("running") or 0)
    waiting = [_float(row, "ongoing"), _float(row, "queued")]
    known = [count for count in waiting if count is not None]
    state = "running" if running > 0 else "starting"
    return ev.JobReported(
        job=str(row["name"]),
        state="failed" if row.get("state") == "failed" else state,
        running=running,
        ongoing=float(sum(known)) if known else None,
        p95_ms=_float(row, "p95_ms"),
        error=row.get("error"),
        by_node=_by_node(row),
        desired=_int(row, "desired"),
        ttft_p95_ms=_float(row, "ttft_p95_ms"),
        itl_p95_ms=_float(row, "itl_p95_ms"),
        rate_per_s=_float(row, "rate_per_s"),
    )


def _batch(row: Row) -> ev.JobReported:
    state = str(row["state"])
    if state not in REPORTED:
        raise ValueError(f"the bridge reports a job in state {state!r}")
    return ev.JobReported(
        job=str(row["job"]),
        state=state,
        done=_int(row, "done"),
        total=_int(row, "total"),
        error=row.get("error"),
        by_node=_by_node(row),
        rate_per_s=_float(row, "rate_per_s"),
        items_failed=_int(row, "failed_items"),
        checkpoint_age_s=_float(row, "checkpoint_age_s"),
    )


def _by_node(row: Row) -> dict[str, int] | None:
    told = row.get("by_node")
    if told is None or not all(0 <= float(units) < math.inf for units in told.values()):
        return None
    return {str(name): int(units) for name, units in told.items()}


def _float(row: Row, key: str) -> float | None:
    """A figure; none that is negative or not finite: it would give watts to the budget (I1)."""
    figure = math.nan if row.get(key) is None else float(row[key])
    return figure if 0.0 <= figure < math.inf else None


def _int(row: Row, key: str) -> int | None:
    figure = _float(row, key)
    return None if figure is None else int(figure)


def news(before: Row, report: Row) -> bool:
    """Whether a report says what the core should hear at once and not at its next turn."""
    if not before:
        return True
    return _outline(before) != _outline(report) or _burst(before, report)


def _outline(report: Row) -> list[object]:
    """Where everything stands, without the figures that always move."""
    nodes = report.get("nodes") or [report.get("node", {})]
    jobs_told = report.get("jobs", ())
    found: list[object] = [report.get("ray", {}).get("up")]
    found += [[row.get(k) for k in ("name", "alive", "power_w_total", "draining")] for row in nodes]
    standing = ("name", "state", "running", "desired", "by_node", "error")
    found += [[row.get(key) for key in standing] for row in report.get("services", ())]
    found += [[row.get(key) for key in ("job", "state", "by_node", "error")] for row in jobs_told]
    return found


def _burst(before: Row, report: Row) -> bool:
    """Whether any service has got many more requests since the last report."""
    was = {row.get("name"): _waiting(row) for row in before.get("services", ())}
    return any(
        _waiting(row) >= was.get(row.get("name"), 0.0) + BURST for row in report.get("services", ())
    )


def _waiting(row: Row) -> float:
    return float(row.get("ongoing") or 0.0) + float(row.get("queued") or 0.0)
