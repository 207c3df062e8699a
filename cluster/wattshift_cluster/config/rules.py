"""`[rules]` of site.toml: how fast and how surely the site follows what the grid asks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wattshift_cluster.config.fields import Section, number, seconds, watts_per_s


class SignalRules(Section):
    """`[rules]`: how the site moves from one cap to the next. Without it, at once.

    A forecast cap that is at least `act_at_confidence` sure (0 to 1) binds; a less sure one is
    advice. `ramp_up` is the steepest rise of the cap that is acted on, `ramp_down` the steepest
    fall towards a cap that is known beforehand or to a target; a cap that comes without notice is
    never delayed. `hold` is how long the cap does not rise after it has fallen. `stagger` spreads
    the rise of feeders and hosts over so long, so that they do not all start in one second.
    `min_on` and `min_off` are how long an ASIC that takes long to come up stays up, or down, before
    a price may turn it again; a cap, a lock and a person always may. `burst_reserve_pct` is the
    share of the bursts of services whose watts are kept within the gates' reach, so that those wait
    for no machine; 0 keeps none.
    """

    act_at_confidence: Annotated[float, number(0, 1)] = 0.5
    ramp_up_w_per_s: Annotated[float, watts_per_s(0.01)] | None = Field(None, alias="ramp_up")
    ramp_down_w_per_s: Annotated[float, watts_per_s(0.01)] | None = Field(None, alias="ramp_down")
    hold_s: Annotated[float, seconds(0, 86_400)] = Field(0.0, alias="hold")
    stagger_s: Annotated[float, seconds(0, 3600)] = Field(0.0, alias="stagger")
    min_on_s: Annotated[float, seconds(0, 86_400)] = Field(300.0, alias="min_on")
    min_off_s: Annotated[float, seconds(0, 86_400)] = Field(300.0, alias="min_off")
    burst_reserve_pct: Annotated[float, number(0, 99.9, "%")] = 99.0
