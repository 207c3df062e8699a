"""From a change of an object to the notices that tell of it, by webhook and by MQTT."""

from collections.abc import Iterator
from typing import Any

from wattshift_cluster.grid.openadr.words import Operation
from wattshift_cluster.grid.vtn.kinds import EVENT, PROGRAM, REPORT, SUBSCRIPTION, Kind
from wattshift_cluster.grid.vtn.publisher import Publisher
from wattshift_cluster.grid.vtn.sight import EVERYTHING, SECRET, eyes_of, shown
from wattshift_cluster.grid.vtn.store import Row, Store
from wattshift_cluster.grid.vtn.topics import routes, topic
from wattshift_cluster.grid.vtn.webhooks import Webhooks


class Telling:
    """Tells of changes to whom they concern."""

    def __init__(self, store: Store, webhooks: Webhooks, publisher: Publisher | None) -> None:
        """Args: publisher: None: the VTN has no broker."""
        self._store = store
        self._webhooks = webhooks
        self._publisher = publisher

    def changed(self, kind: Kind, operation: Operation, row: Row) -> None:
        """An object was created, updated or deleted; `row` is what it is, or was."""
        for subscription in self._store.all(SUBSCRIPTION):
            seen = self._for(subscription, kind, row)
            if seen is None:
                continue
            for url, bearer in _places(subscription, kind, operation):
                notice = _notice(kind, operation, seen)
                self._webhooks.tell(subscription["id"], url, bearer, notice)
        if self._publisher is not None:
            for path, seen in routes(kind, row, self._store):
                self._publisher.tell(topic(path, operation), _notice(kind, operation, seen))

    def _for(self, subscription: Row, kind: Kind, row: Row) -> Row | None:
        """What the owner of a subscription is told of an object; None: nothing."""
        program_id = subscription.get("programID")
        if program_id is not None and _program(self._store, kind, row) != program_id:
            return None
        # Targets of a subscription only narrow what its owner may see.
        asked = subscription.get("targets") or None
        client, everything = subscription["clientID"], subscription[EVERYTHING]
        eyes = eyes_of(self._store, client, everything=everything)
        return shown(kind, row, eyes, asked)


def _program(store: Store, kind: Kind, row: Row) -> str | None:
    """The program that an object belongs to; None where it belongs to none."""
    if kind is PROGRAM:
        return str(row["id"])
    if kind is EVENT:
        return str(row["programID"])
    if kind is REPORT and store.has(EVENT, row["eventID"]):
        return str(store.get(EVENT, row["eventID"])["programID"])
    return None


def _places(subscription: Row, kind: Kind, operation: Operation) -> Iterator[tuple[str, str]]:
    for one in subscription["objectOperations"]:
        if kind.type.value in one["objects"] and operation.value in one["operations"]:
            yield one["callbackUrl"], one.get(SECRET, "")


def _notice(kind: Kind, operation: Operation, seen: Row) -> dict[str, Any]:
    return {"objectType": kind.type.value, "operation": operation.value, "object": seen}
