"""`wattshift status`: the site now, with the age of every figure."""

from typing import Any

import click

from wattshift_cluster.cli.feeder_text import fed_by, short_text
from wattshift_cluster.cli.node import nodes_text
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import (
    UNKNOWN,
    age,
    emit,
    emit_line,
    grid,
    hashrate,
    number,
    output_option,
    pairs,
    watts,
)
from wattshift_cluster.cli.signal_text import cap_rows, cap_text, carbon_rows
from wattshift_cluster.client import ControllerClient

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headers, and rows under them."""

SHADOW = "shadow: nothing is commanded; what follows was decided and not carried out"


@click.command()
@controller_options
@click.option("--watch", is_flag=True, help="Stream the site as JSON lines, one per tick.")
@click.option("--devices", is_flag=True, help="Also list every device.")
@output_option
def status(url: str | None, token: str | None, watch: bool, devices: bool, output: str) -> None:
    """Show power, cap, headroom, price and alarms of the site.

    \b
      wattshift status
      wattshift status --devices
      wattshift status --watch | jq .power_w
    """
    with ControllerClient.find(url, token) as controller:
        if watch:
            for event in controller.stream():
                if event.event == "site":
                    emit_line(event.data)
            return
        site = controller.get("/v1/site")
        if devices:
            site["devices"] = controller.get("/v1/devices")["devices"]
    emit(site, output, site_text)


def site_text(site: dict[str, Any]) -> str:
    """Return the site for people."""
    shares = site["shares"]
    jobs = [f"{n} {kind} {state}" for kind, row in site["jobs"].items() for state, n in row.items()]
    rows = [
        ("site", f"{site['name']}, {site['mode']}, tick {site['tick']}, epoch {site['epoch']}"),
        ("power", _power(site)),
        ("cap", f"{cap_text(site)}, margin {watts(site['margin_w'])}"),
        *cap_rows(site),
        ("headroom", f"{watts(site['headroom_w'])}, committed {watts(site['committed_w'])}"),
        *reserve_rows(site),
        ("inference", watts(site["inference_w"])),
        ("mining", watts(site["mining_w"])),
        ("batch", watts(site["batch_w"])),
        ("other", watts(site["other_w"])),
        ("price", number(site["price_usd_per_mwh"], "USD/MWh")),
        *carbon_rows(site),
        ("shares", "{accepted} accepted, {rejected} rejected, {lost} lost".format(**shares)),
        ("jobs", ", ".join(jobs) or "none"),
    ]
    text = pairs(rows)
    if site["mode"] == "shadow":
        text = f"{SHADOW}\n\n{text}"
    if site["meter_stale"]:
        meter = "No meter tells" if site["power_age_s"] is None else "The meter is stale"
        text += f"\n\n{meter}: power is unknown and the margin is widened."
    if site.get("compute"):
        text += "\n\n" + nodes_text(site["compute"]) + "\n"
    told = [
        one
        for one in site["feeders"]
        if "power_w" in one or "second_parent" in one or short_text(one)
    ]
    if told:
        text += "\n\n" + feeders_text(told) + "\n"
    if enrolled := site.get("frequency"):
        text += "\n\n" + frequency_text(enrolled) + "\n"
    for alarm in site["alarms"]:
        text += f"\n{alarm['severity']}: {alarm['text']} (since {alarm['since']})"
    if "devices" in site:
        text += "\n\n" + devices_text(site["devices"])
    return text


def reserve_rows(site: dict[str, Any]) -> list[tuple[str, str]]:
    """What is kept ready for bursts of services and by what; nothing where none is."""
    kept = site.get("reserve")
    if not kept or not max(kept["burst_w"], kept["plan_w"]):
        return []
    held = f"by gates {watts(kept['gates_w'])}, free {watts(kept['free_w'])}"
    short = f", {watts(kept['short_w'])} short" if kept["short_w"] else ""
    return [("reserve", f"{watts(max(kept['burst_w'], kept['plan_w']))} ({held}{short})")]


def _power(site: dict[str, Any]) -> str:
    """The site's power, how it is known and since when."""
    seen = "" if site["power_age_s"] is None else f"{age(site['power_age_s'])} old"
    if site["power_w"] is None:
        return f"{UNKNOWN} (the last reading is {seen})" if seen else UNKNOWN
    return f"{watts(site['power_w'])} ({site['power_quality']}, {seen or 'of unknown age'})"


def feeders_text(feeders: list[dict[str, Any]]) -> str:
    """Return the feeders that have a meter of their own, two sides, or too little, for people."""
    headers = ("FEEDER", "POWER", "AGE", "LIMIT", "COMMITTED")
    rows: list[tuple[str, ...]] = [
        (
            one["id"],
            watts(one["power_w"]) if "power_w" in one else "no meter",
            age(one["power_age_s"]) if "power_w" in one else "",
            watts(one["limit_w"]),
            watts(one["committed_w"]),
        )
        for one in feeders
    ]
    right = headers[1:]
    table: Table = (headers, rows)
    if any(short_text(one) for one in feeders):
        table = _beside(table, "SHORT", [short_text(one) or "no" for one in feeders])
    if any("second_parent" in one for one in feeders):
        table = _beside(table, "FED BY", [fed_by(one) for one in feeders])
    return grid(*table, right)


def _beside(table: Table, header: str, cells: list[str]) -> Table:
    """A table with a column more."""
    headers, rows = table
    return (*headers, header), [(*row, cell) for row, cell in zip(rows, cells, strict=True)]


def frequency_text(agents: list[dict[str, Any]]) -> str:
    """Return the agents that assist when the frequency falls for people."""
    headers = ("FREQUENCY", "PHASE", "HZ", "VOLTAGE", "AGE", "SHED", "CUT", "WHY")
    rows = [
        (
            one["agent"],
            one["phase"] or UNKNOWN,
            number(one["hz"], digits=3),
            number(one["v_pu"], "pu", 3),
            age(one["age_s"]),
            UNKNOWN if one["share"] is None else f"{one['share']:.0%}",
            watts(one["cut_w"]),
            one["fault"] or one["reason"] or "",
        )
        for one in agents
    ]
    return grid(headers, rows, ("HZ", "VOLTAGE", "AGE", "SHED", "CUT"))


def devices_text(devices: list[dict[str, Any]]) -> str:
    """Return devices for people."""
    headers = ("DEVICE", "KIND", "STATE", "MODE", "DRAW", "LEASE", "CEILING", "HASHRATE", "AGE")
    rows = [
        (
            one["id"],
            one["kind"],
            one["state"],
            one["mode"] or "-",
            watts(one["watts_w"]),
            "none" if one["leased_w"] is None else watts(one["leased_w"]),
            watts(one["ceiling_w"]),
            hashrate(one["hashrate_h_per_s"]),
            age(one["age_s"]),
        )
        for one in devices
    ]
    return grid(headers, rows, ("DRAW", "LEASE", "CEILING", "HASHRATE", "AGE"))
