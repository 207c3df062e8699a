"""`wattshift emulate`: machines that are not there, for a dry run before real ones are touched."""

from pathlib import Path

import click

from wattshift_cluster.cli.output import talk
from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.errors import ConfigInvalid, Fault

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def emulate() -> None:
    """Emulate machines on loopback addresses.

    \b
      wattshift emulate asic --fleet 20
    """


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
