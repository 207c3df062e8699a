"""What a command may ask of the bridge, checked before anything is started.

The keys are those of a job's specification (`api.jobspec`), which the controller passes on as it
is; keys that mean nothing here are the controller's own and are let through.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import ConfigInvalid, Fault

WATTS_MAX_W = 1e7
REPLICAS_MAX = 1000
CHUNK_ITEMS_MAX = 100_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A Serve application: where its builder is, its route, and the watts of one replica."""

    import_path: str
    route: str
    watts_per_replica_w: float
    num_cpus: float = 0.1


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """A batch job.

    Attributes:
        callable: "package.module:function"; a list of items in, as many outputs out.
        input, output: JSONL file and output folder, absolute.
        watts_w: what its worker asks for, W.
        chunk_items: items between two checkpoints.
        num_cpus: Ray CPUs of the worker; small, because watts decide and not cores.
        nice: scheduling priority of the worker, 0 to 19: inference beside it comes first.
        mark_busy: whether the miner of its host yields while a chunk is worked on.
    """

    callable: str
    input: str
    output: str
    watts_w: float
    chunk_items: int = 64
    num_cpus: float = 0.1
    nice: int = 19
    mark_busy: bool = True


class Reader:
    """Takes values out of a mapping and collects what is wrong with them."""

    def __init__(self, source: Mapping[str, Any], where: str) -> None:
        self._source = source
        self._where = where
        self._faults: list[Fault | str] = []

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        """A finite number within a range."""
        value = self._source.get(key, default)
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if fits and math.isfinite(value) and least <= value <= most:
            return float(value)
        self._fault(key, f"allowed: a number from {least:g} to {most:g}")
        return least

    def text(self, key: str, pattern: re.Pattern[str], meaning: str) -> str:
        """A text that matches a pattern as a whole."""
        value = self._source.get(key)
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        self._fault(key, f"allowed: {meaning}")
        return ""

    def path(self, key: str) -> str:
        """A path, made absolute."""
        value = self._source.get(key)
        if isinstance(value, str) and 0 < len(value) <= 4096 and "\0" not in value:
            return str(Path(value).absolute())
        self._fault(key, "allowed: a path")
        return ""

    def done(self) -> None:
        """Raises: ConfigInvalid with every fault found."""
        if self._faults:
            raise ConfigInvalid(self._faults)

    def _fault(self, key: str, message: str) -> None:
        value = self._source.get(key)
        self._faults.append(
            Fault(self._where, key, None if value is None else repr(value)[:80], message)
        )


def service_spec(name: str, source: Mapping[str, Any]) -> ServiceSpec:
    """A service's specification. Raises: ConfigInvalid."""
    read = Reader({"route": source.get("name", name), **source}, name)
    spec = ServiceSpec(
        import_path=read.text("import_path", TARGET, "package.module:builder"),
        route="/" + read.text("route", NAME, "letters, digits and ._-"),
        watts_per_replica_w=read.number("watts_per_replica_w", 1, WATTS_MAX_W),
        num_cpus=read.number("num_cpus", 0, 1024, 0.1),
    )
    read.done()
    return spec


def batch_spec(job: str, source: Mapping[str, Any]) -> BatchSpec:
    """A batch job's specification. Raises: ConfigInvalid."""
    read = Reader(source, job)
    spec = BatchSpec(
        callable=read.text("callable", TARGET, "package.module:function"),
        input=read.path("input"),
        output=read.path("output"),
        watts_w=read.number("watts_w", 1, WATTS_MAX_W),
        chunk_items=int(read.number("chunk_items", 1, CHUNK_ITEMS_MAX, 64)),
        num_cpus=read.number("num_cpus", 0, 1024, 0.1),
        nice=int(read.number("nice", 0, 19, 19)),
        mark_busy=source.get("mark_busy", True) is not False,
    )
    read.done()
    return spec


def checked_name(value: object) -> str:
    """A job's or service's id. Raises: ConfigInvalid."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise ConfigInvalid(
        [Fault("command", "job", repr(value)[:80], "allowed: letters, digits and ._-")]
    )
