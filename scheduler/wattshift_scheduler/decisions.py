"""Why the core did what it did (I7). Every decision is journaled; `wattshift explain` prints it.

A decision about one thing is a `Decision`. A change of many leases at once is one `Moves`, in
columns, because a cap change may move 100,000 devices; `rows` spells it out device by device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.picked import Later

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

    cost_usd: Floats | Later
    payback_s: Floats | Later
    kept: Bools | Later
    runs: Bools | Later


@dataclass(frozen=True, slots=True)
class Promised:
    """The promise for which the devices of a `Moves` are held up although another would have the
    watts, or none.

    Attributes:
        names: what people call it.
        owed_w, within_s: what must be drawn for it, W, by what can be gone within its notice, s.
        lost_usd_per_mwh: what each device loses by it, aligned with the devices.
    """

    names: str
    owed_w: float
    within_s: float
    lost_usd_per_mwh: Floats

    def words(self, i: int) -> str:
        """Why a device is held up, and what that costs."""
        lost = float(self.lost_usd_per_mwh[i])
        costs = f"at a loss of {lost:,.1f} USD/MWh" if lost > 0 else "in the place of slower work"
        return (
            f"held up {costs} for {self.names}, to which {self.owed_w:,.0f} W are promised "
            f"with a notice of {span_text(self.within_s)}"
        )

    def figures(self, i: int) -> dict[str, Input]:
        """The same for a decision's inputs."""
        return {
            "promise": self.names,
            "promise_w": self.owed_w,
            "promise_within_s": self.within_s,
            "lost_usd_per_mwh": float(self.lost_usd_per_mwh[i]),
        }


def kept_words(cost_usd: float, payback_s: float, *, runs: bool) -> str:
    """Why a device neither sleeps nor wakes although the price calls for it."""
    back = "would save" if runs else "would earn"
    span = "never back at this price" if np.isinf(payback_s) else f"back in {span_text(payback_s)}"
    state, turn = ("awake", "sleep") if runs else ("asleep", "it")
    return f"kept {state}: a cycle costs {usd_text(cost_usd)}, {turn} {back} that {span}"


def usd_text(usd: float) -> str:
    """An amount for people: cents, and below them two digits."""
    return f"{usd:,.2f} USD" if usd >= 0.01 or usd == 0 else f"{usd:.2g} USD"


def span_text(seconds_s: float) -> str:
    """A time for people: seconds, minutes or hours."""
    if seconds_s < 120.0:
        return f"{seconds_s:.0f} s"
    return f"{seconds_s / 60.0:.0f} min" if seconds_s < 7200.0 else f"{seconds_s / 3600.0:,.1f} h"


@dataclass(frozen=True, slots=True)
class Moves:
    """Lease changes of one step, aligned with `devices`, or devices kept where they are.

    Attributes:
        at_s: our clock, s.
        devices: ids, picked only when they are read.
        modes: mode that each is granted, likewise.
        from_w, to_w: lease watts before and after, W; NaN before a first lease.
        next_usd_per_mwh: gross value of the rung above the new point, or of one that is taken in
            part; NaN at the top.
        inputs: what the whole change rests on: cap, origin, price, marginal value, binding feeders.
        cycles: what a cycle of each would cost; None where that was not asked.
        promised: the promise for which all of them are held up; None: for none.
        waits_w: what each is to have once there is room for its first lease above the lowest point,
            W; NaN where it has what it is to have. None: all have.
    """

    at_s: float
    devices: Sequence[str]
    modes: Sequence[str]
    from_w: Floats
    to_w: Floats
    next_usd_per_mwh: Floats | Later
    inputs: Mapping[str, Input]
    cycles: Cycles | None = None
    promised: Promised | None = None
    waits_w: Floats | Later | None = None

    def rows(self) -> Iterator[Decision]:
        """Spell the change out, one Decision per device."""
        for i, (device, mode) in enumerate(zip(self.devices, self.modes, strict=True)):
            yield self._row(i, device, mode)

    def _row(self, i: int, device: str, mode: str) -> Decision:
        from_w, to_w = float(self.from_w[i]), float(self.to_w[i])
        next_value = float(self.next_usd_per_mwh[i])
        first = np.isnan(from_w)
        action = "lease" if first else ("restore" if to_w > from_w else "shed")
        before = f"{'no lease' if first else f'{from_w:,.0f} W'} to"
        if from_w == to_w:
            action, before = "keep", "stays at"
        why = self._kept(i) or self._waits(i)
        why = why or self._why(next_value) + self._wake_cost(i, next_value)
        if self.promised is not None:
            why = self.promised.words(i)
        reason = f"{before} {to_w:,.0f} W ({mode}): {why}"
        inputs = {
            **self.inputs,
            "from_w": None if first else from_w,
            "to_w": to_w,
            "mode": mode,
            "next_usd_per_mwh": None if np.isnan(next_value) else next_value,
            **self._figures(i),
            **({} if self.promised is None else self.promised.figures(i)),
        }
        return Decision(self.at_s, device, action, reason, inputs)

    def _waits(self, i: int) -> str:
        waits_w = np.nan if self.waits_w is None else float(self.waits_w[i])
        if np.isnan(waits_w):
            return ""
        return f"it is to have {waits_w:,.0f} W once others were seen to give theirs up"

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
            return f"it runs at its top under {cap}{self._lends()}"
        known = self.inputs["price_usd_per_mwh"]
        if known is None:
            return "the energy price is unknown, and nothing mines at an unknown price"
        price, emitted = float(known), float(self.inputs.get("carbon_usd_per_mwh") or 0.0)
        if next_value <= price + emitted:
            hopeless = self.inputs.get("hashprice_usd_per_ph_day", 0.0) is None
            return (
                f"its next rung is worth {next_value:,.1f} USD/MWh, "
                f"not more than energy at {price:,.1f} USD/MWh"
                f"{f' and its carbon at {emitted:,.1f}' if emitted else ''}"
                f"{'; hashes count nothing, the hashprice is unknown' if hopeless else ''}"
            )
        marginal = self.inputs["marginal_usd_per_mwh"]
        worth = "none is running" if marginal is None else f"{float(marginal):,.1f} USD/MWh"
        binding = self.inputs["binding"] or "nothing"
        return (
            f"its next rung is worth {next_value:,.1f} USD/MWh, the marginal watt {worth}; "
            f"{binding} binds under {cap}{self._kept_back()}"
        )

    def _kept_back(self) -> str:
        """What services have of the watts before any price: a reserve, and what gates lend."""
        kept_w = self.inputs.get("reserve_w")
        told = f"; {float(kept_w):,.0f} W stay with gates or free for services" if kept_w else ""
        return told + self._lends() + self._holds()

    def _holds(self) -> str:
        held_w = self.inputs.get("held_w")
        if not held_w:
            return ""
        return f"; {float(held_w):,.0f} W are held up for {self.inputs['held_for']}"

    def _lends(self) -> str:
        lent_w = self.inputs.get("lent_w")
        if not lent_w:
            return ""
        return f"; gates lend services {float(lent_w):,.0f} W until slower devices follow"


AnyDecision: TypeAlias = Decision | Moves
