"""`wattshift jobs` and `wattshift job`: what was submitted, where it stands, and why."""

from typing import Any
from urllib.parse import quote

import click

from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import (
    emit,
    emit_line,
    grid,
    output_option,
    pairs,
    watts,
)
from wattshift_cluster.client import ControllerClient

JOB_STATES = (
    "pending", "starting", "running", "pausing", "paused",
    "cancelling", "completed", "failed", "cancelled",
)  # fmt: skip


@click.command()
@controller_options
@click.option("--state", type=click.Choice(JOB_STATES), help="Only jobs in this state.")
@click.option("--watch", is_flag=True, help="Stream every change of a job as one JSON line.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@output_option
def jobs(
    url: str | None, token: str | None, state: str | None, watch: bool, quiet: bool, output: str
) -> None:
    """List jobs, oldest first, each with the reason for its state.

    \b
      wattshift jobs
      wattshift jobs --state paused -q
      wattshift jobs --watch
    """
    with ControllerClient.find(url, token) as controller:
        if watch:
            for event in controller.stream():
                if event.event == "job" and state in (None, event.data["state"]):
                    emit_line(event.data)
            return
        found = all_jobs(controller, state)
    if quiet:
        for one in found:
            click.echo(one["id"])
        return
    emit(found, output, jobs_text)


def all_jobs(controller: ControllerClient, state: str | None) -> list[dict[str, Any]]:
    """Return every job, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = controller.get("/v1/jobs", state=state, cursor=cursor, limit=1000)
        found += page["jobs"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def progress(job: dict[str, Any]) -> str:
    """Return done of total."""
    if job["progress"] is None:
        return "-"
    total = job["progress"]["total"]
    return f"{job['progress']['done']}/{'?' if total is None else total}"


def jobs_text(found: list[dict[str, Any]]) -> str:
    """Return jobs for people."""
    if not found:
        return "no jobs"
    headers = ("ID", "KIND", "NAME", "STATE", "WATTS", "DONE", "REASON")
    rows = [
        (
            one["id"],
            one["kind"],
            one["name"],
            one["state"],
            "-" if one["watts_w"] is None else watts(one["watts_w"]),
            progress(one),
            one["reason"],
        )
        for one in found
    ]
    return grid(headers, rows, ("WATTS", "DONE"))


def job_text(one: dict[str, Any]) -> str:
    """Return one job for people."""
    rows = [
        ("id", one["id"]),
        ("kind", one["kind"]),
        ("name", one["name"]),
        ("state", one["state"]),
        ("reason", one["reason"]),
        ("submitted", one["submitted_at"]),
        ("watts", "-" if one["watts_w"] is None else watts(one["watts_w"])),
        ("done", progress(one)),
    ]
    rows += [
        (f"  {key}", "-" if value is None else str(value)) for key, value in one["spec"].items()
    ]
    return pairs(rows)


@click.group()
def job() -> None:
    """Show, pause, resume or cancel one job, or read its log.

    \b
      wattshift job show batch-1a2b3c4d
      wattshift job pause batch-1a2b3c4d
    """


@job.command()
@click.argument("job_id", metavar="ID")
@controller_options
@output_option
def show(job_id: str, url: str | None, token: str | None, output: str) -> None:
    """Show one job.

    \b
      wattshift job show batch-1a2b3c4d -o yaml
    """
    with ControllerClient.find(url, token) as controller:
        emit(controller.get(f"/v1/jobs/{quote(job_id, safe='')}"), output, job_text)


@job.command()
@click.argument("job_id", metavar="ID")
@controller_options
@output_option
def logs(job_id: str, url: str | None, token: str | None, output: str) -> None:
    """Print the newest log lines of a job, oldest first.

    \b
      wattshift job logs batch-1a2b3c4d
    """
    with ControllerClient.find(url, token) as controller:
        found = controller.get(f"/v1/jobs/{quote(job_id, safe='')}/logs")
    emit(found, output, lambda view: "\n".join(view["lines"]))


def _act(action: str, text: str) -> None:
    @job.command(name=action, help=f"{text}\n\n\b\n  wattshift job {action} batch-1a2b3c4d")
    @click.argument("job_id", metavar="ID")
    @controller_options
    @output_option
    def act(job_id: str, url: str | None, token: str | None, output: str) -> None:
        with ControllerClient.find(url, token) as controller:
            view = controller.post(f"/v1/jobs/{quote(job_id, safe='')}:{action}")
        emit(view, output, job_text)


_act("pause", "Pause a job at its next safe place; only `resume` starts it again.")
_act("resume", "Resume a paused job when its watts fit.")
_act("cancel", "Cancel a job for good; what it has finished is kept.")
