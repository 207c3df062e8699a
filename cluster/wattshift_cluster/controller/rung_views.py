"""Where a device stands on the ladder and why: its rung, the next one, and what keeps it there.

Values are what a rung's watts earn before energy, USD/MWh, as the last decision ranked them.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from wattshift_cluster.controller.views import known
from wattshift_scheduler.decisions import kept_words
from wattshift_scheduler.in_force import acting, carbon, shortfalls
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.state import State

View = dict[str, Any]

EPS_W = 1e-6


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a device: the point that it ends at, its lease watts and what they earn."""

    mode: str
    start_w: float
    end_w: float
    usd_per_mwh: float

    def view(self) -> View:
        """As api.rung_views.StepView."""
        return {"mode": self.mode, "watts_w": self.end_w, "usd_per_mwh": self.usd_per_mwh}


def rungs_of(state: State, column: int) -> list[Rung]:
    """The steps of a device, from its lowest up."""
    fleet, ladder = state.fleet, state.ladder
    first, last = int(fleet.first[column]), int(fleet.first[column + 1])
    found: list[Rung] = []
    start_w = float(fleet.point_limit_w[first])
    for at in range(first + 1, last):
        if np.isneginf(ladder.rank_usd_per_mwh[at]):
            continue  # inside the envelope: no rung ends there
        end_w = float(fleet.point_limit_w[at])
        mode = fleet.mode_of(column, at - first)
        found.append(Rung(mode, start_w, end_w, float(ladder.worth_usd_per_mwh[at])))
        start_w = end_w
    return found


def rung(state: State, column: int, now_s: float) -> View:
    """One device on the ladder (api.rung_views.RungView)."""
    rungs, lease_w = rungs_of(state, column), _held_w(state, column)
    held = next((one for one in reversed(rungs) if one.start_w < lease_w - EPS_W), None)
    ahead = next((one for one in rungs if one.end_w > lease_w + EPS_W), None)
    outlook = state.outlook
    binding, binding_usd = _binding(state, column)
    shadow = shadow_usd_per_mwh(state, now_s)
    kept = bool(state.turns.kept[column])
    rule, why = _because(state, column, held, ahead, now_s)
    return {
        "now": None if held is None else held.view(),
        "next": None if ahead is None else ahead.view(),
        "marginal_usd_per_mwh": known(outlook.marginal_usd_per_mwh),
        "price_usd_per_mwh": known(_finite(state.price_usd_per_mwh())),
        "carbon_usd_per_mwh": carbon.usd_per_mwh(state, now_s),
        "shadow_usd_per_mwh": shadow,
        "binding": binding,
        "binding_usd_per_mwh": binding_usd,
        "cycle_usd": float(state.ladder.cycle_usd[column]) if kept else None,
        "payback_s": known(_finite(float(state.turns.payback_s[column]))) if kept else None,
        "rule": rule,
        "why": why,
    }


def shadow_usd_per_mwh(state: State, now_s: float) -> float | None:
    """What the plan that stands says a watt is worth now; None without such a plan."""
    plan = state.plan
    at = None if plan is None else plan.at(now_s)
    return None if plan is None or at is None else float(plan.shadow_usd_per_mwh[at])


def _finite(amount: float) -> float:
    return amount if np.isfinite(amount) else float("nan")


def _held_w(state: State, column: int) -> float:
    lease_w = float(state.ledger.lease_w[column])
    return float(state.ladder.base_w[column]) if np.isnan(lease_w) else lease_w


def _binding(state: State, column: int) -> tuple[str | None, float | None]:
    """Of the feeders on a device's way that kept rungs out, the one where watts are dearest."""
    tree, outlook = state.site.tree, state.outlook
    binds = [i for i in tree.path(int(state.fleet.feeder[column])) if tree.names[i] in
             outlook.binding]  # fmt: skip
    if not binds:
        return None, None
    worth = outlook.feeder_usd_per_mwh
    if len(worth) != len(tree.names):
        return tree.names[binds[-1]], None
    dearest = max(binds, key=lambda i: worth[i])
    return tree.names[dearest], worth[dearest] or None


