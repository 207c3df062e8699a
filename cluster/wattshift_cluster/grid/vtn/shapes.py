"""What a client may send: the request bodies of OpenADR 3.1.1, checked strictly.

Keys that the schema does not name are ignored, as it allows; what it names must be as it says. A
null counts as absent. Collections have bounds of our own.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wattshift_cluster.grid.vtn.problems import bad

MAX_INTERVALS = 20_000
MAX_LIST = 1_000
MAX_PAYLOADS = 64
NOW = ("0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z")
"""Starts that mean "now"."""

_DURATION = re.compile(
    r"-?P(?=\d|T\d)(\d+Y)?(\d+M)?(\d+[DW])?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?", re.ASCII
)


def _moment(text: str) -> str:
    if text in NOW:
        return text
    if "T" not in text.upper() or datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("wanted a date and time with its zone, as RFC 3339 says")
    return text


def _span(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError("wanted a duration, as ISO 8601 says")
    return text


Short = Annotated[str, Field(min_length=1, max_length=128)]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_-]*$")]
Free = Annotated[str, Field(max_length=512)]
Url = Annotated[str, Field(min_length=2, max_length=8_000)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_moment)]
Span = Annotated[str, Field(max_length=64), AfterValidator(_span)]
Kinds = Literal["PROGRAM", "EVENT", "REPORT", "SUBSCRIPTION", "VEN", "RESOURCE"]
Targets = Annotated[list[Short], Field(max_length=MAX_LIST)]


class Shape(BaseModel):
    """A body or a part of one. Strict: a number is no text, and a text is no number."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, row: Any) -> Any:
        return {k: v for k, v in row.items() if v is not None} if isinstance(row, dict) else row


class Point(Shape):
    """A point of a curve."""

    x: float
    y: float


class ValuesMap(Shape):
    """Values of one type."""

    type: Short
    values: Annotated[list[bool | int | float | str | Point], Field(max_length=MAX_LIST)]


class Period(Shape):
    """When."""

    start: Moment | None = None
    duration: Span | None = None
    randomize_start: Span | None = Field(None, alias="randomizeStart")


class Interval(Shape):
    """Payloads for a span of time."""

    id: int
    period: Period | None = Field(None, alias="intervalPeriod")
    payloads: Annotated[list[ValuesMap], Field(max_length=MAX_PAYLOADS)]


class Descriptor(Shape):
    """How the values of one type are to be read; of an event or of a report."""

    object_type: Literal["EVENT_PAYLOAD_DESCRIPTOR", "REPORT_PAYLOAD_DESCRIPTOR"] = Field(
        alias="objectType"
    )
    payload_type: Short = Field(alias="payloadType")
    reading_type: Short | None = Field(None, alias="readingType")
    units: Short | None = None
    currency: Free | None = None
    accuracy: float | None = None
    confidence: Annotated[int, Field(ge=0, le=100)] | None = None


class Wanted(Shape):
    """A report that is asked for."""

    payload_type: Short = Field(alias="payloadType")
    reading_type: Short | None = Field(None, alias="readingType")
    units: Short | None = None
    targets: Targets | None = None
    aggregate: bool | None = None
    start_interval: int | None = Field(None, alias="startInterval")
    num_intervals: int | None = Field(None, alias="numIntervals")
    historical: bool | None = None
    frequency: int | None = None
    repeat: int | None = None
    report_intervals: Literal["INTERVALS", "SUB_INTERVALS", "OPEN_INTERVALS"] | None = Field(
        None, alias="reportIntervals"
    )


class Description(Shape):
    """Where a program is described."""

    url: Url = Field(alias="URL")


Intervals = Annotated[list[Interval], Field(max_length=MAX_INTERVALS)]
Descriptors = Annotated[list[Descriptor], Field(max_length=MAX_LIST)]
Attributes = Annotated[list[ValuesMap], Field(max_length=MAX_LIST)]


