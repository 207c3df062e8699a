"""What was good before a restart, with its age: a file that is replaced whole.

A restart must not forget against which price a jump is judged, nor ask a server again at once. An
old figure is no newer for having been kept: its own time comes back with it.
"""

import contextlib
import json
import math
import os
from pathlib import Path

from wattshift_cluster.economics.figures import BOUNDS, Figures, Seen

VERSION = 1
MAX_BYTES = 64 * 1024


def load(path: Path, source: str, now_s: float) -> dict[str, Seen]:
    """The figures that `source` gave before; none of a missing, broken or another one's file."""
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(MAX_BYTES))
        if body["version"] != VERSION or body["source"] != source:
            return {}
        rows = {name: body["figures"].get(name) for name in BOUNDS}
        found = {n: Seen(float(r["value"]), float(r["at_s"])) for n, r in rows.items() if r}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {n: s for n, s in found.items() if math.isfinite(s.value) and 0 <= s.at_s <= now_s}


def save(path: Path, source: str, figures: Figures) -> None:
    """Replace the file. A disk that refuses is no reason to stop: the figures are in memory."""
    rows = {name: {"value": seen.value, "at_s": seen.at_s} for name, seen in figures.items()}
    body = json.dumps({"version": VERSION, "source": source, "figures": rows})
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with new.open("w") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
