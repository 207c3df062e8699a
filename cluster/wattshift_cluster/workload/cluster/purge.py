"""Takes away what wattshift left in a Ray cluster, with nobody else's help.

    python -m wattshift_cluster.workload.cluster.purge --address HOST:PORT [--dry-run]

A driver of its own: neither the controller nor a bridge has to be alive. It knows its own by name:

    actors `batch:…` and `meter:…` in the namespace "wattshift"
    placement groups `gang:…` and `wattshift-power-hold:…`
    Serve applications that a bridge marked with a key before it deployed them
    keys `wattshift:…` of Ray's internal store

and touches nothing else: Serve itself stays, and `power_w` stays at what it is, so that a purge
raises no watts. One line of JSON on standard output: `{"address": A, "found": [{"kind", "name"}],
"left": […], "dry_run": false}`; without Ray, `{"error": TEXT, "code": 5}`.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.process import die_with_parent
from wattshift_cluster.workload.cluster.power_keeper import HOLD_NAME
from wattshift_cluster.workload.cluster.ray_link import (
    NAMESPACE,
    QUIET,
    RayLink,
    RayUnavailable,
    internal,
    prepare_environment,
)
from wattshift_cluster.workload.cluster.ray_token import find_token

log = structlog.get_logger()

ACTORS = ("batch:", "meter:")
GROUPS = ("gang:", f"{HOLD_NAME}:")
KEYS = "wattshift:"
APP_KEYS = ("wattshift:app:", "wattshift:allow:")
GONE_WITHIN_S = 15.0
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Thing:
    """Something of ours: its kind, its name, and what Ray needs to find it."""

    kind: str
    name: str
    id: str = ""


def found() -> list[Thing]:
    """Everything of ours in the cluster that this process is connected to."""
    return [*_applications(), *_actors(), *_groups(), *_keys()]


def end(things: list[Thing]) -> None:
    """Ask for the end of each; one that is gone by now is no fault."""
    enders: dict[str, Callable[[Thing], None]] = {
        "service": _end_application,
        "actor": _end_actor,
        "placement group": _end_group,
        "key": _end_key,
    }
    for thing in things:
        try:
            enders[thing.kind](thing)
        except Exception as fault:  # Ray's own types differ; `left` tells what did not end
            log.warning("purge.failed", kind=thing.kind, name=thing.name, reason=str(fault)[:200])


def purge(dry_run: bool) -> dict[str, Any]:
    """Find and end; what is left after a while is told."""
    things = found()
    left: list[Thing] = []
    if not dry_run:
        end(things)
        until_s = time.monotonic() + GONE_WITHIN_S
        while (left := found()) and time.monotonic() < until_s:
            # A worker that was just starting may have come after the first look.
            end(left)
            time.sleep(LOOK_S)
    return {
        "found": [_told(thing) for thing in things],
        "left": [_told(thing) for thing in left],
        "dry_run": dry_run,
    }


def _told(thing: Thing) -> dict[str, str]:
    return {key: value for key, value in asdict(thing).items() if key != "id"}


def _applications() -> list[Thing]:
    keys = _names()
    ours = {
        key.removeprefix(prefix) for key in keys for prefix in APP_KEYS if key.startswith(prefix)
    }
    if not ours or not _serve_runs():
        return []
    running = internal("ray.serve").status().applications
    return [Thing("service", name) for name in sorted(ours & set(running))]


def _serve_runs() -> bool:
    names = internal("ray.serve._private.constants")
    try:
        internal("ray").get_actor(names.SERVE_CONTROLLER_NAME, names.SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _actors() -> list[Thing]:
    tables = internal("ray.core.generated.gcs_pb2")
    accessor = internal("ray._private.state").state._connect_and_get_accessor()
    rows = [tables.ActorTableData.FromString(row) for row in accessor.get_actor_table(None, None)]
    dead = tables.ActorTableData.ActorState.DEAD
    return [
        Thing("actor", row.name, row.actor_id.hex())
        for row in rows
        if row.state != dead and row.ray_namespace == NAMESPACE and row.name.startswith(ACTORS)
    ]


def _groups() -> list[Thing]:
    table = internal("ray.util.placement_group").placement_group_table()
    return [
        Thing("placement group", row["name"], id_)
        for id_, row in table.items()
        if row["state"] != "REMOVED" and row["name"].startswith(GROUPS)
    ]


def _names() -> list[str]:
    store = internal("ray.experimental.internal_kv")
    return sorted(key.decode(errors="replace") for key in store._internal_kv_list(KEYS))


def _keys() -> list[Thing]:
    return [Thing("key", name) for name in _names()]


def _end_application(thing: Thing) -> None:
    internal("ray.serve").delete(thing.name, _blocking=False)


def _end_actor(thing: Thing) -> None:
    ray = internal("ray")
    ray.kill(ray.get_actor(thing.name, NAMESPACE), no_restart=True)


def _end_group(thing: Thing) -> None:
    groups = internal("ray.util.placement_group")
    id_ = internal("ray").PlacementGroupID.from_hex(thing.id)
    groups.remove_placement_group(groups.PlacementGroup(id_))


def _end_key(thing: Thing) -> None:
    # An application that still runs is known by its key alone.
    app = next((thing.name.removeprefix(p) for p in APP_KEYS if thing.name.startswith(p)), None)
    if app is None or app not in {one.name for one in _applications()}:
        internal("ray.experimental.internal_kv")._internal_kv_del(thing.name)


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="wattshift_cluster.workload.cluster.purge")
    parser.add_argument("--address", required=True, help="host:port of the cluster's GCS")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    die_with_parent()
    prepare_environment(QUIET | dict(find_token(os.environ, Path.home()).environment))
    try:
        link = RayLink(options.address)
        told = {"address": link.address, **purge(options.dry_run)}
    except WattshiftError as fault:
        print(json.dumps({"error": str(fault), "code": fault.exit_code}), flush=True)
        return fault.exit_code
    except Exception as fault:  # Ray's own types differ by what broke
        error = str(RayUnavailable(f"{options.address}: {type(fault).__name__}: {fault}"))[:500]
        print(json.dumps({"error": error, "code": RayUnavailable.exit_code}), flush=True)
        return RayUnavailable.exit_code
    print(json.dumps(told), flush=True)
    link.close()
    return 1 if told["left"] else 0


if __name__ == "__main__":
    sys.exit(main())