class ProgramShape(Shape):
    """A program."""

    program_name: Short = Field(alias="programName")
    period: Period | None = Field(None, alias="intervalPeriod")
    descriptions: Annotated[list[Description], Field(max_length=MAX_LIST)] | None = Field(
        None, alias="programDescriptions"
    )
    descriptors: Descriptors | None = Field(None, alias="payloadDescriptors")
    attributes: Attributes | None = None
    targets: Targets | None = None


class EventShape(Shape):
    """An event."""

    program_id: Id = Field(alias="programID")
    event_name: Free | None = Field(None, alias="eventName")
    duration: Span | None = None
    priority: Annotated[int, Field(ge=0)] | None = None
    targets: Targets | None = None
    wanted: Annotated[list[Wanted], Field(max_length=MAX_LIST)] | None = Field(
        None, alias="reportDescriptors"
    )
    descriptors: Descriptors | None = Field(None, alias="payloadDescriptors")
    period: Period | None = Field(None, alias="intervalPeriod")
    intervals: Intervals | None = None


class ReportedShape(Shape):
    """What is reported of one resource."""

    resource_name: Short = Field(alias="resourceName")
    period: Period | None = Field(None, alias="intervalPeriod")
    intervals: Intervals


class ReportShape(Shape):
    """A report."""

    event_id: Id = Field(alias="eventID")
    client_name: Short = Field(alias="clientName")
    report_name: Free | None = Field(None, alias="reportName")
    descriptors: Descriptors | None = Field(None, alias="payloadDescriptors")
    resources: Annotated[list[ReportedShape], Field(max_length=MAX_LIST)]


class OperationsShape(Shape):
    """Which operations on which objects are told to which address."""

    objects: Annotated[list[Kinds], Field(max_length=6)]
    operations: Annotated[list[Literal["READ", "CREATE", "UPDATE", "DELETE"]], Field(max_length=4)]
    callback_url: Url = Field(alias="callbackUrl")
    bearer_token: Annotated[str, Field(max_length=4096)] | None = Field(None, alias="bearerToken")


class SubscriptionShape(Shape):
    """A subscription."""

    client_name: Short = Field(alias="clientName")
    program_id: Id | None = Field(None, alias="programID")
    operations: Annotated[list[OperationsShape], Field(max_length=8)] = Field(
        alias="objectOperations"
    )
    targets: Targets | None = None


class BlVenShape(Shape):
    """A VEN, as the business logic says."""

    object_type: Literal["BL_VEN_REQUEST"] = Field(alias="objectType")
    client_id: Short = Field(alias="clientID")
    ven_name: Short = Field(alias="venName")
    attributes: Attributes | None = None
    targets: Targets | None = None


class VenVenShape(Shape):
    """A VEN, as it says itself."""

    object_type: Literal["VEN_VEN_REQUEST"] = Field(alias="objectType")
    ven_name: Short = Field(alias="venName")
    attributes: Attributes | None = None


class BlResourceShape(Shape):
    """A resource, as the business logic says."""

    object_type: Literal["BL_RESOURCE_REQUEST"] = Field(alias="objectType")
    client_id: Short = Field(alias="clientID")
    resource_name: Short = Field(alias="resourceName")
    ven_id: Id = Field(alias="venID")
    attributes: Attributes | None = None
    targets: Targets | None = None


class VenResourceShape(Shape):
    """A resource, as its VEN says."""

    object_type: Literal["VEN_RESOURCE_REQUEST"] = Field(alias="objectType")
    resource_name: Short = Field(alias="resourceName")
    ven_id: Id = Field(alias="venID")
    attributes: Attributes | None = None


def checked(shape: type[Shape], body: object) -> dict[str, Any]:
    """The parts of a body that the schema names, as they were sent. Raises Problem (400)."""
    try:
        made = shape.model_validate(body)
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise bad(f"{where}: {first['msg']}"[:300]) from None
    return made.model_dump(by_alias=True, exclude_none=True)
