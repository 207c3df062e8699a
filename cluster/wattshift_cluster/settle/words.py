"""A report and a check in words, for terminal and page; unknown is said, never shown as 0."""

import math
from collections.abc import Mapping
from typing import Any

from wattshift_cluster.settle.practice import Practised
from wattshift_cluster.settle.report import Report
from wattshift_cluster.settle.rows import utc
from wattshift_cluster.settle.settle import Settled, apart_words
from wattshift_cluster.settle.statements import Statement
from wattshift_cluster.settle.verify import Verified

UNKNOWN = "unknown"
GAPS_TOLD = 5


def figure(value: float, digits: int, unit: str = "") -> str:
    """A figure for people; `unknown` for NaN."""
    return f"{value:,.{digits}f}{unit}" if math.isfinite(value) else UNKNOWN


def amount(value: float, currency: str) -> str:
    """An amount of money for people."""
    return figure(value, 2, f" {currency}")


def credit_text(credit: Mapping[str, float]) -> str:
    """Amounts by currency for people."""
    return ", ".join(amount(value, currency) for currency, value in sorted(credit.items()))


def trust_lines(found: Verified) -> tuple[str, ...]:
    """How far a log can be trusted, a line each."""
    lines = [] if found.fault is None else [f"first fault: {found.fault}"]
    if found.signed_at_s is None:
        lines.append("nothing of it is signed")
    else:
        lines.append(f"signed up to line {found.signed_seq:,}, {utc(found.signed_at_s)}")
    behind = found.last_seq - found.signed_seq
    if behind:
        lines.append(f"{behind:,} lines after it are chained and not signed")
    key = ", ".join(one[:16] + "…" for one in found.keys)
    source = "the key you gave" if found.key_told else "the key beside the log, which proves less"
    lines.append(f"checked with {source}: {key}")
    if not found.closed and found.ok:
        lines.append("the log is open: whoever writes it has not closed it")
    if found.torn_bytes:
        lines.append(f"its last line is not whole ({found.torn_bytes} bytes)")
    lines += [
        f"nothing was logged from {utc(begin_s)} to {utc(end_s)}"
        for begin_s, end_s in found.gaps[-GAPS_TOLD:]
    ]
    if len(found.gaps) > GAPS_TOLD:
        lines.append(f"and {len(found.gaps) - GAPS_TOLD} earlier gaps")
    for count, words in (
        (found.dropped, "lines could not be written, as it tells"),
        (found.recovered, "times a torn end was cut off at a start"),
        (len(found.days_missing), "days between its files have none"),
    ):
        if count:
            lines.append(f"{count:,} {words}")
    return tuple(lines)


def verified_view(found: Verified) -> dict[str, Any]:
    """A check as data."""
    fault = found.fault
    return {
        "ok": found.ok,
        "fault": None
        if fault is None
        else {"file": fault.file, "line": fault.line, "reason": fault.reason},
        "files": found.files,
        "lines": found.lines,
        "first_seq": found.first_seq,
        "last_seq": found.last_seq,
        "signed_seq": found.signed_seq,
        "signed_at": None if found.signed_at_s is None else utc(found.signed_at_s),
        "closed": found.closed,
        "torn_bytes": found.torn_bytes,
        "keys": list(found.keys),
        "key_told": found.key_told,
        "head": found.head,
        "days_missing": list(found.days_missing),
        "gaps": [[utc(begin_s), utc(end_s)] for begin_s, end_s in found.gaps],
        "dropped": found.dropped,
        "recovered": found.recovered,
    }


def report_view(report: Report) -> dict[str, Any]:
    """A report as data."""
    stated = report.statements
    return {
        "from": utc(report.span[0]),
        "to": utc(report.span[1]),
        "resource": report.terms.resource,
        "evidence": verified_view(report.verified),
        "events": [_event_view(one) for one in report.settled],
        "unsettled": [
            {"program": e.program, "event": e.id, "name": e.name or None} for e in report.unsettled
        ],
        "drills": [_drill_view(one) for one in report.drills],
        "statements": [_statement_view(row) for row in stated.rows],
        "metered_kwh": _plain(stated.metered_kwh),
        "unallocated_kwh": _plain(stated.unallocated_kwh),
        "meter_notes": list(apart_words(report.site)),
        "lines_unread": report.unread,
    }


def _event_view(one: Settled) -> dict[str, Any]:
    return {
        "name": one.event.name or None,
        "program": one.event.program,
        "event": one.event.id,
        "source": one.event.source,
        "notified": utc(one.event.notified_s),
        "starts": utc(one.event.starts_s),
        "void": one.void or None,
        "reduction_kwh": _plain(one.reduction_kwh),
        "committed_kwh": _plain(one.committed_kwh),
        "performance": _plain(one.performance),
        "currency": one.currency,
        "payment": _plain(one.payment),
        "notes": list(one.notes),
        "intervals": [row.cells() for row in one.rows],
    }


def _drill_view(one: Practised) -> dict[str, Any]:
    return {
        "event": one.event.id,
        "starts": utc(one.event.starts_s),
        "ended": utc(one.ended_s) if math.isfinite(one.ended_s) else None,
        "before_kw": _plain(one.before_kw),
        "during_kw": _plain(one.during_kw),
        "called_off": one.called_off,
    }


def drill_text(view: Mapping[str, Any]) -> str:
    """One drill of a report's view, for people."""
    before, during = (
        figure(math.nan if view[key] is None else view[key], 2, " kW")
        for key in ("before_kw", "during_kw")
    )
    drawn = f"{before} before, {during} during"
    off = "called off, " if view["called_off"] else ""
    return f"drill {view['event']}: {off}{drawn}; drills are not paid"


def _statement_view(row: Statement) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "devices": row.devices,
        "energy_kwh": _plain(row.energy_kwh),
        "compute_kwh": _plain(row.compute_kwh),
        "overhead_kwh": _plain(row.overhead_kwh),
        "mining_usd": _plain(row.mining_usd),
        "credit": {currency: _plain(value) for currency, value in sorted(row.credit.items())},
        "unknown_spans": row.unknown,
    }


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
