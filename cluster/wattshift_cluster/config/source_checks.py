"""What no single value can tell of the sources of signals: their names, and what each one needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wattshift_cluster.config.draft import Draft, Finding, duplicates
from wattshift_cluster.config.market import Market
from wattshift_cluster.config.meters import Meter
from wattshift_cluster.config.openadr import OpenAdr, OpenAdr2
from wattshift_cluster.config.utility import DRILLS_MOST, Drill, Solar, Utility

RESERVED = ("operator", "schedule", "price", "connection", "event")
"""Names of sources that need no section of their own."""


def names_once(draft: Draft) -> Iterator[Finding]:
    """Whoever replaces what a source said must be that source."""
    taken = dict.fromkeys(RESERVED, "of the controller")
    if any(one.modbus is not None for _, one in draft.all(Utility)):
        taken["utility"] = "of [utility]"
    if draft.all(Solar):
        taken["solar"] = "of [solar]"
    if draft.all(Drill):
        taken["drills"] = "of [[drills]]"
    for path, name, section in _named(draft):
        other = taken.get(name)
        if other is not None and other != section:
            yield f"{path}.name", name, f"a source {other} has that name"
        taken.setdefault(name, section)


def _named(draft: Draft) -> Iterator[tuple[str, str, str]]:
    """Path, name and section of every source whose name stands in the file."""
    for path, vtn in draft.all(OpenAdr):
        yield path, vtn.name, "of [[openadr]]"
    for path, old in draft.all(OpenAdr2):
        yield path, old.name, "of [[openadr2]]"
    for path, market in draft.all(Market):
        for key in ("prices", "carbon", "peaks", "demand"):
            for at, one in enumerate(getattr(market, key)):
                yield f"{path}.{key}[{at}]", one.name, "of [market]"


def sun_on_the_meter(draft: Draft) -> Iterator[Finding]:
    """Surplus is what the meter at the connection shows below zero."""
    meters = draft.all(Meter)
    for path, _ in draft.all(Solar):
        if "meter" not in draft.raw:
            yield path, None, "needs the meter at the grid connection; allowed: with [meter]"
        elif any(not meter.exports for _, meter in meters):
            told = "[solar] lives on what flows out; allowed: true"
            yield "meter.exports", False, told


def demand_is_metered(draft: Draft) -> Iterator[Finding]:
    """A demand charge is counted by the site meter."""
    for path, market in draft.all(Market):
        if market.demand and "meter" not in draft.raw:
            yield f"{path}.demand", None, "is counted by the site meter; allowed: with [meter]"


def few_drills(draft: Draft) -> Iterator[Finding]:
    """Drills are told apart by name, and there are not too many."""
    names = draft.names("drills")
    yield from duplicates(names, "drills", "name")
    if len(names) > DRILLS_MOST:
        yield "drills", len(names), f"too many; allowed: at most {DRILLS_MOST}"


CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    names_once,
    sun_on_the_meter,
    demand_is_metered,
    few_drills,
)
