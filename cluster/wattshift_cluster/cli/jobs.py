"""`wattshift jobs` and `wattshift job`: what was submitted, where it stands, and why."""

from typing import Any
from urllib.parse import quote

import click

from wattshift_cluster.cli.job_text import job_text, jobs_text
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, emit_line, output_option, talk
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
@click.option("--lines", type=click.IntRange(1, 1000), default=200, show_default=True)
@controller_options
@output_option
def logs(job_id: str, lines: int, url: str | None, token: str | None, output: str) -> None:
    """Print what was decided about a job and what its own code printed, oldest first.

    \b
      wattshift job logs batch-1a2b3c4d
      wattshift job logs batch-1a2b3c4d --lines 20
    """
    with ControllerClient.find(url, token) as controller:
        found = controller.get(f"/v1/jobs/{quote(job_id, safe='')}/logs", lines=lines)
    emit(found, output, _log_text)
    if found["trouble"] is not None:
        talk(f"what its code printed is not known: {found['trouble']}")


def _log_text(view: dict[str, Any]) -> str:
    if not view["printed"]:
        return "\n".join(view["lines"])
    return "\n".join([*view["lines"], "", "printed by its own code:", *view["printed"]])


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
