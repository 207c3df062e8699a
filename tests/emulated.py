"""Emulated machines in a process of their own, for tests of any room."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def emulated(file: Path, machines: list[dict[str, Any]], truth: str) -> Iterator[None]:
    """They have power and answer inside the block.

    Args:
        file: where their description may stand.
        machines: one row each, as `wattshift emulate asic --config` reads it.
        truth: address at which the process tells what they really draw; its port is the kernel's.
    """
    file.write_text(json.dumps({"machines": machines}))
    command = [sys.executable, "-m", "wattshift_cluster.emulate.process"]
    options = ["--config", str(file), "--truth", f"{truth}:0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)
