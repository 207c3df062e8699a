"""The control file between the emulated library and whoever plays its world: one table for both.

`ControlFile` is what Python maps; `c_header` writes the same table as a C header, which is compiled
into the library. Every field is of 8 bytes or a whole number of them, so neither side pads.

The owner writes the fields above STATE, the library those below it. Whoever touches more than one
word at a time holds the card's lock (an open file description lock: it dies with its process). What
changes physics comes as an event with its time, since the library wakes only when it is called.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import cast

MAGIC = b"WSHNVML1"
CARDS = 16
"""Most cards in one machine; the largest boxes sold hold 16."""

EVENTS = 256
"""Changes remembered between two calls into the library; the oldest are lost beyond that."""

PROCESSES = 16
HISTORY = 128
TICK_NS = 10_000_000
"""Grid of the physics; `HISTORY` ticks of energy must span the averaging window of 1 s."""

_U64, _F64 = ctypes.c_uint64, ctypes.c_double


class Change(IntEnum):
    """What an event changes."""

    LOAD = 1
    """Inference load, 0 to 1."""
    WRITE_LIMIT = 2
    """Somebody else set the power limit, mW."""
    CLAMP = 3
    """Ceiling of the firmware above every writer, mW; 0 for none."""
    AMBIENT = 4
    """Air temperature, °C."""
    REASONS = 5
    """Bits of throttle reasons held active."""
    RELOAD = 6
    """The driver starts anew: counter at zero, limit at its default."""


class Event(ctypes.Structure):
    """One change and when it took effect."""

    _fields_ = [("at_ns", _U64), ("change", _U64), ("value", _F64)]


class Process(ctypes.Structure):
    """One process on a card; utilisation in percent."""

    _fields_ = [("pid", _U64), ("memory_b", _U64), ("sm_pct", _U64), ("memory_pct", _U64)]


_Field = tuple[str, type, str]

CARD_FIELDS: tuple[_Field, ...] = (
    ("name", ctypes.c_char * 64, "as the driver says it"),
    ("uuid", ctypes.c_char * 48, "GPU-…"),
    ("serial", ctypes.c_char * 16, "board serial"),
    ("pci_bus", _U64, "bus number, domain 0, device 0"),
    ("capability", _U64, "compute capability, 10 times major plus minor"),
    ("memory_b", _U64, "framebuffer"),
    ("memory_used_b", _U64, "in use, beside the listed processes"),
    ("made_ns", _U64, "the card runs since then"),
    ("idle_w", _F64, "draw without load"),
    ("full_w", _F64, "draw at full load without a cap"),
    ("min_limit_mw", _U64, "least limit that may be set"),
    ("max_limit_mw", _U64, "largest limit that may be set"),
    ("default_limit_mw", _U64, "limit after the driver starts"),
    ("power_tau_s", _F64, "first-order lag of the draw"),
    ("cap_tau_s", _F64, "first-order lag with which a new limit takes hold"),
    ("refresh_ns", _U64, "NVML's values change this often; a multiple of the tick"),
    ("usage_averaged", _U64, "whether GetPowerUsage is the mean over 1 s"),
    ("has_average", _U64, "whether field 185 exists"),
    ("has_instant", _U64, "whether field 186 exists"),
    ("has_energy", _U64, "whether the energy counter exists"),
    ("memory_share", _F64, "part of the draw that is memory's; 0: no memory scope"),
    ("module_extra_w", _F64, "draw of the module beside the GPU; 0: no module scope"),
    ("sm_mhz", _U64, "highest graphics clock"),
    ("sm_idle_mhz", _U64, "graphics clock without load"),
    ("memory_mhz", _U64, "memory clock"),
    ("c_per_w", _F64, "settled temperature above the air, per watt"),
    ("heat_tau_s", _F64, "first-order lag of the temperature"),
    ("slowdown_c", _F64, "software slows down here, hardware 2 °C above"),
    ("mining_weight", _F64, "load of a followed worker at full duty"),
    ("mig_capable", _U64, "whether there is a MIG mode"),
    ("mig_slices", _U64, "MIG devices; 0: mode off"),
    ("compute_mode", _U64, "nvmlComputeMode_t"),
    ("persistence", _U64, "persistence mode"),
    ("privileged", _U64, "whether callers may set limits"),
    ("absent", _U64, "not found by nvmlInit"),
    ("lost", _U64, "every call: GPU_IS_LOST"),
    ("no_power", _U64, "power fields: NOT_SUPPORTED"),
    ("power_unknown", _U64, "power fields: UNKNOWN"),
    ("stale_power", _U64, "power values frozen, stamps go on"),
    ("stale_energy", _U64, "energy counter frozen"),
    ("limit_ignored", _U64, "set limits succeed and are not enforced"),
    ("lag_ns", _U64, "each call takes this much longer"),
    ("process_count", _U64, "rows of processes in use"),
    ("processes", Process * PROCESSES, "compute processes"),
    ("follow_path", ctypes.c_char * 512, "worker file whose duty is load; empty: none"),
    ("follow_change", _U64, "grows with each new path"),
    ("event_head", _U64, "events ever written"),
    ("events", Event * EVENTS, "ring of changes"),
    # STATE: written by the library alone
    ("event_tail", _U64, "events ever applied"),
    ("at_ns", _U64, "physics has come this far; 0: not started"),
    ("load", _F64, "inference load"),
    ("clamp_mw", _F64, "ceiling of the firmware; 0: none"),
    ("ambient_c", _F64, "air"),
    ("forced_reasons", _U64, "reasons held active"),
    ("power_w", _F64, "true draw now"),
    ("ceiling_w", _F64, "cap that has taken hold"),
    ("energy_j", _F64, "true energy since the driver started"),
    ("temperature_c", _F64, "of the chip"),
    ("requested_mw", _F64, "limit last set by anyone"),
    ("base_mw", _F64, "limit last set that is obeyed"),
    ("limit_writes", _U64, "limits set through the library"),
    ("history_j", _F64 * HISTORY, "energy at past ticks"),
    ("shown_us", _U64, "when the values below were refreshed, since 1970"),
    ("shown_instant_w", _F64, "refreshed draw"),
    ("shown_average_w", _F64, "refreshed mean over 1 s"),
    ("shown_energy_j", _F64, "refreshed counter"),
    ("shown_load", _F64, "refreshed load, mining included"),
    ("duty", _F64, "duty of the followed worker"),
    ("duty_ns", _U64, "when it was found; 0: never"),
    ("duty_busy_ns", _U64, "worker's time within launches then"),
    ("duty_pid", _U64, "followed worker's process; 0: none"),
)

FILE_FIELDS: tuple[_Field, ...] = (
    ("magic", ctypes.c_char * 8, "says what the file is, written last"),
    ("layout", _U64, "digest of this table: file and library must agree"),
    ("count", _U64, "cards in use"),
    ("driver_version", ctypes.c_char * 32, "as nvmlSystemGetDriverVersion says it"),
    ("driver_loaded", _U64, "0: DRIVER_NOT_LOADED"),
    ("driver_starts", _U64, "grows with each reload: handles and inits of before are void"),
    ("held_clock_ns", _U64, "boot clock of the physics held by a test; 0: it runs"),
)


class Card(ctypes.Structure):
    """One emulated card."""

    _fields_ = [(name, kind) for name, kind, _ in CARD_FIELDS]


class ControlFile(ctypes.Structure):
    """The whole file."""

    _fields_ = [
        *((name, kind) for name, kind, _ in FILE_FIELDS),
        ("cards", Card * CARDS),
    ]


def c_header() -> str:
    """The table as a C header, with its digest."""
    body = "\n".join(
        (
            f'#define MAGIC "{MAGIC.decode()}"',
            *(f"#define {name} {value}" for name, value in _numbers()),
            *(f"#define CHANGE_{change.name} {change.value}" for change in Change),
            _c_struct("event", _uncommented(Event)),
            _c_struct("process", _uncommented(Process)),
            _c_struct("card", CARD_FIELDS),
            _c_struct("control", (*FILE_FIELDS, ("cards", Card * CARDS, "one row a card"))),
        )
    )
    return f"#include <stdint.h>\n#define LAYOUT {_digest(body):#x}u\n{body}\n"


def layout_digest() -> int:
    """Digest of the table, below 2^32; a file of another table is refused by the library."""
    return int(c_header().split("#define LAYOUT ")[1].split("u\n")[0], 16)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _numbers() -> tuple[tuple[str, int], ...]:
    return (
        ("CARDS", CARDS),
        ("EVENTS", EVENTS),
        ("PROCESSES", PROCESSES),
        ("HISTORY", HISTORY),
        ("TICK_NS", TICK_NS),
        ("CONTROL_BYTES", ctypes.sizeof(ControlFile)),
        ("CARD_BYTES", ctypes.sizeof(Card)),
    )


def _uncommented(kind: type[ctypes.Structure]) -> list[_Field]:
    return [(name, of, "") for name, of, *_ in kind._fields_]


def _c_struct(name: str, fields: Sequence[_Field]) -> str:
    rows = []
    for field, kind, meaning in fields:
        before, after = _c_type(kind)
        rows.append(f"    {before} {field}{after};" + (f" /* {meaning} */" if meaning else ""))
    return "\n".join([f"struct {name} {{", *rows, "};"])


def _c_type(kind: type) -> tuple[str, str]:
    """A ctypes type as C writes it: what stands before the name and what after."""
    if issubclass(kind, ctypes.Array):
        return _c_type(cast("type", kind._type_))[0], f"[{kind._length_}]"
    return _C_NAMES[kind], ""


_C_NAMES: dict[type, str] = {
    _U64: "uint64_t",
    _F64: "double",
    ctypes.c_char: "char",
    Event: "struct event",
    Process: "struct process",
    Card: "struct card",
}
