"""How mining that is held up for promises is told: the whole of it, and device by device (I7)."""

import numpy as np

from wattshift_scheduler.arrays import Ints
from wattshift_scheduler.decisions import AnyDecision, Decision, Input, Moves, Promised, usd_text
from wattshift_scheduler.forecasts.reserve import Held
from wattshift_scheduler.ladder.allocate import Allocation
from wattshift_scheduler.picked import Later, Picked
from wattshift_scheduler.state import State


def figures(now: Held) -> dict[str, Input]:
    """What a change of leases rests on beside all else: what is held up, for whom, at which cost;
    nothing where nothing is."""
    if not len(now.rows):
        return {}
    return {
        "held_w": now.held_w,
        "held_for": now.names,
        "held_usd_per_h": now.lost_usd_per_h,
        "held_usd_per_mwh": now.mean_usd_per_mwh,
    }


def told(
    before: Held, state: State, wanted: Allocation, inputs: dict[str, Input], now_s: float
) -> tuple[AnyDecision, ...]:
    """That a hold has begun, is for others now, or has ended, and which devices are newly held."""
    now = state.held
    if not (len(now.rows) or len(before.rows)):
        return ()
    found: list[AnyDecision] = []
    if (len(now.rows) > 0, now.names) != (len(before.rows) > 0, before.names):
        found.append(_whole(before, now, inputs, now_s))
    same = before.fleet is now.fleet
    new = now.rows
    if same:
        was = np.zeros(len(state.fleet), dtype=np.bool_)
        was[before.rows] = True
        new = new[~was[new]]
    new = new[state.ledger.point[new] >= 0]
    if len(new):
        found.append(_devices(state, wanted, new, inputs, now_s))
    return tuple(found)


def _whole(before: Held, now: Held, inputs: dict[str, Input], now_s: float) -> Decision:
    """The hold as a whole; `inputs` is what this change of leases rests on."""
    if not len(now.rows):
        reason = f"no mining is held up for {before.names} any more"
        return Decision(now_s, "site", "release", reason, inputs)
    lost = now.lost_usd_per_h
    costs = f"it loses {usd_text(lost)} an hour, {now.mean_usd_per_mwh:,.1f} USD/MWh"
    reason = (
        f"{now.held_w:,.0f} W of mining in {len(now.rows)} devices are held up for {now.names}, to "
        f"which {now.owed_w:,.0f} W are promised with a notice of {now.within_s:,.0f} s: "
        f"{costs if lost > 0 else 'nothing is lost by it'}"
    )
    return Decision(now_s, "site", "hold", reason, inputs)


def _devices(
    state: State, wanted: Allocation, rows: Ints, inputs: dict[str, Input], now_s: float
) -> Moves:
    """Devices that are newly held, with what each of them loses."""
    fleet, ledger, now = state.fleet, state.ledger, state.held
    lease_w = ledger.lease_w[rows]
    return Moves(
        now_s,
        Picked(fleet.ids, rows),
        Picked(fleet.modes, fleet.first[rows] + ledger.point[rows]),
        lease_w,
        lease_w,
        Later(lambda: wanted.next_of(rows)),
        inputs,
        promised=Promised(
            now.names,
            now.owed_w,
            now.within_s,
            now.lost_usd_per_mwh[np.searchsorted(now.rows, rows)],
        ),
    )
