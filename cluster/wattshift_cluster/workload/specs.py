"""What a command may ask of the bridge, checked before anything is started.

The keys are those of a job's specification (`api.jobspec`), which the controller passes on as it
is; keys that mean nothing here are the controller's own and are let through.
"""

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import ConfigInvalid, Fault

WATTS_MAX_W = 1e7
REPLICAS_MAX = 1000
GPUS_MAX = 1024
PAIRS_MAX = 64
TEXT_MAX = 4096
OBJECT_MAX = 1 << 18
HEALTHY_WITHIN_MAX_S = 24 * 3600.0
PROMISES = ("slo_p95_ms", "slo_ttft_p95_ms", "slo_itl_p95_ms")
CHUNK_ITEMS_MAX = 100_000
WORKERS_MAX = 1000
ATTEMPTS_MAX = 20
ARGUMENTS_MAX = 256
FOLDERS_MAX = 16
PAUSE_WITHIN_MAX_S = 3600.0
UNSHOWN = ("env", "args", "serve_app")
"""Keys under which people keep credentials: no error and no text of an object shows a value."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A Serve application and what one replica of it asks for.

    Only types that JSON keeps as they are: a specification is compared with the one remembered.

    Attributes:
        import_path: "package.module:name" of a bound application or a builder of one; "" where
            `serve_app` is given.
        route: where it answers, "/name".
        watts_per_replica_w: what each replica asks for, W.
        num_cpus: Ray CPUs of a replica, where the application does not say.
        gpus: GPUs of a replica, where the application does not say.
        labels: Ray labels that its node must have; "!value" for one that it must not.
        env: further environment of the replicas; like the next two it may hold credentials.
        args: arguments of a builder.
        serve_app: one application of a Serve config file.
        min_replicas, max_replicas: bounds of Serve's own wish.
        scaling: "policy" or "external", the hook through which it is scaled.
        hand_over: "none" or "sleep", what becomes of replicas that are not wanted for now.
        healthy_within_s: without a healthy replica for that long it has failed.
        promised: whether it has a latency objective; then Serve follows the core upward too.
    """

    import_path: str
    route: str
    watts_per_replica_w: float
    num_cpus: float = 0.1
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    serve_app: Mapping[str, Any] | None = field(default=None, repr=False)
    min_replicas: int = 1
    max_replicas: int = REPLICAS_MAX
    scaling: str = "policy"
    hand_over: str = "none"
    healthy_within_s: float = 120.0
    promised: bool = False


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """A batch job.

    Attributes:
        callable: "package.module:name" of a function, a class or an async function; a list of
            items in, as many outputs out. "" where `command` is given.
        input: a file, a folder or a pattern, absolute.
        output: the output folder, absolute.
        watts_w: what each worker asks for, W.
        chunk_items: items between two checkpoints.
        num_cpus: Ray CPUs of a worker; small, because watts decide and not cores.
        nice: scheduling priority of a worker, 0 to 19: inference beside it comes first.
        mark_busy: whether the miner of its host yields while a chunk is worked on.
        command: program and arguments, run once per chunk.
        format: "auto", "jsonl", "csv" or "parquet".
        workers: how many there are at most.
        gang: whether they start all or not at all.
        item_attempts: times a lone item is tried before it goes to the dead letters.
        pause_within_s: so long a pause waits for the chunk in work, s.
        python_path: folders in which the workers look for modules first, absolute.
        gpus: GPUs per worker.
        labels: Ray labels that a worker's node must have; "!value" for one that it must not.
        env: further environment of the workers; may hold credentials, so never shown.
    """

    callable: str
    input: str
    output: str
    watts_w: float
    chunk_items: int = 64
    num_cpus: float = 0.1
    nice: int = 19
    mark_busy: bool = True
    command: tuple[str, ...] = ()
    format: str = "auto"
    workers: int = 1
    gang: bool = False
    item_attempts: int = 3
    pause_within_s: float = 10.0
    python_path: tuple[str, ...] = ()
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def work(self) -> str:
        """What it runs, in one line."""
        return self.callable or shlex.join(self.command)

    @classmethod
    def kept(cls, row: Mapping[str, Any]) -> "BatchSpec":
        """From its fields as JSON keeps them; those of other releases are left out.

        Raises:
            TypeError: a field that has to be there is missing.
        """
        known = {one.name for one in fields(cls)}
        lists = {"command", "python_path"}
        values: dict[str, Any] = {
            key: tuple(value) if key in lists else value
            for key, value in row.items()
            if key in known
        }
        return cls(**values)


