"""What the plan earns on a 20 MW site, against four baselines and against the best possible.

Flexible money alone: mining, batch work, demand response, peak charges, the energy of what may
move, and cycles. Services earn nothing here and cost nobody more or less.

    days         12 seeded days of ERCOT's 15-minute market, none of them from its first tenth, on
                 which the baselines were tuned; the clairvoyant in whole banks (MILP)
    peaks        a summer month of 2022 with the grid's load and its coincident peak, by the hour at
                 day-ahead prices, the clairvoyant as a bound (LP); tuned on April and May
    whole_trace  the cheap baselines and the bound (LP) over the whole trace; with
            WATTSHIFT_BENCH_LONG=1 everybody, and all four months of summer

    policies              USD of days and peaks together, by policy
    regret_share          (ours - best baseline) / (clairvoyant - best baseline) of both together
    ratio_vs_clairvoyant  ours / clairvoyant
    breaches              of ours beyond the clairvoyant's: seconds above a cap, ramps, deadlines
                          missed, intervals in which services lacked units
    days, peaks, whole_trace
                          the same of each, and by item where the differences come from

Each part's `clairvoyant` knows everything beforehand; what the others may know is in
`economics_case`, what the world does in `economics_world`. All of it is modelled; everything random
is seeded, so that the machine's speed changes nothing.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import reduce

from benchmarks import economics_plot
from benchmarks.economics_case import case, spans
from benchmarks.economics_clairvoyant import best
from benchmarks.economics_data import DAY_S, Trace
from benchmarks.economics_play import (
    BASELINES,
    CLAIRVOYANT,
    OURS,
    SEED,
    TRAINING_SHARE,
    Result,
    Tuned,
    day_case,
    month_case,
    play,
    play_baselines,
    trace_of,
    tuned_on_hours,
    tuned_on_quarters,
)
from benchmarks.economics_site import yard
from benchmarks.economics_world import Books

LONG_VARIABLE = "WATTSHIFT_BENCH_LONG"
DAYS = 12
MONTHS, ALL_MONTHS = (6,), (6, 7, 8, 9)
"""Of 2022; June's coincident peak came at a price at which most of the site would have run."""

CHEAP = BASELINES[:3]
TRACE_DAYS = 10
"""Of a piece of the whole trace: long enough that its ends weigh little."""


def run() -> dict[str, object]:
    """Model; the keys are those of INTERFACES."""
    long = os.environ.get(LONG_VARIABLE) == "1"
    wanted = ALL_MONTHS if long else MONTHS
    quarters, hours = trace_of("quarters"), trace_of("hours")
    with ProcessPoolExecutor(os.cpu_count() or 1, multiprocessing.get_context("spawn")) as pool:
        tuned = pool.submit(tuned_on_quarters, quarters).result()
        say(f"tuned on the trace's first tenth: {tuned.told()}")
        summer = pool.submit(_month_tuned, tuned, wanted)
        firsts = spans(quarters, DAYS, TRAINING_SHARE, SEED)
        played = [pool.submit(_day, first, tuned, True) for first in firsts]
        pieces = [pool.submit(_piece, first, tuned, long) for first in _pieces(quarters)]
        days = [one.result() for one in played]
        say(f"{len(days)} days are played")
        month, told = summer.result()
        found = [one.result() for one in pieces]
    economics_plot.draw(quarters, days)
    return {
        "quality": "modelled",
        "trace": f"{quarters.name}, {DAYS} days; {hours.name}, months {wanted}",
        **together([*days, month]),
        "days": part(days),
        "peaks": part([month]),
        "whole_trace": whole(found),
        "tuned": {"days": tuned.told(), "peaks": told},
        "firsts": firsts,
        "seed": SEED,
    }


def _day(first: int, tuned: Tuned, exact: bool) -> Result:
    return play(day_case(trace_of("quarters"), first), tuned, exact=exact)


def _month_tuned(tuned: Tuned, wanted: Sequence[int]) -> tuple[Result, Mapping[str, object]]:
    hours = trace_of("hours")
    mine = tuned_on_hours(hours, tuned)
    return play(month_case(hours, wanted), mine, exact=False), mine.told()


