"""The printed report: one HTML page with its pictures inside, which needs no network."""

import html
from collections.abc import Iterable, Sequence

from wattshift_cluster.settle.pictures import event_picture, site_picture
from wattshift_cluster.settle.practice import Practised
from wattshift_cluster.settle.report import Report
from wattshift_cluster.settle.rows import Row, utc
from wattshift_cluster.settle.settle import Settled, apart_words
from wattshift_cluster.settle.words import amount, credit_text, figure, trust_lines

STYLE = """
@page{size:A4;margin:15mm}
body{font:14px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111}
h1{margin:0}h2{margin:2rem 0 .3rem;break-after:avoid}
table{border-collapse:collapse;width:100%;margin:.6rem 0;font-size:12px}
th,td{text-align:right;padding:.2rem .5rem;border-bottom:1px solid #ddd;vertical-align:top;
font-variant-numeric:tabular-nums}th:first-child,td:first-child,.t{text-align:left}
thead{display:table-header-group}tr,svg{break-inside:avoid}svg{width:100%;height:auto}
.bad{color:#b3261e;font-weight:600}.ok{color:#00684a}small,.s{color:#555}
code{font-size:11px;word-break:break-all}
"""


def page(report: Report) -> str:
    """The whole page."""
    begin, end = (utc(at_s) for at_s in report.span)
    resource = html.escape(report.terms.resource)
    site = site_picture(report) if len(report.site.starts_s) else ""
    events = "".join(_event(one, report) for one in report.settled)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Settlement of {resource}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<h1>Settlement of {resource}</h1><p class=s>{begin} to {end}, all times UTC</p>"
        f"{_trust(report)}<h2>The site</h2>{site}{_summary(report)}{events}"
        f"{_statements(report)}</html>"
    )


def _trust(report: Report) -> str:
    verified = report.verified
    word = (
        "<p class=ok>The evidence log holds." if verified.ok else "<p class=bad>The log is broken."
    )
    return f"{word}</p>{_list(trust_lines(verified))}"


def _summary(report: Report) -> str:
    if not (report.settled or report.unsettled or report.drills):
        return "<p>No event lies in this time.</p>"
    rows: list[tuple[str, ...]] = [
        (
            one.event.program,
            one.event.name or one.event.id,
            utc(one.event.starts_s),
            figure(one.reduction_kwh, 2),
            figure(one.committed_kwh, 2),
            _percent(one.performance),
            amount(one.payment, one.currency),
            "void" if one.void else "stands",
        )
        for one in report.settled
    ]
    rows += [_drill(one) for one in report.drills]
    rows += [
        (e.program, e.name or e.id, utc(e.starts_s), "", "", "", "", "no terms")
        for e in report.unsettled
    ]
    names = ("program", "event", "starts", "reduced kWh", "committed kWh", "performance", "payment")
    return _table((*names, ""), rows)


def _drill(one: Practised) -> tuple[str, ...]:
    """A row of the summary: what it came to in watts, and that it is practice."""
    event = one.event
    drawn = f"{figure(one.before_kw, 2)} kW before, {figure(one.during_kw, 2)} kW during"
    off = ", called off" if one.called_off else ""
    return (event.program, event.id, utc(event.starts_s), drawn, "", "", "", f"drill{off}")


def _event(one: Settled, report: Report) -> str:
    event = one.event
    head = f"<h2>{html.escape(event.name or f'{event.program}: {event.id}')}</h2>"
    name = f"{html.escape(f'{event.program}: {event.id}')}. " if event.name else ""
    told = f"<p class=s>{name}Told {utc(event.notified_s)}, starts {utc(event.starts_s)}.</p>"
    void = f"<p class=bad>Void: {html.escape(one.void)}.</p>" if one.void else ""
    picture = event_picture(one, report) if one.rows else ""
    table = _table(
        (
            "interval",
            "baseline kW",
            "metered kW",
            "reduced kW",
            "of commitment",
            "payment",
            "quality",
        ),
        [_interval(row) for row in one.rows],
    )
    return f"{head}{told}{void}{_list(one.notes)}{picture}{table}"


def _interval(row: Row) -> tuple[str, ...]:
    span = f"{utc(row.interval_start_s)[:16].replace('T', ' ')} to {utc(row.interval_end_s)[11:16]}"
    return (
        span,
        figure(row.baseline_kw, 3),
        figure(row.metered_kw, 3),
        figure(row.reduction_kw, 3),
        _percent(row.performance),
        amount(row.payment, row.currency),
        row.quality,
    )


def _statements(report: Report) -> str:
    stated = report.statements
    rows = [
        (
            row.tenant,
            str(row.devices),
            figure(row.energy_kwh, 2),
            figure(row.compute_kwh, 2),
            figure(row.overhead_kwh, 2),
            amount(row.mining_usd, "USD"),
            credit_text(row.credit),
            f"{row.unknown} spans unknown" if row.unknown else "",
        )
        for row in stated.rows
    ]
    rows.append(("unallocated", "", "", "", figure(stated.unallocated_kwh, 2), "", "", ""))
    names = ("tenant", "devices", "energy kWh", "compute kWh", "overhead kWh", "mining", "credit")
    total = f"<p class=s>At the site meter: {figure(stated.metered_kwh, 2)} kWh.</p>"
    notes = _list(apart_words(report.site))
    return f"<h2>Statements</h2>{total}{notes}{_table((*names, ''), rows)}"


def _percent(share: float) -> str:
    return figure(share * 100.0, 1, " %")


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</thead>{body}</table>"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}" for line in lines)
    return f"<ul class=s>{items}</ul>" if items else ""
