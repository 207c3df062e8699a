"""`wattshift fleet sleep|wake|lock|unlock`: orders to ASICs, followed until they obey."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from wattshift_cluster.cli.fleet_follow import followed
from wattshift_cluster.cli.fleet_text import names, orders_text
from wattshift_cluster.cli.options import DURATION, controller_options
from wattshift_cluster.cli.output import emit, output_option
from wattshift_cluster.client import ControllerClient, find_controller
from wattshift_cluster.errors import Refused, Unreachable, WattshiftError

F = TypeVar("F", bound=Callable[..., Any])
Row = dict[str, Any]

ORDER_S = 60.0
"""An agent takes a thousand machines in a few seconds, and thousands one thousand after another."""

TARGETS = click.argument("devices", metavar="ID|PATTERN...", nargs=-1, required=True)
REASON = click.option("--reason", metavar="TEXT", help="Why; it is kept on record.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
NO_WAIT = click.option("--no-wait", is_flag=True, help="Do not wait until they obey.")
WAIT = click.option(
    "--wait", "wait_s", type=DURATION, default="3m", show_default=True, help="How long to wait."
)


def moving(command: F) -> F:
    """Add what sleep and wake share."""
    for option in (output_option, controller_options, WAIT, NO_WAIT, DRY_RUN, REASON, TARGETS):
        command = option(command)
    return command


@click.command(short_help="Put ASICs to sleep, and wait until they do.")
@moving
def sleep(**options: Any) -> None:
    """Put ASICs to sleep and keep them so, whatever their leases say, until fleet wake.

    \b
      wattshift fleet sleep rig-17 --reason 'fan is loud'
      wattshift fleet sleep 'row-a-*' --dry-run

    Ends when each was seen to sleep by its draw. Exit 1 if some were not in time, 5 if an agent
    does not answer, 6 if one was refused; each is named with the reason. Ctrl-C ends the waiting
    (130); the order stands.
    """
    _move("sleep", **options)


@click.command(short_help="Let ASICs wake again, and wait until they do.")
@moving
def wake(**options: Any) -> None:
    """Let ASICs run again that fleet sleep put to sleep, as far as their leases go.

    \b
      wattshift fleet wake rig-17
      wattshift fleet wake 'row-a-*' --wait 10m

    A locked machine does not wake, nor one that has not rested long enough; many wake one after
    another. Exit codes as of fleet sleep.
    """
    _move("wake", **options)


@click.command(short_help="Lock ASICs: they sleep, and only you unlock them.")
@TARGETS
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is kept on record.")
@DRY_RUN
@controller_options
@output_option
def lock(
    devices: tuple[str, ...],
    reason: str,
    dry_run: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Lock ASICs out, for work on them: nothing wakes them until whoever locked them unlocks them.

    \b
      wattshift fleet lock rig-17 --reason 'hash board is out'

    They go to sleep and stay so. A lock is no switch: cut the supply before you open a machine.
    """
    body = {"devices": list(devices), "reason": reason, "dry_run": dry_run}
    _order("lock", body, url, token, output)


@click.command(short_help="Unlock ASICs that you have locked.")
@TARGETS
@REASON
@click.option("--override", is_flag=True, help="Take somebody else's lock away (admin).")
@DRY_RUN
@controller_options
@output_option
def unlock(
    devices: tuple[str, ...],
    reason: str | None,
    override: bool,
    dry_run: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """Unlock ASICs that were locked under the same token name; they run again as leased.

    What fleet sleep holds asleep stays so until fleet wake.

    \b
      wattshift fleet unlock rig-17
      wattshift fleet unlock rig-17 --override --reason 'Kim is on leave'
    """
    body = {"devices": list(devices), "reason": reason, "override": override, "dry_run": dry_run}
    _order("unlock", body, url, token, output)


def _move(
    action: str,
    devices: tuple[str, ...],
    reason: str | None,
    dry_run: bool,
    no_wait: bool,
    wait_s: float,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    body = {"devices": list(devices), "reason": reason, "dry_run": dry_run}
    with patient(url, token) as controller:
        began_s = time.monotonic()
        rows = ordered(controller, action, body)
        if not (dry_run or no_wait):
            rows = followed(controller, action, rows, began_s, wait_s)
    emit(rows, output, orders_text)
    judge(rows)


def _order(action: str, body: Row, url: str | None, token: str | None, output: str) -> None:
    with patient(url, token) as controller:
        rows = ordered(controller, action, body)
    emit(rows, output, orders_text)
    judge(rows)


def patient(url: str | None, token: str | None) -> ControllerClient:
    """A client that waits long enough for an order to thousands of machines."""
    endpoint = find_controller(url, token)
    return ControllerClient(endpoint.url, endpoint.token, deadline_s=ORDER_S)


def ordered(controller: ControllerClient, action: str, body: Row) -> list[Row]:
    """Give an order; its rows, each with the `outcome` so far. Raises WattshiftError."""
    answer = controller.post(f"/v1/fleet/{action}", body)
    taken = "dry run" if answer["dry_run"] else "taken"
    return [{**row, "outcome": taken if row["ok"] else row["fault"]} for row in answer["rows"]]


def judge(rows: Sequence[Row]) -> None:
    """Raise what an order ends with, if not well: refusals first, then silence, then doubt."""
    refused = [row for row in rows if row["outcome"] == "refused"]
    if refused:
        raise Refused(_named(refused, "refused", "error"))
    silent = [row for row in rows if row["outcome"] == "unreachable"]
    if silent:
        raise Unreachable(_named(silent, "not reached", "error"))
    open_rows = [row for row in rows if row["outcome"] == "not confirmed"]
    if open_rows:
        raise WattshiftError(_named(open_rows, "not confirmed", "reason"))


def _named(rows: Sequence[Row], what: str, why: str) -> str:
    """The devices by reason, so that one silent agent is told of once."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(str(row[why]), []).append(row["device"])
    parts = [f"{names(devices)}: {reason}" for reason, devices in by_reason.items()]
    return f"{len(rows)} {what}: {'; '.join(parts[:5])}" + ("; …" if len(parts) > 5 else "")
