"""The objects of OpenADR 3.1.1 as read from the wire: names and shapes, no meaning.

Reading is lenient: unknown keys are dropped, unknown payload types are kept as text, a null counts
as absent. What an object of 3.0 says otherwise is put into this shape by `shim` before it is read.
Collections fed by a VTN are bounded. Source: openadr3.yaml of OpenADR 3.1.1.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

MAX_INTERVALS = 20_000
"""Of one event: more than two months of five-minute intervals."""
MAX_PAYLOADS = 64
MAX_LIST = 1_000
MAX_TEXT = 512
"""The schema bounds names at 128; a little more is read, and never shown whole."""
INDEFINITELY = -1
"""In a report's terms: to the end, all of them, without end."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Long = Annotated[str, Field(max_length=8_000)]


def _listed(value: object) -> object:
    return () if value is None else value


Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(max_length=MAX_LIST)]


class ObjectType(StrEnum):
    """What an object is."""

    PROGRAM = "PROGRAM"
    EVENT = "EVENT"
    REPORT = "REPORT"
    SUBSCRIPTION = "SUBSCRIPTION"
    VEN = "VEN"
    RESOURCE = "RESOURCE"


class Operation(StrEnum):
    """What happened to an object."""

    CREATE = "CREATE"
    READ = "READ"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class Wire(BaseModel):
    """Anything on the wire: frozen, unknown keys dropped, written under its wire names."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        validate_by_alias=True,
        validate_by_name=True,
        # A NaN that was heard is kept as one: as a null it could not be read back.
        ser_json_inf_nan="constants",
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, row: Any) -> Any:
        return {k: v for k, v in row.items() if v is not None} if isinstance(row, dict) else row

    def on_wire(self) -> dict[str, Any]:
        """This object as JSON values under its wire names, without what is not set."""
        row: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {key: value for key, value in row.items() if value not in ("", [])}


class Point(Wire):
    """A point of a curve."""

    x: float
    y: float


Value = bool | int | float | Point | Text


class Payload(Wire):
    """Values of one type (`valuesMap`)."""

    type: Text
    values: Annotated[tuple[Value, ...], BeforeValidator(_listed), Field(max_length=MAX_LIST)] = ()


class IntervalPeriod(Wire):
    """When: start (RFC 3339, or year 1 for now), duration and random shift (ISO 8601), as told."""

    start: Text | None = None
    duration: Text | None = None
    randomize_start: Text | None = Field(None, alias="randomizeStart")


class Interval(Wire):
    """Payloads for a span of time; `period` None takes the event's, one after the other."""

    id: int = 0
    period: IntervalPeriod | None = Field(None, alias="intervalPeriod")
    payloads: Annotated[tuple[Payload, ...], Field(max_length=MAX_PAYLOADS)] = ()


class EventPayloadDescriptor(Wire):
    """In which unit and currency an event's values of one type are."""

    object_type: Text = Field("EVENT_PAYLOAD_DESCRIPTOR", alias="objectType")
    payload_type: Text = Field(alias="payloadType")
    units: Text | None = None
    currency: Text | None = None


class ReportPayloadDescriptor(Wire):
    """How a report's values of one type are to be read; confidence is 0 to 100."""

    object_type: Text = Field("REPORT_PAYLOAD_DESCRIPTOR", alias="objectType")
    payload_type: Text = Field(alias="payloadType")
    reading_type: Text | None = Field(None, alias="readingType")
    units: Text | None = None
    accuracy: float | None = None
    confidence: int | None = None


class ReportDescriptor(Wire):
    """A report that is asked for. Counts are in intervals of the event; INDEFINITELY is -1."""

    payload_type: Text = Field(alias="payloadType")
    reading_type: Text | None = Field(None, alias="readingType")
    units: Text | None = None
    targets: Texts = ()
    aggregate: bool = False
    start_interval: int = Field(INDEFINITELY, alias="startInterval")
    num_intervals: int = Field(INDEFINITELY, alias="numIntervals")
    historical: bool = True
    frequency: int = INDEFINITELY
    repeat: int = 1
    report_intervals: Text = Field("INTERVALS", alias="reportIntervals")


class Stored(Wire):
    """What every object on a VTN carries; times are RFC 3339 text."""

    id: Text = ""
    created: Text | None = Field(None, alias="createdDateTime")
    modified: Text | None = Field(None, alias="modificationDateTime")
    object_type: Text | None = Field(None, alias="objectType")


EventDescriptors = Annotated[tuple[EventPayloadDescriptor, ...], Field(max_length=MAX_LIST)]


class Program(Stored):
    """A program: whose events mean what it says. Its descriptors hold where an event has none."""

    name: Text = Field("", alias="programName")
    period: IntervalPeriod | None = Field(None, alias="intervalPeriod")
    descriptors: EventDescriptors = Field((), alias="payloadDescriptors")
    attributes: Annotated[tuple[Payload, ...], Field(max_length=MAX_LIST)] = ()
    targets: Texts = ()


class Event(Stored):
    """An event. `unreadable` says why nothing but its identity could be read; None as a rule."""

    program_id: Text = Field("", alias="programID")
    name: Text | None = Field(None, alias="eventName")
    duration: Text | None = None
    priority: Annotated[int, Field(ge=0)] | None = None
    targets: Texts = ()
    report_descriptors: Annotated[tuple[ReportDescriptor, ...], Field(max_length=MAX_LIST)] = Field(
        (), alias="reportDescriptors"
    )
    descriptors: EventDescriptors = Field((), alias="payloadDescriptors")
    period: IntervalPeriod | None = Field(None, alias="intervalPeriod")
    intervals: Annotated[tuple[Interval, ...], Field(max_length=MAX_INTERVALS)] = ()
    unreadable: Annotated[str | None, Field(exclude=True)] = None


