"""`wattshift cap`: the operator's own upper limit of site power, and overrides of others' caps."""

from operator import itemgetter
from typing import Any
from urllib.parse import quote, urlencode

import click

from wattshift_cluster.cli.feeder_text import shortfall_lines
from wattshift_cluster.cli.options import DURATION, WATTS, controller_options
from wattshift_cluster.cli.output import (
    Columns,
    emit,
    listed,
    moment,
    output_option,
    talk,
    watts,
)
from wattshift_cluster.client import ControllerClient


@click.group()
def cap() -> None:
    """Set, clear or show caps, or let one of another source not hold for a while.

    \b
      wattshift cap set 800kW --for 30m
      wattshift cap show
      wattshift cap clear
      wattshift cap override grid-utility evt-7 --limit 1MW --for 20m --reason "called by phone"
    """


@cap.command(name="set")
@click.argument("limit", type=WATTS)
@click.option("--starts", metavar="WHEN", help="5m from now, or a UTC time; now if not given.")
@click.option("--until", metavar="WHEN", help="A UTC time, or a duration from now.")
@click.option("--for", "for_s", type=DURATION, help="How long it holds.")
@click.option("--strict", is_flag=True, help="Refuse (exit 6) a cap below what can be shed.")
@controller_options
@output_option
def set_cap(
    limit: float,
    starts: str | None,
    until: str | None,
    for_s: float | None,
    strict: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Set a cap. It holds until it ends or is cleared; the lowest cap in force wins.

    \b
      wattshift cap set 800kW --for 30m
      wattshift cap set 1.2MW --until 2026-12-01T18:00:00Z --strict
    """
    if until is not None and for_s is not None:
        raise click.UsageError("--until and --for exclude each other.")
    wanted = {"limit": limit, "starts": starts, "until": until, "for": for_s}
    body: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    with ControllerClient.find(url, token) as controller:
        view = controller.post("/v1/caps", {**body, "strict": strict})
    if told := above_text(view):
        talk(told)
    emit(view, output, lambda one: caps_text([one]))


@cap.command()
@controller_options
@output_option
def show(url: str | None, token: str | None, output: str) -> None:
    """Show caps in force and to come, each with the id by which it is overridden.

    \b
      wattshift cap show
      wattshift cap show -o json

    An overridden cap is listed with the limit of its source; OVERRIDDEN says what holds instead.
    SHORTFALL is by how much a cap lies below what the site can be asked down to, COUNTED by how
    much below what is counted now: what is not seen to obey counts at its ceiling. A feeder below
    the connection that may carry too little is told under the table.
    """
    with ControllerClient.find(url, token) as controller:
        found = controller.get("/v1/caps")["caps"]
        beside = shortfall_lines(controller.get("/v1/site"))
    emit(found, output, lambda caps: "\n\n".join(filter(None, (caps_text(caps), beside))))


@cap.command()
@click.argument("cap_id", metavar="[ID]", required=False)
@controller_options
def clear(cap_id: str | None, url: str | None, token: str | None) -> None:
    """Clear one cap, or every operator cap.

    \b
      wattshift cap clear
      wattshift cap clear cap-1a2b3c4d
    """
    with ControllerClient.find(url, token) as controller:
        controller.delete("/v1/caps" if cap_id is None else f"/v1/caps/{quote(cap_id, safe='')}")
    talk("every operator cap is cleared" if cap_id is None else f"{cap_id} is cleared")


@cap.command()
@click.argument("source")
@click.argument("cap_id", metavar="CAP")
@click.option("--limit", type=WATTS, required=True, help="What holds in its place.")
@click.option("--until", metavar="WHEN", help="A UTC time, or a duration from now.")
@click.option("--for", "for_s", type=DURATION, help="How long it holds.")
@click.option("--reason", required=True, help="Why; kept on record with who.")
@click.option("--yes", is_flag=True, help="Do not ask: you answer for a site above its cap.")
@controller_options
@output_option
def override(
    source: str,
    cap_id: str,
    limit: float,
    until: str | None,
    for_s: float | None,
    reason: str,
    yes: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Let another limit hold in place of one cap of a source, until a time. Admins only.

    \b
      wattshift cap show
      wattshift cap override grid-utility evt-7 --limit 1MW --for 20m --reason "called by phone"
      wattshift cap restore grid-utility evt-7

    It always ends, within 7 days. Refused (exit 6) for the cap of a breaker and for the connection.
    All other caps go on to hold, and the lowest one wins.
    """
    if (until is None) == (for_s is None):
        raise click.UsageError("an override ends: give one of --until and --for.")
    if not yes:
        asked = f"override cap {cap_id} of {source} to {watts(limit)}? The site may draw more"
        click.confirm(asked, abort=True, err=True)
    wanted = {"limit": limit, "until": until, "for": for_s, "reason": reason}
    body = {key: value for key, value in wanted.items() if value is not None}
    with ControllerClient.find(url, token) as controller:
        view = controller.post("/v1/overrides", {"source": source, "cap": cap_id, **body})
    emit(view, output, lambda one: overrides_text([one]))


@cap.command()
@controller_options
@output_option
def overrides(url: str | None, token: str | None, output: str) -> None:
    """Show the overrides that hold, with who said so and why.

    \b
      wattshift cap overrides -o json
    """
    with ControllerClient.find(url, token) as controller:
        found = controller.get("/v1/overrides")["overrides"]
    emit(found, output, overrides_text)


@cap.command()
@click.argument("source", required=False)
@click.argument("cap_id", metavar="[CAP]", required=False)
@controller_options
def restore(source: str | None, cap_id: str | None, url: str | None, token: str | None) -> None:
    """End one override, or every one: the caps themselves hold again.

    \b
      wattshift cap restore
      wattshift cap restore grid-utility evt-7
    """
    if (source is None) != (cap_id is None):
        raise click.UsageError("give SOURCE and CAP, or neither to end every override.")
    query = "" if source is None else f"?{urlencode({'source': source, 'cap': cap_id})}"
    with ControllerClient.find(url, token) as controller:
        controller.delete(f"/v1/overrides{query}")
    told = "every override is ended" if source is None else f"cap {cap_id} of {source} holds again"
    talk(told)


def overrides_text(found: list[dict[str, Any]]) -> str:
    """Return overrides for people."""
    return listed(found, OVERRIDE_COLUMNS, ("LIMIT", "INSTEAD OF")) if found else "no overrides"


def caps_text(found: list[dict[str, Any]]) -> str:
    """Return caps for people."""
    return listed(found, CAP_COLUMNS, ("LIMIT", "SHORTFALL", "COUNTED")) if found else "no caps"


def above_text(view: dict[str, Any]) -> str:
    """Return by how much a cap that was just set is missed; empty where it is not."""
    asked_w, counted_w = view["shortfall_w"], view.get("shortfall_counted_w")
    if asked_w is None and counted_w is None:
        return ""
    if asked_w is None:
        told = "The site can be asked down to this cap."
    else:
        told = f"The site is asked down to its floor and stays {watts(asked_w)} above this cap."
    if counted_w is None or counted_w == asked_w:
        return told
    return f"{told} Until all is seen to obey, {watts(counted_w)} above it are counted."


CAP_COLUMNS: Columns = {
    "NAME": lambda one: one.get("name") or "-",
    "ID": itemgetter("id"),
    "SOURCE": itemgetter("source"),
    "KIND": itemgetter("kind"),
    "LIMIT": lambda one: watts(one["limit_w"]),
    "STARTS": lambda one: moment(one["starts_at"], "now"),
    "ENDS": lambda one: moment(one["ends_at"]),
    "IN FORCE": lambda one: "yes" if one["in_force"] else "no",
    "OVERRIDDEN": lambda one: _lifted(one.get("overridden_w")),
    "SHORTFALL": lambda one: _short(one["shortfall_w"]),
    "COUNTED": lambda one: _short(one.get("shortfall_counted_w")),
}

OVERRIDE_COLUMNS: Columns = {
    "SOURCE": itemgetter("source"),
    "CAP": lambda one: one.get("name") or one["cap"],
    "ID": itemgetter("cap"),
    "LIMIT": lambda one: watts(one["limit_w"]),
    "INSTEAD OF": lambda one: "no cap now" if one["stated_w"] is None else watts(one["stated_w"]),
    "UNTIL": lambda one: moment(one["ends_at"]),
    "BY": itemgetter("by"),
    "REASON": itemgetter("reason"),
}


def _short(missed_w: float | None) -> str:
    return "none" if missed_w is None else watts(missed_w)


def _lifted(limit_w: float | None) -> str:
    return "no" if limit_w is None else f"to {watts(limit_w)}"
