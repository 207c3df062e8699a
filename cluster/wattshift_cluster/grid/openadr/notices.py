"""Notices that a VTN sends of its own accord: read, and told apart from what was heard already.

A notice that is played again must change nothing: otherwise a recorded one brings an old, higher
limit back. So for each object the newest modification time is kept: older notices are dropped, and
of the same time only those with words that were not heard before.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from wattshift_cluster.grid.openadr.shim import modern_notice
from wattshift_cluster.grid.openadr.words import Notification, Operation

MAX_NOTICE_BYTES = 1 << 20
"""One object: an event with two months of 5-minute intervals is larger, and comes by polling."""

MAX_OBJECTS_KNOWN = 10_000
MAX_WORDS_KNOWN = 8
"""Different notices of one object with the same modification time; more are dropped."""

OnNotice = Callable[[Notification], None]


class NoticeInvalid(ValueError):
    """Not a notification of OpenADR; the text says why, without showing what was sent."""


def read_notice(data: bytes) -> Notification:
    """The notification in a body or an MQTT payload, of 3.1 or 3.0. Raises NoticeInvalid."""
    if len(data) > MAX_NOTICE_BYTES:
        raise NoticeInvalid(f"more than {MAX_NOTICE_BYTES} bytes")
    try:
        row = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise NoticeInvalid("not JSON") from None
    try:
        notice = Notification.model_validate(modern_notice(row))
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NoticeInvalid(f"{where}: {first['msg']}"[:200]) from None
    if not isinstance(notice.object.get("id"), str) or not notice.object["id"]:
        raise NoticeInvalid("its object has no id")
    if modified(notice) is None:
        raise NoticeInvalid("its object has no modificationDateTime")
    return notice


def modified(notice: Notification) -> datetime | None:
    """When its object was last changed by the VTN's clock; None where that cannot be read."""
    told = notice.object.get("modificationDateTime")
    try:
        at = datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


@dataclass(slots=True)
class _Known:
    at: datetime
    words: set[bytes] = field(default_factory=set)
    deleted: bool = False


class Heard:
    """What was heard of each object; the longest unheard are forgotten beyond MAX_OBJECTS_KNOWN."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def is_news(self, notice: Notification) -> bool:
        """Whether this notice tells something new; it is remembered if so."""
        at = modified(notice)
        assert at is not None, "read_notice lets none through without a time"
        key = (notice.object_type.value, notice.object["id"])
        known = self._known.get(key)
        words = _digest(notice)
        if known is None or at > known.at:
            known = self._known[key] = _Known(at)
        elif at < known.at or known.deleted or words in known.words:
            return False
        deleted = notice.operation is Operation.DELETE
        if len(known.words) >= MAX_WORDS_KNOWN and not deleted:
            return False
        known.words.add(words)
        known.deleted = deleted
        self._known.move_to_end(key)
        while len(self._known) > MAX_OBJECTS_KNOWN:
            self._known.popitem(last=False)
        return True


def _digest(notice: Notification) -> bytes:
    said: dict[str, Any] = {"operation": notice.operation.value, "object": notice.object}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
