"""Thirty per cent of the demo-scale site, gone on command, again and again, with inference on it.

    commands_out_s       from just before the cap is sent over HTTP until the last machine that is
                         shed has its command, as the machines themselves saw it; the worst cut
    gate_gone_ms_…       from the same moment to the end of the last launch of the worker that
                         hashes behind its gate; `gate_stop_ms_…` counts from the gate's writing
    time_to_cap_s_…      to the first sample at or below the cap by a meter process of its own
    overcap_wh           energy above the cap in a cut, while firmware moves; mean, and the worst
    samples_above_after  meter samples above the cap after it was first reached
    ai_loss_pct          requests served in the cuts, of those sent, against the time between them;
                         the load is open-loop, so that a slow server loses
    asic_transition_s    how much of a site must stand behind gates for a shed within 10 s, by how
                         slow its ASICs are: modelled, see `shed_reserve`

Watts of machines are emulated, of this host modelled from its busy cores, commands, launches and
latencies are measured.
"""

import asyncio
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import shed_site
from benchmarks.shed_reserve import reserve_pct_needed
from benchmarks.shed_site import Cut, Live, say

from wattshift_cluster.demo import recorder
from wattshift_cluster.demo.verdict import Request, percentile

CUTS = 6
SHARE = 0.7
LASTS_S = 9.0
CALM_S = (1.0, 4.0)
RISE_S = 22.0
SEED = 11
DEADLINE_S = 10.0
TRANSITIONS_S = (5, 60, 600)
SLO_MS = 400.0
"""Latency that the demo's service promises."""


@dataclass(frozen=True, slots=True)
class Shed:
    """What witnesses say of one cut: seconds, Wh, and whether all commands were out."""

    commands_out_s: float | None
    commanded: int
    time_to_cap_s: float | None
    overcap_wh: float
    above_after: int


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    figures = asyncio.run(_live())
    table = {
        str(seconds): {"gate_reserve_pct_needed": reserve_pct_needed(float(seconds), DEADLINE_S)}
        for seconds in TRANSITIONS_S
    }
    return {**figures, "asic_transition_s": table, "asic_transition_deadline_s": DEADLINE_S}


async def _live() -> dict[str, object]:
    say("starting the site: emulated ASICs, pool, meter, agents, Ray, controller")
    async with shed_site.running() as live:
        count = await asyncio.to_thread(shed_site.devices, live)
        pause_s = shed_site.random_pauses(SEED, *CALM_S)
        cuts: list[Cut] = []
        sheds: list[Shed] = []
        await shed_site.calm_signal(live)
        calm_s = recorder.samples(live.stage.samples_file)[-1][0]
        for number in range(CUTS):
            await asyncio.sleep(pause_s())
            one = await shed_site.cut(live, SHARE, LASTS_S, calm_s)
            sheds.append(await _seen(live, one))
            cuts.append(one)
            say(f"cut {number + 1} of {CUTS}: {one.before_w:,.0f} W to {one.cap_w:,.0f} W: "
                f"{sheds[-1]}, {one.gate}")  # fmt: skip
            calm_s = one.ends_s + 1.0
            await shed_site.recovered(live, one.before_w, RISE_S)
        requests = recorder.requests(live.stage.requests_file)
        return {
            "quality": "watts of ASICs emulated, of the host modelled; the rest measured",
            "devices": count,
            "shed_pct": round(100 * (1 - SHARE)),
            "cuts": CUTS,
            **_shed_figures(sheds),
            **_gate_figures(cuts),
            **_inference(requests, cuts),
        }


async def _seen(live: Live, one: Cut) -> Shed:
    """Ask the witnesses of a cut that has just ended."""
    out_s, commanded = await shed_site.commands_out_s(live, one)
    rows = [
        (at_s, watts_w)
        for at_s, watts_w in recorder.samples(live.stage.samples_file)
        if one.at_s <= at_s < one.ends_s and watts_w is not None
    ]
    reached_s = next((at_s for at_s, watts_w in rows if watts_w <= one.cap_w), None)
    over_j = 0.0
    for (at_s, watts_w), (next_s, _) in itertools.pairwise(rows):
        over_j += max(watts_w - one.cap_w, 0.0) * (next_s - at_s)
    return Shed(
        commands_out_s=out_s,
        commanded=commanded,
        time_to_cap_s=None if reached_s is None else reached_s - one.at_s,
        overcap_wh=over_j / 3600.0,
        above_after=sum(
            watts_w > one.cap_w for at_s, watts_w in rows if reached_s is None or at_s > reached_s
        ),
    )


def _shed_figures(sheds: Sequence[Shed]) -> dict[str, Any]:
    to_cap_s = _known([shed.time_to_cap_s for shed in sheds])
    out_s = _known([shed.commands_out_s for shed in sheds])
    return {
        "commands_out_s": _rounded(max(out_s)) if out_s else None,
        "time_to_cap_s_p50": _rounded(percentile(to_cap_s, 0.5)) if to_cap_s else None,
        "time_to_cap_s_p99": _rounded(percentile(to_cap_s, 0.99)) if to_cap_s else None,
        "overcap_wh": _rounded(statistics.mean(shed.overcap_wh for shed in sheds)),
        "overcap_wh_worst": _rounded(max(shed.overcap_wh for shed in sheds)),
        "samples_above_after": sum(shed.above_after for shed in sheds),
        "machines_commanded": [shed.commanded for shed in sheds],
    }


def _known(values: Sequence[float | None]) -> list[float]:
    """The values, if every one is known; else nothing: unknown is never good news."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _gate_figures(cuts: Sequence[Cut]) -> dict[str, Any]:
    """Of the cuts in whose moment the worker was hashing."""
    mining = [one.gate for one in cuts if one.gate.mining]
    gone = _known([gate.gone_ms for gate in mining])
    stop = _known([gate.stop_ms for gate in mining])
    return {
        "gate_cuts": len(mining),
        "gate_gone_ms_p50": _rounded(percentile(gone, 0.5)),
        "gate_gone_ms_max": _rounded(max(gone)) if gone else None,
        "gate_stop_ms_max": _rounded(max(stop)) if stop else None,
    }


def _inference(requests: Sequence[Request], cuts: Sequence[Cut]) -> dict[str, Any]:
    """Requests in the cuts against those between them."""
    during = [r for r in requests if any(c.at_s <= r.sent_s < c.ends_s for c in cuts)]
    before = [r for r in requests if any(c.calm_s <= r.sent_s < c.at_s for c in cuts)]
    if not during or not before:
        return {"ai_loss_pct": None}
    lost = _served(before) - _served(during)
    return {
        "ai_loss_pct": _rounded(100 * max(lost, 0.0)),
        "ai_requests": {"before": len(before), "in_cuts": len(during)},
        "ai_p95_ms": {"before": _p95_ms(before), "in_cuts": _p95_ms(during)},
        "ai_slo_met_pct": {"before": _slo_pct(before), "in_cuts": _slo_pct(during)},
    }


def _served(rows: Sequence[Request]) -> float:
    return sum(row.ok for row in rows) / len(rows)


def _p95_ms(rows: Sequence[Request]) -> float | None:
    return _rounded(percentile([row.latency_ms for row in rows if row.ok], 0.95))


def _slo_pct(rows: Sequence[Request]) -> float:
    return round(100 * sum(row.ok and row.latency_ms <= SLO_MS for row in rows) / len(rows), 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
