"""Values in Modbus registers: how many words each type takes, and what the words mean.

Bytes inside a register are big-endian (Modbus Application Protocol 1.1b3, 4.2); the order of the
registers of one value is the maker's choice.
"""

import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Table = Literal["holding", "input"]
Encoding = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
WordOrder = Literal["big", "little"]

_FORMATS: dict[str, str] = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}

GATEWAY_CODES = (10, 11)
"""Exception codes of a gateway whose device is away (Modbus Application Protocol 1.1b3, 7)."""


class RegisterRefused(Exception):
    """The device answered with a Modbus exception.

    Attributes:
        code: of the exception.
    """

    def __init__(self, address: int, code: int) -> None:
        super().__init__(f"register {address}: Modbus exception {code}")
        self.code = code


ReadWords = Callable[[Table, int, int], Awaitable[Sequence[int]]]
"""Reads `count` registers of a table from an address on. Raises RegisterRefused, and what the
connection raises."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one value stands, and what it means.

    Attributes:
        address: of its first register, as in the request; the first of all is 0.
        encoding: of its words.
        table: holding or input registers.
        order: of its words: `big` has the high one first.
        scale: unit of ours for each count; negative where the meter counts the other way.
    """

    address: int
    encoding: Encoding
    table: Table = "holding"
    order: WordOrder = "big"
    scale: float = 1.0

    @property
    def words(self) -> int:
        """Registers that it takes."""
        return struct.calcsize(_FORMATS[self.encoding]) // 2

    @property
    def wraps(self) -> float | None:
        """Where a counter of this type starts again, in our unit; None for floats."""
        if self.encoding.startswith("float"):
            return None
        # A counter in a signed type is taken for one that uses all bits: what is read is folded.
        return float(2 ** (16 * self.words)) * abs(self.scale)

    def value(self, words: Sequence[int], *, counter: bool = False) -> float:
        """The value in our unit; NaN where a float has none.

        Args:
            words: as read.
            counter: it only counts up, so that the sign bit of an integer is no sign.
        """
        assert len(words) == self.words, "as many words as the type takes"
        ordered = words if self.order == "big" else list(reversed(words))
        packed = b"".join(struct.pack(">H", word) for word in ordered)
        form = _FORMATS[self.encoding]
        (plain,) = struct.unpack(form.upper() if counter and form[1] in "hiq" else form, packed)
        scale = abs(self.scale) if counter else self.scale
        return float(plain) * scale


async def read_place(read: ReadWords, place: Place, *, counter: bool = False) -> float:
    """Read and decode one value. Raises what `read` raises."""
    words = await read(place.table, place.address, place.words)
    return place.value(words, counter=counter)
