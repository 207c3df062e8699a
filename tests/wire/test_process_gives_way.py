"""A process that gives way is nice in its session, and its session among the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wattshift_cluster.process import AUTOGROUP

PROGRAM = """
import os, pathlib
from wattshift_cluster.process import give_way
give_way(17)
group = pathlib.Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid())
print(group.read_text().split()[-1] if group.exists() else "")
give_way(3)
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.parametrize("leads", [False, True], ids=["in ours", "leads one already"])
def test_it_is_nice_in_a_session_of_its_own_and_stays_so(leads: bool) -> None:
    ours = os.getsid(0)
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, timeout=60, check=True, start_new_session=leads,
    ).stdout.split("\n")  # fmt: skip
    assert said[0] == "17 True"
    assert said[2] == "17", "never less nice than it was"
    assert os.getsid(0) == ours
    if Path(AUTOGROUP).exists():
        assert said[1] == "17", "nice within a session alone would leave it as much as any other"
