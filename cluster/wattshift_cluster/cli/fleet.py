"""`wattshift fleet`: single devices: what they are, what they are told, their limits and curves."""

import time
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from wattshift_cluster.cli.fleet_asics import (
    DRY_RUN,
    REASON,
    lock,
    patient,
    sleep,
    unlock,
    wake,
)
from wattshift_cluster.cli.fleet_limit import limit_rows
from wattshift_cluster.cli.fleet_profile import Walks, begun, judge, path_of
from wattshift_cluster.cli.fleet_text import (
    devices_text,
    limits_text,
    profile_text,
    released,
    shown,
    summary,
    unseen_rows,
)
from wattshift_cluster.cli.options import WATTS, controller_options
from wattshift_cluster.cli.output import emit, output_option, talk
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import NotFound, Refused, Unreachable, WattshiftError

LOOK_S = 0.5
PROFILE_MOST_S = 180.0
"""Six steps of at most 10 s to settle and 3 s to read, with room."""

STEPS = 6
INTERRUPTED = 130
ORDERS = ("sleep", "wake", "lock", "unlock", "limit")
LOOKED_BACK = 1000
"""Decisions about a device among which its last order is looked for."""

View = dict[str, Any]
KINDS = ("asic", "gpu", "cpu")
STATES = ("confirmed", "settling", "unknown", "unreachable", "unseen", "shadow", "asleep", "awake")


class Fleet(click.Group):
    """The group; `scan` needs no controller but every driver, so it is imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), "scan"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command."""
        if cmd_name != "scan":
            return super().get_command(ctx, cmd_name)
        from wattshift_cluster.cli.fleet_scan import scan

        return scan


@click.group(cls=Fleet)
def fleet() -> None:
    """Look at devices, put ASICs to sleep, set power limits, measure power curves.

    \b
      wattshift fleet list --kind asic --state unreachable
      wattshift fleet sleep 'row-a-*' --reason 'filters'
      wattshift fleet limit 'host-gpu*' 450W
      wattshift fleet profile host-gpu0
    """


for command in (sleep, wake, lock, unlock):
    fleet.add_command(command)


class WattsOrOff(click.ParamType[float | None]):
    """Watts with a unit, or `off`: no limit."""

    name = "WATTS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Return watts, None for `off`, or fail with what would be allowed."""
        return None if value in ("off", None) else WATTS.convert(value, param, ctx)


