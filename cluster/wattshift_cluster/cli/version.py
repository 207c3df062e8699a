"""`wattshift version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import click

from wattshift_cluster.cli.output import emit, output_option, pairs

PARTS = ("wattshift", "ray", "pyasic", "numba", "cupy-cuda12x", "cupy-cuda13x")


@click.command()
@output_option
def version(output: str) -> None:
    """Show the version of wattshift and of what it builds on.

    \b
      wattshift version
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for part in PARTS:
        try:
            found[part] = installed(part)
        except PackageNotFoundError:
            found[part] = None
    emit(found, output, lambda view: pairs([(k, v or "not installed") for k, v in view.items()]))
