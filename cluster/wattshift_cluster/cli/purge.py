"""`wattshift purge`: take away what wattshift left in a Ray cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wattshift_cluster.cli.options import controller_options
from wattshift_cluster.cli.output import emit, grid, output_option, talk
from wattshift_cluster.client import ControllerClient, find_controller, read_runtime
from wattshift_cluster.errors import (
    ConfigInvalid,
    NotFound,
    Refused,
    TryLater,
    Unreachable,
    WattshiftError,
)

PURGE = "wattshift_cluster.workload.cluster.purge"
PURGE_S = 120.0
PROBE_S = 2.0
ERROR_CHARS = 300


@click.command()
@click.option("--address", metavar="HOST:PORT", help="The Ray cluster (or RAY_ADDRESS).")
@click.option("--dry-run", is_flag=True, help="Say what would be ended, and end nothing.")
@click.option("--yes", is_flag=True, help="Even while a controller answers.")
@controller_options
@output_option
def purge(
    address: str | None,
    dry_run: bool,
    yes: bool,
    url: str | None,
    token: str | None,
    output: str,
) -> None:
    """End what wattshift left in a Ray cluster: workers, services, meters, groups, keys.

    \b
      wattshift purge --dry-run
      wattshift purge --address 10.0.0.7:6379

    It needs neither controller nor bridge, and knows what is ours by name; other work, Serve itself
    and the nodes' power_w stay as they are. Without an address it takes the Ray that `wattshift up`
    started here. While a controller answers it refuses (exit 6): that one would place its work
    anew. Exit 1 if something did not end.
    """
    where, environment = _cluster(address)
    answering = None if dry_run or yes else _answering(url, token)
    if answering is not None:
        raise Refused(
            f"a controller answers at {answering} and would place its work anew; "
            "stop it first, or say --yes"
        )
    told = _run(where, environment, dry_run)
    emit(told, output, purged_text)
    if not dry_run and told["found"]:
        talk("power_w of the nodes stays at what it is; a bridge sets it anew")
    if told["left"]:
        click.get_current_context().exit(1)


def purged_text(told: dict[str, Any]) -> str:
    """Return what was found, for people."""
    if not told["found"]:
        return f"nothing of wattshift is in the Ray at {told['address']}"
    left = [(one["kind"], one["name"]) for one in told["left"]]
    end = "would be ended" if told["dry_run"] else "ended"
    rows = [
        (one["kind"], one["name"], "left" if (one["kind"], one["name"]) in left else end)
        for one in told["found"]
    ]
    return grid(("KIND", "NAME", "STATE"), rows)


def _answering(url: str | None, token: str | None) -> str | None:
    """Where a controller answers, in whatever way; None where none does."""
    endpoint = find_controller(url, token)
    with ControllerClient(endpoint.url, endpoint.token, deadline_s=PROBE_S) as controller:
        try:
            controller.text("/healthz")
        except Unreachable:
            return None
        except WattshiftError:  # it is there, and says no
            return endpoint.url
    return endpoint.url


def _cluster(address: str | None) -> tuple[str, dict[str, str]]:
    """Where Ray is, and what a driver needs in its environment."""
    asked = address or os.environ.get("RAY_ADDRESS")
    if asked:
        host, _, port = asked.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigInvalid([f"address = {asked[:200]!r}: allowed: host:port"])
        return asked, {}
    state_dir = read_runtime().get("state_dir")
    if state_dir is None:
        raise NotFound("no Ray is known here; name one with --address or RAY_ADDRESS")
    # Only now: a command must not wait for what it does not need.
    from wattshift_cluster.workload.cluster.local_ray import known_address, ray_token
    from wattshift_cluster.workload.cluster.ray_link import local_environment

    folder = Path(state_dir) / "compute"
    found = known_address(folder)
    if found is None:
        raise NotFound(f"the site of {state_dir} runs no Ray of its own now; name one: --address")
    return found, local_environment(ray_token(folder))


def _run(address: str, environment: Mapping[str, str], dry_run: bool) -> dict[str, Any]:
    """Purge in a process of its own: nothing of Ray stays in this one, and it has a deadline."""
    command = [sys.executable, "-m", PURGE, "--address", address]
    try:
        done = subprocess.run(
            [*command, "--dry-run"] if dry_run else command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PURGE_S,
            check=False,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"the Ray at {address} did not answer within {PURGE_S:g} s") from None
    try:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip()[-ERROR_CHARS:] or "no word of it"
        raise WattshiftError(f"the purge of {address} ended: {said}") from None
    if "error" in told:
        kinds: dict[int, type[WattshiftError]] = {5: Unreachable, 75: TryLater}
        raise kinds.get(told["code"], WattshiftError)(told["error"])
    return told
