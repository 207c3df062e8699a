"""Two tables: what each model is rated at, and what each firmware can do.

Ratings are the makers' claims, relayed by public tables ("ASIC Efficiency Index", August 2026, and
others); they are not measurements. Abilities were read in the clients' sources and tried against
emulators; a figure marked unverified was never seen on hardware. A machine's flags in pyasic
(`supports_…`) say too little, which is why this table exists.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rating:
    """Nameplate of a model: electrical draw in W and hashes per second."""

    watts_w: float
    hashrate_h_per_s: float
    source: str


_TH = 1e12

_A = "ASIC Efficiency Index"
_B = "public SQL table"
_ONE = f"{_A} or {_B}"

RATINGS: dict[str, Rating] = {
    "S19": Rating(3250, 95 * _TH, "unverified: in neither table"),
    "S19 Pro": Rating(3250, 110 * _TH, _B),
    "S19j Pro": Rating(2950, 100 * _TH, _B),
    "S19k Pro": Rating(2760, 120 * _TH, f"{_A}, {_B}"),
    "S19 XP": Rating(3010, 141 * _TH, f"{_A}, miningstore.com (140 and 141: upper value)"),
    "T21": Rating(3610, 190 * _TH, f"{_A}, {_B}"),
    "S21": Rating(3500, 200 * _TH, f"{_B}; maker's claim per hackernoon"),
    "S21 Pro": Rating(3510, 234 * _TH, f"{_A}, {_B}"),
    "S21 XP": Rating(3645, 270 * _TH, _A),
    "S21 Hyd": Rating(5360, 335 * _TH, _ONE),
    "S21 XP Hyd": Rating(5676, 473 * _TH, f"{_A}, {_B}"),
    "S23 Hyd": Rating(5510, 580 * _TH, _A),
    "M50S++": Rating(3300, 138 * _TH, _B),
    "M60S": Rating(3441, 186 * _TH, f"{_A}, {_B} (upper values)"),
    "M60S++": Rating(3600, 226 * _TH, _ONE),
    "M63S": Rating(7511, 406 * _TH, f"{_ONE} (upper values)"),
    "M66S": Rating(5513, 298 * _TH, f"{_B}, one further file"),
    "M66S+": Rating(5406, 318 * _TH, _ONE),
    "M70S": Rating(3140, 226 * _TH, _ONE),
    "M72S": Rating(4000, 264 * _TH, _ONE),
    "A1466": Rating(3150, 150 * _TH, _ONE),
    # 3,420 W (unverified) and 3,681 W stand against each other: what counts as a ceiling is higher.
    "A1566": Rating(3681, 185 * _TH, f"{_B} (upper value)"),
    "Avalon Q": Rating(1674, 90 * _TH, _ONE),
    "Avalon Mini3": Rating(800, 37.5 * _TH, _ONE),
    "SealMiner A2 Pro Air": Rating(3874, 260 * _TH, _ONE),
    "BitAxe Gamma": Rating(18, 1.2 * _TH, _ONE),
    "BitAxe Supra": Rating(12, 0.7 * _TH, _ONE),
}
"""Left out: the M60S+ (212 TH/s), for which no table names the watts."""


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
    # Unverified: 25 W of board (S19 class) and idling fans; minutes from the restart to full rate.
    "antminer": Ability(standby_w=75.0, sleep_s=60.0, settle_s=300.0, needs_password=True),
    # 25 W in under 5 s, full power in under 10 s: vendor's claim (hashrateindex.com).
    "luxos": Ability(standby_w=30.0, sleep_s=5.0, settle_s=10.0, needs_password=False),
    # Unverified; a cold start may take minutes. Give connect() what commissioning measured.
    "whatsminer": Ability(standby_w=30.0, sleep_s=5.0, settle_s=10.0, needs_password=True),
    # Unverified, too. A new limit restarts mining (pyasic), so it settles after the restart.
    "whatsminer_v2": Ability(standby_w=30.0, sleep_s=5.0, settle_s=40.0, needs_password=True),
    # Unverified. A raise was seen to crawl for minutes (hass-miner#586). Tolerance is the margin
    # by which a target may be passed: one record shows 3.5 %.
    "braiins": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=True),
    # Unverified, too: a preset restarts mining and is then tuned.
    "vnish": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=True),
    # The chip is switched off, the control board stays; the figures are unverified.
    "bitaxe": Ability(standby_w=5.0, sleep_s=10.0, settle_s=60.0, needs_password=False),
    # Through pyasic; standby and times unverified, and none is known of the read-only ones.
    "avalon": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=False),
    "bosminer": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=False),
    "epic": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=True),
    "auradine": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=True),
    "marathon": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=True),
    "goldshell": Ability(standby_w=60.0, sleep_s=15.0, settle_s=300.0, needs_password=True),
}


_MAKER = re.compile(r"^(bitmain |microbt |canaan )?(antminer |whatsminer )?")
_WHATSMINER = re.compile(r"^(m\d\ds?\+{0,2})_?v[a-z]?\d+$")
_AVALON = re.compile(r"^avalon(?:miner)?a?(\d{4})$")


def _folded(model: str) -> str:
    """One spelling of a model's name: no maker, no revision, no spaces, lower case."""
    text = _MAKER.sub("", model.split(" (")[0].strip().lower())
    text = text.replace(" ", "").rstrip(".").removesuffix("_i")
    if whatsminer := _WHATSMINER.match(text):
        return whatsminer.group(1)
    if avalon := _AVALON.match(text):
        return f"a{avalon.group(1)}"
    return text


_BY_NAME = {_folded(name): row for name, row in RATINGS.items()}


def rating(model: str) -> Rating | None:
    """Look a model up by the name its firmware uses; None where it is not in the table.

    "Antminer S19k Pro" and "S19KPro" are the same, "M60S_VK40" is an "M60S", "AvalonMiner 1466" an
    "A1466". Apart from maker and board revision the whole name must fit, so that an "S21 Pro" is
    never taken for an "S21", nor an "M60S+" for an "M60S".
    """
    return _BY_NAME.get(_folded(model))
