"""`wattshift explain ID`: what something does now, and the decisions that brought it there."""

from collections.abc import Sequence
from typing import Any

import click

from wattshift_cluster.cli.explain_compute import job_answer, node_text, places_of, why_job
from wattshift_cluster.cli.explain_rung import rung_text
from wattshift_cluster.cli.feeder_text import alarm_ids, feeder_text
from wattshift_cluster.cli.job_names import SeveralJobs, of_job
from wattshift_cluster.cli.job_text import job_text
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import age, emit, grid, number, output_option, pairs, watts
from wattshift_cluster.cli.signal_text import binding_text, signals_text
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import NotFound

SOURCES = {
    "sensor": "its sensor",
    "estimate": "its firmware's estimate",
    "outlet": "its outlet",
    "learnt": "what was learnt of its point",
}


@click.command()
@click.argument("subject", metavar="ID|NAME")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--inputs", is_flag=True, help="Also show the figures behind each decision.")
@controller_options
@output_option
def explain(
    subject: str, limit: int, inputs: bool, url: str | None, token: str | None, output: str
) -> None:
    """Say why a device, a job, a node, a feeder or the site is as it is: rule, limit and figures.

    \b
      wattshift explain asic-7
      wattshift explain batch-1a2b3c4d --inputs
      wattshift explain triage
      wattshift explain gpu-node-1
      wattshift explain site

    Of a device: its rung on the ladder and what that is worth, the next one, the marginal watt, the
    feeder that binds, and the rule that keeps it there. Of a job: which rule decided, which limit
    binds and by how much, what would have to give way, what its watts are worth and take from
    mining, and when it is expected to run. Of a node: watts asked for, granted, used, and drawn
    unasked. Of a feeder: its limit, what is committed there, and where it may carry too little what
    stands under it and what to do. Of the site: the cap that is acted on, what it waits for, and
    what every source of signals says.
    """
    with ControllerClient.find(url, token) as controller:
        site = controller.get("/v1/site") if subject == "site" else None
        nodes = [] if site is not None else controller.get("/v1/nodes")["nodes"]
        now = None if site is not None else present(controller, subject, nodes)
        feeder = None if site is not None or now is not None else on_feeder(controller, subject)
        places = []
        if now is not None and "spec" in now:
            subject = now["id"]  # where it was called by its name
            places = places_of(now, nodes)
        view = {
            "subject": subject,
            "now": now,
            "why": why_job(now, places) if now is not None and "spec" in now else [],
            "places": places,
            "decisions": controller.get("/v1/decisions", subject=subject, limit=limit)["decisions"],
            "economics": None if site is not None else earning(controller, subject),
        }
        if site is not None:
            view |= {"site": site, "signals": controller.get("/v1/signals")}
        if feeder is not None:
            view |= feeder
            view["decisions"] = told_of(controller, subject, limit)
    if view["now"] is None and site is None and feeder is None and not view["decisions"]:
        raise NotFound(f"nothing is known about {subject}; see wattshift status --devices, jobs")
    emit(view, output, lambda one: explanation(one, inputs))


