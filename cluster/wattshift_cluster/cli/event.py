"""`wattshift event inject`: a grid event from a file, as if a feed had sent it."""

from pathlib import Path
from typing import Any

import click

from wattshift_cluster.api.bodies import EventBody, EventCap, load_table, parse_body
from wattshift_cluster.api.tokens import rfc3339
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, output_option
from wattshift_cluster.cli.signal_text import signals_text
from wattshift_cluster.client import ControllerClient


@click.group()
def event() -> None:
    """Inject a grid event.

    \b
      wattshift event inject event.yaml
    """


@event.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@controller_options
@output_option
def inject(path: Path, url: str | None, token: str | None, output: str) -> None:
    """Inject the event in a YAML, JSON or TOML file; it replaces the caps of its source.

    \b
      wattshift event inject event.yaml

    \b
      source: drill                  any name but "operator"
      price: 250 USD/MWh             leave out to keep the price
      caps:
        - {limit: 600kW, starts: 1m, ends: 31m}
    """
    raw = load_table(path)
    checked = parse_body(EventBody, raw, str(path))
    assert isinstance(raw, dict), "parse_body refuses anything else"
    body = dict(raw)
    if checked.caps:
        # Durations count from now here, not from whenever a retry reaches the controller.
        body["caps"] = [absolute(cap) for cap in checked.caps]
    with ControllerClient.find(url, token) as controller:
        view = controller.post("/v1/signals", body)
    emit(view, output, signals_text)


def absolute(cap: EventCap) -> dict[str, Any]:
    """Return a cap whose times are fixed."""
    times = {"starts": cap.starts, "ends": cap.ends}
    fixed = {key: rfc3339(at_s) for key, at_s in times.items() if at_s is not None}
    name = {} if cap.id is None else {"id": cap.id}
    return {"limit": cap.limit, **name, **fixed}
