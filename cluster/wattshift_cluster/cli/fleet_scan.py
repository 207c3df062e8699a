"""`wattshift fleet scan`: find the miners of private address ranges; no controller is needed."""

import asyncio
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wattshift_cluster.cli.options import DURATION
from wattshift_cluster.cli.output import (
    UNKNOWN,
    emit,
    grid,
    hashrate,
    output_option,
    talk,
    watts,
)
from wattshift_cluster.config.quantities import format_seconds
from wattshift_cluster.errors import NotFound
from wattshift_cluster.fleet import fragment, inventory_file
from wattshift_cluster.fleet.inventory import Change, Inventory
from wattshift_cluster.fleet.ranges import covered, parse_ranges
from wattshift_cluster.fleet.scan import (
    CONCURRENCY,
    KNOCKED,
    SPARE_FILES,
    Counts,
    Limits,
    Scan,
    Sighting,
)

_FILE = click.Path(dir_okay=False, path_type=Path)
SHOWN = 20
"""Answers and changes of one sort that are told one by one."""


@click.command(short_help="Find the miners in private address ranges.")
@click.argument("ranges", metavar="CIDR...", nargs=-1, required=True)
@click.option("--write", type=_FILE, help="Add an [[asics]] section for each to this agent.toml.")
@click.option("--inventory", type=_FILE, help="Take them into this file and say what changed.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=CONCURRENCY,
    show_default=True,
    help="Addresses knocked at, at once.",
)
@click.option("--within", type=DURATION, default="10m", show_default=True, help="End by then.")
@output_option
def scan(
    ranges: tuple[str, ...],
    write: Path | None,
    inventory: Path | None,
    concurrency: int,
    within: float,
    output: str,
) -> None:
    """Find the miners in private address ranges, and say what can be done with each.

    \b
      wattshift fleet scan 192.168.10.0/24
      wattshift fleet scan 10.1.0.0/22 --write agent.toml --inventory fleet.json

    No password is tried and nothing is written to a machine. A section of --write has the nameplate
    of a model that our table rates, so that it counts before it first answers its agent. Ranges are
    private or loopback, at most a /16 at once: anything else ends with exit 3. Exit 4 if no miner
    was found.
    """
    try:
        networks = parse_ranges(ranges)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong), param_hint="CIDR") from wrong
    known = inventory_file.load(inventory) if inventory else None
    limits = Limits(concurrency=concurrency, sweep_s=within)
    _open_more_files(len(KNOCKED) * concurrency + SPARE_FILES)
    sweep = Scan(networks, limits)
    seen = asyncio.run(_followed(sweep))
    found = [one for one in seen if one.kind is not None]
    changes: list[Change] = []
    if inventory and known is not None:
        # Where the time was over, nobody is called missing.
        looked = () if sweep.counts.skipped else networks
        changes = known.merge(seen, time.time(), covered=lambda address: covered(looked, address))
        inventory_file.save(known, inventory)
    emit(_answer(seen, changes, sweep.counts), output, _table)
    _tell(sweep.counts, within, changes, known)
    if write and found:
        _write(write, found)
    if not found:
        raise NotFound(f"no miner found at {sweep.counts.total - sweep.counts.skipped} addresses")


async def _followed(sweep: Scan) -> list[Sighting]:
    """Run the sweep under a progress bar; the sightings in the order of their addresses."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("scanning", total=sweep.counts.total)

        def show(counts: Counts) -> None:
            told = f"{counts.found} miner{'' if counts.found == 1 else 's'} found"
            bar.update(task, completed=counts.knocked + counts.skipped, description=told)

        sweep.watch(show)
        seen = [sighting async for sighting in sweep.sightings()]
    return sorted(seen, key=lambda one: tuple(int(part) for part in one.address.split(".")))


def _answer(seen: list[Sighting], changes: list[Change], counts: Counts) -> dict[str, Any]:
    return {
        "machines": [asdict(one) for one in seen if one.kind is not None],
        "others": [{"address": one.address, "reason": one.control} for one in seen if not one.kind],
        "changes": [asdict(change) for change in changes],
        "addresses": asdict(counts),
    }


def _open_more_files(wanted: int) -> None:
    """Let this process open as many files as the sweep can use, as far as its limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _table(answer: dict[str, Any]) -> str:
    rows = [
        (
            one["address"],
            one["kind"],
            one["model"] or UNKNOWN,
            one["firmware"] or UNKNOWN,
            one["mac"] or UNKNOWN,
            watts(one["watts_w"]),
            hashrate(one["hashrate_h_per_s"]),
            one["control"],
        )
        for one in answer["machines"]
    ]
    headers = ("ADDRESS", "KIND", "MODEL", "FIRMWARE", "MAC", "WATTS", "HASHRATE", "CONTROL")
    machines = grid(headers, rows, ("WATTS", "HASHRATE")) if rows else "no miners"
    others = [f"  {one['address']}: {one['reason']}" for one in answer["others"][:SHOWN]]
    if not others:
        return machines
    more = len(answer["others"]) - len(others)
    lines = [*others, *([f"  and {more} more"] if more > 0 else [])]
    return "\n".join([machines, "", "answer, but are no miner that we know:", *lines])


def _tell(counts: Counts, within_s: float, changes: list[Change], known: Inventory | None) -> None:
    if counts.skipped:
        ended = f"the time ({format_seconds(within_s)}) was over"
        talk(f"{counts.skipped} of {counts.total} addresses were not looked at: {ended}")
    for event in dict.fromkeys(change.event for change in changes):
        same = [change for change in changes if change.event == event]
        for change in same[:SHOWN]:
            before = f" (before: {change.before})" if change.before else ""
            talk(f"{event}: {change.identity} at {change.address}{before}")
        if len(same) > SHOWN:
            talk(f"{event}: and {len(same) - SHOWN} more")
    if known is not None:
        talk(f"{len(known.machines)} machines in the inventory")


def _write(file: Path, found: list[Sighting]) -> None:
    written = fragment.append(file, found)
    talk(f"{file}: {len(written.ids)} added, {len(written.passed)} passed over")
    for address, reason in written.passed[:SHOWN]:
        talk(f"  {address}: {reason}")