def _because(
    state: State, column: int, held: Rung | None, ahead: Rung | None, now_s: float
) -> tuple[str, str]:
    """The rule that keeps a device at its rung, and the sentence for people."""
    name = state.fleet.devices[column].id
    where = "off" if held is None else f"at {held.mode} and no higher"
    stuck = _stuck(state, column, now_s)
    if stuck:
        return "stuck", f"{name} keeps what it holds: {stuck}"
    if state.turns.kept[column]:
        cost_usd, payback_s = float(state.ladder.cycle_usd[column]), state.turns.payback_s[column]
        runs = bool(state.ledger.point[column] > 0)
        return "cycle", f"{name}: {kept_words(cost_usd, float(payback_s), runs=runs)}"
    if not _asked(state, name):
        return "not-asked", f"{name} is off because no running mining job names it"
    if state.tables.empty[column]:
        return "gives-way", f"{name} is off because work beside it needs its card's memory"
    if ahead is None:
        last = "it has no rung" if held is None else f"its last rung, {held.mode}, is worth"
        worth = "" if held is None else f" {held.usd_per_mwh:,.0f} USD/MWh"
        return "top", f"{name} runs at its top: {last}{worth}"
    return _short(state, column, f"{name} is {where}", ahead, now_s)


def _short(state: State, column: int, told: str, ahead: Rung, now_s: float) -> tuple[str, str]:
    """Why the next rung is not taken although nothing is wrong with the device."""
    price = state.price_usd_per_mwh()
    if not np.isfinite(price):
        return "price-unknown", f"{told} because the energy price is unknown"
    worth = f"its next rung is worth {ahead.usd_per_mwh:,.0f} USD/MWh"
    binding, binding_usd = _binding(state, column)
    beyond = acting.beyond_usd_per_mwh(state, now_s)
    if ahead.usd_per_mwh <= price:
        return "energy", f"{told} because {worth} and energy costs {price:,.0f}"
    emitted = carbon.usd_per_mwh(state, now_s) or 0.0
    if ahead.usd_per_mwh <= price + emitted:
        carbon_words = f"energy costs {price:,.0f} and its carbon {emitted:,.0f}"
        return "carbon", f"{told} because {worth} and {carbon_words}"
    price += emitted
    if ahead.usd_per_mwh <= price + beyond:
        energy = "energy and its carbon" if emitted else "energy"
        planned = f"what the plan sees coming puts {beyond:,.0f} on top of {energy} at {price:,.0f}"
        return "plan", f"{told} because {worth} and {planned}"
    if short := shortfalls.on_the_way(state, int(state.fleet.feeder[column])):
        return "feeder", f"{told} because {short}"
    if binding is None:
        return "waits", f"{told} for now: {worth}, and its watts come when others were seen to go"
    root = binding == state.site.tree.names[0]
    what = "the cap" if root else f"feeder {binding}"
    marginal = state.outlook.marginal_usd_per_mwh
    rule = "cap" if root else "feeder"
    if root and not np.isnan(marginal) and ahead.usd_per_mwh <= marginal:
        return rule, f"{told} because {worth} and the cap's marginal watt {marginal:,.0f}"
    if binding_usd is not None and ahead.usd_per_mwh < binding_usd:
        more = f"a watt more of {what} would earn {binding_usd:,.0f}"
        return rule, f"{told} because {worth}, and {more}"
    return rule, f"{told} because {what} binds: {worth}, and it does not fit what is left there"


def _stuck(state: State, column: int, now_s: float) -> str:
    """What keeps it from being relied on; empty where nothing does."""
    agent = state.agents.get(state.fleet.devices[column].agent)
    if agent is None or agent.lost or now_s - agent.seen_s > state.site.rules.stale_after_s:
        return "its agent is silent"
    if state.seen.foreign[column]:
        return "its set point was written by somebody else"
    if state.seen.failed[column]:
        return "it does not answer its agent"
    return ""


def _asked(state: State, device: str) -> bool:
    """Whether a running mining job names a device."""
    return any(
        fnmatchcase(device, str(pattern))
        for job in state.of_kind(JobKind.MINING)
        if job.state is JobState.RUNNING
        for pattern in job.spec.get("devices", ())
    )
