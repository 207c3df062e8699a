"""The emulator as a program: machines from a file or from flags, until SIGTERM.

    python -m wattshift_cluster.emulate.process --config emulator.json --truth 127.0.0.1:7600
    python -m wattshift_cluster.emulate.process --machine luxos@127.20.0.1 --truth 127.0.0.1:0

The file holds {"machines": [{"id", "kind": "luxos"|"whatsminer", "address", "seed",
"start": "sleep"|"full"}]}. When every port listens, one line goes to stdout:
{"ready": true, "truth": "host:port"}. Exit codes: 0 after SIGTERM or SIGINT (the parent's death
sends SIGTERM), 1 where a port is in use, 3 where the configuration is invalid.
"""

import argparse
import asyncio
import ipaddress
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.truth import TruthServer
from wattshift_cluster.process import die_with_parent, stop_event

MAX_MACHINES = 4096
CONFIG_LIMIT = 4 * 1024 * 1024


def _loopback(address: str) -> str:
    if ipaddress.ip_address(address) not in ipaddress.ip_network("127.0.0.0/8"):
        raise ValueError("an emulated machine lives on a 127.a.b.c address")
    return address


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"no such kind; there are {', '.join(KINDS)}")
    return kind


class MachineConfig(BaseModel):
    """One emulated machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=64)]
    kind: Annotated[str, AfterValidator(_known)]
    address: Annotated[str, AfterValidator(_loopback)]
    seed: int = 1
    start: Literal["sleep", "full"] = "sleep"


class EmulatorConfig(BaseModel):
    """All machines of one process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    machines: Annotated[list[MachineConfig], Field(min_length=1, max_length=MAX_MACHINES)]

    @classmethod
    def of(cls, machines: list[MachineConfig]) -> "EmulatorConfig":
        """Check that ids and addresses are unique. Raises ValueError."""
        config = cls(machines=machines)
        for field in ("id", "address"):
            values = [getattr(machine, field) for machine in config.machines]
            if twice := {value for value in values if values.count(value) > 1}:
                raise ValueError(f"{field} used twice: {', '.join(sorted(twice))}")
        return config


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        config = _config(arguments.config, arguments.machine)
        host, port = _endpoint(arguments.truth)
    except (OSError, ValueError) as error:
        # ValidationError is a ValueError; its text names each fault and its place.
        sys.stderr.write(f"emulate: invalid configuration: {error}\n")
        return 3
    die_with_parent()
    return asyncio.run(_run(config, host, port))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wattshift emulate asic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="JSON file with the machines")
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


def _config(file: Path | None, flags: list[str]) -> EmulatorConfig:
    machines: list[MachineConfig] = []
    if file is not None:
        if file.stat().st_size > CONFIG_LIMIT:
            raise ValueError(f"{file} is larger than {CONFIG_LIMIT} bytes")
        machines += EmulatorConfig.model_validate_json(file.read_bytes()).machines
    machines += [_from_flag(flag, number) for number, flag in enumerate(flags, 1)]
    return EmulatorConfig.of(machines)


def _from_flag(flag: str, number: int) -> MachineConfig:
    kind, _, rest = flag.partition("@")
    address, *more = rest.split(",")
    fields = {"id": f"asic-{number}", "kind": kind, "address": address, "seed": str(number)}
    fields |= dict(zip(("seed", "start"), more, strict=False))
    return MachineConfig.model_validate(fields)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--truth {text}: wanted host:port")
    return _loopback(host), int(port)


async def _run(config: EmulatorConfig, host: str, port: int) -> int:
    stopped = stop_event()
    miners = [
        EmulatedMiner(
            machine.id,
            machine.kind,
            machine.address,
            seed=machine.seed,
            clock=boot_s,
            full=machine.start == "full",
        )
        for machine in config.machines
    ]
    where = f"{host}:{port}"
    try:
        for miner in miners:
            where = miner.address
            await miner.start()
        where = f"{host}:{port}"
        server = await TruthServer(miners, boot_s).start(host, port)
    except OSError as error:
        sys.stderr.write(f"emulate: cannot listen on {where}: {error.strerror or error}\n")
        await asyncio.gather(*(miner.stop() for miner in miners))
        return 1
    bound = server.sockets[0].getsockname()
    sys.stdout.write(json.dumps({"ready": True, "truth": f"{bound[0]}:{bound[1]}"}) + "\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()
    await asyncio.gather(*(miner.stop() for miner in miners))
    return 0


if __name__ == "__main__":
    sys.exit(main())
