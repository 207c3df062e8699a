"""`wattshift emulate`: machines that are not there, for a dry run before real ones are touched."""

import asyncio
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wattshift_cluster.cli.emulate_vtn import vtn
from wattshift_cluster.cli.options import DURATION
from wattshift_cluster.cli.output import talk
from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.errors import ConfigInvalid, Fault, Unreachable

if TYPE_CHECKING:
    from wattshift_cluster.emulate.outlets.racks import Rack

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def emulate() -> None:
    """Emulate machines on loopback addresses.

    \b
      wattshift emulate asic --fleet 20
      wattshift emulate pdu --protocols snmp,modbus
      wattshift emulate vtn
    """


emulate.add_command(vtn)


@emulate.command()
@click.option("--config", "file", type=FILE, metavar="FILE", help="JSON file with the machines.")
@click.option("--fleet", "count", type=click.IntRange(1, 65_536), metavar="N", help="N machines.")
@click.option(
    "--mix",
    default="luxos:50,whatsminer:30,whatsminer_v2:20",
    show_default=True,
    metavar="KIND:SHARE,…",
    help=f"Kinds of the fleet and their shares. There are {', '.join(KINDS)}.",
)
@click.option("--net", default="127.30.0.0/16", show_default=True, help="Their addresses.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is random.")
@click.option("--feeders", type=click.IntRange(0, 1000), default=0, help="Deal them to feeders.")
@click.option("--start", type=click.Choice(["full", "sleep"]), default="full", show_default=True)
@click.option(
    "--realism",
    type=click.Choice(["quick", "real"]),
    default="quick",
    show_default=True,
    help="Move within 10 s, or as the real kind does: minutes.",
)
@click.option(
    "--machine",
    "flags",
    multiple=True,
    metavar="KIND@ADDRESS[,SEED[,sleep|full]]",
    help="One machine; may be given more than once.",
)
@click.option("--truth", default="127.0.0.1:7600", show_default=True, help="True watts over HTTP.")
@click.option("--shards", type=click.IntRange(1, 64), default=1, help="Processes to run in.")
@click.option("--write", type=FILE, metavar="FILE", help="Write [[asics]] for an agent.toml.")
def asic(
    file: Path | None,
    count: int | None,
    mix: str,
    net: str,
    seed: int,
    feeders: int,
    start: str,
    realism: str,
    flags: tuple[str, ...],
    truth: str,
    shards: int,
    write: Path | None,
) -> None:
    """Emulate ASIC miners: real protocols on real ports, each on a loopback address of its own.

    \b
      wattshift emulate asic --fleet 20 --write asics.toml
      wattshift emulate asic --fleet 5000 --mix luxos:60,whatsminer:40 --shards 2
      wattshift emulate asic --machine luxos@127.30.0.1 --machine whatsminer@127.30.0.2,7,full
      curl http://127.0.0.1:7600/v1/totals
      curl -d '{"share": 0.05, "fault": "mute"}' http://127.0.0.1:7600/v1/faults

    Runs until Ctrl-C. When every port listens, one JSON line on stdout says where the truth is:
    what the machines really draw, and switches for faults, outlets and warm air. An agent whose
    file holds what --write wrote drives them as it would real ones. Exit 1 where a port is in use
    or forbidden or open files do not suffice, 3 where the fleet is invalid.
    """
    from wattshift_cluster.emulate.fleet_file import (
        EmulatorConfig,
        agent_fragment,
        fleet,
        from_file,
        from_flag,
        mix_of,
    )
    from wattshift_cluster.emulate.process import MAX_MACHINES, endpoint, serve
    from wattshift_cluster.emulate.shards import serve_shards

    if file is None and count is None and not flags:
        raise click.UsageError("Nothing to emulate: give --fleet, --machine or --config.")
    try:
        machines = from_file(file) if file is not None else []
        if count is not None:
            machines += fleet(
                count,
                mix_of(mix),
                net,
                seed=seed,
                start="full" if start == "full" else "sleep",
                feeders=feeders,
                realism="real" if realism == "real" else "quick",
            )
        machines += [from_flag(flag, number) for number, flag in enumerate(flags, 1)]
        config = EmulatorConfig.of(machines)
        host, port = endpoint(truth)
        if write is not None:
            write.write_text(agent_fragment(config.machines))
            talk(f"{len(config.machines)} machines written to {write}")
    except (OSError, ValueError) as wrong:
        raise ConfigInvalid([Fault("command line", "", None, str(wrong))]) from wrong
    shards = max(shards, -(-len(config.machines) // MAX_MACHINES))
    talk(f"{len(config.machines)} machines in {shards} process(es); Ctrl-C ends them")
    code = serve(config, host, port) if shards == 1 else serve_shards(config, host, port, shards)
    click.get_current_context().exit(code)


@emulate.command()
@click.option(
    "--truth",
    "truths",
    multiple=True,
    default=("127.0.0.1:7600",),
    show_default=True,
    metavar="HOST:PORT",
    help="Where the machines' program tells the truth; once for each of its shards.",
)
@click.option(
    "--machines", default="*", show_default=True, metavar="PATTERN", help="Which of them."
)
@click.option(
    "--protocols",
    default="snmp",
    show_default=True,
    metavar="NAME,…",
    help="snmp, modbus, redfish; with several, PDUs take turns.",
)
@click.option("--family", default="apc-rpdu2", show_default=True, help="Whose SNMP objects.")
@click.option("--outlets", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--net", default="127.31.0.0/16", show_default=True, help="Their addresses.")
@click.option("--watchdog", type=DURATION, help="Modbus contactors open when not fed so long.")
@click.option("--cut", is_flag=True, help="Allow the agent to cut machines that do not sleep.")
@click.option(
    "--secrets",
    type=click.Path(file_okay=False, path_type=Path),
    default="emulated-pdus",
    show_default=True,
    help="Folder for communities and passwords.",
)
@click.option("--control", default="127.0.0.1:7650", show_default=True, help="Faults over HTTP.")
@click.option("--write", type=FILE, metavar="FILE", help="Write [[pdus]] there, not to stdout.")
def pdu(
    truths: tuple[str, ...],
    machines: str,
    protocols: str,
    family: str,
    outlets: int,
    net: str,
    watchdog: float | None,
    cut: bool,
    secrets: Path,
    control: str,
    write: Path | None,
) -> None:
    """Emulate PDUs whose outlets feed machines of `emulate asic`: off is off, with all it means.

    \b
      wattshift emulate asic --fleet 20 --write asics.toml
      wattshift emulate pdu --protocols snmp,modbus,redfish --cut --write pdus.toml
      curl http://127.0.0.1:7650/v1/pdus
      curl -d '{"pdu": "pdu-1", "fault": "lie"}' http://127.0.0.1:7650/v1/faults

    Runs until Ctrl-C. When every port listens, one JSON line on stdout says where; the [[pdus]] of
    an agent.toml follow it, or stand in the file of --write. Exit 1 where a port is in use, 3 where
    something is invalid, 5 where no machines' program answers.
    """
    from wattshift_cluster.emulate.outlets.racks import agent_fragment, keep_secrets
    from wattshift_cluster.emulate.process import endpoint

    try:
        from wattshift_cluster.emulate.pdu_process import serve

        at = endpoint(control)
        racks = _racks(truths, machines, protocols, family=family, outlets=outlets, net=net)
        folder = secrets.absolute()
        keep_secrets(racks, folder)
        text = agent_fragment(racks, folder, cut=cut, watchdog_s=watchdog)
        if write is not None:
            write.write_text(text)
            talk(f"{len(racks)} PDUs written to {write}")
    except ModuleNotFoundError as missing:
        raise _wrong(f"needs the extra 'asic' ({missing.name} is not installed)") from missing
    except (OSError, ValueError) as wrong:
        raise _wrong(str(wrong)) from wrong
    talk(f"{len(racks)} PDUs; Ctrl-C ends them")
    code = serve(racks, at, watchdog, None if write is not None else text)
    click.get_current_context().exit(code)


def _racks(
    truths: tuple[str, ...],
    pattern: str,
    protocols: str,
    *,
    family: str,
    outlets: int,
    net: str,
) -> "list[Rack]":
    """The PDUs of a command line. Raises ValueError, or Unreachable where no machines answer."""
    from wattshift_cluster.emulate.outlets.families import FAMILIES
    from wattshift_cluster.emulate.outlets.plugs import loads
    from wattshift_cluster.emulate.outlets.racks import PROTOCOLS, racks
    from wattshift_cluster.emulate.process import endpoint

    wanted = [name.strip() for name in protocols.split(",")]
    chosen = [known for name in wanted for known in PROTOCOLS if known == name]
    if len(chosen) != len(wanted):
        raise ValueError(f"--protocols {protocols}: there are {', '.join(PROTOCOLS)}")
    if family not in FAMILIES:
        raise ValueError(f"--family {family}: there are {', '.join(FAMILIES)}")
    places = [endpoint(truth) for truth in truths]
    try:
        found = asyncio.run(loads(places))
    except (OSError, TimeoutError) as fault:
        why = str(fault) or "no answer in time"
        raise Unreachable(f"no emulated machines at {', '.join(truths)}: {why}") from None
    machines = [load for load in found if fnmatchcase(load.id, pattern)]
    if not machines:
        raise ValueError(f"--machines {pattern}: fits none of {len(found)}")
    return racks(machines, chosen, outlets=outlets, net=net, family=family)


def _wrong(text: str) -> ConfigInvalid:
    return ConfigInvalid([Fault("command line", "", None, text)])
