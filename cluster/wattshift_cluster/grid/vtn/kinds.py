"""The six kinds of object of OpenADR 3.1: where they are, who may do what, what filters them."""

from dataclasses import dataclass

from wattshift_cluster.grid.openadr.words import ObjectType

READ_ALL = "read_all"
VEN_SCOPES = frozenset(
    ("read_targets", "read_ven_objects", "write_reports", "write_subscriptions", "write_vens")
)
BL_SCOPES = frozenset(
    (READ_ALL, "read_bl", "write_programs", "write_events", "write_subscriptions", "write_vens")
)
MAX_OBJECTS = 10_000
"""Of each kind: a demonstration's worth, within some 100 MB."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Attributes:
        type: its name in notifications.
        path: of its collection.
        read, write: the scope that a VEN needs (with READ_ALL everything may be read).
        name: the key that must be unique, "" where none is.
        within: the key beside which the name is unique; "" where it is in the whole server.
        filters: query parameters that compare with the key of the same name.
        targeted: targets decide who may see it; otherwise its owner alone does.
        forgets: the oldest is dropped where there are too many, instead of the new one refused.
    """

    type: ObjectType
    path: str
    read: str
    write: str
    name: str = ""
    within: str = ""
    filters: tuple[str, ...] = ()
    targeted: bool = False
    forgets: bool = False


PROGRAM = Kind(
    ObjectType.PROGRAM,
    "programs",
    "read_targets",
    "write_programs",
    name="programName",
    targeted=True,
)
EVENT = Kind(
    ObjectType.EVENT,
    "events",
    "read_targets",
    "write_events",
    filters=("programID",),
    targeted=True,
)
REPORT = Kind(
    ObjectType.REPORT,
    "reports",
    "read_ven_objects",
    "write_reports",
    filters=("programID", "eventID", "clientName"),
    forgets=True,
)
SUBSCRIPTION = Kind(
    ObjectType.SUBSCRIPTION,
    "subscriptions",
    "read_ven_objects",
    "write_subscriptions",
    filters=("programID", "clientName"),
)
VEN = Kind(
    ObjectType.VEN,
    "vens",
    "read_ven_objects",
    "write_vens",
    name="venName",
    filters=("venName",),
)
RESOURCE = Kind(
    ObjectType.RESOURCE,
    "resources",
    "read_ven_objects",
    "write_vens",
    name="resourceName",
    within="venID",
    filters=("resourceName", "venID"),
)
KINDS = (PROGRAM, EVENT, REPORT, SUBSCRIPTION, VEN, RESOURCE)
