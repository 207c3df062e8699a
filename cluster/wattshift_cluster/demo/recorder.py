"""What independent witnesses saw during a demo, read after it from what they wrote themselves.

The meter process logs every sample, the load generator every request, the pool counts shares, the
emulator says when each machine took a command, the batch job's output lies on disk. Only two things
come from the controller: which machines it says it shed, and the hashes that workers counted.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wattshift_cluster.demo.verdict import Request

LINE_MAX = 1 << 20

NO_ANSWER_MS = 10_000.0
"""The load's own deadline: a request that was never answered took at least so long."""


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSONL file; a line that is being written is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and len(line) <= LINE_MAX:
                yield json.loads(line)


def samples(path: Path) -> list[tuple[float, float | None]]:
    """(Unix time, watts) of each meter sample."""
    return [(float(row["at_s"]), row["watts_w"]) for row in json_lines(path)]


def parts(path: Path) -> list[tuple[float, dict[str, float | None]]]:
    """(Unix time, watts by part) of each meter sample."""
    return [
        (float(row["at_s"]), {part["name"]: part["watts_w"] for part in row["parts"]})
        for row in json_lines(path)
    ]


def qualities(path: Path) -> dict[str, str]:
    """How the meter came to each of its parts: measured, emulated or modelled."""
    last: dict[str, str] = {}
    for row in json_lines(path):
        last.update({part["name"]: part["quality"] for part in row["parts"]})
    return last


def first_commands(truth: Mapping[str, Any], cut_s: float, now_s: float) -> dict[str, float]:
    """When each emulated machine received its first command at or after the cut, Unix s.

    Args:
        truth: the emulator's truth, whose times are on the boot clock.
        cut_s: Unix time of the cut, s.
        now_s: Unix time when the truth was read, s.
    """
    behind_s = now_s - float(truth["at_s"])
    first: dict[str, float] = {}
    for machine in truth["machines"]:
        later = [at_s + behind_s for at_s in machine["commands_s"] if at_s + behind_s >= cut_s]
        if later:
            first[str(machine["id"])] = min(later)
    return first


def requests(path: Path) -> list[Request]:
    """Every request of the load generator; one without an answer counts as NO_ANSWER_MS."""
    return [
        Request(
            float(row["sent_s"]),
            NO_ANSWER_MS if row["latency_ms"] is None else float(row["latency_ms"]),
            row["status"] == 200,
        )
        for row in json_lines(path)
    ]


def shed_machines(
    decisions: Iterable[Mapping[str, Any]], cut_s: float, within_s: float
) -> set[str]:
    """Devices that the journal says were lowered at the cut."""
    return {
        str(one["subject"])
        for one in decisions
        if one["action"] == "shed" and cut_s <= _unix_s(one["at"]) <= cut_s + within_s
    }


def _unix_s(text: str) -> float:
    """Unix time of RFC 3339 text; the journal's milliseconds may round a moment down."""
    return datetime.fromisoformat(text).timestamp() + 0.001


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """Items in a batch job's output folder: distinct ones, and how many appear twice or more."""

    found: int
    duplicates: int


def batch_output(folder: Path, key: str = "index") -> BatchOutput:
    """Count the items in the committed chunks of a batch job (workload/batch/chunks.py)."""
    counts: Counter[Any] = Counter()
    for file in sorted((folder / "chunks").glob("*.jsonl")):
        counts.update(row[key] for row in json_lines(file))
    return BatchOutput(len(counts), sum(1 for n in counts.values() if n > 1))
