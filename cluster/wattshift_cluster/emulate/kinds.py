"""The kinds of emulated machine: a model's table and the firmware that speaks for it."""

from collections.abc import Callable
from dataclasses import dataclass

from wattshift_cluster.emulate.firmware import Body, Firmware
from wattshift_cluster.emulate.luxos import LuxOs
from wattshift_cluster.emulate.specs import M60S, S19K_PRO, Spec
from wattshift_cluster.emulate.whatsminer import Whatsminer


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: `spec` is the model, `firmware` makes what answers for it."""

    spec: Spec
    firmware: Callable[[Body], Firmware]


KINDS: dict[str, Kind] = {
    "luxos": Kind(S19K_PRO, LuxOs),
    "whatsminer": Kind(M60S, Whatsminer),
}
