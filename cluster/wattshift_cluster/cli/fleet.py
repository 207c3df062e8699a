"""`wattshift fleet`: single devices: what they are, their power limits, their power curves."""

import time
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from wattshift_cluster.cli.explain import device_text
from wattshift_cluster.cli.options import WATTS, controller_options
from wattshift_cluster.cli.output import (
    UNKNOWN,
    emit,
    grid,
    hashrate,
    output_option,
    pairs,
    talk,
    watts,
)
from wattshift_cluster.cli.status import devices_text
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import NotFound, Refused, Unreachable, WattshiftError

LOOK_S = 0.5
PROFILE_MOST_S = 180.0
"""Six steps of at most 10 s to settle and 3 s to read, with room."""

STEPS = 6


@click.group()
def fleet() -> None:
    """Look at devices, set power limits, measure power curves.

    \b
      wattshift fleet list
      wattshift fleet limit 'host-gpu*' 450W
      wattshift fleet profile host-gpu0
    """


@fleet.command(name="list")
@controller_options
@output_option
def list_devices(url: str | None, token: str | None, output: str) -> None:
    """List every device.

    \b
      wattshift fleet list
    """
    with ControllerClient.find(url, token) as controller:
        found = controller.get("/v1/devices")["devices"]
    emit(found, output, lambda rows: devices_text(rows) if rows else "no devices")


@fleet.command(short_help="Show one device and its power curve.")
@click.argument("device", metavar="ID")
@controller_options
@output_option
def show(device: str, url: str | None, token: str | None, output: str) -> None:
    """Show one device, and its power curve where one was measured.

    \b
      wattshift fleet show host-gpu0
    """
    with ControllerClient.find(url, token) as controller:
        (found,) = _matching(controller, device, most=1)
        curve = None
        if found["kind"] == "gpu":
            try:
                curve = _curve(controller, found["id"])
            except (Refused, Unreachable) as fault:
                # What the controller itself knows is shown all the same.
                talk(f"its power curve is not known: {fault}")
    emit({**found, "profile": curve}, output, _shown)


@fleet.command(short_help="Set the power limit of one GPU, or of many at once.")
@click.argument("devices", metavar="ID|PATTERN")
@click.argument("limit", metavar="WATTS", type=WATTS)
@controller_options
@output_option
def limit(devices: str, limit: float, url: str | None, token: str | None, output: str) -> None:
    """Set the power limit of GPUs; a pattern means all GPUs that match, at once.

    \b
      wattshift fleet limit host-gpu0 450W
      wattshift fleet limit 'host-gpu*' 450W

    A limit can always be lowered. It is raised only as far as the device's lease covers; release
    gives back the one that it had at first. Exit 6 if one was not set as asked.
    """
    with ControllerClient.find(url, token) as controller:
        found = _matching(controller, devices)
        # Without a GPU among them it is asked all the same: the refusal says why.
        names = [one["id"] for one in found if one["kind"] == "gpu"] or [one["id"] for one in found]
        rows = controller.post("/v1/limits", {"limits": dict.fromkeys(names, limit)})["limits"]
    emit(rows, output, limits_text)
    if refused := [f"{row['device']}: {row['error']}" for row in rows if row["error"]]:
        raise Refused("; ".join(refused))


@fleet.command(short_help="Bring a device to its safe point now.")
@click.argument("device", metavar="ID")
@controller_options
@output_option
def release(device: str, url: str | None, token: str | None, output: str) -> None:
    """Bring a device to its safe point now, and give a GPU its first power limit back.

    \b
      wattshift fleet release host-gpu0

    The next lease puts it to work again; what must not run is held back by a cap or by pausing its
    job. Exit 6 if the limit could not be given back.
    """
    with ControllerClient.find(url, token) as controller:
        view = controller.post(f"/v1/devices/{quote(device, safe='')}/release", {})
    emit(view, output, _released)
    if view["limit"] is not None and view["limit"]["error"]:
        raise Refused(f"{device}: its first power limit is not back: {view['limit']['error']}")


