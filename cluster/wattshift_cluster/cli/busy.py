"""`wattshift busy`: start a server on devices that mine."""

import sys
from pathlib import Path

import click

from wattshift_cluster.cli.options import DURATION
from wattshift_cluster.gate.layout import GATE_DIR_VARIABLE


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@click.option(
    "--gate-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=GATE_DIR_VARIABLE,
    show_envvar=True,
    help="Where the host's gates lie.",
)
@click.option("--devices", metavar="LIST", help="GPUs; those of CUDA_VISIBLE_DEVICES unless given.")
@click.option(
    "--memory/--no-memory",
    default=True,
    show_default=True,
    help="Start only when mining has given back the devices' memory.",
)
@click.option("--hold-memory", is_flag=True, help="Keep it as long as the server lives.")
@click.option("--ready", metavar="URL", help="Answers 2xx when the server is ready.")
@click.option("--ready-timeout", "ready_s", type=DURATION, default="30m", show_default=True)
@click.option("--release-timeout", "release_s", type=DURATION, default="15s", show_default=True)
def busy(
    command: tuple[str, ...],
    gate_dir: Path | None,
    devices: str | None,
    memory: bool,
    hold_memory: bool,
    ready: str | None,
    ready_s: float,
    release_s: float,
) -> None:
    """Run a server, with mining out of its way until it is ready.

    \b
      wattshift busy --ready http://127.0.0.1:8000/health -- vllm serve MODEL
      wattshift busy --devices 0,1 --hold-memory -- python my_server.py

    Its devices are marked busy and mining gives back their memory before COMMAND starts; exit 75
    names a device for which it did not. Without --ready the server says itself when it is ready,
    through a hook. Signals are passed on, and the exit code is COMMAND's.
    """
    from wattshift_cluster.gate.launch import Plan, run

    sys.exit(
        run(
            Plan(
                command=command,
                gate_dir=gate_dir,
                devices=devices,
                memory=memory,
                hold_memory=hold_memory,
                ready=ready,
                ready_s=ready_s,
                release_s=release_s,
            )
        )
    )
