"""The emulator as a program: machines from a file or from flags, until SIGTERM.

    python -m wattshift_cluster.emulate.process --config emulator.json --truth 127.0.0.1:7600
    python -m wattshift_cluster.emulate.process --machine luxos@127.20.0.1 --truth 127.0.0.1:0

The file holds {"machines": [{"id", "kind", "address", "seed", "start": "sleep"|"full", "feeder",
"password", "ambient_c", "realism": "quick"|"real"}]}; all but the first three may be left out, and
"-" reads it from standard input. When every port listens, one line goes to stdout:
{"ready": true, "truth": "host:port", "machines": N}. Exit codes: 0 after SIGTERM or SIGINT (the
parent's death sends SIGTERM), 1 where a port is in use or forbidden, or files run out, 3 where the
configuration is invalid.
"""

import argparse
import asyncio
import errno
import gc
import json
import resource
import sys
from pathlib import Path

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.fleet_file import (
    CONFIG_LIMIT,
    EmulatorConfig,
    MachineConfig,
    from_file,
    from_flag,
    from_text,
    loopback,
)
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.truth import TruthServer
from wattshift_cluster.process import die_with_parent, stop_event

MAX_MACHINES = 4096
"""Of one process; more are a matter of `shards`."""

SPARE_FILES = 512
"""Open files beside the listening ports: connections of a moment, the truth, libraries."""


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        config = _config(arguments.config, arguments.machine)
        host, port = endpoint(arguments.truth)
        if len(config.machines) > MAX_MACHINES:
            raise ValueError(f"at most {MAX_MACHINES} machines in one process; see --shards")
    except (OSError, ValueError) as error:
        # ValidationError is a ValueError; its text names each fault and its place.
        sys.stderr.write(f"emulate: invalid configuration: {error}\n")
        return 3
    return serve(config, host, port)


def serve(config: EmulatorConfig, host: str, port: int) -> int:
    """Run these machines in this process until told to stop; returns the exit code."""
    die_with_parent()
    return asyncio.run(_run(config, host, port))


def endpoint(text: str) -> tuple[str, int]:
    """Host and port of the truth. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--truth {text}: wanted host:port")
    return loopback(host), int(port)


def refusal(error: OSError, where: str) -> str:
    """Why a port cannot be had, with what mends it."""
    said = f"emulate: cannot listen on {where}: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM):
        said += (
            ". Ports below 1024 need root, or once:"
            " sudo sysctl net.ipv4.ip_unprivileged_port_start=80"
        )
    if error.errno == errno.EADDRINUSE:
        said += ". Another emulator or service has it: `ss -ltnp` names it"
    return said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wattshift_cluster.emulate.process",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="JSON file with the machines; - for standard input")
    parser.add_argument(
        "--machine",
        action="append",
        default=[],
        metavar="KIND@ADDRESS[,SEED[,sleep|full]]",
        help="one machine; may be given more than once",
    )
    parser.add_argument(
        "--truth", default="127.0.0.1:7600", help="host:port of the truth over HTTP"
    )
    return parser


def _config(file: str | None, flags: list[str]) -> EmulatorConfig:
    machines: list[MachineConfig] = []
    if file == "-":
        machines += from_text(sys.stdin.buffer.read(CONFIG_LIMIT + 1))
    elif file is not None:
        machines += from_file(Path(file))
    machines += [from_flag(flag, number) for number, flag in enumerate(flags, 1)]
    return EmulatorConfig.of(machines)


def _miner(machine: MachineConfig) -> EmulatedMiner:
    return EmulatedMiner(
        machine.id,
        machine.kind,
        machine.address,
        seed=machine.seed,
        clock=boot_s,
        full=machine.start == "full",
        password=machine.password.get_secret_value() if machine.password else None,
        feeder=machine.feeder,
        realism=machine.realism,
        ambient_c=machine.ambient_c,
    )


def _too_few_files(miners: list[EmulatedMiner]) -> str | None:
    """Raise the limit of open files as far as it goes; what is wrong if that is not enough."""
    needed = sum(len(miner.ports) for miner in miners) + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        return (
            f"emulate: {len(miners)} machines need {needed} open files, the hard limit is {hard}."
            " Give more --shards (each is a process with a limit of its own), or as root:"
            f" ulimit -Hn {needed}"
        )
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None


async def _run(config: EmulatorConfig, host: str, port: int) -> int:
    stopped = stop_event()
    miners = [_miner(machine) for machine in config.machines]
    if problem := _too_few_files(miners):
        sys.stderr.write(problem + "\n")
        return 1
    where = f"{host}:{port}"
    try:
        for miner in miners:
            where = f"{miner.address} ({miner.kind}, ports {', '.join(map(str, miner.ports))})"
            await miner.start()
        where = f"{host}:{port}"
        server = await TruthServer(miners, boot_s).start(host, port)
    except OSError as error:
        sys.stderr.write(refusal(error, where) + "\n")
        await asyncio.gather(*(miner.stop() for miner in miners))
        return 1
    # The machines stay as long as the process: looking through them again and again frees nothing.
    gc.freeze()
    bound = server.sockets[0].getsockname()
    ready = {"ready": True, "truth": f"{bound[0]}:{bound[1]}", "machines": len(miners)}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()
    await asyncio.gather(*(miner.stop() for miner in miners))
    return 0


if __name__ == "__main__":
    sys.exit(main())
