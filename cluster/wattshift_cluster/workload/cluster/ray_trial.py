"""Whether Ray can be started here, found out by starting one and ending it again.

    python -m wattshift_cluster.workload.cluster.ray_trial

One line of JSON on standard output: `{"started": true, "took_s": 4.2, "missing": []}`, with what
this release lacks of what is used here, or `{"started": false, "reason": TEXT, "mend": COMMAND,
"log": FILE}`. It starts the same host process with the same
settings as a site does, on a few watts of its own, and leaves nothing behind but the log of a
failure. It is a process of its own, so that nothing of Ray stays in whoever asks.
"""

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.process import die_with_parent
from wattshift_cluster.workload.cluster.local_ray import (
    LOG_FILE,
    LocalRay,
    LocalSettings,
    ray_token,
    take_lock,
    temp_dir,
)
from wattshift_cluster.workload.cluster.ray_link import local_environment
from wattshift_cluster.workload.cluster.versions import capabilities

OPEN_FILES_LEAST = 1024
LOG_TAIL_CHARS = 20_000
REINSTALL = "pip install --force-reinstall 'wattshift[ray]'"

CURES: tuple[tuple[str, str], ...] = (
    ("No module named", REINSTALL),
    ("ImportError", REINSTALL),
    ("Too many open files", "ulimit -n 65536"),
    ("can't start new thread", "ulimit -u unlimited"),
    ("Resource temporarily unavailable", "ulimit -u unlimited"),
    ("No space left on device", "df -h /tmp /dev/shm"),
    ("/dev/shm", "mount -o remount,size=512m /dev/shm"),
    ("Cannot allocate memory", "free -h"),
    ("AF_UNIX path", "export TMPDIR=/tmp"),
)
"""What the log of a Ray that did not start says, and the command that mends it or shows the cause;
the first that is found counts."""


def trial() -> dict[str, Any]:
    """Start a Ray and end it; see the module."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_LEAST:
        reason = f"{soft} open files are allowed; Ray needs {OPEN_FILES_LEAST}"
        return {"started": False, "reason": reason, "mend": "ulimit -n 65536", "log": None}
    state_dir = Path(tempfile.mkdtemp(prefix="wattshift-ray-trial-"))
    began_s = time.monotonic()
    try:
        take_lock(state_dir)  # its host would end as an orphan without one
        local = LocalRay(
            LocalSettings(state_dir, power_w=1.0, num_cpus=1),
            local_environment(ray_token(state_dir)),
        )
        try:
            local.begin()
            local.address(threading.Event())
            took_s = time.monotonic() - began_s
        finally:
            local.end()
    except (WattshiftError, OSError) as fault:
        return _failed(str(fault), state_dir)
    shutil.rmtree(state_dir, ignore_errors=True)
    return {"started": True, "took_s": round(took_s, 1)}


def _failed(reason: str, state_dir: Path) -> dict[str, Any]:
    log = state_dir / LOG_FILE
    said = ""
    with suppress(OSError):
        said = log.read_text(errors="replace")[-LOG_TAIL_CHARS:]
    with suppress(WattshiftError, OSError):
        shutil.rmtree(temp_dir(state_dir), ignore_errors=True)
    if not said:
        shutil.rmtree(state_dir, ignore_errors=True)
    mend = next((cure for sign, cure in CURES if sign in reason or sign in said), None)
    return {
        "started": False,
        "reason": reason,
        "mend": mend or f"less {log}" if said else mend or REINSTALL,
        "log": str(log) if said else None,
    }


def main(argv: list[str] | None = None) -> int:
    """Try once and say what came of it; 0 when Ray started, 1 when not."""
    argparse.ArgumentParser(
        prog="wattshift_cluster.workload.cluster.ray_trial", description=__doc__
    ).parse_args(argv)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that Ray is ended on the way out
    die_with_parent()
    found = trial()
    with suppress(metadata.PackageNotFoundError):
        found["version"] = metadata.version("ray")
    if found["started"]:
        found["missing"] = [one.name for one in capabilities() if not one.present]
    print(json.dumps(found), flush=True)
    return 0 if found["started"] else 1


if __name__ == "__main__":
    sys.exit(main())
