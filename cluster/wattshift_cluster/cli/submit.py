"""`wattshift submit`: a job from options or from a file, checked here before it is sent."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.api.bodies import load_table
from wattshift_cluster.api.jobspec import parse_job
from wattshift_cluster.api.tokens import rfc3339
from wattshift_cluster.cli.jobs import job_text
from wattshift_cluster.cli.options import DURATION, USD, WATTS, controller_options
from wattshift_cluster.cli.output import emit, talk
from wattshift_cluster.client import ControllerClient

FINAL = ("completed", "failed", "cancelled")
POLL_S = 1.0
PATH_KEYS = ("input", "output")
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
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print the id only."),
        click.option("--key", help="Idempotency key: the same key makes one job.", metavar="KEY"),
        click.option("--wait", is_flag=True, help="Wait for the end; exit 1 unless it completed."),
        click.option("--dry-run", is_flag=True, help="Check the job and print it; send nothing."),
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
      wattshift submit service --name chat --import-path pkg.mod:app --watts-per-replica 300W
      wattshift submit mining --devices 'asic-*'
      wattshift submit job.yaml
    """


@submit.command(name="file", hidden=True)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@sending
def from_file(path: Path, how: dict[str, Any]) -> None:
    """Submit the job in a YAML, JSON or TOML file.

    \b
      wattshift submit job.yaml
    """
    raw = load_table(path)
    send(at_folder(raw, path.absolute().parent), str(path), **how)


@submit.command()
@click.option("--name", required=True)
@click.option("--callable", required=True, metavar="PKG.MOD:FN", help="Called with each chunk.")
@click.option("--input", required=True, metavar="F.jsonl", help="One item per line.")
@click.option("--output", required=True, metavar="DIR", help="Where the chunks' results go.")
@click.option("--watts", type=WATTS, required=True, help="Draw while it runs.")
@click.option("--value", type=USD, default=0.0, help="Worth of an hour of running, USD.")
@click.option("--deadline", metavar="WHEN", help="2h from now, or 2026-12-01T18:00:00Z.")
@click.option("--chunk-items", type=click.IntRange(1, 100_000), default=64, show_default=True)
@sending
def batch(how: dict[str, Any], **raw: Any) -> None:
    """Submit a callable over the lines of a JSONL file; a crash loses and repeats nothing.

    \b
      wattshift submit batch --name embed --callable pkg.mod:fn --input in.jsonl \\
          --output out --watts 60W --value 0.5 --deadline 2h
    """
    send(at_folder({"kind": "batch", **raw}, Path.cwd()), **how)


@submit.command()
@click.option("--name", required=True)
@click.option("--import-path", required=True, metavar="PKG.MOD:APP", help="Ray Serve application.")
@click.option("--watts-per-replica", type=WATTS, required=True)
@click.option("--min", "min_replicas", type=click.IntRange(0), default=1, show_default=True)
@click.option("--max", "max_replicas", type=click.IntRange(1), default=1, show_default=True)
@click.option("--slo-p95", type=DURATION, help="Latency that 95 % of requests must keep.")
@click.option("--value", type=USD, default=0.0, help="Worth of a replica's hour, USD.")
@sending
def service(how: dict[str, Any], **raw: Any) -> None:
    """Submit a Ray Serve application that is scaled within the site's watts.

    \b
      wattshift submit service --name chat --import-path pkg.mod:app \\
          --watts-per-replica 300W --min 1 --max 4 --slo-p95 500ms
    """
    send({"kind": "service", **raw}, **how)


@submit.command()
@click.option("--name", default="mining", show_default=True)
@click.option("--devices", multiple=True, required=True, metavar="GLOB", help="May be repeated.")
@sending
def mining(how: dict[str, Any], **raw: Any) -> None:
    """Submit a standing order to mine with every device that matches.

    \b
      wattshift submit mining --devices 'asic-*' --devices 'gpu-*'
    """
    raw["devices"] = list(raw["devices"])
    send({"kind": "mining", **raw}, **how)


def at_folder(raw: Any, folder: Path) -> Any:
    """Return a job whose relative paths start at `folder`: the controller runs elsewhere."""
    if not isinstance(raw, dict):
        return raw
    moved = dict(raw)
    for key in PATH_KEYS:
        if isinstance(raw.get(key), str) and raw[key]:
            moved[key] = str(folder / raw[key])
    return moved


def send(
    raw: Any,
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
    """Check a job, send it, and print what became of it. Raises ConfigInvalid."""
    checked = parse_job(raw, source)
    if dry_run:
        emit(checked.to_spec(), form, lambda spec: "\n".join(f"{k}: {v}" for k, v in spec.items()))
        return
    body = {k: v for k, v in raw.items() if v is not None}
    if getattr(checked, "deadline", None) is not None:
        # A duration counts from now here, not from whenever a retry reaches the controller.
        body["deadline"] = rfc3339(checked.to_spec()["deadline_at_s"])
    with ControllerClient.find(url, token) as controller:
        view = controller.post("/v1/jobs", body, key)
        talk(f"submitted {view['id']}: {view['reason']}")
        if wait:
            view = finish(controller, view["id"])
    if quiet:
        click.echo(view["id"])
    else:
        emit(view, form, job_text)
    if wait and view["state"] != "completed":
        click.get_current_context().exit(1)


def finish(controller: ControllerClient, job_id: str) -> dict[str, Any]:
    """Return the job once it is final; each change of its state is told."""
    told = ""
    while True:
        view: dict[str, Any] = controller.get(f"/v1/jobs/{job_id}")
        word = f"{view['state']}: {view['reason']}"
        if word != told:
            talk(word)
            told = word
        if view["state"] in FINAL:
            return view
        time.sleep(POLL_S)
