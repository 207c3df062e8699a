"""What may be asked of the VTN: list, read, create, update and delete, each with its rules.

HTTP (`app`) and scripts (`script`) both come here, so that both are held to the same rules.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from wattshift_cluster.grid.openadr.times import TimeInvalid, lay_out, parse_start
from wattshift_cluster.grid.openadr.words import Operation, read_event
from wattshift_cluster.grid.vtn.bodies import check_removal, kept
from wattshift_cluster.grid.vtn.clients import Caller
from wattshift_cluster.grid.vtn.kinds import EVENT, REPORT, SUBSCRIPTION, Kind
from wattshift_cluster.grid.vtn.problems import bad, forbidden, not_found
from wattshift_cluster.grid.vtn.sight import Eyes, eyes_of, shown
from wattshift_cluster.grid.vtn.store import Row, Store
from wattshift_cluster.grid.vtn.telling import Telling
from wattshift_cluster.grid.vtn.webhooks import Webhooks

PAGE_MOST = 50
"""Of the schema; a list that names no `limit` gets as many."""

MAX_TARGETS = 100
Query = Mapping[str, Sequence[str]]


class Desk:
    """The operations on one store."""

    def __init__(self, store: Store, webhooks: Webhooks, telling: Telling) -> None:
        self.store = store
        self._webhooks = webhooks
        self._telling = telling

    def search(self, kind: Kind, caller: Caller, query: Query) -> list[Row]:
        """A page of a list. Raises Problem (400, 403)."""
        self._may_read(kind, caller)
        skip = _number(query, "skip", 0, None)
        most = _number(query, "limit", PAGE_MOST, PAGE_MOST)
        asked = query.get("targets", ())
        if len(asked) > MAX_TARGETS:
            raise bad(f"targets: at most {MAX_TARGETS}")
        eyes = eyes_of(self.store, caller.id, everything=caller.everything)
        page: list[Row] = []
        for row in self._matching(kind, query):
            seen = shown(kind, row, eyes, asked)
            if seen is None:
                continue
            if skip > 0:
                skip -= 1
            elif len(page) < most:
                page.append(seen)
            else:
                break
        return page

    def read(self, kind: Kind, caller: Caller, object_id: str) -> Row:
        """One object. Raises Problem (403, 404)."""
        self._may_read(kind, caller)
        seen = shown(kind, self.store.get(kind, object_id), self._eyes(caller), None)
        if seen is None:
            raise not_found()
        return seen

    async def create(self, kind: Kind, caller: Caller, body: object) -> Row:
        """A new object. Raises Problem (400, 403, 409)."""
        _may_write(kind, caller)
        made = kept(kind, self.store, caller, body, None)
        if kind is SUBSCRIPTION:
            await self._webhooks.check(made["objectOperations"])
        row = self.store.add(kind, made)
        self._telling.changed(kind, Operation.CREATE, row)
        return self._as_seen(kind, caller, row)

    async def update(self, kind: Kind, caller: Caller, object_id: str, body: object) -> Row:
        """A changed object. Raises Problem (400, 403, 404, 409)."""
        _may_write(kind, caller)
        old = self._own(kind, caller, object_id)
        made = kept(kind, self.store, caller, body, old)
        if kind is SUBSCRIPTION:
            await self._webhooks.check(made["objectOperations"])
        row = self.store.replace(kind, object_id, made)
        self._telling.changed(kind, Operation.UPDATE, row)
        return self._as_seen(kind, caller, row)

    def delete(self, kind: Kind, caller: Caller, object_id: str) -> Row:
        """End an object; what it was. Raises Problem (403, 404, 409)."""
        _may_write(kind, caller)
        self._own(kind, caller, object_id)
        check_removal(kind, self.store, object_id)
        row = self.store.remove(kind, object_id)
        if kind is SUBSCRIPTION:
            self._webhooks.forget(object_id)
        self._telling.changed(kind, Operation.DELETE, row)
        return self._as_seen(kind, caller, row)

    def _matching(self, kind: Kind, query: Query) -> Iterator[Row]:
        wanted = {key: query[key][-1] for key in kind.filters if query.get(key)}
        program = wanted.pop("programID", None) if kind is REPORT else None
        objects = set(query.get("objects", ())) if kind is SUBSCRIPTION else set()
        active = kind is EVENT and query.get("active", ("false",))[-1].lower() == "true"
        now_s = time.time()
        for row in self.store.all(kind):
            if any(row.get(key) != value for key, value in wanted.items()):
                continue
            if program is not None and self._program_of(row) != program:
                continue
            if objects and objects.isdisjoint(_objects(row)):
                continue
            if active and _over(row, now_s):
                continue
            yield row

    def _program_of(self, report: Row) -> object:
        event_id = report["eventID"]
        if not self.store.has(EVENT, event_id):
            return None
        return self.store.get(EVENT, event_id)["programID"]

    def _eyes(self, caller: Caller) -> Eyes:
        return eyes_of(self.store, caller.id, everything=caller.everything)

    def _own(self, kind: Kind, caller: Caller, object_id: str) -> Row:
        """An object that this caller may change. Raises Problem (404)."""
        row = self.store.get(kind, object_id)
        if shown(kind, row, self._eyes(caller), None) is None:
            raise not_found()
        return row

    def _as_seen(self, kind: Kind, caller: Caller, row: Row) -> Row:
        seen = shown(kind, row, self._eyes(caller), None)
        assert seen is not None, "who writes an object may see it"
        return seen

    def _may_read(self, kind: Kind, caller: Caller) -> None:
        if not caller.everything and kind.read not in caller.scopes:
            raise forbidden(f"this needs the scope {kind.read}")


def _may_write(kind: Kind, caller: Caller) -> None:
    if kind.write not in caller.scopes:
        raise forbidden(f"this needs the scope {kind.write}")


def _objects(subscription: Row) -> list[str]:
    return [kind for one in subscription["objectOperations"] for kind in one["objects"]]


def _over(row: Row, now_s: float) -> bool:
    """Whether an event has transpired; one whose times cannot be told has not."""
    first_s = parse_start(row["createdDateTime"])
    try:
        laid = lay_out(read_event(row), first_s or now_s, lambda place: 0.0, now_s)
    except (TimeInvalid, ValueError):
        return False
    return laid.called_off or (laid.ends_s is not None and laid.ends_s <= now_s)


def _number(query: Query, name: str, default: int, most: int | None) -> int:
    told = query.get(name)
    if not told:
        return default
    text = told[-1]
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise bad(f"{name}: wanted a whole number")
    if most is not None and int(text) > most:
        raise bad(f"{name}: at most {most}")
    return int(text)
