"""What was learnt of each machine, on disk: one small file per machine, replaced whole.

It belongs to one machine with one firmware. What cannot be read is not used, and nothing else
depends on it; a checksum keeps a file that was damaged from being read as other watts.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.asic.driver import AsicIdentity
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.fleet.learn import Learnt

VERSION = 1
FOLDER = "learnt"
MOST_BYTES = 65_536
MOST_TEXT = 400


class LearntDamaged(WattshiftError):
    """A machine's file cannot be read; what it held is learnt anew."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is not used: {reason}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Kept:
    """What was learnt, and of whom.

    Attributes:
        model, firmware, mac: as the machine named them; another one makes it another machine.
        learnt: of it.
    """

    model: str
    firmware: str
    mac: str | None
    learnt: Learnt

    @classmethod
    def of(cls, known: AsicIdentity, learnt: Learnt) -> "Kept":
        """What was learnt of this machine."""
        return cls(known.model[:MOST_TEXT], known.firmware[:MOST_TEXT], known.mac, learnt)

    def changed(self, known: AsicIdentity) -> str | None:
        """Why this is not of that machine; None where it is."""
        now = Kept.of(known, self.learnt)
        for name in ("model", "firmware", "mac"):
            was, is_now = getattr(self, name), getattr(now, name)
            if was != is_now:
                return f"its {name} was {was} and is {is_now}"
        return None


class LearntFolder:
    """The files of one agent's machines. Not for two threads at once."""

    def __init__(self, state_dir: Path) -> None:
        """Make the folder if there is none. Raises: OSError."""
        self._folder = state_dir / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)

    def load(self, device: str) -> Kept | None:
        """What was learnt of a machine; None if nothing was. Raises: LearntDamaged."""
        path = self.path(device)
        try:
            with path.open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise LearntDamaged(path, str(fault)) from fault
        if len(raw) > MOST_BYTES:
            raise LearntDamaged(path, f"more than {MOST_BYTES} bytes")
        try:
            return _parsed(json.loads(raw))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as fault:
            raise LearntDamaged(path, str(fault) or type(fault).__name__) from fault

    def save(self, device: str, kept: Kept) -> None:
        """Replace a machine's file. Raises: OSError: it could not be written; the old one stands.

        It is not forced to disk: what is lost in a power cut is learnt again.
        """
        path = self.path(device)
        new = path.with_suffix(".new")
        body = {
            "model": kept.model,
            "firmware": kept.firmware,
            "mac": kept.mac,
            "learnt": kept.learnt.to_dict(),
        }
        whole = {"version": VERSION, "sum": _sum(body), "kept": body}
        new.write_text(json.dumps(whole), encoding="utf-8")
        new.replace(path)

    def path(self, device: str) -> Path:
        """Where its file lies."""
        return self._folder / f"{device}.json"


def _parsed(raw: Any) -> Kept:
    """Raises: ValueError, KeyError, TypeError."""
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        raise ValueError(f"not what was learnt, in version {VERSION}")
    body = raw["kept"]
    if raw["sum"] != _sum(body):
        raise ValueError("its checksum does not fit")
    mac = None if body["mac"] is None else _text(body["mac"])
    learnt = Learnt.from_dict(body["learnt"])
    return Kept(_text(body["model"]), _text(body["firmware"]), mac, learnt)


def _sum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ValueError("a text is missing or too long")
    return value
