"""Checkpoints: lines that sign all lines before them, and the file that says how far the log came.

A signature covers the line's own number, time and `prev`, and so the whole chain before it. The
last checkpoint is also kept as `head.json`: a log that ends before it has been cut.
"""

from collections.abc import Mapping
from typing import Any

from wattshift_cluster.settle.keys import Signer, signed_by
from wattshift_cluster.settle.lines import Kind, Line, LineInvalid, written

HEAD_NAME = "head.json"


def signed_line(signer: Signer, seq: int, at_s: float, prev: str, *, end: bool) -> bytes:
    """The bytes of a checkpoint; `end` says that the writer has closed the log after it."""
    signature = signer.sign(_text(seq, at_s, prev, end=end))
    body = {"key": signer.public, "end": end, "signature": signature}
    return written(seq, at_s, Kind.CHECKPOINT, body, prev)


def checked(line: Line, keys: frozenset[str]) -> bool:
    """Whether a checkpoint closes the log. Raises: LineInvalid: its signature does not hold.

    Args:
        line: a line of kind CHECKPOINT.
        keys: public keys that are trusted; empty trusts the one that the line names.
    """
    key, end, signature = _fields(line.body)
    if keys and key not in keys:
        raise LineInvalid(f"signed with another key, {key[:16]}…")
    if not signed_by(key, _text(line.seq, line.at_s, line.prev, end=end), signature):
        raise LineInvalid("its signature does not hold")
    return end


def _fields(body: Mapping[str, Any]) -> tuple[str, bool, str]:
    key, end, signature = body.get("key"), body.get("end"), body.get("signature")
    if not (isinstance(key, str) and isinstance(end, bool) and isinstance(signature, str)):
        raise LineInvalid("a checkpoint without key, end and signature")
    return key, end, signature


def _text(seq: int, at_s: float, prev: str, *, end: bool) -> str:
    return f"wattshift evidence 1|{seq}|{float(at_s)!r}|{prev}|{'end' if end else 'on'}"
