"""`wattshift report`: what events came to, and each tenant's statement, from the evidence log."""

import os
import time
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.output import emit, grid, output_option, talk
from wattshift_cluster.client import read_runtime
from wattshift_cluster.errors import NotFound, WattshiftError
from wattshift_cluster.grid.rows import unix_s

DAY_S = 86_400.0
FILE = click.Path(dir_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)


class Moment(click.ParamType[float]):
    """A time with a zone, or a UTC day; the value is unix time, s."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the time, or fail with what would be allowed."""
        if isinstance(value, float):
            return value
        text = f"{value}T00:00:00Z" if len(str(value)) == len("2026-11-28") else value
        try:
            return unix_s(text)
        except ValueError as wrong:
            self.fail(f"{value!r}: {wrong}, or 2026-11-28", param, ctx)


@click.command()
@click.option("--from", "from_s", type=Moment(), help="Begin; one day before the end if left out.")
@click.option("--to", "to_s", type=Moment(), help="End; now if left out.")
@click.option("--event", "event_id", metavar="ID", help="Only this event.")
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page with pictures.")
@click.option("--csv", type=FILE, metavar="FILE", help="Also write the settlement file.")
@click.option("--parquet", type=FILE, metavar="FILE", help="The same as Parquet.")
@click.option("--folder", type=PATH, help="The evidence log; that of the running site if left out.")
@click.option("--terms", type=FILE, help="Take [settlement] from this file, not from the log.")
@click.option("--key", "keys", multiple=True, type=FILE, help="Public key to check the log with.")
@output_option
def report(
    from_s: float | None,
    to_s: float | None,
    event_id: str | None,
    html: Path | None,
    csv: Path | None,
    parquet: Path | None,
    folder: Path | None,
    terms: Path | None,
    keys: tuple[Path, ...],
    output: str,
) -> None:
    """Settle the events of a span and state what each tenant used, from the evidence log alone.

    \b
      wattshift report --from 2026-11-01 --to 2026-12-01
      wattshift report --from 2026-11-28T14:00:00Z --to 2026-11-28T18:00:00Z --html report.html
      wattshift report --event dr-17 --csv dr-17.csv --folder state/evidence

    The log is checked first, and only what holds is used. Exit 1 if it is broken, 4 if there is
    none or the event is not in it.
    """
    end_s = time.time() if to_s is None else to_s
    begin_s = end_s - DAY_S if from_s is None else from_s
    if not begin_s < end_s:
        raise click.UsageError("--from must lie before --to")
    from wattshift_cluster.config.settlement import settlement_at
    from wattshift_cluster.settle.keys import public_at
    from wattshift_cluster.settle.report import report as made
    from wattshift_cluster.settle.words import report_view

    found = made(
        folder or _folder(),
        begin_s,
        end_s,
        terms=None if terms is None else settlement_at(terms),
        event_id=event_id,
        keys=tuple(public_at(path) for path in keys),
    )
    rows = [row for one in found.settled for row in one.rows]
    if csv is not None:
        from wattshift_cluster.settle.rows import as_csv

        _write(csv, as_csv(rows))
    if parquet is not None:
        from wattshift_cluster.settle.frames import write_parquet

        write_parquet(rows, parquet)
        talk(f"{len(rows)} rows written to {parquet}")
    if html is not None:
        from wattshift_cluster.settle.page import page

        _write(html, page(found))
    emit(report_view(found), output, report_text)
    if not found.verified.ok:
        talk(f"the evidence is broken: {found.verified.fault}; what follows it was not used")
        click.get_current_context().exit(1)


def report_text(view: dict[str, Any]) -> str:
    """Return a report for people."""
    from wattshift_cluster.settle.words import credit_text, drill_text

    parts = [f"{view['resource']}, {view['from']} to {view['to']}"]
    rows = [
        (
            one["program"],
            one["name"] or one["event"],
            one["starts"],
            _figure(one["reduction_kwh"]),
            _figure(one["committed_kwh"]),
            _figure(one["performance"], 100.0, 1, " %"),
            f"{_figure(one['payment'])} {one['currency']}",
            "void" if one["void"] else "stands",
        )
        for one in view["events"]
    ]
    names = ("PROGRAM", "EVENT", "STARTS", "KWH", "OF KWH", "PERFORMANCE", "PAYMENT", "JUDGED")
    parts.append(grid(names, rows, right=names[3:7]) if rows else "no event was settled")
    parts += ["\n".join(_told(one)) for one in view["events"] if one["void"] or one["notes"]]
    parts += [
        f"no terms for {one['program']}: {one['name'] or one['event']}" for one in view["unsettled"]
    ]
    parts += [drill_text(one) for one in view["drills"]]
    headers = ("TENANT", "DEVICES", "KWH", "COMPUTE KWH", "OVERHEAD KWH", "MINING USD", "CREDIT")
    stated = [
        (
            one["tenant"],
            str(one["devices"]),
            _figure(one["energy_kwh"]),
            _figure(one["compute_kwh"]),
            _figure(one["overhead_kwh"]),
            _figure(one["mining_usd"]),
            credit_text(one["credit"]),
        )
        for one in view["statements"]
    ]
    parts.append(grid(headers, stated, right=headers[1:]))
    metered, rest = _figure(view["metered_kwh"]), _figure(view["unallocated_kwh"])
    parts.append(f"metered {metered} kWh, unallocated {rest} kWh")
    parts += view["meter_notes"]
    if view["metered_kwh"] is None:
        parts.append("Of a part of this span no meter is known; --from and --to narrow it.")
    return "\n\n".join(parts)


def _told(event: dict[str, Any]) -> list[str]:
    """What is to be known of one event, a line each."""
    void = [f"void: {event['void']}"] if event["void"] else []
    return [f"{event['event']}:", *(f"  {line}" for line in (*void, *event["notes"]))]


def _figure(value: float | None, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    return "unknown" if value is None else f"{value * scale:,.{digits}f}{unit}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as fault:
        raise WattshiftError(f"{path}: cannot be written: {fault.strerror}") from None
    talk(f"written to {path}")


def _folder() -> Path:
    """The evidence of the site that runs here."""
    state_dir = os.environ.get("WATTSHIFT_STATE_DIR") or read_runtime().get("state_dir")
    if not state_dir:
        raise NotFound("no site runs here; name its evidence log with --folder")
    return Path(state_dir) / "evidence"