class Reader:
    """Takes values out of a mapping and collects what is wrong with them."""

    def __init__(self, source: Mapping[str, Any], where: str) -> None:
        self._source = source
        self._where = where
        self._faults: list[Fault | str] = []

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        """A finite number within a range."""
        value = self._source.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = math.nan  # which is in no range
        if least <= value <= most:
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

    def texts(self, key: str) -> dict[str, str]:
        """A small mapping of texts; {} if missing."""
        value = self._source.get(key) or {}
        if isinstance(value, dict) and len(value) <= PAIRS_MAX:
            pairs = [*value.keys(), *value.values()]
            if all(isinstance(x, str) and len(x) <= TEXT_MAX and "\0" not in x for x in pairs):
                return dict(value)
        self._fault(key, f"allowed: at most {PAIRS_MAX} texts by name")
        return {}

    def mapping(self, key: str) -> dict[str, Any]:
        """A JSON object; {} if missing."""
        value = self._source.get(key) or {}
        if isinstance(value, dict) and len(json.dumps(value, default=str)) <= OBJECT_MAX:
            return dict(value)
        self._fault(key, f"allowed: an object of at most {OBJECT_MAX} characters")
        return {}

    def lines(self, key: str, most: int) -> tuple[str, ...]:
        """A list of texts; () if missing."""
        value = self._source.get(key) or []
        if (
            isinstance(value, list)
            and len(value) <= most
            and all(isinstance(x, str) and 0 < len(x) <= TEXT_MAX and "\0" not in x for x in value)
        ):
            return tuple(value)
        self._fault(key, f"allowed: a list of at most {most} texts")
        return ()

    def word(self, key: str, words: tuple[str, ...]) -> str:
        """One of some words; the first if missing."""
        value = self._source.get(key) or words[0]
        if isinstance(value, str) and value in words:
            return value
        self._fault(key, f"allowed: {', '.join(words)}")
        return words[0]

    def done(self) -> None:
        """Raises: ConfigInvalid with every fault found."""
        if self._faults:
            raise ConfigInvalid(self._faults)

    def refuse(self, key: str, message: str) -> None:
        """Note that a value does not fit the others."""
        self._fault(key, message)

    def _fault(self, key: str, message: str) -> None:
        value = None if key in UNSHOWN else self._source.get(key)
        self._faults.append(
            Fault(self._where, key, None if value is None else repr(value)[:80], message)
        )


def service_spec(name: str, source: Mapping[str, Any]) -> ServiceSpec:
    """A service's specification. Raises: ConfigInvalid."""
    read = Reader({"route": source.get("name", name), **source}, name)
    app = source.get("serve_app")
    import_path = read.text("import_path", TARGET, "package.module:name") if app is None else ""
    least = int(read.number("min_replicas", 0, REPLICAS_MAX, 1))
    spec = ServiceSpec(
        import_path=import_path,
        route="/" + read.text("route", NAME, "letters, digits and ._-"),
        watts_per_replica_w=read.number("watts_per_replica_w", 1, WATTS_MAX_W),
        num_cpus=read.number("num_cpus", 0, 1024, 0.1),
        gpus=read.number("gpus", 0, GPUS_MAX, 0),
        labels=read.texts("labels"),
        env=read.texts("env"),
        args=read.mapping("args"),
        serve_app=None if app is None else read.mapping("serve_app"),
        min_replicas=least,
        max_replicas=int(read.number("max_replicas", max(1, least), REPLICAS_MAX, REPLICAS_MAX)),
        scaling=read.word("scaling", ("policy", "external")),
        hand_over=read.word("hand_over", ("none", "sleep")),
        healthy_within_s=read.number("healthy_within_s", 1, HEALTHY_WITHIN_MAX_S, 120),
        promised=any(source.get(key) is not None for key in PROMISES),
    )
    read.done()
    return spec


def batch_spec(job: str, source: Mapping[str, Any]) -> BatchSpec:
    """A batch job's specification. Raises: ConfigInvalid."""
    read = Reader(source, job)
    command = read.lines("command", ARGUMENTS_MAX)
    if command and source.get("callable"):
        read.refuse("command", "allowed: a callable or a command, not both")
    named = source.get("callable") or not source.get("command")
    spec = BatchSpec(
        callable=read.text("callable", TARGET, "package.module:function") if named else "",
        input=read.path("input"),
        output=read.path("output"),
        watts_w=read.number("watts_w", 1, WATTS_MAX_W),
        chunk_items=int(read.number("chunk_items", 1, CHUNK_ITEMS_MAX, 64)),
        num_cpus=read.number("num_cpus", 0, 1024, 0.1),
        nice=int(read.number("nice", 0, 19, 19)),
        mark_busy=source.get("mark_busy", True) is not False,
        command=command,
        format=read.word("format", ("auto", "jsonl", "csv", "parquet")),
        workers=int(read.number("workers", 1, WORKERS_MAX, 1)),
        gang=source.get("gang", False) is True,
        item_attempts=int(read.number("item_attempts", 1, ATTEMPTS_MAX, 3)),
        pause_within_s=read.number("pause_within_s", 0, PAUSE_WITHIN_MAX_S, 10),
        python_path=tuple(
            str(Path(folder).absolute()) for folder in read.lines("python_path", FOLDERS_MAX)
        ),
        gpus=read.number("gpus", 0, GPUS_MAX, 0),
        labels=read.texts("labels"),
        env=read.texts("env"),
    )
    if spec.gpus > 1 and spec.gpus != int(spec.gpus):
        read.refuse("gpus", "allowed: a part of one GPU, or whole ones")
    read.done()
    return spec


def checked_name(value: object) -> str:
    """A job's or service's id. Raises: ConfigInvalid."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise ConfigInvalid(
        [Fault("command", "job", repr(value)[:80], "allowed: letters, digits and ._-")]
    )
