"""The registers that a utility's master sees: one table, and how its values become words.

Addresses count from 0, as on the wire. A value of more than one word has its high word first. What
is unknown is NaN in a float and all ones in an integer, never 0.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

TABLE_VERSION = 1
"""Of this table; a master can read it and refuse one that it does not know."""


class Kind(StrEnum):
    """How a value is laid out."""

    U16 = "uint16"
    U32 = "uint32"
    F32 = "float32"
    TEXT = "text"


WORDS: Mapping[Kind, int] = {Kind.U16: 1, Kind.U32: 2, Kind.F32: 2, Kind.TEXT: 8}
UNKNOWN_U16, UNKNOWN_U32 = 0xFFFF, 0xFFFF_FFFF

Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Register:
    """One value of the table.

    Attributes:
        name: its key in code and docs.
        address: of its first word.
        kind: its layout.
        unit: of the scaled value; empty: a plain number.
        meaning: for people.
        writable: whether the master may write it.
        scale: what one step of an integer is worth, in the unit.
    """

    name: str
    address: int
    kind: Kind
    unit: str
    meaning: str
    writable: bool = False
    scale: float = 1.0

    @property
    def words(self) -> int:
        """How many words it takes."""
        return WORDS[self.kind]

    @property
    def ends(self) -> int:
        """The address after its last word."""
        return self.address + self.words


U16, U32, F32, TEXT = Kind.U16, Kind.U32, Kind.F32, Kind.TEXT

TABLE: tuple[Register, ...] = (
    Register("setpoint_w", 0, U32, "W", "the cap; write this or the float, not both", True),
    Register("setpoint_float_w", 2, F32, "W", "the same cap as a float", True),
    Register("ramp_w_per_s", 4, U32, "W/s", "steepest fall towards it; 0: at once", True),
    Register("enable", 6, U16, "", "1: the set point holds; 0: it does not", True),
    Register("heartbeat", 7, U16, "", "any value other than the last one, in time", True),
    Register("priority", 8, U16, "", "0 to 9, 0 is highest; orders what is told", True),
    Register("draw_w", 100, F32, "W", "what the site draws"),
    Register("effective_cap_w", 102, F32, "W", "the lowest of all caps in force"),
    Register("headroom_w", 104, F32, "W", "cap less draw; negative above the cap"),
    Register("own_cap_w", 106, F32, "W", "what this server alone asks for; NaN: nothing"),
    Register("shed_250ms_w", 108, F32, "W", "watts that can be gone within 0.25 s"),
    Register("shed_1s_w", 110, F32, "W", "within 1 s"),
    Register("shed_10s_w", 112, F32, "W", "within 10 s"),
    Register("shed_10min_w", 114, F32, "W", "within 10 min"),
    Register("shed_30min_w", 116, F32, "W", "within 30 min"),
    Register("connection_w", 118, F32, "W", "the connection: no set point may exceed it"),
    Register("draw_age_s", 120, U16, "s", "age of the draw", scale=0.1),
    Register("heartbeat_age_s", 121, U16, "s", "since the heartbeat changed", scale=0.1),
    Register("state", 122, U16, "", "see the state words"),
    Register("alarms", 123, U16, "", "see the alarm bits"),
    Register("alarms_warning", 124, U16, "", "how many warnings stand"),
    Register("alarms_critical", 125, U16, "", "how many critical alarms stand"),
    Register("table_version", 126, U16, "", "version of this table"),
    Register("software", 127, TEXT, "", "version of the software, ASCII, zeros after it"),
)
BY_NAME: Mapping[str, Register] = {one.name: one for one in TABLE}
SHEDS = ("shed_250ms_w", "shed_1s_w", "shed_10s_w", "shed_10min_w", "shed_30min_w")
"""In the order of the deadlines of `flexibility.DEADLINES_S`."""


def encode(register: Register, value: Value) -> tuple[int, ...]:
    """The words of a value; None and NaN are unknown, what does not fit is the most that does."""
    if register.kind is Kind.TEXT:
        raw = str(value or "").encode("ascii", "replace")[: 2 * register.words]
        return struct.unpack(f">{register.words}H", raw.ljust(2 * register.words, b"\0"))
    assert not isinstance(value, str), "only text is text"
    known = value is not None and not math.isnan(value)
    if register.kind is Kind.F32:
        return struct.unpack(">2H", struct.pack(">f", _float32(value) if known else math.nan))
    most = UNKNOWN_U16 if register.kind is Kind.U16 else UNKNOWN_U32
    steps = most if value is None or not known else _steps(value / register.scale, most - 1)
    return (steps,) if register.kind is Kind.U16 else (steps >> 16, steps & 0xFFFF)


def decode(register: Register, words: tuple[int, ...]) -> float | None:
    """The value of words; None: the master wrote "unknown". Infinite and NaN floats come through.

    `register` is a number.
    """
    assert register.kind is not Kind.TEXT, "no text is written"
    assert len(words) == register.words, "whole values only"
    if register.kind is Kind.F32:
        return float(struct.unpack(">f", struct.pack(">2H", *words))[0])
    most = UNKNOWN_U16 if register.kind is Kind.U16 else UNKNOWN_U32
    steps = words[0] if register.kind is Kind.U16 else words[0] << 16 | words[1]
    return None if steps == most else steps * register.scale


def _float32(value: float | int | None) -> float:
    """A value that a 32-bit float can hold: beyond its range it is infinite."""
    assert value is not None, "asked of known values only"
    try:
        return float(struct.unpack(">f", struct.pack(">f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _steps(amount: float, most: int) -> int:
    return most if amount >= most else max(0, round(amount))
