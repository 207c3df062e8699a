"""The hand on the emulated cards: loads, faults and foreign writers, set while the library runs.

The owner makes the control file; any process that loads the library reads it. What changes physics
is booked as an event at the present of the physics' clock, so that it counts from that moment on
even if nobody reads the card for a while. Everything else takes hold with the next call.
"""

import ctypes
import fcntl
import mmap
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.emulate.nvml.layout import (
    CARDS,
    EVENTS,
    MAGIC,
    PROCESSES,
    TICK_NS,
    Card,
    Change,
    ControlFile,
    layout_digest,
)
from wattshift_cluster.emulate.nvml.models import CardModel

CONTROL_VARIABLE = "WATTSHIFT_EMULATED_NVML"
DRIVER_VERSION = "580.65.06"
HW_SLOWDOWN, SW_THERMAL, HW_THERMAL = 0x8, 0x20, 0x40
"""Throttle reasons that can be held active (nvmlClocksEventReasons)."""

_F_OFD_SETLKW = 38
_FLOCK = struct.Struct("hhqqi4x")
_UUID_SPACE = uuid.UUID("8f0d7d0c-6a51-4f3e-9c5e-5b1f8f6f7a10")


class CardFault(StrEnum):
    """What can be wrong with one card; each is a switch of the control file."""

    LOST = "lost"
    """Fell off the bus (XID 79): GPU_IS_LOST from every call."""
    ABSENT = "absent"
    """Gone, and no longer counted by the next nvmlInit; those behind it move up."""
    NO_POWER = "no_power"
    """Power fields answer NOT_SUPPORTED."""
    POWER_UNKNOWN = "power_unknown"
    """Power fields answer UNKNOWN."""
    STALE_POWER = "stale_power"
    """Power values are frozen while their stamps go on."""
    STALE_ENERGY = "stale_energy"
    """The energy counter is frozen."""
    LIMIT_IGNORED = "limit_ignored"
    """A limit is set "successfully" and not enforced."""


@dataclass(frozen=True, slots=True)
class ComputeProcess:
    """A process on a card: memory in bytes, utilisation in percent of its last sample."""

    pid: int
    memory_b: int = 0
    sm_pct: int = 0
    memory_pct: int = 0


@dataclass(frozen=True, slots=True)
class Truth:
    """What a card really does, unfiltered by refresh, averaging and faults.

    Attributes:
        at_ns: boot clock time up to which physics has come (the last call into the library).
        power_w, energy_j, temperature_c: true values; energy since the driver started.
        enforced_limit_w: lowest of all writers and the firmware.
        load: inference and mining together, 0 to 1.
        limit_writes: limits set through the library.
    """

    at_ns: int
    power_w: float
    energy_j: float
    temperature_c: float
    enforced_limit_w: float
    load: float
    limit_writes: int


