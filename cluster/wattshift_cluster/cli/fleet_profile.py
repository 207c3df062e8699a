"""The measurement of ASICs' operating points: one machine at a time on each feeder, and followed.

An agent carries a measurement out and ends it by itself. Here they are begun one after the other,
watched, and broken off at Ctrl-C.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from wattshift_cluster.cli.fleet_text import names
from wattshift_cluster.cli.output import talk
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import Refused, Unreachable, WattshiftError

LOOK_S = 1.0
LOST_S = 60.0
"""A machine whose agent tells nothing for so long is watched no more."""

AT_ONCE = 16
"""Feeders on which a machine is measured at the same time."""

View = dict[str, Any]


def path_of(device: str) -> str:
    """Where a device's measurement is told."""
    return f"/v1/devices/{quote(device, safe='')}/profile"


def begun(controller: ControllerClient, device: str, body: Mapping[str, Any]) -> View:
    """Begin or plan one; a row that says why not where that is refused or nobody answers."""
    try:
        view: View = controller.post(path_of(device), body)
    except (Refused, Unreachable) as fault:
        kind = "refused" if isinstance(fault, Refused) else "unreachable"
        return {"device": device, "kind": "asic", "state": kind, "reason": str(fault)}
    return view


class Walks:
    """Measurements of several machines.

    Attributes:
        rows: the last word on each, in the order of the machines.
        interrupted: whether Ctrl-C ended them.
    """

    def __init__(
        self,
        controller: ControllerClient,
        devices: Sequence[Mapping[str, Any]],
        body: Mapping[str, Any],
    ) -> None:
        """Args: devices: as /v1/devices lists them; body: how to measure."""
        self.rows: dict[str, View] = {}
        self.interrupted = False
        self._controller = controller
        self._body = body
        self._order = [str(one["id"]) for one in devices]
        self._queues: dict[str, deque[str]] = {}
        for one in devices:
            self._queues.setdefault(str(one["feeder"]), deque()).append(str(one["id"]))
        self._under_way: dict[str, str] = {}
        self._heard_s: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}

    def run(self) -> list[View]:
        """Measure them all, with progress on stderr; the last word on each."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("points"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            try:
                while self._begin(bar) or self._under_way:
                    time.sleep(LOOK_S)
                    self._look(bar)
            except KeyboardInterrupt:
                self.interrupted = True
                self._stop()
        return [self.rows[device] for device in self._order if device in self.rows]

    def _begin(self, bar: Progress) -> bool:
        """Begin the next machine of each feeder that has none under way; whether any was begun."""
        any_begun = False
        for feeder, waiting in self._queues.items():
            while waiting and feeder not in self._under_way and len(self._under_way) < AT_ONCE:
                device = waiting.popleft()
                # From here on it may be under way, whatever comes of the answer.
                self._under_way[feeder] = device
                view = self.rows[device] = begun(self._controller, device, self._body)
                if view["state"] != "running":
                    del self._under_way[feeder]
                    continue
                any_begun = True
                self._heard_s[device] = time.monotonic()
                talk(f"{device}: {len(view['plan'])} points, about {view['expected_s']:.0f} s")
                self._tasks[device] = bar.add_task(device, total=len(view["plan"]) + 1)
        return any_begun

    def _look(self, bar: Progress) -> None:
        for feeder, device in list(self._under_way.items()):
            view = self._asked(device)
            if view is None:
                continue
            self.rows[device] = view
            bar.update(self._tasks[device], completed=len(view.get("points", ())))
            if view["state"] != "running":
                del self._under_way[feeder]

    def _asked(self, device: str) -> View | None:
        """How it stands; None while nobody answers, and an end to that in time."""
        try:
            view: View = self._controller.get(path_of(device))
        except Unreachable as fault:
            if time.monotonic() < self._heard_s[device] + LOST_S:
                return None
            return {**self.rows[device], "state": "unreachable", "reason": str(fault)}
        self._heard_s[device] = time.monotonic()
        return view

    def _stop(self) -> None:
        """Break off what is under way; each goes back to its lease."""
        for device in self._under_way.values():
            try:
                self._controller.delete(path_of(device))
                self.rows[device] = self._controller.get(path_of(device))
            except WattshiftError as fault:
                talk(f"{device}: not broken off, it ends by itself within its lease: {fault}")
        left = [device for waiting in self._queues.values() for device in waiting]
        if left:
            talk(f"not begun: {names(left)}")


def judge(rows: Sequence[View]) -> None:
    """Raise what the measurements end with, if not well: refusals, then silence, then the rest."""
    for state, kind in (("refused", Refused), ("unreachable", Unreachable)):
        found = [f"{row['device']}: {row['reason']}" for row in rows if row["state"] == state]
        if found:
            raise kind("; ".join(found[:5]) + ("; …" if len(found) > 5 else ""))
    cut = [f"{row['device']}: {row['reason']}" for row in rows if row["state"] == "aborted"]
    if cut:
        raise WattshiftError(f"not measured to the end: {'; '.join(cut[:5])}")
