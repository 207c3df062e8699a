"""The Ray bridge: the process between the controller and Ray.

A controller that were a Ray driver would end with Ray; so Ray's driver is this process, and the
controller asks it over the wire:

    hello                     what there is; the same body as report
    apply {commands: […]}     accepted, or refused with the reason; at once
    report {after, wait_s}    nodes, services and jobs as of a moment ago; with `after`, once they
                              differ from the report of that version
    drain {node, within_s}    have Ray place nothing more there
    forget {node}             give a node that is gone no watts, for when it comes back
    log {job, lines}          the last words of a batch job

    python -m wattshift_cluster.workload.bridge --listen 127.0.0.1:7410 --name host \
        --token-file F --state-dir D --ray-address local [--power-w 300]

One bridge serves one Ray cluster of any number of nodes. With `local` it starts a Ray of its own on
loopback and ends it when it is told to end. If it is killed, that Ray stays for a minute and a new
bridge goes on with it.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.gate import GATE_DIR_VARIABLE
from wattshift_cluster.process import die_with_parent, stop_event
from wattshift_cluster.wire.server import serve
from wattshift_cluster.wire.token import read_token
from wattshift_cluster.workload.answers import Bridge
from wattshift_cluster.workload.cluster.local_ray import (
    LocalRay,
    LocalSettings,
    ray_token,
    take_lock,
)
from wattshift_cluster.workload.cluster.node_power import read_watts
from wattshift_cluster.workload.cluster.ray_link import (
    QUIET,
    local_environment,
    prepare_environment,
)
from wattshift_cluster.workload.cluster.ray_token import find_token
from wattshift_cluster.workload.cluster.unasked import Rates
from wattshift_cluster.workload.engine import Engine, EngineSettings
from wattshift_cluster.workload.fence import Fence
from wattshift_cluster.workload.specs import WATTS_MAX_W

log = structlog.get_logger()

LOCAL = "local"
LEAVE_S = 7.0
LEAVE_OWN_S = 1.5
"""For threads that ask a Ray which is ended next: what they do there comes to nothing."""


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
        rates=Rates(options.watts_per_core, options.watts_per_gpu),
        meter_here=not options.meter_by_actor,
    )
    engine = Engine(settings, local, on_lost, on_connected)
    fence = Fence(options.state_dir, engine.nodes.told_w, engine.services.target)
    host, port = options.listen
    try:
        server = await serve(
            host, port, name=options.name, token=token, handler=Bridge(engine, fence).handle
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
    await asyncio.wait({leaving}, timeout=LEAVE_S if local is None else LEAVE_OWN_S)
    if local is not None:
        await asyncio.to_thread(local.end)
    log.info("bridge.ended")
    if not leaving.done():
        os._exit(0)  # Ray's client library hangs; nothing here is left to be lost
    return 0


def _local(options: argparse.Namespace) -> LocalRay | None:
    if options.ray_address != LOCAL:
        token = find_token(os.environ, Path.home())
        if token.warning:
            log.warning("ray.token", reason=token.warning, mend=token.mend)
        prepare_environment(QUIET | dict(token.environment))
        return None
    environment = local_environment(ray_token(options.state_dir))
    prepare_environment(environment)
    power_w = read_watts(options.state_dir).get(options.name, options.power_w)
    settings = LocalSettings(
        options.state_dir, power_w, options.num_cpus, gcs_storage=options.gcs_storage
    )
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
    parser.add_argument(
        "--gcs-storage", type=Path, help="keep Ray's control store on disk, so that it may die"
    )
    parser.add_argument("--serve-host", default="127.0.0.1")
    parser.add_argument("--serve-port", type=int, default=8000)
    parser.add_argument("--gate-dir", type=Path, default=Path(gate_dir) if gate_dir else None)
    parser.add_argument(
        "--watts-per-core", type=watts, default=10.0, help="of work that asks for no power_w, W"
    )
    parser.add_argument(
        "--watts-per-gpu",
        type=watts,
        default=0.0,
        help="of a GPU that such work holds, W; 0 where an agent measures the GPUs",
    )
    parser.add_argument(
        "--meter-by-actor", action="store_true", help="also on this host: it hides its processes"
    )
    parser.add_argument("--stay", action="store_true", help="do not end with the parent process")
    return parser


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a Python with Ray in it needs seconds to take itself apart
