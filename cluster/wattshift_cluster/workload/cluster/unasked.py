"""What draws watts on a Ray node without having asked for any: seen by its processes.

Whatever Ray runs on a node is a descendant of that node's raylet, so the kernel knows its CPU time,
whoever started it. Ray's actor table says which of these processes asked for `power_w`; the rest is
unasked work: users' own actors and tasks. What Ray and Serve need themselves (raylet, agents, idle
workers, controller, proxies) is told apart: it draws watts too, but nobody could have asked. Watts
are an estimate: CPU cores in use times watts per core, and GPUs held times watts per GPU. A task
cannot be told from its process, so every task counts as unasked.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wattshift_cluster.workload.cluster.nodes import POWER

PROC = Path("/proc")
TICKS_HZ = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
NAMED_MAX = 16
NAMED_LEAST_CORES = 0.02
"""What uses less is counted, but not worth a line."""

NAME_CHARS = 80
DEPTH_MAX = 64
SERVE = ("ServeController", "ProxyActor", "HTTPProxy", "ServeControllerAvatar")
OURS = "meter:"
IDLE = "IDLE"
"""What a worker that waits for work, or still starts, calls itself."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process as the kernel shows it: its parent, its short name, its CPU time so far, s."""

    pid: int
    parent: int
    name: str
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """A child of a raylet, or the raylet: its title, and cores in use with all its descendants."""

    pid: int
    title: str
    cores: float


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor that lives, as Ray's control store has it.

    Attributes:
        node_id, pid: where its process is.
        kind: its class.
        name: its name; empty without one.
        resources: what it asked for.
    """

    node_id: str
    pid: int
    kind: str
    name: str
    resources: Mapping[str, float]

    @property
    def asked(self) -> bool:
        """Whether it asked for watts; in a placement group the resource's name is longer."""
        return any(name == POWER or name.startswith(f"{POWER}_") for name in self.resources)


@dataclass(frozen=True, slots=True)
class Unasked:
    """What a node's unasked work draws.

    Attributes:
        watts_w: W; None if unknown.
        system_w: what Ray and Serve draw themselves, W; None if unknown.
        what: the largest of both, for people.
        quality: "estimated", or "unknown" without a reading.
    """

    watts_w: float | None = None
    system_w: float | None = None
    what: tuple[str, ...] = ()
    quality: str = "unknown"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a core and a GPU of unasked work are taken to draw, W."""

    per_core_w: float
    per_gpu_w: float


ESTIMATE = Rates(per_core_w=10.0, per_gpu_w=0.0)
"""A busy core of a server draws some 5 to 15 W; an agent measures the GPUs of its own host."""


@dataclass(slots=True)
class Sampler:
    """CPU use between two looks at the process table."""

    proc: Path = PROC
    _before: dict[int, float] = field(default_factory=dict)
    _at_s: float | None = None

    def look(
        self, raylets: Iterable[int], now_s: float, table: Mapping[int, Process] | None = None
    ) -> dict[int, list[Usage]] | None:
        """Usages by raylet since the last look; None at the first. New and gone ones are absent.

        Args:
            raylets: process ids.
            now_s: a monotonic clock.
            table: the processes, if somebody has read them just now.
        """
        table = processes(self.proc) if table is None else table
        children: dict[int, list[int]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process.pid)
        spent: dict[int, float] = {}
        by_raylet: dict[int, list[int]] = {}
        for raylet in raylets:
            if raylet in table:
                by_raylet[raylet] = [raylet, *children.get(raylet, [])]
                spent[raylet] = table[raylet].cpu_s
                for pid in children.get(raylet, []):
                    spent[pid] = _with_descendants(pid, table, children)
        before, at_s = self._before, self._at_s
        self._before, self._at_s = spent, now_s
        if at_s is None or now_s <= at_s:
            return None
        span_s = now_s - at_s
        return {
            raylet: [
                # A process that was not there before has used all its time within the span.
                Usage(pid, self._title(table[pid]), _rise(spent, before, pid) / span_s)
                for pid in pids
            ]
            for raylet, pids in by_raylet.items()
            if raylet in before
        }

    def _title(self, process: Process) -> str:
        """What a process calls itself: Ray's workers write their work there."""
        words = _words(self.proc / str(process.pid))
        return words[0] if words else process.name