def present(
    controller: ControllerClient, subject: str, nodes: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return the device, node or job that goes by that as it is now; None if there is none."""
    devices = controller.get("/v1/devices")["devices"]
    device: dict[str, Any] | None = next((one for one in devices if one["id"] == subject), None)
    if device is not None:
        return device
    node: dict[str, Any] | None = next((one for one in nodes if one["node"] == subject), None)
    if node is not None:
        return node
    try:
        job: dict[str, Any] = of_job(controller, subject, controller.get)
    except SeveralJobs:
        raise
    except NotFound:
        return None
    return job


def on_feeder(controller: ControllerClient, subject: str) -> dict[str, Any] | None:
    """Return the feeder of that name, the alarms about it, and what was decided; None: no such."""
    site = controller.get("/v1/site")
    one = next((one for one in site["feeders"] if one["id"] == subject), None)
    if one is None:
        return None
    about = [alarm for alarm in site["alarms"] if alarm["id"] in alarm_ids(subject)]
    return {"feeder": one, "alarms": about}


def told_of(controller: ControllerClient, feeder: str, limit: int) -> list[dict[str, Any]]:
    """Return what was decided on a feeder and told of it by its alarms, the newest first."""
    found = [
        one
        for subject in (feeder, *alarm_ids(feeder))
        for one in controller.get("/v1/decisions", subject=subject, limit=limit)["decisions"]
    ]
    return sorted(found, key=lambda one: str(one["at"]), reverse=True)[:limit]


def earning(controller: ControllerClient, subject: str) -> dict[str, Any] | None:
    """Return whether hashing pays on the device of that id, and at which hashprice; else None."""
    literal = "".join(f"[{c}]" if c in "*?[" else c for c in subject)
    if len(literal) > 128:
        return None
    view = controller.get("/v1/economics", device=literal, limit=1)
    if not view["devices"]:
        return None
    one: dict[str, Any] = view["devices"][0]
    kept = ("verdict", "sentence", "points", "account", "lease", "rung")
    return {**{key: one.get(key) for key in kept}, "hashprice": view["hashprice"]}


def explanation(view: dict[str, Any], inputs: bool) -> str:
    """Return the answer for people."""
    parts = []
    if "site" in view:
        parts += [binding_text(view["site"]), signals_text(view["signals"])]
    if "feeder" in view:
        parts.append(feeder_text(view, view["feeder"]))
    now = view["now"]
    if now is not None:
        parts += now_text(now, view.get("why", ()))
    if view["economics"] is not None:
        if view["economics"]["rung"] is not None:
            parts.append(rung_text(view["economics"]["rung"]))
        parts.append(money_text(view["economics"]))
    if not view["decisions"]:
        return "\n\n".join([*parts, "no decision is on record"])
    if not inputs:
        rows = [(d["at"], d["action"], d["reason"]) for d in view["decisions"]]
        return "\n\n".join([*parts, grid(("AT", "DECISION", "WHY"), rows)])
    for one in view["decisions"]:
        figures = [
            (f"  {key}", "unknown" if v is None else str(v)) for key, v in one["inputs"].items()
        ]
        parts.append(
            f"{one['at']}  {one['action']}\n  {one['reason']}\n{pairs(figures or [('', '')])}"
        )
    return "\n\n".join(parts)


def now_text(now: dict[str, Any], why: Sequence[str]) -> list[str]:
    """Return what a device, a node or a job is now, in parts, for people."""
    if "spec" in now:
        return [part for part in (job_text(now), job_answer(why)) if part]
    return [node_text(now) if "node" in now else device_text(now)]


def money_text(one: dict[str, Any]) -> str:
    """Return what hashing earns here, for people."""
    price = one["hashprice"]
    seen = "" if price["age_s"] is None else f", {age(price['age_s'])} old"
    told = f"{number(price['usd_per_ph_day'], 'USD/PH/day')} ({price['source']}{seen})"
    rows = [("money", one["sentence"]), ("hashprice", told)]
    return pairs([*rows, *(("held back", text) for text in price["held"])])


def _had(one: dict[str, Any]) -> str:
    """How a draw is had, and by whom where that is told."""
    source = one.get("watts_source")
    return str(one["quality"]) if source is None else f"{one['quality']}, by {SOURCES[source]}"


def _cycles(one: dict[str, Any]) -> list[tuple[str, str]]:
    """How often it has slept and woken, and what that costs each time."""
    cost_usd = one.get("cycle_usd")
    if one["kind"] != "asic" or cost_usd is None:
        return []
    count = "not counted" if one.get("cycles") is None else f"{one['cycles']:,} so far"
    wear = f" (wear {number(one['wear_usd_per_cycle'], 'USD')})"
    digits = 2 if cost_usd >= 0.01 or not cost_usd else 4
    return [("cycles", f"{count}, {number(cost_usd, 'USD', digits)} each{wear}")]


def device_text(one: dict[str, Any]) -> str:
    """Return one device for people."""
    leased = "none" if one["leased_w"] is None else watts(one["leased_w"])
    return pairs(
        [
            ("device", f"{one['id']} ({one['kind']}, {one['model']})"),
            ("state", f"{one['state']}: {one['reason']}"),
            ("mode", one["mode"] or "unknown"),
            ("draw", f"{watts(one['watts_w'])} ({_had(one)})"),
            ("lease", f"{leased}, ceiling {watts(one['ceiling_w'])}, feeder {one['feeder']}"),
            *_cycles(one),
        ]
    )
