"""The MQTT topics of the VTN: which names it tells to whom, and on which of them a change is told.

Public programs and events are told under `programs/...`, which every client may follow. What has
targets is told under `vens/{venID}/...` alone, to each VEN that may see it, with the targets it may
see. The business logic follows `events`, `reports`, `subscriptions`, `vens` and `resources`, where
everything is told. A broker without access rules does not keep clients apart: the names do.
"""

from collections.abc import Iterator

from wattshift_cluster.grid.openadr.words import Operation
from wattshift_cluster.grid.vtn.clients import Caller
from wattshift_cluster.grid.vtn.kinds import (
    EVENT,
    PROGRAM,
    REPORT,
    RESOURCE,
    SUBSCRIPTION,
    VEN,
    Kind,
)
from wattshift_cluster.grid.vtn.problems import bad, forbidden, not_found
from wattshift_cluster.grid.vtn.sight import Eyes, eyes_of, shown
from wattshift_cluster.grid.vtn.store import Row, Store

ROOT = "openadr/3.1"
OPERATIONS = (Operation.CREATE, Operation.UPDATE, Operation.DELETE)
FOR_ALL = ("programs",)
FOR_BL = ("events", "reports", "subscriptions", "vens", "resources")
OF_A_VEN = ("", "events", "programs", "resources")
BL = Eyes("", everything=True)


def names(path: str, store: Store, caller: Caller) -> dict[str, str]:
    """The topics of a collection, by operation.

    Args:
        path: below notifiers/mqtt/topics/.

    Raises:
        Problem: 403: not told to this client; 404: there is no such collection.
    """
    first, _, rest = path.partition("/")
    object_id, _, part = rest.partition("/")
    if not rest and first in FOR_ALL:
        return _named(path, created=True)
    if not rest and first in FOR_BL:
        if not caller.everything:
            raise forbidden("these topics are for the business logic")
        return _named(path, created=True)
    eyes = eyes_of(store, caller.id, everything=caller.everything)
    if first == "programs" and part in ("", "events"):
        kind = PROGRAM
    elif first == "vens" and part in OF_A_VEN:
        kind = VEN
    else:
        raise bad("there are no such topics")
    if shown(kind, store.get(kind, object_id), eyes, None) is None:
        raise not_found()
    return _named(path, created=part != "")


def _named(path: str, *, created: bool) -> dict[str, str]:
    told = OPERATIONS if created else OPERATIONS[1:]
    topics = {operation.value: topic(path, operation) for operation in told}
    return topics | {"ALL": f"{ROOT}/{path}/+"}


def topic(path: str, operation: Operation) -> str:
    """The topic on which one operation of a collection is told."""
    return f"{ROOT}/{path}/{operation.value.lower()}"


def routes(kind: Kind, row: Row, store: Store) -> Iterator[tuple[str, Row]]:
    """Where a change of this object is told, and what of it is said there."""
    full = shown(kind, row, BL, None) or row
    if kind is PROGRAM and not row.get("targets"):
        yield "programs", full
        yield f"programs/{row['id']}", full
    elif kind is EVENT:
        yield "events", full
        if not row.get("targets"):
            yield f"programs/{row['programID']}/events", full
    elif kind in (REPORT, SUBSCRIPTION, VEN, RESOURCE):
        yield kind.path, full
    if kind is VEN:
        yield f"vens/{row['id']}", full
    if kind is RESOURCE:
        yield f"vens/{row['venID']}/resources", full
    if kind.targeted and row.get("targets"):
        for ven in store.all(VEN):
            eyes = eyes_of(store, ven["clientID"], everything=False)
            seen = shown(kind, row, eyes, None)
            if seen is not None:
                yield f"vens/{ven['id']}/{kind.path}", seen
