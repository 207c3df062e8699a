"""The Ray bridge: the process between the controller and Ray.

A controller that were a Ray driver would end with Ray; so Ray's driver is this process, and the
controller asks it over the wire:

    hello                     what there is; the same body as report
    apply {commands: […]}     accepted, or refused with the reason; at once
    report                    node, services and jobs as of a moment ago

    python -m wattshift_cluster.workload.bridge --listen 127.0.0.1:7410 --name host \
        --token-file F --state-dir D --ray-address local [--power-w 300]

With `local` it starts a Ray of its own on loopback and ends it when it is told to end. If it is
killed, that Ray stays for a minute and a new bridge goes on with it.
"""

import argparse
import asyncio
import os
import queue
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.errors import ConfigInvalid, NotFound, TryLater, WattshiftError
from wattshift_cluster.gate import GATE_DIR_VARIABLE
from wattshift_cluster.process import die_with_parent, stop_event
from wattshift_cluster.wire.server import serve
from wattshift_cluster.wire.token import read_token
from wattshift_cluster.workload.engine import Engine, EngineSettings
from wattshift_cluster.workload.local_ray import (
    LocalRay,
    LocalSettings,
    ray_token,
    remembered_watts,
    take_lock,
)
from wattshift_cluster.workload.ray_link import QUIET, local_environment, prepare_environment
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
LOCAL = "local"
LEAVE_S = 7.0

Command = Mapping[str, Any]


class Bridge:
    """Answers the controller."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kinds: Mapping[str, Callable[[Command], dict[str, Any]]] = {
            "set_node_power": self._set_node_power,
            "set_replicas": self._set_replicas,
            "start_job": self._start_job,
            "pause_job": self._pause_job,
            "cancel_job": self._cancel_job,
        }

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        """One request of the wire."""
        if op in ("hello", "report"):
            return self._engine.report()
        if op == "apply":
            return await self._apply(fields.get("commands"))
        raise NotFound(f"no op {op!r}; there are hello, apply and report")

    async def _apply(self, commands: object) -> dict[str, Any]:
        if not isinstance(commands, list) or len(commands) > COMMANDS_MAX:
            raise ConfigInvalid([f"commands: allowed: a list of at most {COMMANDS_MAX}"])
        # In order, and watts beside the rest, because a resize waits for Ray up to 0.7 s.
        power = [command for command in commands if _is_power(command)]
        rest = [command for command in commands if not _is_power(command)]
        lanes = [self._overtaken(command) for command in power[:-1]]
        last, done = await asyncio.gather(
            asyncio.to_thread(self._all, power[-1:]), asyncio.to_thread(self._all, rest)
        )
        left, right = iter([*lanes, *last]), iter(done)
        return {"results": [next(left if _is_power(row) else right) for row in commands]}

    def _overtaken(self, command: Command) -> dict[str, Any]:
        return {"id": command.get("id"), "ok": False, "error": "overtaken by a later command"}

    def _all(self, commands: list[object]) -> list[dict[str, Any]]:
        return [self._one(command) for command in commands]

    def _one(self, command: object) -> dict[str, Any]:
        number = command.get("id") if isinstance(command, dict) else None
        result: dict[str, Any] = {"id": number, "ok": False, "error": None}
        try:
            if not isinstance(command, dict) or command.get("kind") not in self._kinds:
                raise ConfigInvalid([f"kind: allowed: {', '.join(self._kinds)}"])
            result |= self._kinds[command["kind"]](command)
            result["ok"] = True
        except queue.Full:
            result["error"] = str(TryLater("too many commands are waiting"))
        except WattshiftError as fault:
            result["error"] = str(fault)
        except OSError as fault:
            log.exception("bridge.command", id=number)
            result["error"] = f"cannot be kept: {fault.strerror or fault}"
        return result

    def _set_node_power(self, command: Command) -> dict[str, Any]:
        read = Reader(command, "set_node_power")
        watts_w = read.number("watts_w", 0, WATTS_MAX_W)
        read.done()
        return {"watts_w": self._engine.set_power(watts_w)}

    def _set_replicas(self, command: Command) -> dict[str, Any]:
        name = checked_name(command.get("service"))
        read = Reader(command, name)
        replicas = int(read.number("replicas", 0, REPLICAS_MAX))
        read.done()
        spec = service_spec(name, _mapping(command.get("spec")))
        self._engine.services.set_target(name, spec, replicas)
        self._engine.wake()
        return {}

    def _start_job(self, command: Command) -> dict[str, Any]:
        job = checked_name(command.get("job"))
        self._engine.batch.start(job, batch_spec(job, _mapping(command.get("spec"))))
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


def _is_power(command: object) -> bool:
    return isinstance(command, dict) and command.get("kind") == "set_node_power"


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise ConfigInvalid(["spec: allowed: an object"])


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process; returns its exit code."""
    options = _parser().parse_args(arguments)
    if not options.stay:
        die_with_parent(parent_pid=os.getppid())
    try:
        token = read_token(options.token_file)
        options.state_dir.mkdir(parents=True, exist_ok=True)
        lock = take_lock(options.state_dir)
        return asyncio.run(_serve(options, token))
    except WattshiftError as fault:
        log.error("bridge.failed", reason=str(fault))
        return fault.exit_code
    finally:
        if "lock" in locals():
            os.close(lock)


