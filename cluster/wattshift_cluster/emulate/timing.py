"""How fast each model moves and what its surroundings do to it: data that `machine` follows.

`QUICK` is for tests and the demo: LuxOS's vendor claims 25 W in under 5 s and full power in under
10 s, and every kind keeps to that. The others are nearer to real machines. A figure without a
source is MODELLED; where only "minutes" is known, the pair spans what that may mean.
"""

from dataclasses import dataclass

Span = tuple[float, float]
"""Smallest and largest among the copies of a model; each copy draws its own from its seed."""

NEVER: Span = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """How a model moves from one set point to another. Times are seconds.

    Attributes:
        react_s: from a command to the first watt of change.
        fall_s: from full draw to standby.
        rise_s: from standby to full draw, warm-up and tuning not counted.
        restart_s: hashless pause in which mining restarts because a set point changed; `NEVER`
            where it changes on the fly.
        warm_s: hashless bring-up of the boards after a sleep.
        cold_s: the same after the control board booted, and after a restart of mining.
        warm_share: of the draw to come that is drawn meanwhile.
        tune_steps: in how many steps the last part of a raise settles.
        tune_step_s: time on each of them.
        tune_from: share of a raise that is reached before the first step.
        boot_s: of the control board, after power-on or a restart.
    """

    react_s: Span = (0.2, 0.5)
    fall_s: Span = (1.5, 4.3)
    rise_s: Span = (5.0, 9.4)
    restart_s: Span = NEVER
    warm_s: Span = NEVER
    cold_s: Span = NEVER
    warm_share: float = 0.2
    tune_steps: int = 0
    tune_step_s: Span = NEVER
    tune_from: float = 0.7
    boot_s: Span = (2.0, 3.0)


QUICK = Timing()

LUXOS_REAL = Timing(cold_s=(30.0, 60.0), boot_s=(40.0, 70.0))
"""A wake takes the vendor's 10 s; boot and cold start are MODELLED."""

WHATSMINER_REAL = Timing(
    fall_s=(3.0, 6.0),
    rise_s=(60.0, 150.0),
    restart_s=(8.0, 15.0),
    warm_s=(30.0, 60.0),
    cold_s=(40.0, 80.0),
    boot_s=(40.0, 70.0),
)
"""A power limit restarts mining (pyasic's docstring); "minutes" to full rate is unverified."""

ANTMINER_REAL = Timing(
    react_s=(1.0, 3.0),
    fall_s=(3.0, 8.0),
    rise_s=(60.0, 150.0),
    restart_s=(15.0, 30.0),
    warm_s=(45.0, 90.0),
    cold_s=(60.0, 120.0),
    boot_s=(50.0, 90.0),
)
"""A mode change restarts bmminer; "several minutes" to full rate is unverified."""

BRAIINS_REAL = Timing(
    fall_s=(2.0, 5.0),
    rise_s=(20.0, 40.0),
    warm_s=(20.0, 60.0),
    cold_s=(30.0, 90.0),
    tune_steps=6,
    tune_step_s=(20.0, 60.0),
    boot_s=(40.0, 80.0),
)
"""The state PREHEAT exists and a raise crawls for minutes through steps (hass-miner#586)."""

VNISH_REAL = Timing(
    react_s=(1.0, 3.0),
    rise_s=(30.0, 60.0),
    restart_s=(10.0, 20.0),
    warm_s=(30.0, 60.0),
    cold_s=(45.0, 90.0),
    tune_steps=4,
    tune_step_s=(20.0, 60.0),
    boot_s=(50.0, 90.0),
)
"""MODELLED: a preset restarts mining, as on the stock firmware, and is then tuned."""

BITAXE_REAL = Timing(
    fall_s=(0.5, 1.5), rise_s=(3.0, 8.0), warm_s=(2.0, 5.0), cold_s=(3.0, 6.0), boot_s=(8.0, 15.0)
)
"""MODELLED: one chip on an ESP32."""

REAL: dict[str, Timing] = {
    "antminer": ANTMINER_REAL,
    "bitaxe": BITAXE_REAL,
    "braiins": BRAIINS_REAL,
    "luxos": LUXOS_REAL,
    "vnish": VNISH_REAL,
    "whatsminer": WHATSMINER_REAL,
    "whatsminer_v2": WHATSMINER_REAL,
}
"""By kind of machine; a kind that is not here is quick."""


@dataclass(frozen=True, slots=True)
class Thermal:
    """What warm air does. The temperatures are an S21's (hackernoon's review), where the clock
    fell from 490 to 440 MHz; the share is what those two clocks draw in a record of an S19k Pro.

    Attributes:
        throttle_above_c: ambient above which a machine lowers its clock, °C.
        throttled_share: of the set point's watts that is then left.
        shutdown_c: ambient from which it stops hashing, °C; it starts again by itself when the air
            is no warmer than `throttle_above_c` (MODELLED).
    """

    throttle_above_c: float = 40.0
    throttled_share: float = 1916.0 / 2192.0
    shutdown_c: float = 47.0


S21_AIR = Thermal()
AMBIENT_C = 26.0