def _rise(spent: Mapping[int, float], before: Mapping[int, float], pid: int) -> float:
    return max(0.0, spent[pid] - before.get(pid, 0.0))


def processes(proc: Path = PROC) -> dict[int, Process]:
    """All processes of this host that may be seen; one that ends meanwhile is left out."""
    found: dict[int, Process] = {}
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            process = _process(Path(entry.path), int(entry.name))
            if process is not None:
                found[process.pid] = process
    return found


def raylets(table: Mapping[int, Process], proc: Path = PROC) -> dict[str, int]:
    """Process ids of the raylets of this host by NodeID: it stands on their command line."""
    found: dict[str, int] = {}
    for process in table.values():
        if process.name != "raylet":
            continue
        for word in _words(proc / str(process.pid)):
            if word.startswith("--node_id="):
                found[word.partition("=")[2]] = process.pid
    return found


def judged(
    usages: Sequence[Usage], raylet: int, actors: Mapping[int, Actor], rates: Rates
) -> Unasked:
    """The watts of what did not ask.

    Args:
        usages: of one raylet.
        raylet: its process id.
        actors: that node's, by process id.
        rates: what CPU and GPU time is taken to draw.
    """
    rows: list[tuple[float, str]] = []
    total_w = {True: 0.0, False: 0.0}
    for usage in usages:
        actor = actors.get(usage.pid)
        if actor is not None and actor.asked:
            continue
        gpus = 0.0 if actor is None else actor.resources.get("GPU", 0.0)
        watts_w = usage.cores * rates.per_core_w + gpus * rates.per_gpu_w
        total_w[_system(usage, raylet, actor)] += watts_w
        if usage.cores >= NAMED_LEAST_CORES or gpus > 0:
            held = f" {gpus:g} GPU" if gpus else ""
            words = f"{_named(usage, raylet, actor)} {usage.cores:.1f} CPU{held}: {watts_w:.0f} W"
            rows.append((watts_w, words))
    rows.sort(reverse=True)
    named = tuple(words for _, words in rows[:NAMED_MAX])
    return Unasked(total_w[False], total_w[True], named, "estimated")


def _system(usage: Usage, raylet: int, actor: Actor | None) -> bool:
    """Whether a process is Ray's, Serve's or our own, and no work of anybody's."""
    if actor is not None:
        return actor.kind in SERVE or actor.name.startswith(OURS)
    title = usage.title.removeprefix("ray::")
    return usage.pid == raylet or title == usage.title or title.endswith("Agent") or title == IDLE


def _named(usage: Usage, raylet: int, actor: Actor | None) -> str:
    if actor is not None:
        if actor.name.startswith(OURS):
            return "wattshift's meter"
        if actor.kind in SERVE:
            return f"Ray Serve's {actor.kind}"
        return f"actor {actor.kind[:NAME_CHARS]}"
    title = usage.title.removeprefix("ray::")
    if usage.pid == raylet:
        return "Ray's raylet"
    if title == IDLE:
        return "Ray's idle worker"
    if title == usage.title or title.endswith("Agent"):
        return f"Ray's {Path(title).name[:NAME_CHARS]}"
    return f"task {title[:NAME_CHARS]}"


def _with_descendants(
    pid: int, table: Mapping[int, Process], children: Mapping[int, Sequence[int]]
) -> float:
    total_s, level = 0.0, [pid]
    for _ in range(DEPTH_MAX):
        total_s += sum(table[one].cpu_s for one in level)
        level = [child for one in level for child in children.get(one, ())]
        if not level:
            break
    return total_s


def _process(folder: Path, pid: int) -> Process | None:
    try:
        stat = (folder / "stat").read_text(errors="replace")
        # The name in brackets may hold anything; what follows it is fields 3 and on of proc(5).
        fields = stat[stat.rindex(")") + 2 :].split()
        # Own time, and that of children that have ended and were waited for.
        ticks = sum(int(field) for field in fields[11:15])
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        return Process(pid, int(fields[1]), name, ticks / TICKS_HZ)
    except (OSError, ValueError, IndexError):
        return None


def _words(folder: Path) -> list[str]:
    try:
        raw = (folder / "cmdline").read_bytes()[:65536]
    except OSError:
        return []
    return [word for word in raw.decode(errors="replace").split("\0") if word.strip()]
