"""What a firmware is to the emulator: wires on ports around one machine's physics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.wires import Wire


@dataclass(frozen=True, slots=True)
class Body:
    """What a firmware is built around.

    Attributes:
        machine: what it controls.
        seed: of its serial number, hardware address, salts and session ids.
        clock: monotonic seconds, for whatever it forgets after a time.
        ignoring: True while a fault makes it accept set points and drop them.
        blank: True while a fault makes it report neither watts nor hashrate.
        password: that it asks for; None for the maker's own.
    """

    machine: Machine
    seed: int
    clock: Callable[[], float]
    ignoring: Callable[[], bool]
    blank: Callable[[], bool]
    password: str | None = field(default=None, repr=False)


class Firmware(Protocol):
    """One machine's firmware."""

    def wires(self) -> Mapping[int, Wire]:
        """How each port is spoken."""
        ...

    def restart(self) -> None:
        """Forget what a control board forgets when it restarts; set points stay."""
        ...
