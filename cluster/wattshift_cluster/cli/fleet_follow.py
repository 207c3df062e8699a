"""Follow a sleep or a wake until every machine was seen to obey: by its watts, not by its word."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wattshift_cluster.cli.output import talk, watts
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import Unreachable

LOOK_S = 1.0
HELD_S = 20.0
"""A machine that may wake and has no lease to by then is told of, not waited for."""

SLACK_S = 0.2
"""A sample this much older than the order may be one of after it: ages are rounded on the way."""

Row = dict[str, Any]


def followed(
    controller: ControllerClient, action: str, rows: Sequence[Row], began_s: float, wait_s: float
) -> list[Row]:
    """The rows with what became of each: confirmed, or not and why.

    Args:
        action: "sleep" or "wake".
        rows: as the order was answered; those that were not taken are left as they are.
        began_s: when the order went out, monotonic s.
        wait_s: how long to look, s.

    Raises:
        Unreachable: the controller was gone when the time was up.
    """
    done: dict[str, Row] = {}
    open_ids = [row["device"] for row in rows if row["ok"]]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("confirmed"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(action, total=len(open_ids))
        try:
            while len(done) < len(open_ids):
                elapsed_s = time.monotonic() - began_s
                over = elapsed_s >= wait_s
                views = _views(controller, last=over)
                for device in open_ids:
                    if device not in done and (found := views.get(device)) is not None:
                        verdict = _verdict(action, found, elapsed_s, last=over)
                        done |= {} if verdict is None else {device: verdict}
                bar.update(task, completed=_confirmed(done))
                if over:
                    break
                time.sleep(LOOK_S if len(done) < len(open_ids) else 0.0)
        except KeyboardInterrupt:
            talk("the order stands; wattshift fleet list tells how far it is")
            raise
    gone = {"outcome": "not confirmed", "reason": "the controller no longer lists it"}
    return [row | done.get(row["device"], gone) if row["ok"] else row for row in rows]


def _confirmed(done: Mapping[str, Row]) -> int:
    return sum(one["outcome"] == "confirmed" for one in done.values())


def _views(controller: ControllerClient, *, last: bool) -> dict[str, Row]:
    """Every device by id; nothing while the controller is away, unless it is the last look."""
    try:
        return {one["id"]: one for one in controller.get("/v1/devices")["devices"]}
    except Unreachable:
        if last:
            raise
        return {}


def _verdict(action: str, view: Row, elapsed_s: float, *, last: bool) -> Row | None:
    """What became of one machine; None while that is open."""
    asleep = view["asleep"]
    after = view["age_s"] is not None and view["age_s"] < elapsed_s + SLACK_S
    if after and asleep is (action == "sleep"):
        return {"outcome": "confirmed", "watts_w": view["watts_w"], "reason": None}
    idle = view["leased_w"] is None or view["mode"] == "sleep"
    if action == "wake" and idle and after and (last or elapsed_s >= HELD_S):
        reason = view["note"] or f"it may wake, and no lease asks it to: {view['reason']}"
    elif last:
        reason = view["error"] or view["note"] or _stands(view)
    else:
        return None
    return {"outcome": "not confirmed", "watts_w": view["watts_w"], "reason": reason}


def _stands(view: Row) -> str:
    if view["asleep"] is None:
        return f"whether it sleeps is not known: {view['reason']}"
    if view["asleep"]:
        return "it still sleeps"
    draws = "" if view["watts_w"] is None else f" and draws {watts(view['watts_w'])}"
    return f"it is still awake{draws}"