class EmulatedCard:
    """One card of an emulated driver."""

    def __init__(self, driver: "EmulatedDriver", slot: int, model: CardModel) -> None:
        self._driver, self._slot, self.model = driver, slot, model
        self._row: Card = driver.words.cards[slot]

    @property
    def uuid(self) -> str:
        """As NVML says it; the same for the same place in every run."""
        return bytes(self._row.uuid).decode()

    def load(self, share: float) -> None:
        """Inference asks for this share of the card from now on, 0 to 1."""
        assert 0 <= share <= 1, share
        self._book(Change.LOAD, share)

    def follow(self, worker_file: Path | None, weight: float = 1.0) -> None:
        """Add the duty of a worker's seat to the load, times `weight`; None follows nobody."""
        path = b"" if worker_file is None else os.fsencode(worker_file)
        assert len(path) < Card.follow_path.size, "the path is too long for the control file"
        with self._driver.locked(self._slot):
            row = self._row
            row.mining_weight = weight
            row.follow_path = path
            row.follow_change += 1
            row.duty, row.duty_ns = 0.0, 0  # what is known of another worker says nothing

    def fault(self, fault: CardFault, on: bool = True) -> None:
        """Switch a fault on or off."""
        setattr(self._row, fault.value, int(on))

    def privilege(self, on: bool) -> None:
        """Whether callers may set limits, whoever they are."""
        self._row.privileged = int(on)

    def clamp_limit(self, limit_w: float | None) -> None:
        """The firmware enforces at most this, whatever is set; None ends it.

        Seen on a GH200: current limit 700 W where 900 W is requested; NVIDIA's DGX B200 guide says
        that the most conservative of three sources holds.
        """
        assert limit_w is None or limit_w > 0
        self._book(Change.CLAMP, 0.0 if limit_w is None else limit_w * 1000)

    def write_limit(self, limit_w: float) -> None:
        """Another writer sets the limit, as any root process may."""
        self._book(Change.WRITE_LIMIT, limit_w * 1000)

    def ambient(self, air_c: float) -> None:
        """Temperature of the air; a hot one makes the card slow down."""
        self._book(Change.AMBIENT, air_c)

    def hold_reasons(self, bits: int) -> None:
        """Hold thermal or hardware throttle reasons active; 0 lets them go."""
        assert not bits & ~(HW_SLOWDOWN | SW_THERMAL | HW_THERMAL), hex(bits)
        self._book(Change.REASONS, float(bits))

    def lag(self, each_call_s: float) -> None:
        """Every call on this card takes so much longer."""
        self._row.lag_ns = round(each_call_s * 1e9)

    def split(self, slices: int) -> None:
        """MIG on with so many equal slices; 0 is off."""
        assert 0 <= slices <= 7
        self._row.mig_slices = slices

    def compute_mode(self, mode: int) -> None:
        """Set nvmlComputeMode_t: 0 default, 2 prohibited, 3 one process alone."""
        self._row.compute_mode = mode

    def persistence(self, on: bool) -> None:
        """Set persistence mode."""
        self._row.persistence = int(on)

    def module_draw(self, beside_gpu_w: float) -> None:
        """Give the card a module scope: its draw and this much more; 0 takes it away."""
        self._row.module_extra_w = beside_gpu_w

    def memory_used(self, used_b: int) -> None:
        """Memory in use beside that of the listed processes, bytes."""
        self._row.memory_used_b = used_b

    def processes(self, rows: Sequence[ComputeProcess]) -> None:
        """The compute processes; a followed worker is listed beside them."""
        assert len(rows) <= PROCESSES
        with self._driver.locked(self._slot):
            for place, row in zip(self._row.processes, rows, strict=False):
                place.pid, place.memory_b = row.pid, row.memory_b
                place.sm_pct, place.memory_pct = row.sm_pct, row.memory_pct
            self._row.process_count = len(rows)

    def time_constants(
        self, power_s: float = 0.05, cap_s: float = 0.05, heat_s: float = 20.0
    ) -> None:
        """First-order lags of draw, limit and temperature, s."""
        row = self._row
        row.power_tau_s, row.cap_tau_s, row.heat_tau_s = power_s, cap_s, heat_s

    def refresh(self, every_s: float) -> None:
        """How often NVML's values change; rounded to the tick of 10 ms."""
        self._row.refresh_ns = max(1, round(every_s * 1e9 / TICK_NS)) * TICK_NS

    def truth(self) -> Truth:
        """What the card really did up to the last call into the library."""
        with self._driver.locked(self._slot):
            row = self._row
            clamp_mw = row.clamp_mw or row.base_mw
            return Truth(
                at_ns=row.at_ns,
                power_w=row.power_w,
                energy_j=row.energy_j,
                temperature_c=row.temperature_c,
                enforced_limit_w=min(row.base_mw, clamp_mw) / 1000,
                load=min(1.0, row.load + row.duty * row.mining_weight),
                limit_writes=row.limit_writes,
            )

    def _book(self, change: Change, value: float) -> None:
        with self._driver.locked(self._slot):
            place = self._row.events[self._row.event_head % EVENTS]
            place.at_ns, place.change, place.value = self._driver.now_ns(), change, value
            self._row.event_head += 1


