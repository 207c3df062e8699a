"""`[plan]` of site.toml: how far ahead the site plans, how finely, what a kW of demand costs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from wattshift_cluster.config.fields import Section, Switch, number, seconds

HOUR_S = 3600.0
DAY_S = 86_400.0

INTERVALS_MOST = 576
"""Of one plan: two days of five minutes."""

LATE_PERIODS = 3
"""A plan that is this many periods old is late."""


class Plan(Section):
    """`[plan]`: the look-ahead plan. Without it the ladder alone decides, second by second.

    `enabled` is true by default where something is known beforehand that a plan could use: prices,
    events, peaks, a schedule, a demand charge, or compute whose batch jobs have deadlines.
    `horizon` is cut into intervals of `step`; a new plan is made each `period`, by a process of its
    own that is ended where it has no plan after `time_limit` and a little more. `demand_charge` is
    what a kW of the month's highest mean over `demand_interval` costs, and is weighed against what
    the watts earn (a hard limit is `[[market.demand]]`); `peak_charge` what a kW costs in each peak
    of `[[market.peaks]]`. `carbon_usd_per_t` is a price of your own on what energy emits; it counts
    for batch and mining, and for mining without a plan too.
    """

    enabled: Switch | None = None
    horizon_s: Annotated[float, seconds(6 * HOUR_S, 2 * DAY_S)] = Field(
        1.5 * DAY_S, alias="horizon"
    )
    step_s: Annotated[float, seconds(300, HOUR_S)] = Field(900.0, alias="step")
    period_s: Annotated[float, seconds(5, HOUR_S)] = Field(300.0, alias="period")
    time_limit_s: Annotated[float, seconds(1, 300)] = Field(20.0, alias="time_limit")
    demand_charge_usd_per_kw: Annotated[float, number(0, 10_000, "USD/kW")] = Field(
        0.0, alias="demand_charge"
    )
    demand_interval_s: Annotated[float, seconds(300, HOUR_S)] = Field(
        900.0, alias="demand_interval"
    )
    peak_charge_usd_per_kw: Annotated[float, number(0, 10_000, "USD/kW")] = Field(
        0.0, alias="peak_charge"
    )
    carbon_usd_per_t: Annotated[float, number(0, 10_000, "USD/t")] = 0.0

    @field_validator("step_s", "demand_interval_s")
    @classmethod
    def _of_hour(cls, length_s: float) -> float:
        if length_s % 60 or HOUR_S % length_s:
            raise ValueError("must be whole minutes that divide an hour; allowed: such as 5m, 15m")
        return length_s

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.intervals > INTERVALS_MOST:
            raise ValueError(
                f"horizon holds {self.intervals} intervals of step; allowed: up to {INTERVALS_MOST}"
            )
        if self.time_limit_s > self.period_s:
            raise ValueError("time_limit is longer than period; allowed: at most as long")
        return self

    @property
    def intervals(self) -> int:
        """How many intervals a plan has."""
        return max(round(self.horizon_s / self.step_s), 1)
