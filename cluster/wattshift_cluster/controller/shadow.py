"""What the core of a shadow site is told: what it would read, had each device obeyed its leases.

Nothing is commanded in shadow mode, so a machine that was to sleep goes on. Told so, the core would
take it for stuck within seconds and decide nothing more. It is told the lesser of what each device
draws and what it was granted, and a meter that shows as much less; transition times are not
modelled. People are always shown what was really read.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from wattshift_cluster.controller import views
from wattshift_cluster.controller.roster import Roster
from wattshift_scheduler import events as ev
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import State

SETTLED = ("confirmed", "settling")
View = dict[str, Any]


class AsIf:
    """Between the inbox and the core of a shadow site, and between its state and its views.

    Attributes:
        meter_w: what the meter really said last, W; None while unknown.
    """

    def __init__(self, roster: Roster) -> None:
        """Args: roster: keeps what was really read."""
        self.meter_w: float | None = None
        self._roster = roster
        self._beyond_w: dict[str, float] = {}

    def told(self, events: Iterable[ev.Event], state: State) -> list[ev.Event]:
        """The events as the core is to hear them; `state` holds the grants."""
        return [self._one(event, state) for event in events]

    def _one(self, event: ev.Event, state: State) -> ev.Event:
        if isinstance(event, ev.Readings):
            return self._readings(event, state)
        if isinstance(event, ev.MeterRead):
            self.meter_w = event.watts_w
            if event.watts_w is not None:
                beyond_w = sum(self._beyond_w.values())
                return replace(event, watts_w=max(event.watts_w - beyond_w, 0.0))
        return event

    def _readings(self, event: ev.Readings, state: State) -> ev.Readings:
        fleet, ledger = state.fleet, state.ledger
        at = fleet.columns_of(event.devices)
        granted = at >= 0
        granted[granted] = ledger.point[at[granted]] >= 0
        rows, columns = np.flatnonzero(granted), at[granted]
        watts_w, hashes = event.watts_w.copy(), event.hashrate_h_per_s.copy()
        watts_w[rows] = np.minimum(watts_w[rows], ledger.lease_w[columns])
        flat = fleet.first[:-1][columns] + ledger.point[columns]
        hashes[rows] = np.minimum(hashes[rows], fleet.point_h_per_s[flat])
        beyond_w = np.nan_to_num(event.watts_w - watts_w, nan=0.0)
        self._beyond_w.update(zip(event.devices, beyond_w.tolist(), strict=True))
        # A set point that is not ours is the rule here, and says nothing.
        theirs = np.zeros_like(event.foreign)
        return replace(event, watts_w=watts_w, hashrate_h_per_s=hashes, foreign=theirs)

    def devices(self, found: list[View], state: State) -> list[View]:
        """Device views with what was really read, and what each device would do."""
        devices = state.fleet.devices
        return [self._device(view, one) for view, one in zip(found, devices, strict=True)]

    def _device(self, view: View, device: Device) -> View:
        entry = self._roster.entries.get(device.id)
        shown = dict(view)
        for name in ("watts_w", "hashrate_h_per_s"):
            if entry is not None and view[name] is not None:
                shown[name] = entry.reading.get(name)
        shown["asleep"] = views.asleep(device, shown["watts_w"], shown["hashrate_h_per_s"])
        if view["state"] in SETTLED and view["leased_w"] is not None:
            would = f"{view['mode']} at {view['leased_w']:,.0f} W"
            reason = f"shadow: nothing is commanded; it would be leased {would}"
            note = None if entry is None else entry.reading.get("note")
            shown |= {"state": "shadow", "reason": f"{reason}; {note}" if note else reason}
        return shown

    def site(self, view: View, devices: list[View]) -> View:
        """The site's view with what was really measured; `devices` are the ones shown."""
        drawn_w = [one["watts_w"] for one in devices]
        known = None if None in drawn_w else sum(drawn_w)
        mining_w = None if view["mining_w"] is None else known
        power_w = None if view["power_w"] is None else self.meter_w
        return {**view, "power_w": power_w, "mining_w": mining_w}
