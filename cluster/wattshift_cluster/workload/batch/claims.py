"""Who is at work on which chunk: a file per claim, so that workers share a job without a word.

    claims/00000012        made by one worker, its time renewed while that worker lives

A claim saves work, no more: what counts is the commit, which only one attempt can make. A claim is
void when its process is gone (seen on the same host), or when its time has not moved for LEASE_S on
the clock of the one who looks: clocks of different hosts are never compared. A worker that was
frozen and comes back does its chunk to the end, and learns at the commit that it came too late.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from wattshift_cluster.bootclock import boot_id

LEASE_S = 10.0
RENEW_S = 2.0
CLAIM_BYTES_MAX = 4096


class Claims:
    """The claims of one job, as one worker sees and makes them. It holds one at a time."""

    def __init__(
        self,
        folder: Path,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is renewed before `begin`.

        Args:
            folder: where they lie.
            lease_s: a claim that was not renewed for so long is void, s.
            renew_s: between two renewals, s.
            clock_s: our own clock, s.
        """
        self._folder = folder
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._clock_s = clock_s
        self._held: tuple[Path, int] | None = None
        self._lock = threading.Lock()
        self._end = threading.Event()
        # Of claims of others: what was seen of each, and since when it has not changed.
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def begin(self) -> None:
        """Renew what is held, from a thread of its own, until `end`."""
        threading.Thread(target=self._renewing, name="claims", daemon=True).start()

    def end(self) -> None:
        """Hold nothing more."""
        self._end.set()
        self.release()

    def take(self, name: str) -> bool:
        """Claim something; False if another worker holds it.

        Raises:
            OSError: the folder cannot be written.
        """
        self.release()
        path = self._folder / name
        for _ in range(2):
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                if not self._void(path):
                    return False
                # Two may do this at once, and both then work: that costs time, and no more.
                path.unlink(missing_ok=True)
                continue
            with self._lock:
                os.write(handle, _mine())
                self._held = (path, handle)
            return True
        return False

    def release(self) -> None:
        """Give back what is held; a claim that another has taken over is left alone."""
        with self._lock:
            if self._held is None:
                return
            path, handle = self._held
            self._held = None
            with suppress(OSError):
                if os.fstat(handle).st_ino == path.stat().st_ino:
                    path.unlink(missing_ok=True)
            os.close(handle)

    def _renewing(self) -> None:
        while not self._end.wait(self._renew_s):
            with self._lock, suppress(OSError):
                if self._held is not None:
                    # By the open file: the name may be another's by now.
                    os.utime(self._held[1])

    def _void(self, path: Path) -> bool:
        """Whether a claim of another worker has nobody behind it."""
        try:
            status = path.stat()
            with path.open("rb") as file:
                claim = file.read(CLAIM_BYTES_MAX)
        except FileNotFoundError:
            return True
        if _gone(claim):
            return True
        sign, now_s = (status.st_ino, status.st_mtime_ns), self._clock_s()
        before, since_s = self._seen.get(path.name, (None, now_s))
        if before != sign:
            since_s = now_s
        self._seen[path.name] = (sign, since_s)
        return now_s - since_s >= self._lease_s


def _mine() -> bytes:
    """What a claim says: the process behind it."""
    pid = os.getpid()
    return json.dumps({**_host(), "pid": pid, "start": _start(pid)}).encode()


def _gone(claim: bytes) -> bool:
    """Whether a claim's process was of this host, and is no more."""
    try:
        told: dict[str, Any] = json.loads(claim)
        here = {key: told[key] for key in ("boot", "pids")} == _host()
        return here and _start(int(told["pid"])) != told["start"]
    except (ValueError, KeyError, TypeError):
        return False  # half written, or of another release: its time decides


@cache
def _host() -> dict[str, str]:
    """Names this boot of this host, and the space in which its process numbers mean something."""
    return {"boot": boot_id(), "pids": os.readlink("/proc/self/ns/pid")}


def _start(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None if there is none, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]
