"""Tables of the emulated models: what each profile draws and hashes.

Every LuxOS row is from a record of a real Antminer S19k Pro on LuxOS 2025.4 (256foundation/asic-rs,
luxminer/v1/profiles.json), none is interpolated. The machine's own default draws 2,794 W where the
maker's rating says 2,760 W. For the Whatsminer M60S only the rating is published (3,441 W,
186 TH/s), so its hashrate is MODELLED as a straight line through it; no maker's curve was found.
"""

from dataclasses import dataclass, replace

from wattshift_cluster.emulate.timing import S21_AIR, Span, Thermal

TH = 1e12


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set point of a firmware that works in steps.

    Attributes:
        name: as the firmware calls it.
        watts_w, hashrate_h_per_s: settled values.
        frequency_mhz, voltage_v: chip clock and board voltage.
        step: distance from the default; above 0 is overclocked.
    """

    name: str
    watts_w: float
    hashrate_h_per_s: float
    frequency_mhz: int
    voltage_v: float
    step: int


@dataclass(frozen=True, slots=True)
class Spec:
    """One emulated model.

    Attributes:
        kind: row of `kinds.KINDS`, and of `timing.REAL`.
        model: as the firmware reports it.
        nameplate_w: rating, W; the slew rates are in shares of it.
        profiles: ascending by watts; empty for a machine with a power limit.
        curve: (watts, hashes per second), ascending; hashrate between is linear.
        limit_w: smallest and largest power limit, W; None for a machine with profiles.
        bias: smallest and largest share by which one copy's draw differs from the table. A power
            limit is held from below.
        standby_w: smallest and largest draw asleep among the copies.
        keeps_sleep: whether a machine put to sleep still sleeps when power comes back. Where it is
            a running process's state and not configuration, the machine resumes by itself.
        thermal: what warm air does to it.
        wander: share by which the true draw of a real machine wanders slowly (MODELLED).
    """

    kind: str
    model: str
    nameplate_w: float
    profiles: tuple[Profile, ...]
    curve: tuple[tuple[float, float], ...]
    limit_w: tuple[float, float] | None
    bias: tuple[float, float]
    standby_w: Span = (24.0, 29.5)
    keeps_sleep: bool = False
    thermal: Thermal = S21_AIR
    wander: float = 0.004


_S19K_ROWS = (
    (190, 784, 39.2, 11.88),
    (215, 879, 44.4, 11.88),
    (240, 978, 49.5, 11.88),
    (265, 1080, 54.7, 11.88),
    (290, 1188, 59.8, 11.88),
    (315, 1299, 65.0, 11.88),
    (340, 1414, 70.2, 12.0),
    (365, 1533, 75.3, 12.15),
    (390, 1657, 80.5, 12.3),
    (415, 1785, 85.7, 12.45),
    (440, 1916, 90.8, 12.6),
    (465, 2052, 96.0, 12.75),
    (490, 2192, 101.1, 12.9),
    (515, 2336, 106.3, 13.05),
    (540, 2485, 111.5, 13.2),
    (565, 2637, 116.6, 13.35),
    (590, 2794, 121.8, 13.5),
    (615, 2954, 127.0, 13.65),
    (640, 3119, 132.1, 13.8),
)
_S19K_DEFAULT_MHZ = 590


def _s19k_profiles() -> tuple[Profile, ...]:
    steps = [mhz for mhz, *_ in _S19K_ROWS]
    default = steps.index(_S19K_DEFAULT_MHZ)
    return tuple(
        Profile(
            name="default" if mhz == _S19K_DEFAULT_MHZ else f"{mhz}MHz",
            watts_w=float(watts_w),
            hashrate_h_per_s=ths * TH,
            frequency_mhz=mhz,
            voltage_v=voltage_v,
            step=i - default,
        )
        for i, (mhz, watts_w, ths, voltage_v) in enumerate(_S19K_ROWS)
    )


S19K_PRO = Spec(
    kind="luxos",
    model="Antminer S19k Pro",
    nameplate_w=2760.0,
    profiles=_s19k_profiles(),
    curve=tuple((p.watts_w, p.hashrate_h_per_s) for p in _s19k_profiles()),
    limit_w=None,
    bias=(-0.01, 0.01),
)

M60S = Spec(
    kind="whatsminer",
    model="M60S_VK40",
    nameplate_w=3441.0,
    profiles=(),
    curve=((0.0, 0.0), (3441.0, 186 * TH)),
    limit_w=(1204.0, 3441.0),
    bias=(-0.015, -0.002),
)

M50S_PLUS_PLUS = Spec(
    kind="whatsminer_v2",
    model="M50S++VK30",
    nameplate_w=3300.0,
    profiles=(),
    curve=((0.0, 0.0), (3300.0, 138 * TH)),
    limit_w=(1155.0, 3300.0),
    bias=(-0.015, -0.002),
)
"""Rating from a public SQL table; the straight line through it is MODELLED, as for the M60S."""

S21 = Spec(
    kind="antminer",
    model="Antminer S21",
    nameplate_w=3500.0,
    profiles=(),
    curve=((0.0, 0.0), (3500.0, 200 * TH)),
    limit_w=(3500.0, 3500.0),
    bias=(-0.04, 0.04),
    keeps_sleep=True,
)
"""Rating only (3,500 W, 200 TH/s): the stock firmware knows no profile and no limit. Hashrate on
the way up is MODELLED as a straight line."""

S21_PRO = Spec(
    kind="braiins",
    model="Antminer S21 Pro",
    nameplate_w=3510.0,
    profiles=(),
    curve=((1450.0, 108 * TH), (2000.0, 146 * TH), (2750.0, 192 * TH), (3510.0, 234 * TH)),
    limit_w=(1500.0, 3510.0),
    bias=(-0.01, 0.035),
)
"""Rating from both tables; the curve below it and the smallest target are MODELLED. Two records of
the firmware (asic-rs, braiins) draw 0.6 % less and 3.5 % more than their target."""

S19K_PRO_VNISH = Spec(
    kind="vnish",
    model="Antminer S19k Pro",
    nameplate_w=2760.0,
    profiles=tuple(replace(p, name=f"{p.watts_w:.0f}") for p in _s19k_profiles()),
    curve=S19K_PRO.curve,
    limit_w=None,
    bias=(-0.01, 0.01),
)
"""Presets are named by their watts. No table of VNish's own was found: the rows are those of the
same model on LuxOS (MODELLED)."""

BITAXE_GAMMA = Spec(
    kind="bitaxe",
    model="Gamma",
    nameplate_w=18.0,
    profiles=(),
    curve=((0.0, 0.0), (18.0, 1.2 * TH)),
    limit_w=(18.0, 18.0),
    bias=(-0.05, 0.02),
    standby_w=(1.5, 3.0),
)
"""Rating from one of the two tables; the draw while paused is MODELLED."""
