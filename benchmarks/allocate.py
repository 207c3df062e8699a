"""How fast and how well the ladder is walked: replans, cuts, promises, memory, the gap to solvers.

The fleet is modelled (see `allocate_site`): by default 100,000 ASICs, each of its own make, with
five rungs, in 2,500 racks under halls, of which a third bind. The same instance goes to HiGHS as a
linear program, and to a plain numpy pass, in the same run and on one core as well. A replan is what
a change of all values costs: every rung ranked anew, all feeders filled, and repaired; the same
where two dozen models are in common, at random (`alike`) and one to a rack (`grouped`). Times are
wall clock on the machine at hand (measured). As the controller does, the bench keeps freed memory
(`controller.pages`).
"""

import statistics
import sys
import time
from typing import Any

from benchmarks import allocate_cut, allocate_exact, allocate_promises
from benchmarks.allocate_growth import exponent, growth, keep, replan_ms
from benchmarks.allocate_lp import lp
from benchmarks.allocate_memory import peak_mb
from benchmarks.allocate_plain import plain_ms
from benchmarks.allocate_site import (
    PER_AGENT,
    PER_RACK,
    SEED,
    VALUES,
    Instance,
    instance,
    instance_of,
    site,
    solved,
    value,
)

from wattshift_cluster.controller.pages import keep_pages

DEVICES = 100_000
CUT_SHARE = 0.25
REPEATS = 25


def run(devices: int = DEVICES) -> dict[str, Any]:
    """All figures of the benchmark `allocate`, by the keys that INTERFACES names."""
    keep_pages()
    tree, machines = site(devices)
    one = instance_of(tree, machines)
    found = solved(one)
    replan, ranking = replan_ms(one, REPEATS)
    _told(f"replan {replan:.1f} ms, of which ranking {ranking:.1f} ms")
    plain = plain_ms(one, REPEATS)
    _told(f"a plain pass {plain:.1f} ms")
    program = lp(one)
    racks = [name for name in found.binding if name.startswith("rack")]
    figures = {
        "devices": devices,
        "rungs": len(one.ladder),
        "binding_feeders_pct": round(100.0 * len(found.binding) / len(one.tree.names), 2),
        "binding_racks_pct": round(100.0 * len(racks) * PER_RACK / devices, 2),
        "replan_ms_p50": round(replan, 3),
        "ranking_ms_p50": round(ranking, 3),
        "plain_ms_p50": round(plain, 3),
        "replan_vs_plain": round(replan / plain, 3),
        "replan_alike_ms_p50": round(_replan_alike_ms(devices, by_rack=False), 3),
        "replan_grouped_ms_p50": round(_replan_alike_ms(devices, by_rack=True), 3),
        "root_cut_ms_p50": round(_root_cut_ms(one), 3),
        "gap_vs_lp_pct": round(100.0 * (1.0 - value(one, found) / program.value), 4),
        "lp_ms": round(program.solve_ms, 1),
        "lp_build_ms": round(program.build_ms, 1),
        "speedup_vs_lp": round(program.solve_ms / replan, 1),
    }
    del one, found
    _told("cuts of a running site")
    figures |= allocate_cut.figures(tree, machines, VALUES, PER_AGENT)
    _told("the same while machines are held up for promises")
    figures |= allocate_promises.figures(tree, machines, VALUES, PER_AGENT, figures["cut_ms_p50"])
    del tree, machines
    figures |= allocate_exact.gaps()
    _told("memory, and growth")
    figures["peak_mb"] = round(peak_mb(devices), 1)
    grown = growth(_told)
    keep(grown)
    return figures | {
        "growth": {str(count): ms for count, ms in grown.items()},
        "growth_exponent": exponent(grown),
        "quality": "measured times on a modelled fleet",
        "seed": SEED,
    }


def _replan_alike_ms(devices: int, by_rack: bool) -> float:
    """Median time of a replan where two dozen models are in common, at random or rack by rack."""
    return replan_ms(instance(devices, distinct=False, by_rack=by_rack), REPEATS)[0]


def _root_cut_ms(one: Instance) -> float:
    """Median time of an allocation that differs from the last in the root's room alone, ms."""
    found = solved(one)
    drawn_w = float((found.watts_w - one.ladder.base_w).sum())
    times_ms = []
    for i in range(REPEATS):
        room = one.at_room((1.0 - CUT_SHARE - 1e-4 * i) * drawn_w)
        begin_s = time.perf_counter()
        solved(room, found.filled)
        times_ms.append((time.perf_counter() - begin_s) * 1e3)
    return statistics.median(times_ms)


def _told(text: str) -> None:
    print(f"bench allocate: {text}", file=sys.stderr, flush=True)
