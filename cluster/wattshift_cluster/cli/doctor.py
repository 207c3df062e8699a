"""`wattshift doctor`: one line per check, with the command that mends it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.checks import run_all
from wattshift_cluster.cli.findings import Place
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, grid, output_option


@click.command()
@click.argument("path", metavar="[SITE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Leave out what takes seconds: starting a Ray.")
@controller_options
@output_option
def doctor(path: Path | None, quick: bool, url: str | None, token: str | None, output: str) -> None:
    """Check this machine, and with a site file also its ports, agents and settings.

    \b
      wattshift doctor
      wattshift doctor site.toml -o json

    Whether Ray can be started is found out by starting one, for some seconds. Each line is ok, warn
    or fail; exit 1 if one fails.
    """
    found = [asdict(one) for one in run_all(Place(path, url, token, quick))]
    emit(found, output, findings_text)
    if any(one["level"] == "fail" for one in found):
        click.get_current_context().exit(1)


def findings_text(found: list[dict[str, Any]]) -> str:
    """Return the findings for people, each mending command under its line."""
    lines = grid(("CHECK", "STATE", "FOUND"), [(f["check"], f["level"], f["text"]) for f in found])
    head, *rows = lines.splitlines()
    text = [head]
    for row, one in zip(rows, found, strict=True):
        text.append(row)
        if one["mend"]:
            text.append(f"  mend: {one['mend']}")
    return "\n".join(text)
