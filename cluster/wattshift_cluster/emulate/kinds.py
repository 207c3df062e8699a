"""The kinds of emulated machine: a model's table and the firmware that speaks for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from wattshift_cluster.emulate.antminer import Antminer
from wattshift_cluster.emulate.bitaxe import OLD_VERSION, BitAxe
from wattshift_cluster.emulate.braiins import VERSION_25_07, Braiins
from wattshift_cluster.emulate.firmware import Body, Firmware
from wattshift_cluster.emulate.luxos import LuxOs
from wattshift_cluster.emulate.specs import (
    BITAXE_GAMMA,
    M50S_PLUS_PLUS,
    M60S,
    S19K_PRO,
    S19K_PRO_VNISH,
    S21,
    S21_PRO,
    Spec,
)
from wattshift_cluster.emulate.vnish import Vnish
from wattshift_cluster.emulate.whatsminer import Whatsminer
from wattshift_cluster.emulate.whatsminer_v2 import WhatsminerV2


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: `spec` is the model, `firmware` makes what answers for it."""

    spec: Spec
    firmware: Callable[[Body], Firmware]


KINDS: dict[str, Kind] = {
    "antminer": Kind(S21, Antminer),
    "bitaxe": Kind(BITAXE_GAMMA, BitAxe),
    "bitaxe_2_9": Kind(BITAXE_GAMMA, partial(BitAxe, version=OLD_VERSION)),
    "braiins": Kind(S21_PRO, Braiins),
    "braiins_25_07": Kind(S21_PRO, partial(Braiins, version=VERSION_25_07, profile=False)),
    "luxos": Kind(S19K_PRO, LuxOs),
    "vnish": Kind(S19K_PRO_VNISH, Vnish),
    "whatsminer": Kind(M60S, Whatsminer),
    "whatsminer_v2": Kind(M50S_PLUS_PLUS, WhatsminerV2),
}
