"""`wattshift explain ID`: what something does now, and the decisions that brought it there."""

from typing import Any
from urllib.parse import quote

import click

from wattshift_cluster.cli.jobs import job_text
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, grid, output_option, pairs, watts
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import NotFound


@click.command()
@click.argument("subject", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--inputs", is_flag=True, help="Also show the figures behind each decision.")
@controller_options
@output_option
def explain(
    subject: str, limit: int, inputs: bool, url: str | None, token: str | None, output: str
) -> None:
    """Say why a device, a job or the site is as it is: rule, limit and figures.

    \b
      wattshift explain asic-7
      wattshift explain batch-1a2b3c4d --inputs
      wattshift explain site
    """
    with ControllerClient.find(url, token) as controller:
        view = {
            "subject": subject,
            "now": present(controller, subject),
            "decisions": controller.get("/v1/decisions", subject=subject, limit=limit)["decisions"],
        }
    if view["now"] is None and not view["decisions"]:
        raise NotFound(f"nothing is known about {subject}; see wattshift status --devices, jobs")
    emit(view, output, lambda one: explanation(one, inputs))


def present(controller: ControllerClient, subject: str) -> dict[str, Any] | None:
    """Return the device or job of that id as it is now; None if there is none."""
    devices = controller.get("/v1/devices")["devices"]
    device: dict[str, Any] | None = next((one for one in devices if one["id"] == subject), None)
    if device is not None:
        return device
    try:
        job: dict[str, Any] = controller.get(f"/v1/jobs/{quote(subject, safe='')}")
    except NotFound:
        return None
    return job


def explanation(view: dict[str, Any], inputs: bool) -> str:
    """Return the answer for people."""
    parts = []
    now = view["now"]
    if now is not None:
        parts.append(job_text(now) if "spec" in now else device_text(now))
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


def device_text(one: dict[str, Any]) -> str:
    """Return one device for people."""
    leased = "none" if one["leased_w"] is None else watts(one["leased_w"])
    return pairs(
        [
            ("device", f"{one['id']} ({one['kind']}, {one['model']})"),
            ("state", f"{one['state']}: {one['reason']}"),
            ("mode", one["mode"] or "unknown"),
            ("draw", f"{watts(one['watts_w'])} ({one['quality']})"),
            ("lease", f"{leased}, ceiling {watts(one['ceiling_w'])}, feeder {one['feeder']}"),
        ]
    )
