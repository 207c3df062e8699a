"""`wattshift plan`: what the next hours hold."""

from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.options import Number, controller_options
from wattshift_cluster.cli.output import emit, emit_line, output_option, talk
from wattshift_cluster.cli.plan_rows import HOUR_S
from wattshift_cluster.cli.plan_text import nothing, plan_text
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import NotFound, TryLater, WattshiftError

HOURS = 12.0
HOURS_MOST = 48.0
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--hours",
    type=Number(0.25, HOURS_MOST),
    default=HOURS,
    show_default=True,
    help="How many hours to show.",
)
@click.option("--all", "whole", is_flag=True, help="Show each interval, to the end of the plan.")
@click.option("--watch", is_flag=True, help="Stream plans as JSON lines, each when it is made.")
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page with a picture.")
@controller_options
@output_option
def plan(
    hours: float,
    whole: bool,
    watch: bool,
    html: Path | None,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Show what the next hours hold: prices, caps, and which work is planned when.

    \b
      wattshift plan
      wattshift plan --hours 36
      wattshift plan --all -o json | jq '.rows[] | [.starts_at, .mining_w]'
      wattshift plan --html plan.html

    Nothing of it is a command: the control loop uses its prices and reservations, and decides each
    second by what it then sees. A price with a ~ is foreseen, not published. Exit 75 while there is
    no plan yet, 4 where the site makes none.
    """
    asked = {} if whole else {"hours": hours}
    with ControllerClient.find(url, token) as controller:
        view = controller.get("/v1/plan", **asked)
        if watch:
            follow(controller, view, asked)
            return
    if html is not None and view["rows"]:
        from wattshift_cluster.cli.plan_page import page

        write(html, page(view))
    if view["rows"] or output != "table":
        emit(view, output, lambda one: plan_text(one, view["step_s"] if whole else HOUR_S))
    if view["state"] == "off":
        raise NotFound(nothing(view))
    if not view["rows"]:
        raise TryLater(nothing(view))


def follow(controller: ControllerClient, view: dict[str, Any], asked: dict[str, float]) -> None:
    """Print the plan, and each one after it when it has been made."""
    emit_line(view)
    for event in controller.stream():
        if event.event == "decision" and event.data["action"] == "plan":
            emit_line(controller.get("/v1/plan", **asked))


def write(path: Path, text: str) -> None:
    """Write a page. Raises WattshiftError where that cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise WattshiftError(f"{path}: cannot be written: {fault.strerror}") from None
    talk(f"written to {path}")
