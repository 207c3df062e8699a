"""`wattshift commission`: pulse each ASIC against the meters, and write down what that showed."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.commission_teach import teach
from wattshift_cluster.cli.options import DURATION, controller_options
from wattshift_cluster.cli.output import age, emit, grid, number, output_option, talk, watts
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import Refused, TryLater, Unreachable
from wattshift_cluster.fleet import commission as pulses
from wattshift_cluster.fleet.commission import Record, chosen, impossible
from wattshift_cluster.fleet.pulses import Kind
from wattshift_cluster.fleet.site_port import Above, DeviceLook, Look, Plan

INTERRUPTED = 130
PULSE_S = (20.0, 3600.0)
PERIOD_S = 1.0
QUIET_ORIGINS = (None, "connection")
GOOD = (Kind.CONFIRMED.value, Kind.PARTLY.value)


class ControllerPort:
    """A running controller as `fleet.site_port.Port`."""

    def __init__(self, controller: ControllerClient) -> None:
        self._controller = controller

    def look(self) -> Look:
        """See `Port`."""
        site = self._controller.get("/v1/site")
        devices = self._controller.get("/v1/devices")["devices"]
        return look_of(site, devices, time.monotonic())

    def command(self, action: str, device: str, reason: str) -> None:
        """See `Port`."""
        body = {"devices": [device], "reason": reason}
        rows = self._controller.post(f"/v1/fleet/{action}", body)["rows"]
        for row in rows:
            if not row["ok"]:
                kind = Unreachable if row.get("fault") == "unreachable" else Refused
                raise kind(f"{row['device']}: {row['error']}")
        if not rows:
            raise Refused(f"{device}: nobody took the order")

    def pause(self, span_s: float) -> None:
        """See `Port`."""
        time.sleep(span_s)


def look_of(site: dict[str, Any], devices: list[dict[str, Any]], at_s: float) -> Look:
    """What /v1/site and /v1/devices say, as the commissioning sees it.

    The site's meter measures the root feeder; feeders with a meter of their own carry `power_w`.
    """
    tree = {one["id"]: _above(one) for one in site["feeders"]}
    meters = {one["id"]: one["power_w"] for one in site["feeders"] if "power_w" in one}
    root = next(name for name, above in tree.items() if above is None)
    if site["power_age_s"] is not None:
        meters.setdefault(root, site["power_w"])
    event = None
    if site["cap_origin"] not in QUIET_ORIGINS:
        event = f"a cap is in force ({site['cap_origin']}, {watts(site['cap_w'])})"
    elif site.get("mode") == "shadow":
        event = "the site is in shadow mode: nothing is commanded"
    looks = tuple(
        DeviceLook(
            id=one["id"],
            kind=one["kind"],
            model=one["model"],
            feeder=one["feeder"],
            mode=one["mode"],
            state=one["state"],
            # What was learnt of it says nothing new: only a reading can be held against a meter.
            watts_w=None if one.get("watts_source") == "learnt" else one["watts_w"],
            asleep=one["asleep"],
            hashrate_h_per_s=one["hashrate_h_per_s"],
        )
        for one in devices
    )
    return Look(at_s, event, tree, meters, looks)


def _above(feeder: dict[str, Any]) -> Above:
    """What a feeder hangs on."""
    first, second = feeder["parent"], feeder.get("second_parent")
    return first if second is None else (first, second)


@click.command()
@click.option("--devices", "pattern", default="*", show_default=True, metavar="PATTERN")
@click.option("--feeder", metavar="NAME", help="Only machines that should hang on this feeder.")
@click.option("--pulse", type=DURATION, default="60s", show_default=True, help="Time asleep.")
@click.option("--record", "path", type=click.Path(path_type=Path), help="Where to write it.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and command nothing.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--no-teach", is_flag=True, help="Keep the findings from the agents.")
@controller_options
@output_option
def commission(
    pattern: str,
    feeder: str | None,
    pulse: float,
    path: Path | None,
    dry_run: bool,
    yes: bool,
    no_teach: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Put each ASIC to sleep and wake it, one at a time, while the meters are watched.

    Finds wiring-map errors, machines that only say that they sleep, and how far a firmware's watts
    are off; fits watts and transition times. What the meters showed is then handed to the agents,
    which lease by it from there on. Ctrl-C wakes the machine that sleeps and keeps the record. Exit
    code 1: something was found.

    \b
      wattshift commission --dry-run
      wattshift commission --devices 'row-3-*' --pulse 90s
      wattshift commission --feeder container-2 --yes -o json
    """
    if not PULSE_S[0] <= pulse <= PULSE_S[1]:
        raise click.BadParameter("allowed: 20s to 1h", param_hint="--pulse")
    plan = Plan(pulse_s=pulse, period_s=PERIOD_S)
    with ControllerClient.find(url, token) as controller:
        port = ControllerPort(controller)
        look = port.look()
        devices = chosen(look, pattern, feeder)
        record = Record(plan, impossible(look, devices), tuple(sorted(look.meters)))
        _announce(record, devices, look)
        if dry_run:
            emit(record.to_dict(), output, lambda _: "nothing was commanded")
            return
        if look.event is not None:
            raise TryLater(look.event)
        if not yes:
            click.confirm("Go on?", abort=True, err=True)
        path = path or Path(f"commission-{_stamp('%Y%m%dT%H%M%SZ')}.json")
        try:
            pulses.commission(port, plan, devices, talk, record)
        finally:
            _write(path, record)
        if not no_teach:
            teach(controller, record, path.name)
    emit(record.to_dict(), output, record_text)
    _leave(record)