def _piece(first: int, tuned: Tuned, everybody: bool) -> tuple[dict[str, float], float]:
    """What policies earn on a piece of the whole trace, and the bound above it, USD."""
    trace = trace_of("quarters")
    one = case(trace, first, first + TRACE_DAYS * round(DAY_S / trace.step_s), SEED)
    if everybody:
        found = play(one, tuned, exact=False)
        return {name: p.books.total_usd for name, p in found.played.items()}, found.bound_usd
    cheap = play_baselines(one, tuned, CHEAP)
    usd = {name: p.books.total_usd for name, p in cheap.items()}
    return usd, best(one, yard(), integer=False).usd


def _pieces(trace: Trace) -> list[int]:
    """Firsts of the pieces of what comes after the training part."""
    a_day = round(DAY_S / trace.step_s)
    days = len(trace) // a_day
    begins = range(round(days * TRAINING_SHARE), days - TRACE_DAYS + 1, TRACE_DAYS)
    return [day * a_day for day in begins]


def scores(usd: Mapping[str, float], clairvoyant_usd: float) -> dict[str, object]:
    """The figures of INTERFACES, from what everybody earned."""
    baseline = max(BASELINES, key=lambda name: usd[name])
    return {
        "policies": {**{k: round(v, 2) for k, v in usd.items()},
                     CLAIRVOYANT: round(clairvoyant_usd, 2)},
        "best_baseline": baseline,
        "regret_share": regret_share(usd[OURS], usd[baseline], clairvoyant_usd),
        "ratio_vs_clairvoyant": round(usd[OURS] / clairvoyant_usd, 5),
    }  # fmt: skip


def regret_share(ours: float, baseline: float, clairvoyant: float) -> float:
    """How much of what the best baseline leaves is had; NaN where it leaves nothing."""
    left = clairvoyant - baseline
    return round((ours - baseline) / left, 4) if left > 0.0 else float("nan")


def together(results: Sequence[Result]) -> dict[str, object]:
    """Scores and breaches of some cases together."""
    books = {name: _sum([one.played[name].books for one in results]) for name in (*BASELINES, OURS)}
    usd = {name: one.total_usd for name, one in books.items()}
    late = sum(one.late for one in results)
    breaches = dict(books[OURS].breaches)
    breaches["deadline"] = max(breaches["deadline"] - late, 0.0)
    return {
        **scores(usd, sum(one.milp_usd for one in results)),
        "breaches": sum(breaches.values()),
        "breaches_by": {name: one.breaches for name, one in books.items()},
    }


def part(results: Sequence[Result]) -> dict[str, object]:
    """`together`, and where the differences come from."""
    found = together(results)
    ours = _sum([one.played[OURS].books for one in results])
    base = _sum([one.played[str(found["best_baseline"])].books for one in results])
    known = {item: sum(one.usd_by[item] for one in results) for item in ours.usd}
    plan_s = sorted(s for one in results for s in one.played[OURS].plan_s)
    return {
        **found,
        "milp_usd": round(sum(one.milp_usd for one in results), 2),
        "milp_bound_usd": round(sum(one.bound_usd for one in results), 2),
        "lp_bound_usd": round(sum(one.lp_usd for one in results), 2),
        "ours_by": _rounded(ours.usd),
        "clairvoyant_less_ours_by": _rounded({k: known[k] - ours.usd[k] for k in known}),
        "ours_less_baseline_by": _rounded({k: ours.usd[k] - base.usd[k] for k in known}),
        "cycles": {"ours": ours.cycles, str(found["best_baseline"]): base.cycles},
        "by_case": [
            {"first": one.first, CLAIRVOYANT: round(one.milp_usd),
             **{name: round(p.books.total_usd) for name, p in one.played.items()}}
            for one in results
        ],
        "plans": len(plan_s),
        "plan_s_p50": round(plan_s[len(plan_s) // 2], 3) if plan_s else None,
        "plan_s_max": round(plan_s[-1], 3) if plan_s else None,
    }  # fmt: skip


def whole(pieces: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, object]:
    """The whole trace after its training part: what was played there, and the bound."""
    usd = {name: sum(one[name] for one, _ in pieces) for name in pieces[0][0]}
    bound = sum(limit for _, limit in pieces)
    scored = scores(usd, bound) if OURS in usd else {"policies": _rounded(usd)}
    return {**scored, "lp_bound_usd": round(bound, 2), "days": TRACE_DAYS * len(pieces)}


def _sum(books: Sequence[Books]) -> Books:
    return reduce(Books.plus, books)


def _rounded(usd: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 2) for name, value in usd.items()}


def say(text: str) -> None:
    """A line for whoever waits."""
    print(f"economics: {text}", file=sys.stderr)
