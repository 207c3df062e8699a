"""What `doctor` finds about Ray: whether it is installed, and whether it can be started here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wattshift_cluster.cli.findings import Finding, Place

TRIAL = "wattshift_cluster.workload.cluster.ray_trial"
TRIAL_S = 90.0
"""Ray's own start may take a minute, and its end ten seconds."""

ERROR_CHARS = 300


def ray(place: Place) -> Finding:
    """Look for Ray, which services and batch jobs need, and start one where a site would."""
    compute = None if place.site is None else place.site.compute
    needed = "warn" if compute is None else "fail"
    if importlib.util.find_spec("ray") is None:
        text = "not installed: no services, no batch"
        return Finding("ray", needed, text, "pip install wattshift[ray]")
    if place.quick:
        return Finding("ray", "ok", "installed; whether it starts was not tried (--quick)")
    if compute is not None and compute.ray_address != "local":
        return elsewhere(compute.ray_address)
    if place.controller.url is not None and not _down(place):
        return Finding("ray", "ok", "installed; the running site uses it")
    return _started(needed)


def _down(place: Place) -> bool:
    """Whether the running site says that its Ray does not answer."""
    alarms = [] if place.controller.site is None else place.controller.site["alarms"]
    return any(str(alarm["id"]).startswith("compute-down:") for alarm in alarms)


def elsewhere(address: str) -> Finding:
    """A Ray that somebody else runs: whether anybody listens, and what is known of its token."""
    from wattshift_cluster.workload.cluster.ray_link import listens
    from wattshift_cluster.workload.cluster.ray_token import find_token

    if not listens(address):
        text = f"nobody listens at {address}, where the site's Ray should be"
        return Finding("ray", "fail", text, f"ray start --head --port {address.rpartition(':')[2]}")
    token = find_token(os.environ, Path.home())
    if token.warning is not None:
        return Finding("ray", "warn", token.warning, token.mend)
    used = f"its token is in {token.source}" if token.source else "no token is used"
    return Finding("ray", "ok", f"the site uses the Ray at {address}; {used}")


def _started(needed: str) -> Finding:
    """Start a Ray, in a process of its own, and end it."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", TRIAL],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"it neither started nor failed within {TRIAL_S:g} s"
        return Finding("ray", needed, text, f"{sys.executable} -m {TRIAL}")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        if found["started"]:
            return judged(found)
        return Finding("ray", needed, str(found["reason"]), str(found["mend"]))
    except (LookupError, ValueError, TypeError):
        text = f"it cannot be tried: {done.stderr.strip()[-ERROR_CHARS:] or 'no word of it'}"
        return Finding("ray", needed, text, f"{sys.executable} -m {TRIAL}")


def judged(found: dict[str, Any]) -> Finding:
    """What a Ray that starts is worth: a release that was tried, with all that is used of it."""
    from wattshift_cluster.workload.cluster.versions import RELEASES, known

    release = str(found["version"])
    text = f"{release} starts here, in {found['took_s']} s"
    tried = " or ".join(f"{row.release}.*" for row in RELEASES)
    mend = f"pip install 'ray[default,serve]=={RELEASES[0].release}.*'"
    if found["missing"]:
        return Finding("ray", "warn", f"{text}, but lacks: {', '.join(found['missing'])}", mend)
    if known(release) is None:
        return Finding("ray", "warn", f"{text}; nobody has tried it, but {tried}", mend)
    return Finding("ray", "ok", text)
