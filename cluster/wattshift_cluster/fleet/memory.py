"""What an agent knows of each machine beyond its own life: one small file per machine.

A file is replaced whole, so a power cut leaves the old or the new one. A file that cannot be read
might have held a lock: it is never taken for an empty one.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.fleet import kept
from wattshift_cluster.fleet.kept import KeptCut, Moved
from wattshift_cluster.fleet.locks import Hold, Lock, Override, Restraint

VERSION = 1
FOLDER = "asics"
MOST_BYTES = 65_536
MOST_TEXT = 400


class MemoryDamaged(WattshiftError):
    """A machine's file cannot be read."""

    exit_code = 3

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged ({reason}). It may have held a lock, so the machine counts at its "
            "ceiling and is not commanded. Once nobody works on it, unlock it with override."
        )
        self.path = path


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of one machine.

    Attributes:
        restraint: what keeps it down.
        mac: hardware address that was first seen there, upper case.
        written: the mode that we last wrote and the machine took; None where we never did.
        slept_s, woke_s: when it last fell asleep or woke by our word, UTC, s.
        cycles: wakes from sleep that we have caused.
        moved: where it was followed to; None while it is where agent.toml has it.
        cut: that we took its power; None while we have not.
        owners_choice: how its owner ran it before we put it to sleep, in its driver's words; None
            where that firmware remembers it by itself.
    """

    restraint: Restraint = field(default_factory=Restraint)
    mac: str | None = None
    written: str | None = None
    slept_s: float | None = None
    woke_s: float | None = None
    cycles: int = 0
    moved: Moved | None = None
    cut: KeptCut | None = None
    owners_choice: str | None = None

    def took(self, mode: str | None, at_s: float, *, slept: bool, woken: bool) -> "Memory":
        """The machine took a command of ours.

        Args:
            mode: what we may count as written by us.
            at_s: UTC, s.
            slept, woken: whether it fell asleep or woke by it.
        """
        return replace(
            self,
            written=mode,
            slept_s=at_s if slept else self.slept_s,
            woke_s=at_s if woken else self.woke_s,
            cycles=self.cycles + woken,
        )


class MemoryFolder:
    """The files of one agent's machines. Not for two threads at once."""

    def __init__(self, state_dir: Path) -> None:
        """Make the folder if there is none. Raises: OSError."""
        self._folder = state_dir / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)

    def load(self, device: str) -> Memory:
        """A machine's memory; an empty one if there is no file. Raises: MemoryDamaged."""
        path = self.path(device)
        try:
            with path.open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return Memory()
        except OSError as fault:
            raise MemoryDamaged(path, str(fault)) from fault
        if len(raw) > MOST_BYTES:
            raise MemoryDamaged(path, f"more than {MOST_BYTES} bytes")
        try:
            return _parsed(json.loads(raw))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as fault:
            raise MemoryDamaged(path, str(fault) or type(fault).__name__) from fault

    def save(self, device: str, memory: Memory, *, sync: bool) -> None:
        """Replace a machine's file.

        Args:
            device: its id, which is a valid file name by the rule of names.
            memory: what to keep.
            sync: return only once it is on disk for good: for locks, not for every set point.

        Raises:
            OSError: it could not be written; the old file stands.
        """
        path = self.path(device)
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump({"version": VERSION, **asdict(memory)}, file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        new.replace(path)
        if sync:
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def path(self, device: str) -> Path:
        """Where its file lies. Names may hold dots, so the suffix is appended, not replaced."""
        return self._folder / f"{device}.json"


def _parsed(raw: Any) -> Memory:
    """Raises: ValueError, KeyError, TypeError."""
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        raise ValueError(f"not a memory of version {VERSION}")
    cycles = raw["cycles"]
    if isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 0:
        raise ValueError("cycles is not a count")
    return Memory(
        restraint=_restraint(raw["restraint"]),
        mac=_maybe_text(raw["mac"]),
        written=_maybe_text(raw["written"]),
        slept_s=_maybe_number(raw["slept_s"]),
        woke_s=_maybe_number(raw["woke_s"]),
        cycles=cycles,
        # Files of before these were kept lack them.
        moved=kept.moved(raw.get("moved")),
        cut=kept.cut(raw.get("cut")),
        owners_choice=_maybe_text(raw.get("owners_choice")),
    )


def _restraint(raw: Any) -> Restraint:
    hold, override = raw["hold"], raw["override"]
    return Restraint(
        lock=_lock(raw["lock"]),
        hold=None if hold is None else _hold(hold),
        limit_w=_maybe_number(raw["limit_w"]),
        limit_by=_maybe_text(raw["limit_by"]),
        override=None if override is None else _override(override),
    )


def _hold(raw: Any) -> Hold:
    return Hold(_text(raw["by"]), _number(raw["since_s"]), _maybe_text(raw["reason"]))


def _override(raw: Any) -> Override:
    lock = _lock(raw["lock"])
    if lock is None:
        raise ValueError("an override of no lock")
    return Override(_text(raw["by"]), _number(raw["at_s"]), lock)


def _lock(raw: Any) -> Lock | None:
    if raw is None:
        return None
    by, since_s, reason = _text(raw["by"]), _number(raw["since_s"]), _maybe_text(raw["reason"])
    return Lock(by, since_s, reason, _maybe_text(raw.get("by_id")))


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_TEXT:
        raise ValueError("a text is missing or too long")
    return value


def _maybe_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise ValueError("a number is missing or not finite")
    return float(value)


def _maybe_number(value: object) -> float | None:
    return None if value is None else _number(value)
