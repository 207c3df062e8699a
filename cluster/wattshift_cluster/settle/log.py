"""The evidence log: what was measured and decided, append-only, chained, signed, a file per day.

Control never waits for it: `put` appends to a bounded queue, and one thread writes. What could not
be written (a full queue, disk or day) is counted and told in the log as soon as it can be, and in
`health` at once.
"""

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.settle import keys
from wattshift_cluster.settle.lines import Kind, day_of
from wattshift_cluster.settle.months import put_away
from wattshift_cluster.settle.tail import EvidenceFailed, Tail, mended
from wattshift_cluster.settle.writer import Put, Writer

QUEUE_MOST = 10_000
"""Lines that wait: minutes of a site's evidence, a few megabytes."""

BATCH_MOST = 1_000
QUEUE_FULL = "too many waited"
CLOSE_S = 10.0
LOCK_NAME = ".writer"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often is signed, and how much is written.

    Attributes:
        lines: lines between two signatures, at most.
        checkpoint_s: time between two signatures while lines come, at most, s.
        retry_s: time between two tries while the disk refuses, s.
        day_bytes: size of one day's file; what comes beyond it is dropped and counted. A site of
            1,000 devices that tells their energy every minute writes about 150 MB a day.
    """

    lines: int = 1_000
    checkpoint_s: float = 60.0
    retry_s: float = 5.0
    day_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True)
class Health:
    """How the log is: last line, lines that wait and that were dropped, today's size, a fault."""

    seq: int
    waiting: int
    dropped: int
    day_bytes: int
    fault: str | None


class Evidence:
    """The open log. Make one with `Evidence.open`; one process at a time holds it."""

    def __init__(
        self, writer: Writer, pace: Pace, lock: int, wall_s: Callable[[], float], folder: Path
    ) -> None:
        """Start the thread that writes; use `open` instead."""
        self._writer, self._pace, self._lock = writer, pace, lock
        self._wall_s, self._folder = wall_s, folder
        self._day = day_of(wall_s())
        self._waiting: deque[Put] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._dropped = 0
        self._told = 0
        self._fault: str | None = None
        self._signed_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        site: str,
        pace: Pace | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> "Evidence":
        """Open or make the log in `folder`; its key lies in the folder above.

        Raises: EvidenceFailed: another process writes it, or the disk or the key is no good.
        """
        pace = pace or Pace()
        lock = -1
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = _locked(folder / LOCK_NAME)
            signer = keys.signer_at(folder.parent / keys.PRIVATE_NAME)
            public = folder / keys.PUBLIC_NAME
            if not public.exists():
                public.write_bytes(signer.public_pem())
            away = _put_away(folder, wall_s())
            tail = mended(folder)
            writer = Writer(folder, signer, tail, pace.day_bytes, wall_s)
            writer.write(deque([*_first_words(site, signer.public, tail, wall_s()), *away]))
            writer.checkpoint()
            return cls(writer, pace, lock, wall_s, folder)
        except (OSError, keys.KeyInvalid, EvidenceFailed) as fault:
            if lock >= 0:
                os.close(lock)
            raise EvidenceFailed(f"{folder}: the evidence log cannot be opened: {fault}") from fault

    def put(self, kind: Kind, body: Mapping[str, Any], at_s: float) -> bool:
        """Hand one line over; False: too many wait, and it was dropped and counted.

        Args:
            kind: what it tells.
            body: JSON without NaN; nobody changes it afterwards.
            at_s: when it was so, unix time, s.
        """
        with self._wake:
            if self._closing or len(self._waiting) >= QUEUE_MOST:
                self._dropped += 1
                return False
            self._waiting.append(Put(kind, body, at_s))
            self._wake.notify()
        return True

    def health(self) -> Health:
        """How the log is now; does not wait for the disk."""
        writer = self._writer
        dropped = self._dropped + writer.dropped
        fault = self._fault
        if not (self._closing or self._thread.is_alive()):
            fault = "the thread that writes has ended"
        return Health(writer.seq, len(self._waiting), dropped, writer.day_bytes, fault)

    def close(self) -> bool:
        """Write what waits and sign the end; False: the disk refused it, or took over CLOSE_S."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S)
        return not self._thread.is_alive() and self._fault is None

    def _run(self) -> None:
        batch: deque[Put] = deque()
        try:
            while True:
                closing = self._gather(batch)
                fault = self._written(batch, closing=closing)
                if closing and (fault or not self._waiting):
                    return
                if fault:
                    with self._wake:
                        self._wake.wait_for(lambda: self._closing, self._pace.retry_s)
        finally:
            self._writer.close()
            os.close(self._lock)

    def _gather(self, batch: deque[Put]) -> bool:
        """Wait for lines or for the next signature, and fill `batch`; True: the log is closing."""
        with self._wake:
            if not (batch or self._waiting or self._closing):
                left_s = self._signed_s + self._pace.checkpoint_s - time.monotonic()
                # With nothing to sign there is nothing to wake for.
                self._wake.wait(max(left_s, 0.01) if self._writer.unsigned else None)
            if self._dropped > self._told:
                lines = self._dropped - self._told
                batch.append(Put(Kind.DROPPED, {"lines": lines, "why": QUEUE_FULL}, self._wall_s()))
                self._told = self._dropped
            while self._waiting and len(batch) < BATCH_MOST:
                batch.append(self._waiting.popleft())
            return self._closing

    def _written(self, batch: deque[Put], *, closing: bool) -> str | None:
        """Write the batch, and a signature where one is due; returns why the disk refused."""
        try:
            if (today := day_of(self._wall_s())) != self._day:
                self._day = today
                batch.extend(_put_away(self._folder, self._wall_s()))
            self._writer.write(batch)
            due = time.monotonic() - self._signed_s >= self._pace.checkpoint_s
            unsigned = self._writer.unsigned
            end = closing and not self._waiting
            if end or unsigned >= self._pace.lines or (unsigned and due):
                self._writer.checkpoint(end=end)
                self._signed_s = time.monotonic()
            self._fault = None
        except OSError as fault:
            self._fault = f"{fault.strerror or fault}"
        return self._fault


def _locked(path: Path) -> int:
    """Hold the folder for this process. Raises: EvidenceFailed, OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise EvidenceFailed("another process writes it") from None
    return lock


def _put_away(folder: Path, now_s: float) -> list[Put]:
    """Put past months into folders of their own; a line that tells of it, or why it failed.

    A failure loses nothing: the files stay where they are, and the next day tries again.
    """
    try:
        moved = put_away(folder, day_of(now_s))
    except OSError as fault:
        return [Put(Kind.PUT_AWAY, {"files": [], "failed": fault.strerror or str(fault)}, now_s)]
    files = [f"{path.parent.name}/{path.name}" for path in moved]
    return [Put(Kind.PUT_AWAY, {"files": files, "failed": None}, now_s)] if files else []


def _first_words(site: str, key: str, tail: Tail, now_s: float) -> list[Put]:
    """What a start tells: what was found torn, from when to when nothing was logged, who begins."""
    puts: list[Put] = []
    if tail.cuts or tail.lost_to:
        body = {"cuts": [asdict(cut) for cut in tail.cuts], "lost_to": tail.lost_to}
        puts.append(Put(Kind.RECOVERED, body, now_s))
    if tail.last is not None:
        gap = {"from_s": tail.last.at_s, "to_s": now_s, "closed": tail.closed}
        puts.append(Put(Kind.GAP, gap, now_s))
    opened = {"site": site, "key": key}
    return [*puts, Put(Kind.OPENED, opened, now_s)]