def record_text(record: dict[str, Any]) -> str:
    """Return a commissioning record for people."""
    headers = ("DEVICE", "FEEDER", "VERDICT", "METER SAYS", "IT SAYS", "OFF", "DOWN", "UP", "WHY")
    rows = [
        (
            one["device"],
            one["feeder"],
            one["verdict"],
            _measured(one),
            watts(one["reported_w"]),
            number(one["off_pct"], "%", 1),
            age(one["down_s"]),
            age(one["up_s"]),
            one["text"],
        )
        for one in record["devices"]
    ]
    stopped = f"\n\nstopped: {record['stopped']}" if record["stopped"] else ""
    return grid(headers, rows, headers[3:8]) + stopped


def _measured(one: dict[str, Any]) -> str:
    if one["step_w"] is None:
        return watts(None)
    return f"{one['step_w']:.0f} ± {one['error_w']:.0f} W"


def _announce(record: Record, devices: list[DeviceLook], look: Look) -> None:
    each_s = 2.5 * record.plan.pulse_s
    talk(
        f"{len(devices)} machines, one at a time, {record.plan.pulse_s:g} s asleep each: about "
        f"{age(each_s * len(devices))} and however long they take to wake."
    )
    talk(f"Meters: {', '.join(record.meters) or 'none'}")
    for text in record.impossible:
        talk(f"Impossible here: {text}")
    if look.event is not None:
        talk(f"Not now: {look.event}")


def _write(path: Path, record: Record) -> None:
    """Write the record whole: beside its place, then renamed into it."""
    text = json.dumps({"at": _stamp("%Y-%m-%dT%H:%M:%SZ"), **record.to_dict()}, indent=2)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text + "\n")
    draft.replace(path)
    talk(f"record: {path}")


def _stamp(form: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(form)


def _leave(record: Record) -> None:
    """End with what the record says. Raises TryLater where it was broken off."""
    if record.stopped == "interrupted":
        click.get_current_context().exit(INTERRUPTED)
    if record.stopped is not None:
        raise TryLater(record.stopped)
    if any(row.verdict.kind.value not in GOOD for row in record.rows):
        click.get_current_context().exit(1)
