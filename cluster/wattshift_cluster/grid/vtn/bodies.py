"""From a body to the object that is kept: who may send what, and what must exist for it."""

from collections.abc import Callable
from typing import Any

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
from wattshift_cluster.grid.vtn.problems import conflict, forbidden
from wattshift_cluster.grid.vtn.shapes import (
    BlResourceShape,
    BlVenShape,
    EventShape,
    ProgramShape,
    ReportShape,
    Shape,
    SubscriptionShape,
    VenResourceShape,
    VenVenShape,
    checked,
)
from wattshift_cluster.grid.vtn.sight import EVERYTHING, eyes_of, shown
from wattshift_cluster.grid.vtn.store import Row, Store

KEPT_BY_VEN = "targets"
"""What a VEN's own update of its VEN or resource does not touch: only the BL grants targets."""


def kept(kind: Kind, store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    """The row that a body makes, without what the store gives it.

    Args:
        old: what is updated; None: it is new.

    Raises:
        Problem: 400: not as the schema says; 403: not for this client to say; 409: what it belongs
            to does not exist.
    """
    made = _MAKERS[kind](store, caller, body, old)
    made.pop("objectType", None)
    return made


def _program(store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    return checked(ProgramShape, body)


def _event(store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    row = checked(EventShape, body)
    _need(store, PROGRAM, row["programID"])
    return row


def _report(store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    row = checked(ReportShape, body)
    _need(store, EVENT, row["eventID"])
    eyes = eyes_of(store, caller.id, everything=caller.everything)
    if shown(EVENT, store.get(EVENT, row["eventID"]), eyes, None) is None:
        raise conflict("there is no such event")
    return row | {"clientID": caller.id}


def _subscription(store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    row = checked(SubscriptionShape, body)
    if "programID" in row:
        _need(store, PROGRAM, row["programID"])
    return row | {"clientID": caller.id, EVERYTHING: caller.everything}


def _ven(store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    if caller.everything:
        return checked(BlVenShape, body)
    row = checked(_own(body, VenVenShape), body)
    return row | {"clientID": caller.id} | _granted(old)


def _resource(store: Store, caller: Caller, body: object, old: Row | None) -> Row:
    if caller.everything:
        row = checked(BlResourceShape, body)
        _need(store, VEN, row["venID"])
        if store.get(VEN, row["venID"])["clientID"] != row["clientID"]:
            raise conflict("the clientID is not that of the ven")
        return row
    row = checked(_own(body, VenResourceShape), body)
    _need(store, VEN, row["venID"])
    if store.get(VEN, row["venID"])["clientID"] != caller.id:
        raise forbidden("the ven is another client's")
    return row | {"clientID": caller.id} | _granted(old)


def _own(body: object, own: type[Shape]) -> type[Shape]:
    """The shape of a VEN's request; what only the business logic may say is refused by name."""
    said = body.get("objectType") if isinstance(body, dict) else None
    if isinstance(said, str) and said.startswith("BL_"):
        raise forbidden("a VEN does not grant itself anything")
    return own


def _granted(old: Row | None) -> dict[str, Any]:
    return {KEPT_BY_VEN: old[KEPT_BY_VEN]} if old is not None and KEPT_BY_VEN in old else {}


def _need(store: Store, kind: Kind, object_id: str) -> None:
    if not store.has(kind, object_id):
        raise conflict(f"there is no such {kind.type.value.lower()}")


_Maker = Callable[[Store, Caller, object, Row | None], Row]
_MAKERS: dict[Kind, _Maker] = {
    PROGRAM: _program,
    EVENT: _event,
    REPORT: _report,
    SUBSCRIPTION: _subscription,
    VEN: _ven,
    RESOURCE: _resource,
}


def check_removal(kind: Kind, store: Store, object_id: str) -> None:
    """Refuse to delete what others need. Raises Problem (409)."""
    if kind is PROGRAM and any(row["programID"] == object_id for row in store.all(EVENT)):
        raise conflict("events belong to this program")
    if kind is VEN and any(row["venID"] == object_id for row in store.all(RESOURCE)):
        raise conflict("resources belong to this ven")
