"""SunSpec meters: the chain of models is walked to one of 201-204 (integers) or 211-214 (floats).

A device begins with the words "SunS" at register 40000, 50000 or 0; then models follow each other,
each with its number and length, until number 65535. Integers stand beside the exponent of ten that
scales them, and both are read in one request, since a meter may change the exponent at any time.

Sources: SunSpec Information Model Specification (structure, values that mean "not implemented");
layouts counted from `model_201.json` to `model_214.json` of github.com/sunspec/models.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from wattshift_cluster.grid.meters.registers import GATEWAY_CODES, ReadWords, RegisterRefused
from wattshift_cluster.grid.meters.values import Values, lowest

MARK = (0x5375, 0x6E53)
BASES = (40000, 50000, 0)
END = 0xFFFF
HEADER_WORDS = 2
MAX_MODELS = 64
"""Models of one device; real ones have fewer than twenty."""

INTEGERS = (201, 202, 203, 204)
FLOATS = (211, 212, 213, 214)
INTEGER_WORDS, FLOAT_WORDS = 55, 70
"""From a model's number to the last value that is used: TotWh_SF and TotWhImp."""

_NO_INT16, _NO_SCALE = -0x8000, -0x8000
LARGEST_EXPONENT = 10


class NoSunSpecMeter(ValueError):
    """The device has no SunSpec meter where it was looked for; the text says what it has."""


@dataclass(slots=True)
class SunSpecPlan:
    """Finds the meter's model once, and reads it.

    The walk is remembered step by step, so that a slow gateway gets through it in several polls.

    Attributes:
        base: where the device begins; None: the usual places are tried.
        negate: its sign is the other way round: what it calls exported is imported.
    """

    base: int | None = None
    negate: bool = False
    _next: int | None = None
    _walked: int = 0
    _model: tuple[int, int] | None = None

    async def read(self, read: ReadWords) -> Values:
        """Read the meter. Raises: NoSunSpecMeter, and what `read` raises."""
        if self._model is None:
            self._model = await self._find(read)
        address, number = self._model
        words = await read("holding", address, _words_of(number))
        if words[0] != number:
            # Firmware was changed under us: where the meter stands now is not known.
            self.forget()
            raise NoSunSpecMeter(f"model {words[0]} stands where {number} was; looking again")
        if number in INTEGERS:
            return _integers(number, words, self.negate)
        return _floats(number, words, self.negate)

    def forget(self) -> None:
        """Look for the meter anew at the next read."""
        self._next, self._model, self._walked = None, None, 0

    async def _find(self, read: ReadWords) -> tuple[int, int]:
        if self._next is None:
            self._next = await self._begin(read)
        while self._walked < MAX_MODELS and self._next + HEADER_WORDS <= 0x10000:
            number, length = await read("holding", self._next, HEADER_WORDS)
            if number == END:
                break
            if number in (*INTEGERS, *FLOATS) and length + HEADER_WORDS >= _words_of(number):
                return self._next, number
            self._next += HEADER_WORDS + length
            self._walked += 1
        walked = self._walked
        self.forget()
        raise NoSunSpecMeter(f"none of its {walked} SunSpec models is a meter (201-204, 211-214)")

    async def _begin(self, read: ReadWords) -> int:
        for base in BASES if self.base is None else (self.base,):
            try:
                words = await read("holding", base, HEADER_WORDS)
            except RegisterRefused as refused:
                if refused.code in GATEWAY_CODES:
                    raise
                continue
            if tuple(words) == MARK:
                return base + HEADER_WORDS
        places = ", ".join(str(base) for base in BASES) if self.base is None else str(self.base)
        raise NoSunSpecMeter(f"no SunSpec device: its mark is not at register {places}")


def _words_of(number: int) -> int:
    return INTEGER_WORDS if number in INTEGERS else FLOAT_WORDS


def _integers(number: int, words: Sequence[int], negate: bool) -> Values:
    volts = {201: (8,), 202: (8, 9), 203: (8, 9, 10), 204: (12, 13, 14)}[number]
    imported = 38 if negate else 46
    watts_w = _scaled(_int16(words[18]), words[22])
    # An energy counter that reads zero is not implemented.
    counted = (words[imported] << 16) + words[imported + 1] or None
    per_count_wh = _scaled(1, words[54])
    return Values(
        watts_w=-watts_w if negate and watts_w is not None else watts_w,
        energy_wh=None if counted is None else _scaled(counted, words[54]),
        hz=_scaled(_int16(words[16]), words[17] if _int16(words[17]) is not None else 0),
        volts_v=lowest([_scaled(_int16(words[at]), words[15]) for at in volts]),
        wraps_wh=None if per_count_wh is None else 2.0**32 * per_count_wh,
    )


def _floats(number: int, words: Sequence[int], negate: bool) -> Values:
    volts = {211: (12,), 212: (12, 14), 213: (12, 14, 16), 214: (20, 22, 24)}[number]
    watts_w = _float32(words, 28)
    energy_wh = _float32(words, 60 if negate else 68)
    return Values(
        watts_w=-watts_w if negate and watts_w is not None else watts_w,
        energy_wh=energy_wh or None,
        hz=_float32(words, 26),
        volts_v=lowest([_float32(words, at) for at in volts]),
        wraps_wh=None,
    )


def _int16(word: int) -> int | None:
    """The signed value of a register; None where it is not implemented."""
    value = word - 0x10000 if word & 0x8000 else word
    return None if value == _NO_INT16 else value


def _scaled(plain: int | None, exponent_word: int) -> float | None:
    """`plain` times ten to the exponent; None where either is not there or not allowed."""
    exponent = _int16(exponent_word)
    if plain is None or exponent is None or abs(exponent) > LARGEST_EXPONENT:
        return None
    return float(plain * 10**exponent) if exponent >= 0 else plain / 10**-exponent


def _float32(words: Sequence[int], at: int) -> float | None:
    """The float in two registers; None where it is not implemented (NaN)."""
    (value,) = struct.unpack(">f", struct.pack(">HH", words[at], words[at + 1]))
    return None if math.isnan(value) else float(value)
