"""What the bridge takes from the controller, what it refuses, and what it answers.

One object answers all requests of the wire (bridge.py lists them). A command is checked as a whole
before anything of it is done; its result says that it was taken, the reports say what became of it.
"""

import asyncio
import queue
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from wattshift_cluster.errors import ConfigInvalid, NotFound, TryLater, WattshiftError
from wattshift_cluster.workload.bulletin import WAIT_MAX_S
from wattshift_cluster.workload.cluster.nodes import NODES_MAX
from wattshift_cluster.workload.engine import Engine
from wattshift_cluster.workload.fence import Fence
from wattshift_cluster.workload.specs import (
    REPLICAS_MAX,
    WATTS_MAX_W,
    Reader,
    batch_spec,
    checked_name,
    service_spec,
)

log = structlog.get_logger()

COMMANDS_MAX = 256
POWER_KIND = "set_node_power"
NODE_CHARS = 253
"""A host name has no more."""

LOG_LINES_MAX = 1000
DRAIN_S = 600.0
DRAIN_MAX_S = 86_400.0
NO_WAY_BACK = (
    "Ray knows no way back: the node takes new work again only when its raylet is started anew"
)

Command = Mapping[str, Any]


class Bridge:
    """Answers the controller."""

    def __init__(self, engine: Engine, fence: Fence) -> None:
        self._engine = engine
        self._fence = fence
        self._kinds: Mapping[str, Callable[[Command], dict[str, Any]]] = {
            "set_replicas": self._set_replicas,
            "start_job": self._start_job,
            "pause_job": self._pause_job,
            "cancel_job": self._cancel_job,
            "evict_units": self._evict_units,
            "drain_node": self._drain_node,
        }
        self._ops: Mapping[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "hello": self._report,
            "report": self._report,
            "apply": self._apply,
            "drain": self._drain,
            "forget": self._forget,
            "log": self._log,
        }

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        """One request of the wire."""
        if op not in self._ops:
            raise NotFound(f"no op {op!r}; there are {', '.join(self._ops)}")
        return await self._ops[op](fields)

    async def _report(self, fields: dict[str, Any]) -> dict[str, Any]:
        after, wait_s = fields.get("after"), fields.get("wait_s", WAIT_MAX_S)
        if after is None:
            return self._engine.bulletin.report()
        if isinstance(after, bool) or not isinstance(after, int):
            raise ConfigInvalid(["after: allowed: the version of a report"])
        read = Reader({"wait_s": wait_s}, "report")
        wait_s = read.number("wait_s", 0, WAIT_MAX_S)
        read.done()
        return await self._engine.bulletin.after(after, wait_s)

    async def _drain(self, fields: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(self._drain_node, fields)

    async def _forget(self, fields: dict[str, Any]) -> dict[str, Any]:
        # It only lowers, so that an older controller may ask for it, too.
        await asyncio.to_thread(self._engine.nodes.forget, _node_name(fields.get("node")))
        return {}

    async def _log(self, fields: dict[str, Any]) -> dict[str, Any]:
        job = checked_name(fields.get("job"))
        read = Reader(fields, "log")
        lines = int(read.number("lines", 1, LOG_LINES_MAX, 100))
        read.done()
        tail = await asyncio.to_thread(self._engine.batch.log_tail, job, lines)
        return {"job": job, "lines": list(tail)}

    async def _apply(self, fields: dict[str, Any]) -> dict[str, Any]:
        commands = fields.get("commands")
        if not isinstance(commands, list) or len(commands) > COMMANDS_MAX:
            raise ConfigInvalid([f"commands: allowed: a list of at most {COMMANDS_MAX}"])
        newest = await asyncio.to_thread(self._fence.older, fields.get("epoch"))
        # In order, and watts beside the rest, because a resize waits for Ray up to 0.7 s.
        power = [command for command in commands if _is_power(command)]
        rest = [command for command in commands if not _is_power(command)]
        watts, done = await asyncio.gather(
            asyncio.to_thread(self._power, power, newest),
            asyncio.to_thread(self._all, rest, newest),
        )
        left, right = iter(watts), iter(done)
        return {"results": [next(left if _is_power(row) else right) for row in commands]}

    def _power(self, commands: list[Command], newest: int | None) -> list[dict[str, Any]]:
        """Watts of all nodes at once; of two commands for one node the later one counts."""
        results = [_result(command.get("id")) for command in commands]
        last: dict[str, int] = {}
        wanted: dict[str, float] = {}
        for place, command in enumerate(commands):
            try:
                node, watts_w = self._power_wish(command)
                self._fence.check(command, newest)
            except WattshiftError as fault:
                results[place]["error"] = str(fault)
                continue
            if node in last:
                results[last[node]]["error"] = "overtaken by a later command"
            last[node], wanted[node] = place, watts_w
        try:
            answers = self._engine.nodes.set_power(wanted) if wanted else {}
        except OSError as fault:
            log.exception("bridge.power")
            answers = dict.fromkeys(wanted, _unkept(fault))
        for node, answer in answers.items():
            told = {"error": answer} if isinstance(answer, str) else {"ok": True, "watts_w": answer}
            results[last[node]] |= told
        return results

    def _power_wish(self, command: Command) -> tuple[str, float]:
        read = Reader(command, POWER_KIND)
        watts_w = read.number("watts_w", 0, WATTS_MAX_W)
        read.done()
        node = command.get("node")
        return self._engine.nodes.own_node() if node is None else _node_name(node), watts_w

    def _all(self, commands: list[Any], newest: int | None) -> list[dict[str, Any]]:
        return [self._one(command, newest) for command in commands]

    def _one(self, command: object, newest: int | None) -> dict[str, Any]:
        number = command.get("id") if isinstance(command, dict) else None
        result = _result(number)
        try:
            if not isinstance(command, dict) or command.get("kind") not in self._kinds:
                raise ConfigInvalid([f"kind: allowed: {', '.join((POWER_KIND, *self._kinds))}"])
            self._fence.check(command, newest)
            result |= self._kinds[command["kind"]](command)
            result["ok"] = True
        except queue.Full:
            result["error"] = str(TryLater("too many commands are waiting"))
        except WattshiftError as fault:
            result["error"] = str(fault)
        except OSError as fault:
            log.exception("bridge.command", id=number)
            result["error"] = _unkept(fault)
        return result

    def _set_replicas(self, command: Command) -> dict[str, Any]:
        name = checked_name(command.get("service"))
        read = Reader(command, name)
        replicas = int(read.number("replicas", 0, REPLICAS_MAX))
        read.done()
        spec = service_spec(name, _mapping(command.get("spec")))
        nodes = _units(command.get("nodes", {}))
        self._engine.services.set_target(name, spec, replicas, nodes)
        self._engine.wake()
        return {}

    def _start_job(self, command: Command) -> dict[str, Any]:
        job = checked_name(command.get("job"))
        spec = batch_spec(job, _mapping(command.get("spec")))
        self._engine.batch.start(job, spec, _units(command.get("nodes", {})))
        self._engine.wake()
        return {}

    def _pause_job(self, command: Command) -> dict[str, Any]:
        self._engine.batch.pause(checked_name(command.get("job")))
        self._engine.wake()
        return {}

    def _cancel_job(self, command: Command) -> dict[str, Any]:
        job = checked_name(command.get("job"))
        if job in self._engine.services.names():
            self._engine.submit(lambda: self._engine.cancel_service(job))
        else:
            self._engine.batch.cancel(job)
            self._engine.wake()
        return {}

    def _evict_units(self, command: Command) -> dict[str, Any]:
        read = Reader(command, "evict_units")
        units = int(read.number("units", 1, REPLICAS_MAX))
        read.done()
        self._engine.evict(_node_name(command.get("node")), checked_name(command.get("job")), units)
        return {}

    def _drain_node(self, command: Command) -> dict[str, Any]:
        read = Reader(command, "drain")
        within_s = read.number("within_s", 0, DRAIN_MAX_S, DRAIN_S)
        read.done()
        self._engine.nodes.drain(_node_name(command.get("node")), within_s)
        self._engine.wake()
        return {"note": NO_WAY_BACK}


def _result(number: object) -> dict[str, Any]:
    return {"id": number, "ok": False, "error": None}


def _unkept(fault: OSError) -> str:
    return f"cannot be kept: {fault.strerror or fault}"


def _is_power(command: object) -> bool:
    return isinstance(command, dict) and command.get("kind") == POWER_KIND


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise ConfigInvalid(["spec: allowed: an object"])


def _node_name(value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= NODE_CHARS and value.isprintable():
        return value
    raise ConfigInvalid([f"node: allowed: a name of at most {NODE_CHARS} characters"])


def _units(value: object) -> dict[str, int]:
    """A job's units by node; empty where Ray is to choose."""
    if not isinstance(value, dict) or len(value) > NODES_MAX:
        raise ConfigInvalid([f"nodes: allowed: an object of at most {NODES_MAX} nodes"])
    read = Reader(value, "nodes")
    units = {_node_name(name): int(read.number(name, 0, REPLICAS_MAX)) for name in value}
    read.done()
    return {name: count for name, count in units.items() if count > 0}
