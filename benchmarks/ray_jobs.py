"""The jobs of `ray-admission`, as anybody would submit them, and how they stand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ray_site import NotInTime, Running, until

FINAL = ("completed", "failed", "cancelled")
JOB_S = 60.0
UNIT_W = 100.0


@dataclass(slots=True)
class Work:
    """Files and numbers of the batch jobs of one run."""

    folder: Path
    number: int = 0
    outputs: list[tuple[Path, int]] = field(default_factory=list)

    def batch(self, items: int, workers: int, **more: Any) -> dict[str, Any]:
        """A batch job over that many numbered items."""
        self.number += 1
        name = f"items-{self.number}"
        source, output = self.folder / f"{name}.jsonl", self.folder / name
        source.write_text("".join(f"{json.dumps({'number': i})}\n" for i in range(items)))
        self.outputs.append((output, items))
        return {
            "kind": "batch", "name": name, "callable": "benchmarks.ray_work:wait",
            "input": str(source), "output": str(output), "watts": f"{UNIT_W:.0f}W",
            "workers": workers, "chunk_items": 16, "value": 0.5, **more,
        }  # fmt: skip


def service(name: str, most: int) -> dict[str, Any]:
    """A service of up to so many replicas."""
    return {
        "kind": "service", "name": name, "import_path": "benchmarks.ray_work:app",
        "watts_per_replica": f"{UNIT_W:.0f}W", "min_replicas": 1, "max_replicas": most,
        "slo_p95": "1s", "value": 5,
    }  # fmt: skip


async def until_state(one: Running, job: str, states: Sequence[str]) -> None:
    """Wait until a job is in one of these states. Raises NotInTime when it never is."""

    async def there() -> bool:
        return (await one.job(job)).get("state") in states

    await until(there, JOB_S, f"{job} does not become {' or '.join(states)}")


async def holds(one: Running, job: str, units: int) -> bool:
    """Whether a job runs with so many units."""
    row = await one.job(job)
    return row.get("state") == "running" and sum((row.get("by_node") or {}).values()) == units


async def holds_less(one: Running, job: str, units: int) -> bool:
    """Whether a job holds the watts of fewer units than that."""
    by_node = (await one.job(job)).get("by_node")
    return by_node is not None and sum(by_node.values()) < units


async def serves(one: Running, job: str, replicas: int) -> bool:
    """Whether so many replicas of a service run. Raises NotInTime when it has failed."""
    row = await one.job(job)
    if row.get("state") == "failed":
        raise NotInTime(f"{job} failed: {row['reason']}")
    return int(row.get("running") or 0) >= replicas
