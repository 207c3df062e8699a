"""`wattshift submit`: jobs from options or from a file, all checked here before any is sent."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.api.jobspec import JobModel, parse_jobs
from wattshift_cluster.api.tokens import rfc3339
from wattshift_cluster.cli.job_files import load_jobs, resolved
from wattshift_cluster.cli.job_text import job_text
from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, talk
from wattshift_cluster.cli.sections import SectionCommand
from wattshift_cluster.cli.submit_options import (
    batch_options,
    place_options,
    service_options,
    tidied,
)
from wattshift_cluster.cli.waiting import finish, succeeded
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.config.credentials import hidden

HOW = ("url", "token", "form", "dry_run", "wait", "key", "quiet")
FORMS = click.Choice(["table", "json", "yaml"])


class Submit(click.Group):
    """A group in which a file name stands for the hidden command that reads it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Send `submit job.yaml` to the command `file`."""
        first = args[0] if args else ""
        if first not in self.commands and (Path(first).suffix or Path(first).exists()):
            args = ["file", *args]
        return super().resolve_command(ctx, args)


def sending(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every submission; the command gets them as one dict, `how`.

    `-o` has no long form here, because `--output` of a batch job names its folder.
    """

    @functools.wraps(command)
    def gathered(*args: Any, **named: Any) -> None:
        how = {key: named.pop(key) for key in HOW}
        command(*args, how=how, **named)

    decorated: Callable[..., None] = controller_options(gathered)
    waits = "Wait for a batch job's end, or until a service runs; exit 1 if it fails."
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print the id only."),
        click.option("--key", help="Idempotency key: the same key makes one job.", metavar="KEY"),
        click.option("--wait", is_flag=True, help=waits),
        click.option("--dry-run", is_flag=True, help="Check the job and print it; send nothing."),
        click.option(
            "--id", "job_id", metavar="NAME", help="An id of your own; refused if a job has it."
        ),
        click.option("-o", "form", type=FORMS, default="table", help="How to print the answer."),
    ):
        decorated = option(decorated)
    return decorated


@click.group(cls=Submit)
def submit() -> None:
    """Submit a job; once this returns, the job survives any crash.

    \b
      wattshift submit batch --name embed --callable pkg.mod:fn --input in.jsonl \\
          --output out --watts 60W --deadline 2h
      wattshift submit batch --name score --input in.parquet --output out --watts 60W \\
          -- python score.py
      wattshift submit service --name chat --import-path pkg.mod:app --watts-per-replica 300W
      wattshift submit mining --devices 'asic-*'
      wattshift submit job.yaml

    What could never run here is refused at once (exit 6), with the nearest that could.
    """


@submit.command(name="file", hidden=True)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@sending
def from_file(path: Path, job_id: str | None, how: dict[str, Any]) -> None:
    """Submit the jobs in a YAML, JSON or TOML file, all or, if one holds a fault, none.

    \b
      wattshift submit job.yaml
      wattshift submit night.yaml --wait
    """
    raws = load_jobs(path)
    if job_id is not None:
        if len(raws) != 1:
            raise click.UsageError(f"--id names one job, and {path} holds {len(raws)}")
        raws = [{**raw, "id": job_id} if isinstance(raw, dict) else raw for raw in raws]
    send(raws, str(path), **how)


@submit.command(cls=SectionCommand)
@batch_options
@place_options
@sending
def batch(how: dict[str, Any], command: tuple[str, ...], **raw: Any) -> None:
    """Submit a callable or a command over a dataset; a crash loses and repeats nothing.

    \b
      wattshift submit batch --name embed --callable pkg.mod:fn --input in.jsonl \\
          --output out --watts 60W --value 0.5 --deadline 2h
      wattshift submit batch --name score --input 'parts/*.parquet' --output out \\
          --watts 300W --workers 4 --gpus 1 --gpu-type L4 --wait -- python score.py

    A command is run once per chunk: items come in on stdin as JSON lines, and as many lines go out.
    """
    words = list(command) or None
    send([resolved(tidied("batch", command=words, **raw), Path.cwd(), "command line")], **how)


@submit.command(cls=SectionCommand)
@service_options
@place_options
@sending
def service(how: dict[str, Any], **raw: Any) -> None:
    """Submit a Ray Serve application that is scaled within the site's watts.

    \b
      wattshift submit service --name chat --import-path pkg.mod:app \\
          --watts-per-replica 300W --min 1 --max 4 --slo-p95 500ms
      wattshift submit service --name llm --serve-config serve.yaml#llm --gpus 1 \\
          --watts-per-replica 700W --power-step 500W:92% --flexibility 1 --slo-ttft-p95 800ms
    """
    send([resolved(tidied("service", **raw), Path.cwd(), "command line")], **how)


@submit.command()
@click.option("--name", default="mining", show_default=True)
@click.option("--devices", multiple=True, required=True, metavar="GLOB", help="May be repeated.")
@sending
def mining(how: dict[str, Any], **raw: Any) -> None:
    """Submit a standing order to mine with every device that matches.

    \b
      wattshift submit mining --devices 'asic-*' --devices 'gpu-*'
    """
    send([tidied("mining", **raw)], **how)


def send(
    raws: Sequence[object],
    source: str = "command line",
    *,
    url: str | None,
    token: str | None,
    form: str,
    dry_run: bool,
    wait: bool,
    key: str | None,
    quiet: bool,
) -> None:
    """Check every job, send them in order, and print what became of them. Raises ConfigInvalid."""
    checked = parse_jobs(raws, source)
    if dry_run:
        _show([_dry(job) for job in checked], form, _spec_text)
        return
    views: list[dict[str, Any]] = []
    with ControllerClient.find(url, token) as controller:
        for at, (raw, job) in enumerate(zip(raws, checked, strict=True)):
            each = key if key is None or len(checked) == 1 else f"{key}/{at + 1}"
            view = controller.post("/v1/jobs", _body(raw, job), each)
            talk(f"submitted {view['id']}: {view['reason']}")
            for sentence in view.get("warnings", ()):
                talk(f"warning: {sentence}")
            views.append(view)
        if wait:
            views = [finish(controller, view["id"]) for view in views]
    if quiet:
        for view in views:
            click.echo(view["id"])
    else:
        _show(views, form, job_text)
    if wait and not all(succeeded(view) for view in views):
        click.get_current_context().exit(1)


def _show(found: list[dict[str, Any]], form: str, text: Callable[[dict[str, Any]], str]) -> None:
    """Print one as itself, several as a list."""
    if len(found) == 1:
        emit(found[0], form, text)
    else:
        emit(found, form, lambda rows: "\n\n".join(text(row) for row in rows))


def _dry(job: JobModel) -> dict[str, Any]:
    shown: dict[str, Any] = hidden(job.to_spec())
    return shown if job.id is None else {"id": job.id, **shown}


def _spec_text(spec: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in spec.items())


def _body(raw: object, job: JobModel) -> dict[str, Any]:
    assert isinstance(raw, dict), "checked before"
    body = {key: value for key, value in raw.items() if value is not None}
    deadline = getattr(job, "deadline", None)
    if deadline is not None and deadline.in_s is None:
        body["deadline"] = rfc3339(deadline.at_s)  # YAML and TOML have times of their own
    return body
