"""What a pool means when it refuses a share: five kinds, whatever its code and words.

Pools agree on neither. ckpool sends 21 for a stale share and for a job that it does not know;
others send 21 for "job not found" only, or put every refusal under 20 or -1 with a text. So the
words come first and the code decides where they say nothing.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

MOST_TEXT = 80

PLAIN = str.maketrans(dict.fromkeys((*range(32), 127), " "))


class Kind(StrEnum):
    """Why a share was refused."""

    STALE = "stale"
    DUPLICATE = "duplicate"
    LOW_DIFFICULTY = "low-difficulty"
    UNAUTHORISED = "unauthorised"
    OTHER = "other"


_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (Kind.DUPLICATE, ("duplicate", "already submitted", "already known", "inconclusive-dup")),
    (
        Kind.UNAUTHORISED,
        ("unauthori", "not authori", "not subscribed", "unknown worker", "unknown user", "banned"),
    ),
    (
        Kind.STALE,
        (
            "stale", "job not found", "unknown job", "invalid job", "unknown work", "old job",
            "job_id", "jobid", "not current", "prevblk", "prevhash", "expired",
        ),
    ),
    (
        Kind.LOW_DIFFICULTY,
        ("low diff", "low-diff", "lowdiff", "above target", "high-hash", "high hash",
         "difficulty too low", "low share", "target not met", "not meet"),
    ),
)  # fmt: skip
CODES: Mapping[int, Kind] = {
    21: Kind.STALE,
    22: Kind.DUPLICATE,
    23: Kind.LOW_DIFFICULTY,
    24: Kind.UNAUTHORISED,
    25: Kind.UNAUTHORISED,
}
"""Of Bitcoin's pools, and of most others."""


def kind_of(error: Any, codes: Mapping[int, Kind] = CODES) -> Kind:
    """The kind of a refusal.

    Args:
        error: as the pool sent it: [code, text, …], {"code", "message"}, plain text or nothing.
        codes: what the codes of its coin's pools mean.
    """
    code, text = _parts(error)
    lower = text.lower()
    for kind, words in _WORDS:
        if any(word in lower for word in words):
            return kind
    return codes.get(code, Kind.OTHER) if isinstance(code, int) else Kind.OTHER


def error_text(error: Any) -> str | None:
    """An error as "code text"; pools send lists, objects or plain text."""
    if error is None or error is False:
        return None
    code, text = _parts(error)
    return f"{brief(code)} {text}".strip()[:MOST_TEXT] if code is not None else text


def brief(value: Any, most: int = MOST_TEXT) -> str:
    """A value of a peer's message as one short printable line; what is nested is only named.

    A message may be nested as deep as the parser allows, hold megabytes, or text that no encoding
    takes: none of that may reach a log, a journal or a counter.
    """
    match value:
        case str():
            text = value[:most]
        case list() | dict():
            text = f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
        case int() if value.bit_length() > 64:
            text = "a huge number"
        case _:
            text = str(value)
    return text.encode("ascii", "backslashreplace").decode().translate(PLAIN)[:most]


def _parts(error: Any) -> tuple[Any, str]:
    if isinstance(error, list) and error:
        return error[0], " ".join(brief(part) for part in error[1:2])
    if isinstance(error, dict):
        return error.get("code"), brief(error.get("message", ""))
    return None, "" if error is None or error is False else brief(error)