class ReportResource(Wire):
    """What is reported of one resource; "AGGREGATED_REPORT" is the sum over several."""

    name: Text = Field(alias="resourceName")
    period: IntervalPeriod | None = Field(None, alias="intervalPeriod")
    intervals: Annotated[tuple[Interval, ...], Field(max_length=MAX_INTERVALS)] = ()


class Report(Stored):
    """A report for one event. `program_id` is asked for by 3.0 alone."""

    event_id: Text = Field(alias="eventID")
    program_id: Text | None = Field(None, alias="programID")
    client_name: Text = Field(alias="clientName")
    name: Text | None = Field(None, alias="reportName")
    descriptors: Annotated[tuple[ReportPayloadDescriptor, ...], Field(max_length=MAX_LIST)] = Field(
        (), alias="payloadDescriptors"
    )
    resources: Annotated[tuple[ReportResource, ...], Field(max_length=MAX_LIST)] = ()


class ObjectOperations(Wire):
    """Which operations on which objects are to be told to which address, and with which bearer."""

    objects: tuple[ObjectType, ...]
    operations: tuple[Operation, ...]
    callback_url: Long = Field(alias="callbackUrl", repr=False)
    bearer: Long | None = Field(None, alias="bearerToken", repr=False)


class Subscription(Stored):
    """A standing wish to be told."""

    client_name: Text = Field("", alias="clientName")
    program_id: Text | None = Field(None, alias="programID")
    object_operations: Annotated[tuple[ObjectOperations, ...], Field(max_length=MAX_LIST)] = Field(
        (), alias="objectOperations"
    )
    targets: Texts = ()


class Ven(Stored):
    """A site as the VTN knows it. The VTN gives its targets; they say which events are ours."""

    name: Text = Field("", alias="venName")
    client_id: Text | None = Field(None, alias="clientID")
    attributes: Annotated[tuple[Payload, ...], Field(max_length=MAX_LIST)] = ()
    targets: Texts = ()


class Resource(Stored):
    """A part of a site as the VTN knows it."""

    name: Text = Field("", alias="resourceName")
    ven_id: Text | None = Field(None, alias="venID")
    client_id: Text | None = Field(None, alias="clientID")
    attributes: Annotated[tuple[Payload, ...], Field(max_length=MAX_LIST)] = ()
    targets: Texts = ()


class Notification(Wire):
    """What a VTN tells of its own accord, by webhook or MQTT. `object` is read by its type."""

    object_type: ObjectType = Field(alias="objectType")
    operation: Operation
    object: dict[str, Any]
    targets: Texts = ()

    def event(self) -> Event | None:
        """The event it speaks of; None where it speaks of something else or names no event."""
        if self.object_type is not ObjectType.EVENT or not self.object.get("id"):
            return None
        return read_event(self.object)


class ResourceWish(Wire):
    """A resource that the site wants to be known: its name and attributes."""

    name: Text
    attributes: tuple[Payload, ...] = ()


class Registered(Wire):
    """This site as the VTN holds it."""

    ven: Ven
    resources: tuple[Resource, ...] = ()


class SubscriptionWish(Wire):
    """A webhook that the site wants: whose events, told where, with which bearer."""

    client_name: Text
    callback_url: Long = Field(repr=False)
    bearer: Long = Field(repr=False)
    program_id: Text | None = None
    objects: tuple[ObjectType, ...] = (ObjectType.EVENT, ObjectType.PROGRAM)
    operations: tuple[Operation, ...] = (Operation.CREATE, Operation.UPDATE, Operation.DELETE)


class Vtn(Protocol):
    """The calls of one VTN that a VEN makes; `client.VtnClient` is the real one.

    Each raises a WattshiftError: it cannot be reached, it refuses, or its answer is nonsense. A
    list that is returned is complete; one that could not be read whole is raised instead.
    """

    @property
    def skew_s(self) -> float | None:
        """The VTN's clock less ours by its last Date header, s; None before there was one."""
        ...

    async def programs(self) -> list[Program]: ...

    async def events(self, program_id: str | None = None) -> list[Event]: ...

    async def register(self, ven_name: str, resources: Sequence[ResourceWish]) -> Registered: ...

    async def report(self, report: Report) -> str: ...

    async def subscribe(self, wish: SubscriptionWish) -> str: ...

    async def unsubscribe(self, subscription: str, /) -> None: ...

    async def close(self) -> None: ...


def read_event(row: object) -> Event:
    """The event in a JSON value; one that breaks the schema keeps its identity and says why.

    So one broken event hides no other, and does not look as if it had been withdrawn.

    Raises:
        ValueError: it has not even an id.
    """
    try:
        event = Event.model_validate(row)
    except ValidationError as wrong:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise ValueError("an event without an id") from wrong
        program = row.get("programID")
        return Event(
            id=row["id"][:MAX_TEXT],
            program_id=program[:MAX_TEXT] if isinstance(program, str) else "",
            unreadable=_first_fault(wrong),
        )
    if not event.id:
        raise ValueError("an event without an id")
    return event


def _first_fault(wrong: ValidationError) -> str:
    first = wrong.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"[:200]