@fleet.command(name="list", short_help="List devices, all or some.")
@click.argument("pattern", metavar="[PATTERN]", default="*")
@click.option("--kind", type=click.Choice(KINDS), help="Only devices of this kind.")
@click.option("--state", type=click.Choice(STATES), help="Only devices in this state.")
@controller_options
@output_option
def list_devices(
    pattern: str,
    kind: str | None,
    state: str | None,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """List devices, one row each; how many there are of each state goes to stderr.

    \b
      wattshift fleet list
      wattshift fleet list 'row-a-*' --kind asic --state asleep

    A device is confirmed when it was seen to obey its lease, settling until then. Asleep and awake
    are judged by what an ASIC draws. An unseen one never answered its agent and has no nameplate,
    so it counts nothing.
    """
    with ControllerClient.find(url, token) as controller:
        view = controller.get("/v1/devices")
    found = [
        one
        for one in (*view["devices"], *unseen_rows(view))
        if fnmatchcase(one["id"], pattern) and kind in (None, one["kind"])
    ]
    asleep = {"asleep": True, "awake": False}
    if state in asleep:
        found = [one for one in found if one["asleep"] is asleep[state]]
    elif state is not None:
        found = [one for one in found if one["state"] == state]
    emit(found, output, lambda rows: devices_text(rows) if rows else "no devices")
    if found and output == "table":
        talk(summary(found))


@fleet.command(short_help="Show one device: state, lock, last order, power curve.")
@click.argument("device", metavar="ID")
@controller_options
@output_option
def show(device: str, url: str | None, token: str | None, output: str) -> None:
    """Show one device: of an ASIC its lock and its last order, and its last power curve.

    \b
      wattshift fleet show rig-17
      wattshift fleet show host-gpu0
    """
    with ControllerClient.find(url, token) as controller:
        (found,) = _matching(controller, device, most=1)
        curve: View | None = None
        orders: tuple[View | None, View | None] = None, None
        if found["kind"] in ("gpu", "asic"):
            try:
                curve = _curve(controller, found["id"])
            except (Refused, Unreachable) as fault:
                # What the controller itself knows is shown all the same.
                talk(f"its power curve is not known: {fault}")
        learnt: View | None = None
        if found["kind"] == "asic":
            orders = _orders(controller, found["id"])
            learnt = _learnt(controller, found["id"])
    last, locked = orders
    view = {**found, "last_command": last, "lock": locked, "profile": curve, "learnt": learnt}
    emit(view, output, shown)


def _learnt(controller: ControllerClient, device: str) -> View | None:
    """What its agent has learnt of an ASIC; None where that cannot be had, and why is said."""
    try:
        view: View = controller.get(f"/v1/devices/{quote(device, safe='')}/learnt")
    except (NotFound, Refused, Unreachable) as fault:
        talk(f"what is learnt of it is not known: {fault}")
        return None
    return view


def _orders(controller: ControllerClient, device: str) -> tuple[View | None, View | None]:
    """The last order to a device, and the lock that is on it; None where none is on record."""
    query = {"subject": device, "limit": LOOKED_BACK}
    told = controller.get("/v1/decisions", **query)["decisions"]
    orders = [one for one in told if one["action"] in ORDERS]
    locks = [one for one in orders if "lock" in one["action"] and one["inputs"].get("ok")]
    locked = locks[0] if locks and locks[0]["action"] == "lock" else None
    return (orders[0] if orders else None), locked


@fleet.command(short_help="Limit the power of GPUs and ASICs.")
@click.argument("devices", metavar="ID|PATTERN")
@click.argument("limit", metavar="WATTS|off", type=WattsOrOff())
@REASON
@DRY_RUN
@controller_options
@output_option
def limit(
    devices: str,
    limit: float | None,
    reason: str | None,
    dry_run: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Limit the power of GPUs and ASICs; a pattern means all that match, at once.

    \b
      wattshift fleet limit host-gpu0 450W
      wattshift fleet limit 'row-a-*' 2.5kW --reason 'hot aisle'
      wattshift fleet limit 'row-a-*' off

    A GPU's limit can always be lowered. It is raised only as far as the device's lease covers;
    fleet release gives back the one that it had at first. An ASIC is offered no operating point
    above its limit, until off. Exit 6 if one was not set as asked.
    """
    with patient(url, token) as controller:
        rows = limit_rows(controller, _matching(controller, devices), limit, reason, dry_run)
    emit(rows, output, limits_text)
    if refused := [f"{row['device']}: {row['error']}" for row in rows if row["error"]]:
        away = all(row.get("fault") == "unreachable" for row in rows if row["error"])
        raise (Unreachable if away else Refused)("; ".join(refused))


@fleet.command(short_help="Bring a device to its safe point now.")
@click.argument("device", metavar="ID")
@controller_options
@output_option
def release(device: str, url: str | None, token: str | None, output: str) -> None:
    """Bring a device to its safe point now, and give a GPU its first power limit back.

    \b
      wattshift fleet release host-gpu0

    The next lease puts it to work again; what must not run is held back by a cap, by pausing its
    job, or, an ASIC, by fleet sleep. Exit 6 if the limit could not be given back.
    """
    with ControllerClient.find(url, token) as controller:
        view = controller.post(f"/v1/devices/{quote(device, safe='')}/release", {})
    emit(view, output, released)
    if view["limit"] is not None and view["limit"]["error"]:
        raise Refused(f"{device}: its first power limit is not back: {view['limit']['error']}")


@fleet.command(short_help="Measure what devices draw at each point of theirs.")
@click.argument("devices", metavar="ID|PATTERN...", nargs=-1, required=True)
@click.option("--with-sleep", is_flag=True, help="Put ASICs to sleep, too, and wake them.")
@click.option("--points", type=click.IntRange(2, 64), help="Points of an ASIC at most; 8 unless.")
@DRY_RUN
@click.option("--no-wait", is_flag=True, help="Start it and return; fleet show tells the rest.")
@controller_options
@output_option
def profile(
    devices: tuple[str, ...],
    with_sleep: bool,
    points: int | None,
    dry_run: bool,
    no_wait: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Measure what devices draw at each of their points, within the lease that each holds.

    \b
      wattshift fleet profile host-gpu0
      wattshift fleet profile rig-17 --dry-run
      wattshift fleet profile 'row-a-*' --points 4

    An ASIC goes down its operating points and then back to what its lease says. At each, watts
    (by its outlet where it has one), hashrate and J/TH are taken once it holds still. Several go
    one after the other on each feeder. Ctrl-C breaks it off (130) and keeps what was measured.

    A GPU, one at a time, goes up; half a minute to a minute and a half. It yields to inference
    like any mining, and then gives up.

    What is found teaches the model by which a lease's watts become work. Exit 1: not measured to
    the end; 6: refused.
    """
    body = {"with_sleep": with_sleep, "points": points, "dry_run": dry_run}
    with ControllerClient.find(url, token) as controller:
        chosen = _measurable(controller, devices)
        if chosen[0]["kind"] == "asic":
            _walk(controller, chosen, body, output, wait=not no_wait)
            return
        if with_sleep or points or dry_run:
            raise click.UsageError("--with-sleep, --points and --dry-run are for ASICs")
        device = chosen[0]["id"]
        view = controller.post(path_of(device), {})
        if not no_wait:
            view = _followed(controller, device)
    emit(view, output, profile_text)
    if view["state"] == "aborted":
        raise WattshiftError(f"{device} was not measured to the end: {view['reason']}")


def _measurable(controller: ControllerClient, patterns: tuple[str, ...]) -> list[View]:
    """ASICs, or one other device. A pattern takes the ASICs among what it fits."""
    chosen: dict[str, View] = {}
    for pattern in patterns:
        found = _matching(controller, pattern)
        rigs = [one for one in found if one["kind"] == "asic"]
        chosen |= {one["id"]: one for one in (rigs or found)}
    devices = list(chosen.values())
    if len(devices) > 1 and any(one["kind"] != "asic" for one in devices):
        raise click.UsageError("several ASICs, or one GPU: a GPU is measured by itself")
    return devices


def _walk(
    controller: ControllerClient, devices: list[View], body: View, output: str, *, wait: bool
) -> None:
    """Measure ASICs, and end with what came of it."""
    if wait and not body["dry_run"]:
        walks = Walks(controller, devices, body)
        rows = walks.run()
    else:
        walks, rows = None, [begun(controller, one["id"], body) for one in devices]
    emit(rows, output, lambda found: "\n\n".join(profile_text(row) for row in found))
    if walks is not None and walks.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    judge(rows)


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
    view: dict[str, Any] = controller.get(path_of(device))
    return view


def _matching(
    controller: ControllerClient, pattern: str, most: int | None = None
) -> list[dict[str, Any]]:
    view = controller.get("/v1/devices")
    found = [one for one in view["devices"] if fnmatchcase(one["id"], pattern)]
    if not found:
        for one in unseen_rows(view):
            if fnmatchcase(one["id"], pattern):
                raise NotFound(f"{one['id']} is no device yet: {one['reason']}")
        raise NotFound(f"no device matches {pattern!r}; see wattshift fleet list")
    if most is not None and len(found) > most:
        talk(f"{pattern!r} matches {len(found)} devices; the first is shown")
        found = found[:most]
    return found
