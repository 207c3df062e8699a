"""The most memory that a whole site of so many devices takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

from benchmarks.allocate_growth import replan_ms
from benchmarks.allocate_site import instance, solved

from wattshift_cluster.controller.pages import keep_pages

DEADLINE_S = 900.0


def peak_mb(devices: int) -> float:
    """Peak resident memory of a process that makes such a site, replans it and cuts it, MB."""
    script = f"from benchmarks.allocate_memory import main; main({devices})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return float(done.stdout.split()[-1])


def main(devices: int) -> None:
    """The child: its last word is its peak, MB."""
    keep_pages()
    one = instance(devices)
    found = solved(one)
    for share in (0.75, 0.6, 0.9):
        total_w = float((found.watts_w - one.ladder.base_w).sum())
        found = solved(one.at_room(share * total_w), found.filled)
    replan_ms(one, repeats=3)
    print(_peak_kb() / 1024.0)


def _peak_kb() -> int:
    """The peak of this program alone: `ru_maxrss` counts what its parent held when it began."""
    words = Path("/proc/self/status").read_text("ascii").split()
    return int(words[words.index("VmHWM:") + 1])