@fleet.command(short_help="Measure what a GPU draws as it mines more.")
@click.argument("device", metavar="ID")
@click.option("--no-wait", is_flag=True, help="Start it and return; fleet show tells the rest.")
@controller_options
@output_option
def profile(device: str, no_wait: bool, url: str | None, token: str | None, output: str) -> None:
    """Measure what a GPU draws at rising mining intensity, within the lease that it holds.

    \b
      wattshift fleet profile host-gpu0

    It takes half a minute to a minute and a half. It yields to inference like any mining, and then
    gives up: exit 1. What it finds teaches the model by which a lease's watts become intensity.
    """
    with ControllerClient.find(url, token) as controller:
        view = controller.post(f"/v1/devices/{quote(device, safe='')}/profile", {})
        if not no_wait:
            view = _followed(controller, device)
    emit(view, output, profile_text)
    if view["state"] == "aborted":
        raise WattshiftError(f"{device} was not measured to the end: {view['reason']}")


def _followed(controller: ControllerClient, device: str) -> dict[str, Any]:
    """Show progress until the measurement has ended."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    ends_s = time.monotonic() + PROFILE_MOST_S
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"measuring {device}", total=STEPS)
        while time.monotonic() < ends_s:
            view = _curve(controller, device)
            bar.update(task, completed=len(view.get("points", ())))
            if view["state"] != "running":
                return view
            time.sleep(LOOK_S)
    raise Unreachable(f"{device} is still being measured after {PROFILE_MOST_S:g} s")


def _curve(controller: ControllerClient, device: str) -> dict[str, Any]:
    view: dict[str, Any] = controller.get(f"/v1/devices/{quote(device, safe='')}/profile")
    return view


def _matching(
    controller: ControllerClient, pattern: str, most: int | None = None
) -> list[dict[str, Any]]:
    devices = controller.get("/v1/devices")["devices"]
    found = [one for one in devices if fnmatchcase(one["id"], pattern)]
    if not found:
        raise NotFound(f"no device matches {pattern!r}; see wattshift fleet list")
    if most is not None and len(found) > most:
        talk(f"{pattern!r} matches {len(found)} devices; the first is shown")
        found = found[:most]
    return found


def limits_text(rows: list[dict[str, Any]]) -> str:
    """Return power limits for people."""
    table = [
        (
            row["device"],
            watts(row["asked_w"]),
            UNKNOWN if row["enforced_w"] is None else watts(row["enforced_w"]),
            _took(row["took_s"]),
            row["error"] or "ok",
        )
        for row in rows
    ]
    return grid(
        ("DEVICE", "ASKED", "ENFORCED", "TOOK", "RESULT"), table, ("ASKED", "ENFORCED", "TOOK")
    )


def _took(span_s: float) -> str:
    if span_s == 0:
        return "-"  # nothing was written
    return f"{span_s * 1000:.{0 if span_s >= 0.01 else 1}f} ms"


def profile_text(view: dict[str, Any], *, named: bool = True) -> str:
    """Return a power curve for people; `named` says whose it is."""
    if view["state"] == "none":
        return f"{view['device']} was not measured yet"
    left_w = view["residual_w"]
    rows = [
        *([("device", view["device"])] if named else []),
        ("profile", view["state"] + (f": {view['reason']}" if view["reason"] else "")),
        ("watts", view["quality"]),
    ]
    if not view["points"]:
        return pairs(rows)
    head = pairs([*rows, ("fit", f"off by {left_w:.1f} W (rms)" if left_w is not None else "none")])
    steps = [
        (
            f"{point['intensity_pct']} %",
            f"{point['watts_w']:.1f} ± {point['error_w']:.1f} W",
            f"{fit['low_w']:.0f} to {fit['high_w']:.0f} W",
            hashrate(point["hashrate_h_per_s"]),
            f"{point['seconds']:.1f} s",
        )
        for point, fit in zip(view["points"], view["fitted"], strict=True)
    ]
    headers = ("INTENSITY", "MEASURED", "MODEL 95 %", "HASHRATE", "TOOK")
    return f"{head}\n\n{grid(headers, steps, headers)}"


def _shown(view: dict[str, Any]) -> str:
    text, curve = device_text(view), view["profile"]
    if curve is None or curve["state"] == "none":
        return text
    return f"{text}\n\n{profile_text(curve, named=False)}"


def _released(view: dict[str, Any]) -> str:
    text = f"{view['device']} is at its safe point"
    return text if view["limit"] is None else f"{text}\n\n{limits_text([view['limit']])}"
