"""Modbus TCP as bytes: requests in, answers out; pure, with every length checked.

Read holding (3) and input registers (4), write one (6) and several (16); everything else is refused
with exception 1. Layout and bounds: Modbus Application Protocol V1.1b3 and the Modbus TCP guide.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

HEAD_BYTES = 7
MOST_READ, MOST_WRITTEN = 125, 123
PDU_MOST_BYTES = 253

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_SEVERAL = 3, 4, 6, 16


class Code(IntEnum):
    """Exception codes that are answered."""

    FUNCTION = 1
    ADDRESS = 2
    VALUE = 3


class RequestRefused(Exception):
    """A request that is answered with an exception.

    Attributes:
        code: which.
        reason: for people; it holds nothing but numbers and register names.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a request: `transaction` and `unit` come back, `size` is of the PDU."""

    transaction: int
    unit: int
    size: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request: which words; `words` None reads them, else they are written."""

    function: int
    address: int
    count: int
    words: tuple[int, ...] | None = None


def read_head(raw: bytes) -> Head:
    """The head of a frame. Raises: ValueError, this is no Modbus and nothing after it can be."""
    transaction, protocol, length, unit = struct.unpack(">HHHB", raw)
    if protocol != 0 or not 2 <= length <= PDU_MOST_BYTES + 1:
        raise ValueError("not a Modbus TCP frame")
    return Head(transaction, unit, length - 1)


def read_request(pdu: bytes) -> Request:
    """A request. Raises: RequestRefused."""
    function, body = pdu[0], pdu[1:]
    if function in (READ_HOLDING, READ_INPUT):
        if len(body) != 4:
            raise RequestRefused(Code.VALUE, "a read of another length")
        address, count = struct.unpack(">HH", body)
        _bounded(address, count, MOST_READ)
        return Request(function, address, count)
    if function == WRITE_ONE:
        if len(body) != 4:
            raise RequestRefused(Code.VALUE, "a write of another length")
        address, word = struct.unpack(">HH", body)
        return Request(function, address, 1, (word,))
    if function == WRITE_SEVERAL:
        if len(body) < 5:
            raise RequestRefused(Code.VALUE, "a write of another length")
        address, count, size = struct.unpack(">HHB", body[:5])
        _bounded(address, count, MOST_WRITTEN)
        if size != 2 * count or len(body) != 5 + size:
            raise RequestRefused(Code.VALUE, "a write whose lengths differ")
        return Request(function, address, count, struct.unpack(f">{count}H", body[5:]))
    raise RequestRefused(Code.FUNCTION, f"function {function} is not served")


def _bounded(address: int, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise RequestRefused(Code.VALUE, f"{count} registers at once")
    if address + count > 0x1_0000:
        raise RequestRefused(Code.ADDRESS, "beyond the last register")


def answer(head: Head, request: Request, words: Sequence[int] = ()) -> bytes:
    """What is sent back once a request was served; `words` are those that were read."""
    if request.words is None:
        body = struct.pack(f">BB{len(words)}H", request.function, 2 * len(words), *words)
    elif request.function == WRITE_ONE:
        body = struct.pack(">BHH", request.function, request.address, request.words[0])
    else:
        body = struct.pack(">BHH", request.function, request.address, request.count)
    return _framed(head, body)


def refusal(head: Head, function: int, code: Code) -> bytes:
    """What is sent back where a request was refused."""
    return _framed(head, struct.pack(">BB", function & 0x7F | 0x80, code))


def _framed(head: Head, body: bytes) -> bytes:
    return struct.pack(">HHHB", head.transaction, 0, len(body) + 1, head.unit) + body
