"""How every command prints: `-o table|json|yaml` on stdout, talk on stderr.

Tables are plain aligned text, the same in a terminal and in a pipe. JSON and YAML hold what the
controller said, unchanged; None is unknown and shown as such.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from wattshift_cluster.config.quantities import format_seconds

F = TypeVar("F", bound=Callable[..., Any])
UNKNOWN = "unknown"

Columns = Mapping[str, Callable[[dict[str, Any]], str]]
"""The headers of a table, and what of a row stands under each."""


def output_option(command: F) -> F:
    """Add `-o table|json|yaml` to a command, as its argument `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print the answer.",
    )(command)


def emit(value: Any, output: str, table: Callable[[Any], str]) -> None:
    """Print `value` to stdout as asked; `table` renders it for people."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, allow_nan=False))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(table(value))


def emit_line(value: Any) -> None:
    """Print `value` as one line of JSON and flush it, for `--watch`."""
    click.echo(json.dumps(value, separators=(",", ":"), allow_nan=False))


def talk(text: str) -> None:
    """Tell a person something that is not the answer."""
    click.echo(text, err=True)


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Return aligned columns; those named in `right` are set to the right."""
    table = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(headers))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if header in right else cell.ljust(width)
            for cell, width, header in zip(row, widths, headers, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listed(rows: Iterable[dict[str, Any]], columns: Columns, right: Sequence[str] = ()) -> str:
    """Return what the API lists as a grid."""
    return grid(tuple(columns), [[cell(one) for cell in columns.values()] for one in rows], right)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def watts(value_w: float | None) -> str:
    """Return watts for people."""
    if value_w is None:
        return UNKNOWN
    for unit, scale in (("MW", 1e6), ("kW", 1e3)):
        if abs(value_w) >= scale:
            return f"{value_w / scale:.2f} {unit}"
    return f"{value_w:.0f} W"


def hashrate(value_h_per_s: float | None) -> str:
    """Return hashes per second for people."""
    if value_h_per_s is None:
        return UNKNOWN
    for unit, scale in (("TH/s", 1e12), ("GH/s", 1e9), ("MH/s", 1e6), ("kH/s", 1e3)):
        if value_h_per_s >= scale:
            return f"{value_h_per_s / scale:.1f} {unit}"
    return f"{value_h_per_s:.0f} H/s"


def age(value_s: float | None) -> str:
    """Return an age for people: tenths of a second, and of a minute, an hour or a day above it."""
    if value_s is None:
        return UNKNOWN
    unit_s = next((unit_s for unit_s in (86_400.0, 3600.0, 60.0) if value_s >= unit_s), 1.0)
    return format_seconds(round(value_s / unit_s, 1) * unit_s)


def moment(at: str | None, otherwise: str = "open") -> str:
    """Return an RFC 3339 time to the second; `otherwise` where there is none."""
    return otherwise if at is None else re.sub(r"\.\d+", "", at)


def number(value: float | None, unit: str = "", digits: int = 2) -> str:
    """Return a figure with its unit."""
    return UNKNOWN if value is None else f"{value:,.{digits}f} {unit}".rstrip()
