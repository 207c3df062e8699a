"""The options of `submit batch` and `submit service`, in groups, and what they come to as a job.

Names and defaults are those of a job file: an option that is not given is a key that is left out.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.options import DURATION, USD, WATTS, Number
from wattshift_cluster.cli.sections import section
from wattshift_cluster.cli.step_files import steps_of

Command = Callable[..., None]
REPEATED = ("python_path", "devices")

_work = section("What runs")
_watts = section("Watts and worth")
_promise = section("What it promises")
_where = section("For whom and where")


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


batch_options = _all(
    _work("--name", required=True, help="Your name for it."),
    _work("--callable", metavar="PKG.MOD:FN", help="Called with each chunk; or a command, last."),
    _work("--input", required=True, metavar="FILE", help="JSONL, CSV, Parquet; folder or glob."),
    _work("--format", type=click.Choice(["auto", "jsonl", "csv", "parquet"]), help="Of the input."),
    _work("--output", required=True, metavar="DIR", help="Where results and dead letters go."),
    _work("--python-path", multiple=True, metavar="DIR", help="Searched first; may be repeated."),
    _work("--chunk-items", type=click.IntRange(1, 100_000), help="Between checkpoints [64]."),
    _work("--item-attempts", type=click.IntRange(1, 20), help="Then it is a dead letter [3]."),
    _watts("--watts", type=WATTS, required=True, help="Draw of one worker while it works."),
    _watts("--workers", type=click.IntRange(1, 1000), help="At most so many at once [1]."),
    _watts("--gang", is_flag=True, default=None, help="All workers at once, or none."),
    _watts("--value", type=USD, help="An hour of a worker, USD; mining worth more goes first [0]."),
    _watts("--min-run", type=DURATION, help="Not paused before it ran so long [0s]."),
    _watts("--pause-within", type=DURATION, help="A chunk's time to end when it must [10s]."),
    _promise("--deadline", metavar="WHEN", help="2h from now, or 2026-12-01T18:00:00Z."),
    click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]"),
)

service_options = _all(
    _work("--name", required=True, help="Your name for it."),
    _work("--import-path", metavar="PKG.MOD:APP", help="Application, or builder of one."),
    _work("--arg", "args", multiple=True, metavar="KEY=VALUE", help="For a builder; may repeat."),
    _work("--serve-config", metavar="FILE[#APP]", help="One application of a Serve config file."),
    _work("--scaling", type=click.Choice(["policy", "external"]), help="Serve's hook [policy]."),
    _work("--healthy-within", type=DURATION, help="Else it has failed [2m]."),
    _watts("--watts-per-replica", type=WATTS, required=True, help="Draw without a power limit."),
    _watts("--power-step", "power_steps", multiple=True, metavar="WATTS:SHARE",
           help="A limit and the throughput kept, 250W:95%; may be repeated."),
    _watts("--power-steps", "steps_file", type=click.Path(dir_okay=False, path_type=Path),
           metavar="FILE", help="JSON or YAML of them, as measured: docs/jobs.md has the recipe."),
    _watts("--learn-watts", is_flag=True, default=None, help="What is measured may lower it."),
    _watts("--min", "min_replicas", type=click.IntRange(0), help="Least replicas [1]."),
    _watts("--max", "max_replicas", type=click.IntRange(1), help="Most replicas [1]."),
    _watts("--value", type=USD, help="Worth of an hour of one replica, USD [0]."),
    _watts("--hand-over", type=click.Choice(["none", "sleep"]), help="Of GPU memory [none]."),
    _promise("--slo-p95", type=DURATION, help="Latency that 95 % of requests must keep."),
    _promise("--slo-ttft-p95", type=DURATION, help="Time to the first token, likewise."),
    _promise("--slo-itl-p95", type=DURATION, help="Time between tokens, likewise."),
)  # fmt: skip

place_options = _all(
    _where("--tenant", metavar="NAME", help="Whose job it is [default]."),
    _where("--priority", type=click.IntRange(-1000, 1000), help="Higher goes first [0]."),
    _where("--flexibility", type=click.IntRange(0, 3),
           help="Class: 0, 10, 25 or 50 % of throughput may be taken in an event [0]."),
    _where("--label", "labels", multiple=True, metavar="KEY=VALUE",
           help="Ray label of its node; KEY=!VALUE for any other; may be repeated."),
    _where("--gpu-type", metavar="TYPE", help="Short for the label ray.io/accelerator-type."),
    _where("--gpus", type=Number(0, 64), help="Per unit; a share of one is allowed."),
    _where("--num-cpus", type=Number(0, 1024), help="Per unit, for Ray [0.1]."),
    _where("--env", multiple=True, metavar="NAME[=VALUE]",
           help="For its processes; NAME alone takes yours; may be repeated."),
)  # fmt: skip


def tidied(kind: str, **given: Any) -> dict[str, Any]:
    """Return the options that were given as the keys of a job. Raises click.BadParameter."""
    job: dict[str, Any] = {"kind": kind}
    given["id"] = given.pop("job_id", None)
    measured = given.pop("steps_file", None)
    if measured is not None:
        if given.get("power_steps"):
            raise click.BadParameter("give --power-step or --power-steps, not both")
        job["power_steps"] = steps_of(measured)
    for key, value in given.items():
        if value is None or value == ():
            continue
        shaped = _SHAPES.get(key)
        if shaped is not None:
            job[key] = shaped(value)
        else:
            job[key] = list(value) if key in REPEATED else value
    return job


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in values:
        key, mark, value = text.partition("=")
        if not mark or not key:
            raise click.BadParameter(f"{text!r}: write KEY=VALUE")
        found[key] = value
    return found


def _env(values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in values:
        name, mark, value = text.partition("=")
        if not mark and name not in os.environ:
            raise click.BadParameter(f"--env {name}: there is no such variable here")
        found[name] = value if mark else os.environ[name]
    return found


def _steps(values: tuple[str, ...]) -> list[dict[str, str]]:
    steps = []
    for text in values:
        watts, mark, share = text.partition(":")
        if not mark:
            raise click.BadParameter(f"--power-step {text!r}: write WATTS:SHARE, as 250W:95%")
        steps.append({"watts": watts, "throughput": share})
    return steps


_SHAPES: Mapping[str, Callable[[tuple[str, ...]], Any]] = {
    "args": _pairs,
    "labels": _pairs,
    "env": _env,
    "power_steps": _steps,
}
