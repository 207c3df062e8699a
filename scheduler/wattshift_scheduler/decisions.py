"""Why the core did what it did (I7). Every decision is journaled; `wattshift explain` prints it.

A decision about one thing is a `Decision`. A change of many leases at once is one `Moves`, in
columns, because a cap change may move 100,000 devices; `rows` spells it out device by device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wattshift_scheduler.arrays import Floats

Input: TypeAlias = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Attributes:
        at_s: our clock, s.
        subject: what it is about: "site", a device, a job, a node.
        action: what was decided, one word or two ("shed", "restore", "admit", "defer", "alarm").
        reason: why, in a sentence with figures.
        inputs: the figures that it rests on, by name with unit.
    """

    at_s: float
    subject: str
    action: str
    reason: str
    inputs: Mapping[str, Input]


@dataclass(frozen=True, slots=True)
class Moves:
    """Lease changes of one step, aligned with `devices`.

    Attributes:
        at_s: our clock, s.
        devices: ids.
        modes: mode that each is granted.
        from_w, to_w: lease watts before and after, W; NaN before a first lease.
        next_usd_per_mwh: gross value of the rung above the new point, NaN at the top.
        inputs: what the whole change rests on: cap, origin, price, marginal value, binding feeders.
    """

    at_s: float
    devices: tuple[str, ...]
    modes: tuple[str, ...]
    from_w: Floats
    to_w: Floats
    next_usd_per_mwh: Floats
    inputs: Mapping[str, Input]

    def rows(self) -> Iterator[Decision]:
        """Spell the change out, one Decision per device."""
        for i, device in enumerate(self.devices):
            yield self._row(i, device)

    def _row(self, i: int, device: str) -> Decision:
        from_w, to_w = float(self.from_w[i]), float(self.to_w[i])
        next_value = float(self.next_usd_per_mwh[i])
        first = np.isnan(from_w)
        action = "lease" if first else ("restore" if to_w > from_w else "shed")
        before = "no lease" if first else f"{from_w:,.0f} W"
        reason = f"{before} to {to_w:,.0f} W ({self.modes[i]}): {self._why(next_value)}"
        inputs = {
            **self.inputs,
            "from_w": None if first else from_w,
            "to_w": to_w,
            "mode": self.modes[i],
            "next_usd_per_mwh": None if np.isnan(next_value) else next_value,
        }
        return Decision(self.at_s, device, action, reason, inputs)

    def _why(self, next_value: float) -> str:
        cap = f"cap {self.inputs['cap_w']:,.0f} W ({self.inputs['cap_origin']})"
        if np.isnan(next_value):
            return f"it runs at its top under {cap}"
        known = self.inputs["price_usd_per_mwh"]
        if known is None:
            return "the energy price is unknown, and nothing mines at an unknown price"
        price = float(known)
        if next_value <= price:
            return (
                f"its next rung is worth {next_value:,.1f} USD/MWh, "
                f"not more than energy at {price:,.1f} USD/MWh"
            )
        marginal = self.inputs["marginal_usd_per_mwh"]
        worth = "none is running" if marginal is None else f"{float(marginal):,.1f} USD/MWh"
        binding = self.inputs["binding"] or "nothing"
        return (
            f"its next rung is worth {next_value:,.1f} USD/MWh, the marginal watt {worth}; "
            f"{binding} binds under {cap}"
        )


AnyDecision: TypeAlias = Decision | Moves
