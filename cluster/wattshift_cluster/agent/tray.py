"""What the agent wants hashed: works under their numbers, each with the nonces that are left of it.

A range of nonces is handed out once. What a stopped launch did not try comes back and is handed out
again, so no nonce is skipped and none is tried twice. A work is spent when all its nonces were.
"""

import json
import sys
import threading
from collections import deque
from collections.abc import Iterable
from io import RawIOBase
from typing import Any

from wattshift_kernels.hasher import Range, Work, check_range

LINE_LIMIT_BYTES = 4096
MOST_WAITING = 8
NONCES = 1 << 32


class Assignment:
    """A work under its number.

    Attributes:
        id: the agent's number for it.
        work: what is hashed.
    """

    def __init__(self, number: int, work: Work, nonces: Range = (0, NONCES)) -> None:
        """All of `nonces` are to be tried."""
        self.id = number
        self.work = work
        self._left: deque[Range] = deque([nonces])
        self._aloft = 0

    @property
    def open(self) -> bool:
        """Whether there are nonces to hand out."""
        return bool(self._left)

    @property
    def spent(self) -> bool:
        """Whether every nonce was tried."""
        return not self._left and not self._aloft

    def take(self, count: int) -> Range:
        """The next nonces, at most `count` of them, in one piece; it is open."""
        start, length = self._left.popleft()
        if length > count:
            self._left.appendleft((start + count, length - count))
        self._aloft += 1
        return start, min(count, length)

    def landed(self, left: Iterable[Range]) -> None:
        """A piece came back from the device, but for the ranges in `left`."""
        self._aloft -= 1
        joined: deque[Range] = deque()
        for start, count in sorted((*self._left, *left)):
            before, so_far = joined[-1] if joined else (start, 0)
            if joined and before + so_far == start:
                joined[-1] = (before, so_far + count)
            else:
                joined.append((start, count))
        self._left = joined


class Tray:
    """The assignments, filled by the thread that reads standard input.

    Attributes:
        closing: the worker is to end.
        emptying: its table is to be freed; whoever does so clears it.
    """

    def __init__(self, algorithm: str = "sha256d") -> None:
        """Empty. Args: algorithm: of all works that may come."""
        self.closing = False
        self.emptying = threading.Event()
        self._algorithm = algorithm
        self._lock = threading.Lock()
        self._waiting: deque[Assignment] = deque()

    def current(self) -> Assignment | None:
        """The assignment to hash for now."""
        with self._lock:
            return next((one for one in self._waiting if one.open), None)

    def drop(self, assignment: Assignment) -> bool:
        """Put a spent assignment away; whether it was still wanted."""
        with self._lock:
            wanted = assignment in self._waiting
            if wanted:
                self._waiting.remove(assignment)
            return wanted

    def put(self, assignment: Assignment) -> None:
        """One more to hash; a worker that is given more than it can keep does without the rest."""
        with self._lock:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(assignment)

    def take(self, message: dict[str, Any]) -> None:
        """Follow one message of the agent. Raises: ValueError, KeyError, TypeError."""
        if message["op"] == "empty":
            self.emptying.set()
            return
        assignment = None
        if message["op"] == "work":
            start, count = (int(number) for number in message.get("nonces", (0, NONCES)))
            check_range(start, count)
            if not count:
                raise ValueError("no nonces to try")
            assignment = Assignment(int(message["id"]), self._work(message), (start, count))
        if assignment is None or message.get("clean"):
            with self._lock:
                self._waiting.clear()
        if assignment is not None:
            self.put(assignment)

    def _work(self, message: dict[str, Any]) -> Work:
        algorithm = message.get("algorithm", "sha256d")
        if algorithm != self._algorithm:
            raise ValueError(f"this worker hashes {self._algorithm}, not {algorithm!r}")
        return Work(
            bytes.fromhex(message["message"]),
            int(message["target"], 16),
            algorithm,
            height=int(message.get("height", 0)),
            roll_mask=int(message.get("roll_mask", "0"), 16),
        )

    def listen(self, source: RawIOBase) -> None:
        """Read messages until the input ends; anything but a message ends the worker, too."""
        try:
            while line := source.readline(LINE_LIMIT_BYTES):
                self.take(json.loads(line))
        except (ValueError, KeyError, TypeError) as fault:
            print(f"worker: not a message: {fault!r}", file=sys.stderr, flush=True)
        self.closing = True
