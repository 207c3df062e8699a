"""`wattshift top`: the site in the terminal, once a second."""

import math
import time
from collections import Counter, deque
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from wattshift_cluster.cli.feeder_text import short_text
from wattshift_cluster.cli.job_names import OVER
from wattshift_cluster.cli.job_text import progress
from wattshift_cluster.cli.node import node_state
from wattshift_cluster.cli.options import Number, controller_options
from wattshift_cluster.cli.output import UNKNOWN, age, hashrate, number, pairs, watts
from wattshift_cluster.cli.plan_text import next_words
from wattshift_cluster.cli.signal_text import cap_rows, cap_text
from wattshift_cluster.cli.status import SHADOW
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import Unreachable

PERIOD_S = 1.0
LOG_ROWS = 8
LOG_READ = 100
"""Each lease that ends is accounted for: that is left out here, and would crowd out the rest."""
DEVICE_ROWS = 20
FEEDER_ROWS = 10
NODE_ROWS = 12
JOB_ROWS = 20
BARS = "▁▂▃▄▅▆▇█"
HISTORY = 60
LOST_AFTER_S = 60.0
SHOWN_DEADLINES_S = (1.0, 10.0, 600.0)
PLAN_HOURS = 6.0


@click.command()
@controller_options
@click.option("--once", is_flag=True, help="Print one picture and end.")
@click.option("--interval", type=Number(0.2, 60.0), default=PERIOD_S, help="Seconds.")
def top(url: str | None, token: str | None, once: bool, interval: float) -> None:
    """Watch power, devices and decisions in the terminal; Ctrl-C ends it.

    \b
      wattshift top
      wattshift top --once
    """
    console = Console(highlight=False)
    history: deque[float | None] = deque(maxlen=HISTORY)
    with ControllerClient.find(url, token) as controller:
        first = picture(controller, history)
        if once or not console.is_terminal:
            console.print(first)
            return
        with Live(first, console=console, screen=True, auto_refresh=False) as live:
            watch(controller, history, live, interval)


def watch(
    controller: ControllerClient, history: deque[float | None], live: Live, interval_s: float
) -> None:
    """Redraw until Ctrl-C, or until the controller has been gone for LOST_AFTER_S."""
    seen_s = time.monotonic()
    while True:
        time.sleep(interval_s)
        try:
            live.update(picture(controller, history), refresh=True)
            seen_s = time.monotonic()
        except Unreachable as error:
            gone_s = time.monotonic() - seen_s
            if gone_s > LOST_AFTER_S:
                raise
            text = f"{error}\nall figures are {gone_s:.0f} s old or gone; trying again"
            live.update(Panel(text, style="bold red"), refresh=True)


def picture(controller: ControllerClient, history: deque[float | None]) -> Group:
    """Return the whole screen."""
    site = controller.get("/v1/site")
    history.append(site["power_w"])
    told = controller.get("/v1/decisions", limit=LOG_READ)["decisions"]
    decisions = [one for one in told if one["action"] != "account"][:LOG_ROWS]
    steps = controller.get("/v1/flexibility")["steps"]
    plan = controller.get("/v1/plan", hours=PLAN_HOURS)
    parts: list[Panel | Table] = [headline(site, steps, history, plan), *warnings(site)]
    if told := [one for one in site["feeders"] if "power_w" in one or short_text(one)]:
        parts.append(feeder_table(told))
    if site.get("compute"):
        parts.append(node_table(site["compute"]))
    parts.append(device_table(controller.get("/v1/devices")["devices"]))
    parts.append(job_table(controller.get("/v1/jobs")["jobs"]))
    parts.append(log_table(decisions))
    return Group(*parts)


def headline(
    site: dict[str, Any],
    steps: list[dict[str, Any]],
    history: deque[float | None],
    plan: dict[str, Any],
) -> Panel:
    """Return the big figures, a line of the last minute, and what the grid asks now and next."""
    table = Table.grid(padding=(0, 3))
    first = (
        ("power", watts(site["power_w"])),
        ("cap", watts(site["cap_w"])),
        ("headroom", watts(site["headroom_w"])),
        ("age", age(site["power_age_s"])),
    )
    second = (
        ("inference", watts(site["inference_w"])),
        ("mining", watts(site["mining_w"])),
        ("batch", watts(site["batch_w"])),
        ("price", number(site["price_usd_per_mwh"], "USD/MWh")),
    )
    sheds = {one["deadline_s"]: watts(one["deliverable_w"]) for one in steps}
    third = (
        *((f"can shed in {age(at_s)}", sheds.get(at_s, UNKNOWN)) for at_s in SHOWN_DEADLINES_S),
        ("carbon", number(site.get("carbon_g_per_kwh"), "g/kWh", 0)),
    )
    for row in (first, second, third):
        table.add_row(*(Text(name, style="dim") for name, _ in row))
        table.add_row(*(Text(value, style="bold") for _, value in row))
    asked = [("cap", cap_text(site)), *cap_rows(site), *frequency_rows(site.get("frequency", []))]
    if plan["state"] != "off":
        asked.append(("plan", next_words(plan, time.time())))
    lines = Text("\n".join([spark(history, site["cap_w"]), pairs(asked)]))
    return Panel(Group(table, lines), title=f"wattshift {site['name']}", title_align="left")


