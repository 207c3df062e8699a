"""What a decision costs at a running site while thousands of machines are held up for promises.

The site is that of the cuts (`allocate_cut`). Several programs of the grid, each of its own notice
and beginning at its own time, are promised a fifth of its mining in all; then energy becomes so
dear that of most machines only the promises keep any running. Once all are where they should be,
each decision is measured from that same state: one without news, one at another price, and one
under a cap of a quarter less, to complete GrantLeases; then seconds in which every device is read.
Times are wall clock on the machine at hand (measured), the site is modelled.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.allocate_cut import LIVE_S, REPEATS, World, cut, running, timed_ms

from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.site import Device, FeederTree
from wattshift_scheduler.values import Values

PROGRAMS = (3, 4)
NOTICES_S = (10.0, 60.0, 600.0, 1800.0)
"""The notice of each program; of three it is the first three."""

PROMISED_SHARE = 0.20
"""Of what mines at the usual price, in all."""

STARTS_S = 1500.0
"""From the promise to the start of the first program; the next ones begin a minute apart."""

BETWEEN_S = 60.0
LASTS_S = 3600.0

DEAR_USD_PER_MWH = 100.0
"""Above that the best machines alone earn anything."""

STEP_USD_PER_MWH = 0.25
"""Between the prices of which each is another one."""

SETTLING_S = 25
"""Seconds until what is not held rests: machines turn within five, readings need some more."""


def figures(
    tree: FeederTree, devices: Sequence[Device], values: Values, per_agent: int, free_cut_ms: float
) -> dict[str, Any]:
    """All figures of decisions with promises, by the number of programs.

    Args:
        tree, devices, values, per_agent: the site, as for cuts.
        free_cut_ms: what a cut costs there while nothing is held, measured in the same run.
    """
    world, found = running(tree, devices, values, per_agent), {}
    for count in PROGRAMS:
        told = _measured(promised(world, count))
        found[str(count)] = told | {"cut_vs_free": round(told["cut_ms_p50"] / free_cut_ms, 3)}
    return {"promises": found}


def promised(plain: World, programs: int) -> World:
    """The same site, as it is held for so many programs and at rest else; `plain` stays."""
    world = World(plain.state, plain.now_s, plain.agents, plain.ids, list(plain.events))
    each_w = PROMISED_SHARE * float(world.state.ledger.lease_w.sum()) / programs
    begins_s = world.now_s + STARTS_S
    events = tuple(
        GridEvent(
            id=f"program{i}",
            source="vtn",
            program="dr",
            notified_s=begins_s + BETWEEN_S * i - notice_s,
            starts_s=begins_s + BETWEEN_S * i,
            ends_s=begins_s + BETWEEN_S * i + LASTS_S,
            commitment_w=each_w,
        )
        for i, notice_s in enumerate(NOTICES_S[:programs])
    )
    world.events.append(ev.SignalChanged("vtn", events=events))
    world.live()
    world.events.append(_price(DEAR_USD_PER_MWH))
    for _ in range(SETTLING_S):
        world.live()
    return world


def _measured(world: World) -> dict[str, Any]:
    state, now_s, held = world.state, world.now_s, world.state.held
    assert len(held.rows), "nothing is held"
    ticks = [timed_ms(state, [ev.Tick()], now_s + 0.5)[0] for _ in range(REPEATS)]
    prices = [
        timed_ms(state, [_price(DEAR_USD_PER_MWH + STEP_USD_PER_MWH * (i + 1))], now_s + 0.5)[0]
        for i in range(REPEATS)
    ]
    cuts = [cut(state, now_s, part) for part in range(REPEATS)]
    seconds = [world.live() for _ in range(LIVE_S)]
    return {
        "held": len(held.rows),
        "held_w": round(held.held_w),
        "tick_ms_p50": round(statistics.median(ticks), 3),
        "price_ms_p50": round(statistics.median(prices), 3),
        "cut_ms_p50": round(statistics.median(ms for ms, _ in cuts), 3),
        "cut_leases": statistics.median_low([moved for _, moved in cuts]),
        "second_ms_p50": round(statistics.median(seconds), 1),
    }


def _price(usd_per_mwh: float) -> ev.SignalChanged:
    return ev.SignalChanged("price", (), usd_per_mwh, True)
