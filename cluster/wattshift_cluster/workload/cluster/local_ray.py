"""Starting and ending a Ray of our own, from the bridge's side.

The bridge holds a lock; the host of Ray (`ray_host`) lives as long as some bridge does. A bridge
that starts anew finds its predecessor's host by a file in the state folder and goes on with it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from wattshift_cluster.errors import TryLater
from wattshift_cluster.wire.token import create_token
from wattshift_cluster.workload.cluster.ray_host import ADDRESS_FILE, LOCK_FILE
from wattshift_cluster.workload.cluster.ray_link import RayUnavailable
from wattshift_cluster.workload.cluster.session import end_all

log = structlog.get_logger()

START_S = 60.0
END_S = 2.5
"""For the host to end; it kills what is Ray's and waits no longer than 2 s for that."""

KILLED_S = 1.0
LOCK_S = 3.0
LOG_FILE = "ray_host.log"
TOKEN_FILE = "ray.token"


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How big a Ray of our own is.

    Attributes:
        state_dir: of the bridge.
        power_w: watts that Ray may place at the start, W.
        num_cpus: Ray's CPUs; replicas and workers ask for a tenth, so watts bind first.
        object_store_bytes: shared memory for objects; requests here are small.
        gcs_storage: folder in which Ray's control store keeps its state, so that a control store
            that dies is started again; None for in memory, where its end is the end of that Ray.
    """

    state_dir: Path
    power_w: float
    num_cpus: int
    object_store_bytes: int = 96 << 20
    gcs_storage: Path | None = None


def take_lock(state_dir: Path) -> int:
    """Be the one bridge of a state folder; the handle, to be kept open.

    Raises:
        TryLater: another bridge is.
    """
    handle = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until_s = time.monotonic() + LOCK_S
    while True:  # the host looks at the lock once a second and holds it for a moment
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > until_s:
                os.close(handle)
                raise TryLater(f"another bridge uses {state_dir}") from None
            time.sleep(0.05)


def ray_token(state_dir: Path) -> Path:
    """The file with Ray's own token, mode 0600, made at the first use."""
    path = state_dir / TOKEN_FILE
    with suppress(FileExistsError):
        create_token(path)
    return path


def temp_dir(state_dir: Path) -> Path:
    """A short private folder for Ray's sockets, whose paths may have 107 bytes at most.

    Raises:
        RayUnavailable: somebody else made a folder of that name.
    """
    name = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]
    path = Path("/tmp") / f"ws-{os.getuid()}-{name}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RayUnavailable(f"{path} is not ours; remove it")
    return path


def known_address(state_dir: Path) -> str | None:
    """Where the Ray of a bridge's state folder listens, if its host lives."""
    found = _read_address(state_dir / ADDRESS_FILE)
    return found[0] if found and _is_host(found[1]) else None


class LocalRay:
    """The host process of a Ray of our own."""

    def __init__(self, settings: LocalSettings, environment: Mapping[str, str]) -> None:
        """`environment` is what Ray's processes get in addition to ours."""
        self._settings = settings
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._address_file = settings.state_dir / ADDRESS_FILE

    def begin(self) -> None:
        """Start the host unless one runs already; `address` waits for it."""
        if self.running_pid() is None:
            self._start()

    def address(self, stopped: threading.Event) -> str:
        """Where Ray listens, once it does.

        Raises:
            RayUnavailable: the host ended, or is not ready after a minute.
        """
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and not stopped.wait(0.1):
            found = _read_address(self._address_file)
            if found and self.running_pid() is not None:
                return found[0]
            if self._child is not None and self._child.poll() is not None:
                raise RayUnavailable(f"Ray did not start: {self._last_words()}")
        raise RayUnavailable(f"Ray was not ready within {START_S:g} s; see {self._log_path()}")

    def running_pid(self) -> int | None:
        """Process id of the living host; None without one."""
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        found = _read_address(self._address_file)
        if found and _is_host(found[1]):
            return found[1]
        return None

    def end(self) -> None:
        """Stop the host and with it Ray, the hard way if need be; nothing of it stays in /tmp."""
        pid = self.running_pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            until_s = time.monotonic() + END_S
            while self.running_pid() is not None:
                if time.monotonic() > until_s:
                    log.warning("ray_host.killed", pid=pid)
                    break
                time.sleep(0.02)
            left = end_all(pid, KILLED_S)
            if left:
                log.warning("ray_host.left", pids=left)
        # Nobody will want its logs, and /tmp is not ours to fill.
        with suppress(RayUnavailable):
            shutil.rmtree(temp_dir(self._settings.state_dir), ignore_errors=True)
        self._address_file.unlink(missing_ok=True)

    def _start(self) -> None:
        self._address_file.unlink(missing_ok=True)
        folder = temp_dir(self._settings.state_dir)
        for old in folder.glob("session_*"):  # of a Ray that is gone
            if old.is_symlink():
                old.unlink(missing_ok=True)
            else:
                shutil.rmtree(old, ignore_errors=True)
        command = [sys.executable, "-m", "wattshift_cluster.workload.cluster.ray_host"]
        command += ["--state-dir", str(self._settings.state_dir), "--temp-dir", str(folder)]
        command += ["--num-cpus", str(self._settings.num_cpus)]
        command += ["--power-w", str(self._settings.power_w)]
        command += ["--object-store-bytes", str(self._settings.object_store_bytes)]
        if self._settings.gcs_storage is not None:
            command += ["--gcs-storage", str(self._settings.gcs_storage)]
        with self._log_path().open("wb") as out:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        log.info("ray_host.started", pid=self._child.pid)

    def _log_path(self) -> Path:
        return self._settings.state_dir / LOG_FILE

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log_path().read_text(errors="replace").strip().splitlines()
            return lines[-1][:300] if lines else "it said nothing"
        return "no log"


def _read_address(file: Path) -> tuple[str, int] | None:
    try:
        found = json.loads(file.read_text())
        return str(found["address"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_host(pid: int) -> bool:
    """Whether a process is a host of Ray and not another that got its number."""
    try:
        return b"ray_host" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
