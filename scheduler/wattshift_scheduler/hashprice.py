"""What hashing earns: from the network's figures to USD per PH/s and day, and to a power price.

Difficulty 1 is 2**32 hashes on average. A share of difficulty d proves d * 2**32 of them, and the
network of difficulty D finds one block in D * 2**32. Everything below follows from that, from the
subsidy (50 BTC, halved every 210,000 blocks) and from the retarget every 2,016 blocks; all of it is
Bitcoin's consensus. How a pool shares blocks out is its payout scheme.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

HASHES_PER_DIFFICULTY = 2.0**32
DAY_S = 86_400.0
PH = 1e15

SATOSHI_PER_BTC = 100_000_000
HALVING_BLOCKS = 210_000
FIRST_SUBSIDY_SAT = 50 * SATOSHI_PER_BTC
HALVINGS_MAX = 64
"""From here on the consensus rule stops shifting; the subsidy is zero from the 33rd halving on."""

RETARGET_S = 1_209_600.0
RETARGET_MOST = 4.0
"""Two weeks are wanted for 2,016 blocks; one retarget changes difficulty by 4 at the most."""


class Scheme(StrEnum):
    """How a pool pays. What a share is worth for certain, and what hangs on the pool's luck.

    PPS: the subsidy for certain; the pool keeps the fees. FPPS: the subsidy and the average fees
    for certain. PPS_PLUS: the subsidy for certain, the fees by luck. PPLNS: all of it by luck.
    """

    PPS = "pps"
    FPPS = "fpps"
    PPS_PLUS = "pps+"
    PPLNS = "pplns"


@dataclass(frozen=True, slots=True)
class Network:
    """The figures from which revenue follows. All of them positive, fees may be zero.

    Attributes:
        difficulty: of the network.
        subsidy_btc: newly made with a block, BTC.
        fees_btc: average fees of a block, BTC.
        usd_per_btc: price of one BTC.
    """

    difficulty: float
    subsidy_btc: float
    fees_btc: float
    usd_per_btc: float

    def __post_init__(self) -> None:
        above = (self.difficulty, self.usd_per_btc)
        least = (self.subsidy_btc, self.fees_btc)
        if not all(math.isfinite(n) and n > 0 for n in above):
            raise ValueError("difficulty and price must be finite and above zero")
        if not all(math.isfinite(n) and n >= 0 for n in least):
            raise ValueError("subsidy and fees must be finite and not negative")

    @property
    def blocks_per_ph_day(self) -> float:
        """Blocks that 1 PH/s finds in a day, on average."""
        return PH * DAY_S / (self.difficulty * HASHES_PER_DIFFICULTY)

    def reward_btc(self, scheme: Scheme, luck: float = 1.0) -> float:
        """What a block hands on to miners, BTC, before the pool's fee.

        Args:
            scheme: how the pool pays.
            luck: blocks that the pool found for each that it should have; 1 on average.
        """
        if scheme is Scheme.PPS:
            return self.subsidy_btc
        if scheme is Scheme.FPPS:
            return self.subsidy_btc + self.fees_btc
        if scheme is Scheme.PPS_PLUS:
            return self.subsidy_btc + luck * self.fees_btc
        return luck * (self.subsidy_btc + self.fees_btc)

    def usd_per_ph_day(self, scheme: Scheme = Scheme.FPPS) -> float:
        """Hashprice: what 1 PH/s is expected to earn in a day, USD, before the pool's fee."""
        return self.blocks_per_ph_day * self.reward_btc(scheme) * self.usd_per_btc

    def share_btc(
        self, share_difficulty: float, scheme: Scheme, pool_fee_share: float, luck: float = 1.0
    ) -> float:
        """What a share of a difficulty is worth, BTC, after the pool's fee (0 to 1)."""
        part = share_difficulty / self.difficulty
        return part * self.reward_btc(scheme, luck) * (1.0 - pool_fee_share)


def subsidy_btc(height: int) -> float:
    """Newly made BTC in the block at a height. Raises ValueError below the first block, 0."""
    if height < 0:
        raise ValueError(f"no block has the height {height}")
    halvings = height // HALVING_BLOCKS
    return 0.0 if halvings >= HALVINGS_MAX else (FIRST_SUBSIDY_SAT >> halvings) / SATOSHI_PER_BTC


def next_halving(height: int) -> int:
    """Height of the first block after `height` that makes half as much."""
    return (height // HALVING_BLOCKS + 1) * HALVING_BLOCKS


def retargeted(difficulty: float, actual_s: float) -> float:
    """The next difficulty when the last 2,016 blocks took `actual_s` seconds.

    The time counts from the first to the last of them, over 2,015 intervals (consensus rule).
    """
    bounded_s = min(max(actual_s, RETARGET_S / RETARGET_MOST), RETARGET_S * RETARGET_MOST)
    return difficulty * RETARGET_S / bounded_s


def break_even_usd_per_mwh(usd_per_ph_day: float, j_per_th: float) -> float:
    """The power price at which hashing earns just its energy, USD/MWh.

    1 PH/s at x J/TH draws x kW, so a day burns 0.024 x MWh. It is the value of a MWh moved from
    this miner to other work, too.
    """
    if not j_per_th > 0:
        raise ValueError("J/TH must be above zero")
    return usd_per_ph_day * 1000.0 / (24.0 * j_per_th)


def j_per_th(watts_w: float, hashrate_h_per_s: float) -> float | None:
    """Joules per 10**12 hashes; None for what does not hash."""
    return watts_w * 1e12 / hashrate_h_per_s if hashrate_h_per_s > 0 else None


def curtailment_credit_usd_per_mwh(power_usd_per_mwh: float, break_even: float) -> float:
    """What a MWh that a miner does not burn saves, USD; negative where hashing earns more."""
    return power_usd_per_mwh - break_even


def pay_back_h(cost_usd: float, net_usd_per_h: float) -> float | None:
    """Hours of running that earn a cost back (a cycle's wear, a machine's price); None: never."""
    if cost_usd <= 0:
        return 0.0
    return cost_usd / net_usd_per_h if net_usd_per_h > 0 else None


def usd_per_difficulty(usd_per_hash_hour: float) -> float:
    """Worth of one unit of accepted difficulty, USD, from the value of a hash per second and hour.

    It is `Network.share_btc` at its price: a unit proves 2**32 hashes whatever the network is.
    """
    return HASHES_PER_DIFFICULTY * usd_per_hash_hour / 3600.0
