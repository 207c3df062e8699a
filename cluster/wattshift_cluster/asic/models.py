"""Two tables: what each model is rated at, and what each firmware can do.

Ratings are the makers' claims, relayed by public tables ("ASIC Efficiency Index", August 2026, and
others); they are not measurements. Abilities were read in the clients' sources and tried against
emulators; a figure marked unverified was never seen on hardware. A machine's flags in pyasic
(`supports_…`) say too little, which is why this table exists.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rating:
    """Nameplate of a model: electrical draw in W and hashes per second."""

    watts_w: float
    hashrate_h_per_s: float
    source: str


_TH = 1e12

RATINGS: dict[str, Rating] = {
    "S19 Pro": Rating(3250, 110 * _TH, "public SQL table"),
    "S19j Pro": Rating(2950, 100 * _TH, "public SQL table"),
    "S19k Pro": Rating(2760, 120 * _TH, "ASIC Efficiency Index, public SQL table"),
    "S19 XP": Rating(3010, 140 * _TH, "ASIC Efficiency Index, miningstore.com"),
    "T21": Rating(3610, 190 * _TH, "ASIC Efficiency Index, public SQL table"),
    "S21": Rating(3500, 200 * _TH, "public SQL table; maker's claim per hackernoon"),
    "S21 Pro": Rating(3510, 234 * _TH, "ASIC Efficiency Index, public SQL table"),
    "S21 XP": Rating(3645, 270 * _TH, "ASIC Efficiency Index"),
    "M50S++": Rating(3300, 138 * _TH, "public SQL table"),
    "M60S": Rating(3441, 186 * _TH, "ASIC Efficiency Index, public SQL table (upper values)"),
    "M60S++": Rating(3600, 226 * _TH, "one of the two tables"),
    "M63S": Rating(7511, 406 * _TH, "one of the two tables (upper values)"),
    "M66S": Rating(5513, 298 * _TH, "public SQL table"),
    "M66S+": Rating(5406, 318 * _TH, "one of the two tables"),
    "M70S": Rating(3140, 226 * _TH, "one of the two tables"),
    "M72S": Rating(4000, 264 * _TH, "one of the two tables"),
}


@dataclass(frozen=True, slots=True)
class Ability:
    """What one firmware offers.

    Attributes:
        standby_w: upper bound of the draw asleep, W.
        sleep_s: seconds until the draw has fallen after a sleep command.
        settle_s: seconds until the draw has settled at any other point.
        needs_password: whether commands need one. Readings never do.
        tolerance: share by which the draw may exceed a point's watts (makers state 5 %).
    """

    standby_w: float
    sleep_s: float
    settle_s: float
    needs_password: bool
    tolerance: float = 0.05


ABILITIES: dict[str, Ability] = {
    # 25 W in under 5 s, full power in under 10 s: vendor's claim (hashrateindex.com).
    "luxos": Ability(standby_w=30.0, sleep_s=5.0, settle_s=10.0, needs_password=False),
    # Unverified; a cold start may take minutes. Give connect() what commissioning measured.
    "whatsminer": Ability(standby_w=30.0, sleep_s=5.0, settle_s=10.0, needs_password=True),
}


def rating(model: str) -> Rating | None:
    """Look a model up by the name its firmware uses; None where it is not in the table.

    "Antminer S19k Pro" is found as "S19k Pro", "M60S_VK40" as "M60S". The whole name must fit, so
    that an "S21 Pro" is never taken for an "S21".
    """
    name = model.replace("Antminer ", "").replace("WhatsMiner ", "").strip()
    variant = name.split("_")[0].split(" (")[0]
    return RATINGS.get(variant)
