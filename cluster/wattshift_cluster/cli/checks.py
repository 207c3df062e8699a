"""What `doctor` looks at: a table of small functions, each with one finding and how to mend it.

A check never raises and never changes anything. `fail` means that wattshift cannot run here as
asked; `warn` that it runs with less.
"""

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

from wattshift_cluster.cli.feeder_check import feeders
from wattshift_cluster.cli.findings import PROBE_S, Finding, Place
from wattshift_cluster.cli.gpu_checks import compute_mode, cupy, driver, gates, power_limits
from wattshift_cluster.cli.ray_check import ray
from wattshift_cluster.config.load import load_agent, load_site
from wattshift_cluster.errors import ConfigInvalid, WattshiftError

SHM = Path("/dev/shm")
SHM_LEAST_BYTES = 64 << 20
DISK_LEAST_BYTES = 1 << 30
CLOCK_MOST_S = 2.0
LEAST_PYTHON = (3, 11)
DEFAULT_PORTS = {"api": "127.0.0.1:8080", "agent": "127.0.0.1:7401", "compute": "127.0.0.1:7410"}


def python(place: Place) -> Finding:
    """Look at the interpreter."""
    text = f"Python {sys.version.split()[0]}"
    if sys.version_info[:2] >= LEAST_PYTHON:
        return Finding("python", "ok", text)
    return Finding("python", "fail", f"{text}; 3.11 is needed", "apt install python3.11")


def config(place: Place) -> Finding:
    """Look at the site file, and at the tables that it names."""
    if place.site_file is None:
        return Finding("config", "ok", "no site file named")
    from wattshift_cluster.controller.named_files import check_files

    try:
        check_files(load_site(place.site_file))
    except ConfigInvalid as error:
        mend = f"wattshift config check {place.site_file}"
        return Finding("config", "fail", f"{len(error.faults)} fault(s); {error.faults[0]}", mend)
    return Finding("config", "ok", f"{place.site_file} is valid")


def kernels(place: Place) -> Finding:
    """Run the known-answer self-tests of the hashing kernels that the site's pools ask for."""
    said, wrong = [], []
    for algorithm in _algorithms(place):
        try:
            from wattshift_kernels.registry import choose

            chosen = choose(algorithm=algorithm)
        except Exception as broken:  # a doctor reports whatever an installation can break
            mend = "apt install g++ && pip install --force-reinstall numba"
            text = f"none gives right hashes of {algorithm}: {broken}"
            return Finding("kernels", "fail", text, mend)
        refused = [f"{tried.backend}: {tried.refused}" for tried in chosen.report if tried.refused]
        wrong += [f"{algorithm} {text}" for text in refused if "not usable here" not in text]
        said.append(f"{algorithm} {chosen.hasher.backend}")
    text = f"every known answer is given: {', '.join(said)}"
    if wrong:
        return Finding("kernels", "warn", f"{text}; refused {'; '.join(wrong)}")
    return Finding("kernels", "ok", text)


def _algorithms(place: Place) -> list[str]:
    """Those of the pools in the site's agent files, and Bitcoin's whatever they say."""
    found = {"sha256d"}
    for ref in () if place.site is None else place.site.agents:
        if ref.config is None:
            continue
        with suppress(ConfigInvalid):  # said by the check of the agent files
            agent = load_agent(ref.config)
            pools = (*(() if agent.pool is None else (agent.pool,)), *agent.pools)
            found |= {pool.algorithm for pool in pools}
    return sorted(found)


def shared_memory(place: Place) -> Finding:
    """Look at /dev/shm, where the gates live."""
    try:
        free = shutil.disk_usage(SHM).free
        with tempfile.NamedTemporaryFile(dir=SHM, prefix="wattshift-doctor-"):
            pass
    except OSError as error:
        text = f"{SHM} cannot be written: {error.strerror}"
        return Finding("shm", "fail", text, f"mount -o remount,rw,mode=1777 {SHM}")
    if free < SHM_LEAST_BYTES:
        text = f"{free >> 20} MiB free in {SHM}; {SHM_LEAST_BYTES >> 20} MiB are needed"
        return Finding("shm", "fail", text, f"mount -o remount,size=512m {SHM}")
    return Finding("shm", "ok", f"{free >> 20} MiB free in {SHM}")