async def _serve(options: argparse.Namespace, token: bytes) -> int:
    stop = stop_event()
    loop = asyncio.get_running_loop()
    lost: list[str] = []

    def on_lost(reason: str) -> None:
        lost.append(reason)
        loop.call_soon_threadsafe(stop.set)

    def on_connected() -> None:
        # Ray's client library puts a handler of its own, that may end the process, over ours.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.call_soon_threadsafe(loop.add_signal_handler, number, stop.set)

    local = _local(options)
    settings = EngineSettings(
        name=options.name,
        state_dir=options.state_dir,
        http_host=options.serve_host,
        http_port=options.serve_port,
        gate_dir=str(options.gate_dir) if options.gate_dir else None,
        ray_address=None if local else options.ray_address,
    )
    engine = Engine(settings, local, on_lost, on_connected)
    host, port = options.listen
    try:
        server = await serve(
            host, port, name=options.name, token=token, handler=Bridge(engine).handle
        )
    except OSError as fault:
        log.error("bridge.listen", address=f"{host}:{port}", reason=fault.strerror)
        return 5
    engine.start()
    log.info("bridge.listening", port=server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()
    if lost:
        log.error("bridge.ray_lost", reason=lost[0])
        if local is not None:
            await asyncio.to_thread(local.end)
        # Ray's client library ends a process that lost its cluster; a new image starts clean.
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]])
    leaving = asyncio.create_task(asyncio.to_thread(engine.stop))
    await asyncio.wait({leaving}, timeout=LEAVE_S)
    if local is not None:
        await asyncio.to_thread(local.end)
    log.info("bridge.ended")
    if not leaving.done():
        os._exit(0)  # Ray's client library hangs; nothing here is left to be lost
    return 0


def _local(options: argparse.Namespace) -> LocalRay | None:
    if options.ray_address != LOCAL:
        prepare_environment(QUIET)
        return None
    environment = local_environment(ray_token(options.state_dir))
    prepare_environment(environment)
    last_w = remembered_watts(options.state_dir)
    power_w = options.power_w if last_w is None else last_w
    settings = LocalSettings(options.state_dir, power_w, options.num_cpus)
    return LocalRay(settings, environment)


def _parser() -> argparse.ArgumentParser:
    def address(text: str) -> tuple[str, int]:
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise argparse.ArgumentTypeError("allowed: host:port")
        return host, int(port)

    def watts(text: str) -> float:
        value = float(text)
        if not 0 <= value <= WATTS_MAX_W:
            raise argparse.ArgumentTypeError(f"allowed: 0 to {WATTS_MAX_W:g}")
        return value

    gate_dir = os.environ.get(GATE_DIR_VARIABLE)
    parser = argparse.ArgumentParser(prog="wattshift_cluster.workload.bridge")
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 7410))
    parser.add_argument("--name", default="host")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--state-dir", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--ray-address", default=LOCAL, help="local, or host:port")
    parser.add_argument(
        "--power-w", type=watts, default=300.0, help="until anybody asks for others, W (local)"
    )
    parser.add_argument("--num-cpus", type=int, default=os.cpu_count() or 1, help="(local)")
    parser.add_argument("--serve-host", default="127.0.0.1")
    parser.add_argument("--serve-port", type=int, default=8000)
    parser.add_argument("--gate-dir", type=Path, default=Path(gate_dir) if gate_dir else None)
    parser.add_argument("--stay", action="store_true", help="do not end with the parent process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
