"""The shape of what is told of a device's place on the ladder; names and units as in `port`."""

from typing import NotRequired

from typing_extensions import TypedDict


class StepView(TypedDict):
    """A step of a device: the mode that it ends at, the lease watts there, and what they earn."""

    mode: str
    watts_w: float
    usd_per_mwh: float


class RungView(TypedDict):
    """One device on the ladder; values are before energy, None is unknown or that there is none.

    `now` is the last step that it holds, `next` the one that it would take. The site's marginal
    watt earns `marginal_usd_per_mwh`; `carbon_usd_per_mwh` is what the operator's price on carbon
    puts on energy now, None: no price, or what energy emits is unknown; `shadow_usd_per_mwh` is
    what the plan that stands values a watt at. Of the feeders on its way that keep rungs out
    `binding` is the one where watts are dearest. `cycle_usd` and `payback_s` stand where the cost
    of a cycle alone keeps it. `rule` is "top", "cap", "feeder", "energy", "carbon", "plan",
    "cycle", "waits", "not-asked", "gives-way", "stuck" or "price-unknown", and `why` says it in a
    sentence.
    """

    now: StepView | None
    next: StepView | None
    marginal_usd_per_mwh: float | None
    price_usd_per_mwh: float | None
    carbon_usd_per_mwh: NotRequired[float | None]
    shadow_usd_per_mwh: float | None
    binding: str | None
    binding_usd_per_mwh: float | None
    cycle_usd: float | None
    payback_s: float | None
    rule: str
    why: str
