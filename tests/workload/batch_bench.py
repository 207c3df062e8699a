"""What the tests of batch jobs share: small jobs, and workers as processes that can be killed.

    python tests/workload/batch_bench.py    the nursery: one JSON object a line comes in
    {"job": …, "spec": {…}, "worker": 0, "workers": 2, "lease_s": 1.0}   ─▶   its process id

Workers are forked from a process that has imported everything, so that a test can afford many.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wattshift_cluster.workload.batch.chunk_loop import Chunks
from wattshift_cluster.workload.specs import BatchSpec

LENGTH = "wattshift_cluster.workload.samples:length"


def write_items(path: Path, count: int) -> Path:
    """Texts of 0, 1, 2, … letters as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(count)))
    return path


def spec_of(folder: Path, **more: object) -> BatchSpec:
    """A job over items.jsonl of a folder, into `out`."""
    fields = {
        "callable": LENGTH,
        "input": str(folder / "items.jsonl"),
        "output": str(folder / "out"),
        "watts_w": 10.0,
        "chunk_items": 4,
        "nice": 0,
    }
    return BatchSpec(**{**fields, **more})  # type: ignore[arg-type]


def written(folder: Path, code: str, name: str = "users_work") -> dict[str, Any]:
    """A module of the user's beside the job; the keys of a specification that find it."""
    (folder / "code").mkdir(exist_ok=True)
    (folder / f"code/{name}.py").write_text(code)
    return {"callable": f"{name}:work", "python_path": (str(folder / "code"),)}


def results(folder: Path, name: str = "results.jsonl") -> list[dict[str, Any]]:
    """The rows of a job's results."""
    return [json.loads(line) for line in (folder / f"out/{name}").read_text().splitlines()]


class Nursery:
    """Makes workers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def worker(self, job: str, spec: BatchSpec, **more: object) -> int:
        """A worker of a job; its process id. It is a child of the nursery."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"job": job, "spec": asdict(spec), **more}),
            file=self._process.stdin,
            flush=True,
        )
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it; workers that still run are not waited for."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery that ends."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


def gone(pid: int) -> bool:
    """Whether a process is no more, or only its remains are there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def _work(order: Mapping[str, Any]) -> None:
    spec = BatchSpec.kept(order.pop("spec"))  # type: ignore[attr-defined]
    Chunks(order.pop("job"), spec, **order).run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _work(json.loads(line))
                status = 0
            finally:
                os._exit(status)
        print(pid, flush=True)
