"""The shape of what is learnt of an ASIC, as the controller answers it (see `port`)."""

from typing_extensions import TypedDict


class LearntPointView(TypedDict):
    """One set point of an ASIC: `driver_w` as its driver says, `told_w` as it is leased.

    `claimed_w` is the mean of what its firmware said while it held still there.
    `watts_w`, `error_w` (a standard error), `most_w` and `n` are what a meter showed; None and 0
    where none did. `settle_s` is from the accepted command, `told_s` what is counted on.
    """

    mode: str
    driver_w: float
    told_w: float
    claimed_w: float | None
    watts_w: float | None
    error_w: float | None
    most_w: float | None
    n: int
    hashrate_h_per_s: float | None
    settle_s: float | None
    settle_n: int
    told_s: float


class LearntView(TypedDict):
    """What an agent has learnt of an ASIC; `factor` is a meter's watts over the firmware's."""

    device: str
    points: list[LearntPointView]
    down_s: float | None
    up_s: float | None
    factor: float | None
    factor_error: float | None
    factor_n: int
