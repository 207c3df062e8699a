"""`wattshift jobs` and `wattshift job`: what was submitted, where it stands, and why."""

from typing import Any

import click

from wattshift_cluster.cli.job_names import all_jobs, of_job
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


@click.group()
def job() -> None:
    """Show, pause, resume or cancel one job, or read its log.

    \b
      wattshift job show batch-1a2b3c4d
      wattshift job pause triage

    A job goes by its id, or by its name while only one of that name is not over.
    """


@job.command()
@click.argument("called", metavar="ID|NAME")
@controller_options
@output_option
def show(called: str, url: str | None, token: str | None, output: str) -> None:
    """Show one job.

    \b
      wattshift job show batch-1a2b3c4d -o yaml
    """
    with ControllerClient.find(url, token) as controller:
        emit(of_job(controller, called, controller.get), output, job_text)


@job.command()
@click.argument("called", metavar="ID|NAME")
@click.option("--lines", type=click.IntRange(1, 1000), default=200, show_default=True)
@controller_options
@output_option
def logs(called: str, lines: int, url: str | None, token: str | None, output: str) -> None:
    """Print what was decided about a job and what its own code printed, oldest first.

    \b
      wattshift job logs batch-1a2b3c4d
      wattshift job logs batch-1a2b3c4d --lines 20
    """
    with ControllerClient.find(url, token) as controller:
        found = of_job(controller, called, lambda path: controller.get(f"{path}/logs", lines=lines))
    emit(found, output, _log_text)
    if found["trouble"] is not None:
        talk(f"what its code printed is not known: {found['trouble']}")


def _log_text(view: dict[str, Any]) -> str:
    if not view["printed"]:
        return "\n".join(view["lines"])
    return "\n".join([*view["lines"], "", "printed by its own code:", *view["printed"]])


def _act(action: str, text: str) -> None:
    @job.command(name=action, help=f"{text}\n\n\b\n  wattshift job {action} batch-1a2b3c4d")
    @click.argument("called", metavar="ID|NAME")
    @controller_options
    @output_option
    def act(called: str, url: str | None, token: str | None, output: str) -> None:
        with ControllerClient.find(url, token) as controller:
            view = of_job(controller, called, lambda path: controller.post(f"{path}:{action}"))
        emit(view, output, job_text)


_act("pause", "Pause a job at its next safe place; only `resume` starts it again.")
_act("resume", "Resume a paused job when its watts fit.")
_act("cancel", "Cancel a job for good; what it has finished is kept.")