class EmulatedDriver:
    """The control file of one machine's emulated driver, and its cards."""

    def __init__(self, path: Path, models: Sequence[CardModel]) -> None:
        """Make the file; a library that is initialised with its path sees these cards.

        Raises:
            FileExistsError: the file exists; running readers may have it mapped.
            OSError: it cannot be made.
        """
        assert 0 < len(models) <= CARDS
        self.path = Path(path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        os.posix_fallocate(self._fd, 0, ctypes.sizeof(ControlFile))
        self._map = mmap.mmap(self._fd, ctypes.sizeof(ControlFile))
        self.words = ControlFile.from_buffer(self._map)
        self.words.count = len(models)
        self.words.driver_version = DRIVER_VERSION.encode()
        self.words.driver_loaded = self.words.driver_starts = 1
        for slot, model in enumerate(models):
            _fill(self.words.cards[slot], slot, model)
            self.words.cards[slot].made_ns = boot_ns()
        self.cards = tuple(EmulatedCard(self, slot, model) for slot, model in enumerate(models))
        self.words.layout = layout_digest()
        self.words.magic = MAGIC

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file; a library that has it mapped keeps what it has."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def unload(self) -> None:
        """Take the driver away: every call answers DRIVER_NOT_LOADED."""
        self.words.driver_loaded = 0

    def reload(self) -> None:
        """Start the driver anew: counters and limits start over, handles and inits are void."""
        for card in self.cards:
            card._book(Change.RELOAD, 0.0)
        self.words.driver_starts += 1
        self.words.driver_loaded = 1

    def hold_clock(self) -> None:
        """Stop the physics' clock at now; it moves by `pass_time` alone."""
        self.words.held_clock_ns = boot_ns()

    def pass_time(self, seconds_s: float) -> None:
        """Move the held clock on."""
        assert self.words.held_clock_ns, "the clock runs; hold it first"
        self.words.held_clock_ns += round(seconds_s * 1e9)

    def now_ns(self) -> int:
        """Present of the physics, ns on the boot clock."""
        return self.words.held_clock_ns or boot_ns()

    @contextmanager
    def locked(self, slot: int) -> Iterator[None]:
        """Hold a card's lock. Its other holders are calls of the library, microseconds long."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
        fcntl.fcntl(self._fd, _F_OFD_SETLKW, asked)
        try:
            yield
        finally:
            asked = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, slot, 1, 0)
            fcntl.fcntl(self._fd, _F_OFD_SETLKW, asked)


def _fill(row: Card, slot: int, model: CardModel) -> None:
    identity = uuid.uuid5(_UUID_SPACE, f"{slot}/{model.key}")
    row.name = model.name.encode()
    row.uuid = f"GPU-{identity}".encode()
    row.serial = f"{1650000000 + slot}".encode()
    row.pci_bus = 0x10 + slot
    row.capability = 10 * model.capability[0] + model.capability[1]
    row.memory_b = model.memory_b
    row.idle_w, row.full_w = model.idle_w, model.full_w
    row.min_limit_mw = round(model.least_limit_w * 1000)
    row.max_limit_mw = round(model.most_limit_w * 1000)
    row.default_limit_mw = round(model.default_limit_w * 1000)
    row.power_tau_s = row.cap_tau_s = 0.05
    row.heat_tau_s, row.slowdown_c = 20.0, 87.0
    row.refresh_ns = model.refresh_ms * 1_000_000
    row.usage_averaged = model.usage_averaged
    row.has_average, row.has_instant = model.has_average, model.has_instant
    row.has_energy = model.has_energy
    row.memory_share = model.memory_share
    row.sm_mhz, row.sm_idle_mhz, row.memory_mhz = model.sm_mhz, model.sm_idle_mhz, model.memory_mhz
    row.ambient_c = 25.0
    row.c_per_w = 40.0 / model.default_limit_w
    row.mining_weight = 1.0
    row.mig_capable = model.mig_capable
    row.persistence = 1