def frequency_rows(agents: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the lowest frequency that agents read, and what they do; nothing if none does."""
    if not agents:
        return []
    read = [(one["hz"], one["agent"]) for one in agents if one["hz"] is not None]
    lowest_hz, of = min(read, default=(None, ""))
    phases = Counter(one["phase"] or UNKNOWN for one in agents)
    doing = ", ".join(f"{count} {phase}" for phase, count in phases.most_common())
    cuts = [one["cut_w"] for one in agents if one["cut_w"]]
    shed = f", {watts(sum(cuts))} shed" if cuts else ""
    lowest = f"{number(lowest_hz, 'Hz', 3)} ({of})" if of else UNKNOWN
    return [("frequency", f"{lowest}; agents: {doing}{shed}")]


def spark(history: deque[float | None], cap_w: float | None) -> str:
    """Return the last minute as bars, full at the cap; unknown is a blank, not a zero."""
    known = [value for value in history if value is not None]
    full_w = max([*known, cap_w or 0.0, 1.0])
    steps = len(BARS) - 1
    return "".join(" " if v is None else BARS[round(v / full_w * steps)] for v in history)


def warnings(site: dict[str, Any]) -> list[Panel]:
    """Return a red box per thing that a person should know."""
    texts = [f"{alarm['severity']}: {alarm['text']}" for alarm in site["alarms"]]
    if site["mode"] == "shadow":
        texts.insert(0, SHADOW)
    if site["meter_stale"]:
        meter = "no meter tells" if site["power_age_s"] is None else "the meter is stale"
        texts.insert(0, f"{meter}: site power is unknown and the margin is widened")
    return [Panel("\n".join(texts), style="bold red")] if texts else []


def feeder_table(feeders: list[dict[str, Any]]) -> Table:
    """Return the feeders with a meter of their own or too little: those first, then the fullest."""
    title = f"feeders ({len(feeders)})"
    table = Table(expand=True, box=None, title=title, title_justify="left")
    table.add_column("feeder", no_wrap=True)
    for name in ("power", "of its limit", "limit", "committed", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    short = any(short_text(one) for one in feeders)
    if short:
        table.add_column("short", justify="right", style="red")
    for one in sorted(feeders, key=lambda one: (not short_text(one), _unfilled(one)))[:FEEDER_ROWS]:
        power_w, metered = one.get("power_w"), "power_w" in one
        lost = metered and power_w is None
        share = UNKNOWN if power_w is None else number(100.0 * power_w / one["limit_w"], "%", 0)
        over = power_w is not None and power_w > one["limit_w"]
        table.add_row(
            one["id"],
            Text(watts(power_w) if metered else "no meter", style="red" if over or lost else ""),
            share if metered else "",
            watts(one["limit_w"]),
            watts(one["committed_w"]),
            age(one["power_age_s"]) if metered else "",
            *([short_text(one)] if short else []),
        )
    return table


def _unfilled(feeder: dict[str, Any]) -> float:
    """Ascending: an unknown one first, then by the share that it carries."""
    power_w = feeder.get("power_w")
    return -math.inf if power_w is None else -float(power_w) / float(feeder["limit_w"])


def node_table(nodes: list[dict[str, Any]]) -> Table:
    """Return the compute nodes, those that are down first, then the fullest."""
    table = Table(expand=True, box=None, title=f"nodes ({len(nodes)})", title_justify="left")
    for name in ("node", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("granted", "used", "unasked", "most"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("jobs", ratio=1)
    order = sorted(nodes, key=lambda one: (one["up"], -(one["used_w"] or 0.0), one["node"]))
    for one in order[:NODE_ROWS]:
        state = node_state(one)
        table.add_row(
            one["node"],
            Text(state, style="" if state == "up" else "red"),
            watts(one["power_w"]),
            watts(one["used_w"]),
            watts(one["unasked_w"]),
            watts(one["max_w"]),
            ", ".join(f"{job} {n}" for job, n in sorted(one["units"].items())),
        )
    return table


def device_table(devices: list[dict[str, Any]]) -> Table:
    """Return the devices, troubled ones first."""
    table = Table(expand=True, box=None, title=f"devices ({len(devices)})", title_justify="left")
    for name in ("device", "state", "mode"):
        table.add_column(name, no_wrap=True)
    for name in ("draw", "lease", "hashrate"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", ratio=1, no_wrap=True)  # a line each; `explain ID` has all of it
    order = {"unreachable": 0, "unknown": 1, "settling": 2}
    for one in sorted(devices, key=lambda d: order.get(d["state"], 3))[:DEVICE_ROWS]:
        table.add_row(
            one["id"],
            Text(one["state"], style="red" if one["state"] in ("unreachable", "unknown") else ""),
            one["mode"] or "-",
            watts(one["watts_w"]),
            "none" if one["leased_w"] is None else watts(one["leased_w"]),
            hashrate(one["hashrate_h_per_s"]),
            one["reason"],
        )
    return table


def job_table(jobs: list[dict[str, Any]]) -> Table:
    """Return the jobs that are not over, those that run first."""
    active = [one for one in jobs if one["state"] not in OVER]
    table = Table(expand=True, box=None, title=f"jobs ({len(active)})", title_justify="left")
    for name in ("job", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("units", "done", "rate"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", ratio=1)
    for one in sorted(active, key=lambda job: job["state"] != "running")[:JOB_ROWS]:
        rate = one.get("rate_per_s")
        table.add_row(
            one["id"],
            one["state"],
            "-" if one["kind"] == "mining" else str(one.get("units", 0)),
            progress(one),
            "-" if rate is None else f"{rate:,.1f}/s",
            one["reason"],
        )
    return table


def log_table(decisions: list[dict[str, Any]]) -> Table:
    """Return the newest decisions."""
    table = Table(expand=True, box=None, title="decisions", title_justify="left")
    for name in ("at", "about", "what"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", ratio=1)
    for one in decisions:
        table.add_row(one["at"][11:19], one["subject"], one["action"], one["reason"])
    return table