def disk(place: Place) -> Finding:
    """Look at the space for the journal."""
    folder = place.state_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free at {folder}"
    if not os.access(folder, os.W_OK):
        mend = f"chown {os.getuid()} {folder}"
        return Finding("disk", "fail", f"{folder} cannot be written", mend)
    if free < DISK_LEAST_BYTES:
        return Finding(
            "disk", "fail", f"{text}; 1 GiB is needed", f"du -xh {folder} | sort -h | tail"
        )
    return Finding("disk", "ok", text)


def ports(place: Place) -> Finding:
    """Look whether the addresses of the site are free, or taken by a running site."""
    taken = [f"{part} {address}" for part, address in _addresses(place).items() if _taken(address)]
    if not taken:
        return Finding("ports", "ok", "all free")
    if place.controller.site is not None:
        return Finding("ports", "ok", f"in use by the running site: {', '.join(taken)}")
    return Finding("ports", "warn", f"in use: {', '.join(taken)}", "ss -ltnp")


def _addresses(place: Place) -> dict[str, str]:
    site = place.site
    if site is None:
        return DEFAULT_PORTS
    found = {"api": site.api.listen}
    for ref in site.agents:
        try:
            if ref.config is not None:
                found[f"agent {ref.name}"] = load_agent(ref.config).agent.listen
        except ConfigInvalid:
            found[f"agent {ref.name}"] = ref.address
    if site.compute is not None and site.compute.child:
        found["compute"] = site.compute.bridge
    return found


def _taken(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return True
    return False


def agent_files(place: Place) -> Finding:
    """Look at the agent files that the site file names."""
    names = [] if place.site is None else [a.config for a in place.site.agents if a.config]
    for path in names:
        try:
            load_agent(path)
        except ConfigInvalid as error:
            mend = f"wattshift config check {path}"
            return Finding("agents", "fail", str(error.faults[0]), mend)
    return Finding("agents", "ok", f"{len(names)} agent file(s) valid" if names else "none named")


def controller(place: Place) -> Finding:
    """Look whether a controller answers and is ready."""
    found = place.controller
    if found.trouble is not None:
        return Finding("controller", "warn", found.trouble, "wattshift up site.toml")
    if found.site is None:
        text = f"{found.url} is ready, but there is no token for it"
        return Finding("controller", "warn", text, "export WATTSHIFT_TOKEN=…")
    text = f"{found.url} runs {found.site['name']}, tick {found.site['tick']}"
    return Finding("controller", "ok", text)


def clock(place: Place) -> Finding:
    """Compare this clock with the controller's, where one answers; HTTP dates are whole seconds."""
    import httpx2

    from wattshift_cluster.client import find_controller

    try:
        url = find_controller(place.controller_url, place.token).url
        answer = httpx2.get(f"{url}/healthz", timeout=PROBE_S, trust_env=False)
        stamp = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (WattshiftError, httpx2.HTTPError, KeyError, ValueError):
        return Finding("clock", "ok", "no controller to compare with")
    offset_s = stamp + 0.5 - time.time()
    if abs(offset_s) <= CLOCK_MOST_S:
        return Finding("clock", "ok", "within 2 s of the controller's")
    text = f"{offset_s:+.0f} s off the controller's"
    return Finding("clock", "warn", text, "timedatectl set-ntp true")


CHECKS: tuple[Callable[[Place], Finding], ...] = (
    python,
    config,
    agent_files,
    feeders,
    ray,
    driver,
    power_limits,
    compute_mode,
    cupy,
    kernels,
    shared_memory,
    gates,
    disk,
    ports,
    controller,
    clock,
)


def run_all(place: Place) -> list[Finding]:
    """Run every check, in order."""
    return [check(place) for check in CHECKS]
