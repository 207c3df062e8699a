"""Why the core did what it did (I7). Every decision is journaled; `wattshift explain` prints it.

A decision about one thing is a `Decision`. A change of many leases at once is one `Moves`, in
columns, because a cap change may move 100,000 devices; `rows` spells it out device by device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats

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
class Cycles:
    """What a sleep and a wake of each device would cost, aligned with the devices of a `Moves`.

    Attributes:
        cost_usd: wear and what it does not earn while it boots, USD.
        payback_s: time in which the turn that the price calls for pays for that, s; infinite: never
            at this price; NaN where the price calls for none.
        kept: it stays as it is for that cost alone.
        runs: it is leased above its lowest point.
    """

    cost_usd: Floats
    payback_s: Floats
    kept: Bools
    runs: Bools


def kept_words(cost_usd: float, payback_s: float, *, runs: bool) -> str:
    """Why a device neither sleeps nor wakes although the price calls for it."""
    back = "would save" if runs else "would earn"
    span = "never back at this price" if np.isinf(payback_s) else f"back in {_span(payback_s)}"
    state, turn = ("awake", "sleep") if runs else ("asleep", "it")
    return f"kept {state}: a cycle costs {usd_text(cost_usd)}, {turn} {back} that {span}"


def usd_text(usd: float) -> str:
    """An amount for people: cents, and below them two digits."""
    return f"{usd:,.2f} USD" if usd >= 0.01 or usd == 0 else f"{usd:.2g} USD"


def _span(seconds_s: float) -> str:
    if seconds_s < 120.0:
        return f"{seconds_s:.0f} s"
    return f"{seconds_s / 60.0:.0f} min" if seconds_s < 7200.0 else f"{seconds_s / 3600.0:,.1f} h"


@dataclass(frozen=True, slots=True)
class Moves:
    """Lease changes of one step, aligned with `devices`, or devices kept where they are.

    Attributes:
        at_s: our clock, s.
        devices: ids.
        modes: mode that each is granted.
        from_w, to_w: lease watts before and after, W; NaN before a first lease.
        next_usd_per_mwh: gross value of the rung above the new point, NaN at the top.
        inputs: what the whole change rests on: cap, origin, price, marginal value, binding feeders.
        cycles: what a cycle of each would cost; None where that was not asked.
    """

    at_s: float
    devices: tuple[str, ...]
    modes: tuple[str, ...]
    from_w: Floats
    to_w: Floats
    next_usd_per_mwh: Floats
    inputs: Mapping[str, Input]
    cycles: Cycles | None = None

    def rows(self) -> Iterator[Decision]:
        """Spell the change out, one Decision per device."""
        for i, device in enumerate(self.devices):
            yield self._row(i, device)

    def _row(self, i: int, device: str) -> Decision:
        from_w, to_w = float(self.from_w[i]), float(self.to_w[i])
        next_value = float(self.next_usd_per_mwh[i])
        first = np.isnan(from_w)
        action = "lease" if first else ("restore" if to_w > from_w else "shed")
        before = f"{'no lease' if first else f'{from_w:,.0f} W'} to"
        if from_w == to_w:
            action, before = "keep", "stays at"
        why = self._kept(i) or self._why(next_value) + self._wake_cost(i, next_value)
        reason = f"{before} {to_w:,.0f} W ({self.modes[i]}): {why}"
        inputs = {
            **self.inputs,
            "from_w": None if first else from_w,
            "to_w": to_w,
            "mode": self.modes[i],
            "next_usd_per_mwh": None if np.isnan(next_value) else next_value,
            **self._figures(i),
        }
        return Decision(self.at_s, device, action, reason, inputs)

    def _kept(self, i: int) -> str:
        cycles = self.cycles
        if cycles is None or not cycles.kept[i]:
            return ""
        cost_usd, payback_s = float(cycles.cost_usd[i]), float(cycles.payback_s[i])
        return kept_words(cost_usd, payback_s, runs=bool(cycles.runs[i]))

    def _wake_cost(self, i: int, next_value: float) -> str:
        """Why a sleeping device waits although its first rung is worth more than the marginal."""
        marginal, cycles = self.inputs["marginal_usd_per_mwh"], self.cycles
        if cycles is None or marginal is None or cycles.runs[i] or not cycles.cost_usd[i]:
            return ""
        if not next_value > float(marginal):
            return ""
        return f"; to wake it costs a cycle, {usd_text(float(cycles.cost_usd[i]))}"

    def _figures(self, i: int) -> dict[str, Input]:
        if self.cycles is None:
            return {}
        payback_s = float(self.cycles.payback_s[i])
        return {
            "cycle_usd": float(self.cycles.cost_usd[i]),
            "payback_s": payback_s if np.isfinite(payback_s) else None,
            "kept": bool(self.cycles.kept[i]),
        }

    def _below(self) -> str:
        """Targets, and an event's notice, below the cap."""
        rows = (("target", "target"), ("mining_target", "mining's target"), ("notice", "notice of"))
        return "".join(
            f", {words} {self.inputs[f'{key}_w']:,.0f} W "
            f"({self.inputs.get(f'{key}_name') or self.inputs[key]})"
            for key, words in rows
            if key in self.inputs
        )

    def _why(self, next_value: float) -> str:
        cap = f"cap {self.inputs['cap_w']:,.0f} W ({self.inputs['cap_origin']}){self._below()}"
        if np.isnan(next_value):
            return f"it runs at its top under {cap}"
        known = self.inputs["price_usd_per_mwh"]
        if known is None:
            return "the energy price is unknown, and nothing mines at an unknown price"
        price = float(known)
        if next_value <= price:
            hopeless = self.inputs.get("hashprice_usd_per_ph_day", 0.0) is None
            return (
                f"its next rung is worth {next_value:,.1f} USD/MWh, "
                f"not more than energy at {price:,.1f} USD/MWh"
                f"{'; hashes count nothing, the hashprice is unknown' if hopeless else ''}"
            )
        marginal = self.inputs["marginal_usd_per_mwh"]
        worth = "none is running" if marginal is None else f"{float(marginal):,.1f} USD/MWh"
        binding = self.inputs["binding"] or "nothing"
        return (
            f"its next rung is worth {next_value:,.1f} USD/MWh, the marginal watt {worth}; "
            f"{binding} binds under {cap}"
        )


AnyDecision: TypeAlias = Decision | Moves
