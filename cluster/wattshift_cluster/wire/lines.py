"""One JSON object per line, at most 4 MiB, and the proofs that both sides know the token.

Handshake, each message one line:

    server  {"wattshift": 1, "name": NAME, "nonce": 32 hexadecimal digits}
    client  {"nonce": 32 hexadecimal digits, "mac": HMAC-SHA256(token, "client" + both nonces)}
    server  {"mac": HMAC-SHA256(token, "server" + both nonces)}  or  {"error": "unauthorized"}

The side's own name in the proof keeps one side's proof from being played back as the other's.
"""

import hashlib
import hmac
import json
import secrets
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from typing import Any, Literal

LINE_LIMIT_BYTES = 4 << 20
"""Room for the inventory of an agent with more than a thousand machines of twenty points each."""

PROTOCOL = 1
NONCE_BYTES = 16

Side = Literal["client", "server"]


class LineInvalid(Exception):
    """What came in is not one JSON object within the size limit."""


def encode(message: dict[str, Any]) -> bytes:
    """One line. Raises: LineInvalid when it is too long or holds what JSON cannot (NaN is None)."""
    try:
        text = json.dumps(message, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as fault:
        raise LineInvalid(f"not representable in JSON: {fault}") from fault
    line = text.encode() + b"\n"
    if len(line) > LINE_LIMIT_BYTES:
        raise LineInvalid(f"a line of {len(line)} bytes is longer than {LINE_LIMIT_BYTES}")
    return line


def decode(line: bytes) -> dict[str, Any]:
    """The object on one line. Raises: LineInvalid."""
    try:
        message = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise LineInvalid(f"not JSON: {str(fault)[:80]}") from fault
    if not isinstance(message, dict):
        raise LineInvalid("not a JSON object")
    return message


async def read_message(reader: StreamReader) -> dict[str, Any] | None:
    """The next object; None when the other side ended the connection between two lines.

    Raises:
        LineInvalid: too long, cut off, or not an object.
        OSError: the connection broke.
    """
    try:
        line = await reader.readuntil(b"\n")
    except IncompleteReadError as fault:
        if fault.partial:
            raise LineInvalid("the connection ended within a line") from fault
        return None
    except LimitOverrunError as fault:
        raise LineInvalid(f"a line is longer than {LINE_LIMIT_BYTES} bytes") from fault
    return decode(line)


async def write_message(writer: StreamWriter, message: dict[str, Any]) -> None:
    """Send one object and wait until the transport took it. Raises: LineInvalid, OSError."""
    writer.write(encode(message))
    await writer.drain()


def new_nonce() -> str:
    """A fresh nonce as it goes over the wire."""
    return secrets.token_hex(NONCE_BYTES)


def proof(token: bytes, side: Side, first_nonce: str, second_nonce: str) -> str:
    """The proof of `side`: its name, the other side's nonce, then its own, under the token.

    Raises:
        LineInvalid: a nonce is not 32 hexadecimal digits.
    """
    nonces = b"".join(_nonce_bytes(nonce) for nonce in (first_nonce, second_nonce))
    return hmac.new(token, side.encode() + nonces, hashlib.sha256).hexdigest()


def proves(mac: object, token: bytes, side: Side, first_nonce: str, second_nonce: str) -> bool:
    """Whether `mac` is the proof of `side`, compared in constant time. Raises: LineInvalid."""
    expected = proof(token, side, first_nonce, second_nonce)
    return isinstance(mac, str) and hmac.compare_digest(mac.encode(), expected.encode())


def _nonce_bytes(nonce: object) -> bytes:
    try:
        data = bytes.fromhex(nonce) if isinstance(nonce, str) else b""
    except ValueError:
        data = b""
    if len(data) != NONCE_BYTES:
        raise LineInvalid(f"a nonce must be {2 * NONCE_BYTES} hexadecimal digits")
    return data


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
