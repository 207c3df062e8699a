"""The figures that a source may give, and between which bounds each of them can be true.

A source need not give all: a stated hashprice is taken as it is, otherwise it follows from the
network's difficulty, height, fees and price.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from wattshift_cluster.errors import WattshiftError


@dataclass(frozen=True, slots=True)
class Seen:
    """One figure and when it was observed, unix time, s."""

    value: float
    at_s: float


Figures = Mapping[str, Seen]
"""Figures by their name in BOUNDS."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a figure can be, and by which factor it may change from one sample to the next.

    Attributes:
        least, most: outside of them it is wrong, whoever confirms it.
        jump: a change by this factor is held until it is confirmed; None: the site's own factor.
        steady: below it a change is noise, so that a fee of nearly nothing cannot jump.
    """

    least: float
    most: float
    jump: float | None = None
    steady: float = 0.0


BOUNDS: Mapping[str, Bounds] = MappingProxyType(
    {
        # Far outside of what either has been since 2011.
        "usd_per_btc": Bounds(1.0, 1e8),
        "usd_per_ph_day": Bounds(0.01, 10_000.0),
        # 1 is the least that the protocol knows, and no retarget changes it by more than 4.
        "difficulty": Bounds(1.0, 1e20, jump=4.0),
        # An average over a day of blocks; the dearest blocks of 2024 held 40 BTC.
        "fees_btc": Bounds(0.0, 50.0, steady=0.05),
        # The subsidy ends near 6.9 million; 1 % of the height is two months of blocks.
        "height": Bounds(0.0, 6.9e6, jump=1.01),
    }
)


class SourceFailed(WattshiftError):
    """A source gave nothing usable.

    Attributes:
        retry_after_s: how long it asks to be left alone, s; None if it does not say.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source gave: figures, what of it failed, and how long it wants to be left alone."""

    figures: Figures
    fault: str = ""
    retry_after_s: float | None = None


class Source(Protocol):
    """Somebody who knows figures.

    Attributes:
        name: as people are shown it, without credentials.
        local: whether it may be asked again at once, because it troubles nobody.
    """

    name: str
    local: bool

    async def read(self, now_s: float) -> Answer:
        """Ask once, within a deadline. `now_s` is unix time. Raises SourceFailed."""
        ...

    async def close(self) -> None:
        """Give back what is held open."""
        ...
