"""`submit --wait`: what becomes of a job, with a bar in a terminal and plain lines elsewhere."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from wattshift_cluster.cli.job_names import OVER
from wattshift_cluster.cli.output import age, talk
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import TryLater, Unreachable

POLL_S = 1.0
GONE_S = 120.0
"""How long a controller may be away: longer than its restart with a large journal."""
LINE_EVERY_S = 30.0
"""How often a line tells of progress where there is no bar: a log should stay readable."""


def finish(controller: ControllerClient, job_id: str) -> dict[str, Any]:
    """Return the job once it is settled; each change of its state is told, and its progress."""
    if sys.stderr.isatty():
        return _with_bar(controller, job_id)
    told, line_s = "", time.monotonic()
    while True:
        view = look(controller, job_id)
        word = state_line(view)
        if word != told:
            talk(word)
            told, line_s = word, time.monotonic()
        elif view["progress"] is not None and time.monotonic() - line_s >= LINE_EVERY_S:
            talk(progress_line(view))
            line_s = time.monotonic()
        if settled(view):
            return view
        time.sleep(POLL_S)


def _with_bar(controller: ControllerClient, job_id: str) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, TextColumn("{task.fields[speed]}"), console=console) as bar:
        task = bar.add_task(job_id, total=None, speed="")
        told = ""
        while True:
            view = look(controller, job_id)
            word = state_line(view)
            if word != told:
                console.print(word)
                told = word
            progress = view["progress"] or {"done": 0, "total": None}
            bar.update(task, completed=progress["done"], total=progress["total"], speed=speed(view))
            if settled(view):
                return view
            time.sleep(POLL_S)


def look(controller: ControllerClient, job_id: str) -> dict[str, Any]:
    """Return the job. A controller that starts anew is waited for: the job outlives it.

    Raises:
        Unreachable, TryLater: it did not answer for `GONE_S`.
    """
    told, until_s = False, time.monotonic() + GONE_S
    while True:
        try:
            view: dict[str, Any] = controller.get(f"/v1/jobs/{job_id}")
        except (Unreachable, TryLater) as fault:
            if time.monotonic() >= until_s:
                raise
            if not told:
                talk(f"{fault}; the job goes on, and is looked for again")
            told = True
            time.sleep(POLL_S)
        else:
            return view


def state_line(view: dict[str, Any]) -> str:
    """Return where a job stands, and why."""
    return f"{view['state']}: {view['reason']}"


def progress_line(view: dict[str, Any]) -> str:
    """Return how far a batch job is, for people."""
    progress = view["progress"]
    total = "?" if progress["total"] is None else f"{progress['total']:,}"
    return f"{progress['done']:,} of {total} items{', ' if speed(view) else ''}{speed(view)}"


def speed(view: dict[str, Any]) -> str:
    """Return rate, time left and dead letters of a batch job; empty while nothing is known."""
    parts = []
    if view.get("rate_per_s") is not None:
        parts.append(f"{view['rate_per_s']:,.1f}/s")
    if view.get("eta_s") is not None:
        parts.append(f"{age(view['eta_s'])} left")
    if view.get("failed_items"):
        parts.append(f"{view['failed_items']:,} failed")
    return ", ".join(parts)


def settled(view: dict[str, Any]) -> bool:
    """Whether there is nothing more to wait for: a batch job ends, anything else runs on."""
    return view["state"] in OVER or (view["kind"] != "batch" and view["state"] == "running")


def succeeded(view: dict[str, Any]) -> bool:
    """Whether what was waited for went well."""
    return settled(view) and view["state"] in ("completed", "running")
