"""What a watt is worth: mining revenue, the value of a sheddable watt, and the energy price.

SHA-256 revenue follows hashprice (USD per PH/s and day, reference: mining revenue per unit of
hashrate). A watt behind a gate is worth its reserve price on top, because it can be given back in
milliseconds. The energy price is the same for every watt, so it cuts the ladder but never reorders
it: that is why a price change costs no sorting.
"""

import math
from dataclasses import dataclass

from wattshift_scheduler.errors import SiteInvalid

HOURS_PER_DAY = 24.0
PH = 1e15


@dataclass(frozen=True, slots=True)
class Values:
    """The prices that turn watts and hashes into money.

    Attributes:
        hashprice_usd_per_ph_day: revenue of 1 PH/s for a day, USD; None while it is unknown. Then
            hashes count nothing, so that nothing mines on hope; a reserve is worth what it was.
        pool_fee_share: part of the revenue that the pool keeps, 0 to 1.
        reserve_usd_per_mwh: value of holding one gate-backed MW sheddable for an hour, USD.
        default_price_usd_per_mwh: energy price while no feed gives one; None if unknown then. An
            unknown price is not a cheap one: nothing mines while it is unknown.
        carbon_usd_per_t: the operator's own price on what energy emits, USD; 0: none (`carbon`).
    """

    hashprice_usd_per_ph_day: float | None = 0.0
    pool_fee_share: float = 0.0
    reserve_usd_per_mwh: float = 0.0
    default_price_usd_per_mwh: float | None = 0.0
    carbon_usd_per_t: float = 0.0

    def __post_init__(self) -> None:
        numbers = (
            self.hashprice_usd_per_ph_day or 0.0,
            self.reserve_usd_per_mwh,
            self.default_price_usd_per_mwh or 0.0,
        )
        if not all(math.isfinite(n) for n in numbers) or not 0 <= self.pool_fee_share < 1:
            raise SiteInvalid("values", "prices must be finite and the pool fee between 0 and 1")
        if not (math.isfinite(self.carbon_usd_per_t) and self.carbon_usd_per_t >= 0):
            raise SiteInvalid("values", "a price on carbon is finite and not below zero")

    @property
    def usd_per_hash_hour(self) -> float:
        """Revenue of one hash per second kept up for an hour, USD, after the pool's fee.

        Zero while the hashprice is unknown: that is what an unknown income counts as at its worst.
        """
        net = (self.hashprice_usd_per_ph_day or 0.0) * (1.0 - self.pool_fee_share)
        return net / HOURS_PER_DAY / PH


@dataclass(frozen=True, slots=True)
class Quote:
    """Where the hashprice in force comes from.

    Attributes:
        source: who said it; "site file" for a constant one.
        observed_s: when it was observed, our clock; NaN for a constant one or one never known.
        note: why it is unknown or held, in words; empty while all is well.
        told_usd_per_ph_day: the hashprice that was journaled last; None for an unknown one.
    """

    source: str = "site file"
    observed_s: float = math.nan
    note: str = ""
    told_usd_per_ph_day: float | None = None
