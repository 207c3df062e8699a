"""All objects of the VTN, in memory, within bounds; each change has a time of its own."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from wattshift_cluster.grid.vtn.kinds import KINDS, MAX_OBJECTS, Kind
from wattshift_cluster.grid.vtn.problems import conflict, forbidden, not_found

Row = dict[str, Any]
TICK = timedelta(microseconds=1)


class Store:
    """Rows by kind and id, in the order of their creation. A row is replaced, never changed."""

    def __init__(self, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._rows: dict[Kind, dict[str, Row]] = {kind: {} for kind in KINDS}
        self._wall = wall
        self._last = datetime.min.replace(tzinfo=UTC)
        self._made = 0
        # A site remembers events by id: those of the next run must not look like these.
        self._run = secrets.token_hex(3)

    def all(self, kind: Kind) -> Iterator[Row]:
        """Every row of a kind, the oldest first."""
        return iter(self._rows[kind].values())

    def get(self, kind: Kind, object_id: str) -> Row:
        """One row. Raises Problem (404)."""
        row = self._rows[kind].get(object_id)
        if row is None:
            raise not_found()
        return row

    def has(self, kind: Kind, object_id: str) -> bool:
        """Whether there is such a row."""
        return object_id in self._rows[kind]

    def add(self, kind: Kind, body: Row) -> Row:
        """Create an object. Raises Problem (409: its name is taken; 403: there are too many)."""
        self._check_name(kind, body, None)
        rows = self._rows[kind]
        if len(rows) >= MAX_OBJECTS:
            if not kind.forgets:
                raise forbidden(f"there are {MAX_OBJECTS} {kind.path} already")
            del rows[next(iter(rows))]
        self._made += 1
        object_id = f"{kind.type.value.lower()}-{self._run}-{self._made}"
        now = self._now()
        row = body | {
            "id": object_id,
            "createdDateTime": now,
            "modificationDateTime": now,
            "objectType": kind.type.value,
        }
        rows[object_id] = row
        return row

    def replace(self, kind: Kind, object_id: str, body: Row) -> Row:
        """Update an object. Raises Problem (404, 409)."""
        old = self.get(kind, object_id)
        self._check_name(kind, body, object_id)
        row = body | {
            "id": object_id,
            "createdDateTime": old["createdDateTime"],
            "modificationDateTime": self._now(),
            "objectType": kind.type.value,
        }
        self._rows[kind][object_id] = row
        return row

    def remove(self, kind: Kind, object_id: str) -> Row:
        """Delete an object; the row it was. Raises Problem (404)."""
        row = self.get(kind, object_id)
        del self._rows[kind][object_id]
        return row

    def _check_name(self, kind: Kind, body: Row, self_id: str | None) -> None:
        if not kind.name:
            return
        for row in self.all(kind):
            near = not kind.within or row[kind.within] == body[kind.within]
            if near and row[kind.name] == body[kind.name] and row["id"] != self_id:
                raise conflict(f"the {kind.name} is taken")

    def _now(self) -> str:
        # Two changes never share a time, so that a client can tell which is the newer.
        self._last = max(self._wall(), self._last + TICK)
        return self._last.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
