"""Bodies of POST requests and of event files, other than jobs: caps, grid events, tokens.

Quantities are numbers in base units or text with a unit; a moment is an RFC 3339 time with its zone
or a duration from now.
"""

import json
import re
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from wattshift_cluster.api.jobspec import absolute_s, faults
from wattshift_cluster.config.fields import (
    Name,
    Section,
    Switch,
    seconds,
    usd_per_mwh,
    watts,
    whole,
)
from wattshift_cluster.config.quantities import parse_seconds
from wattshift_cluster.errors import ConfigInvalid, Fault, NotFound
from wattshift_cluster.fleet.learn import Learnt

AHEAD_MAX_S = 366 * 86400.0
OVERRIDE_MAX_S = 7 * 86400.0
"""An override is for a while; what is meant to stay is agreed with whoever set the cap."""

VALUES_MAX = 100_000
"""Values in one document of a file: YAML can say the same a billion times over, or without end."""

CAPS_MAX = 1000
LIMITS_MAX = 1000
FLEET_MAX = 10_000
PATTERNS_MAX = 100
"""Each is held against every device, in the loop that also sheds."""

FILE_BYTES_MAX = 1 << 20
_PATTERN = re.compile(r"[A-Za-z0-9_.*?\[\]!-]+")


def _time(value: object) -> float | None:
    """Return a Unix time in s from an RFC 3339 time with zone or a duration from now."""
    if value is None:
        return None
    try:
        at_s = absolute_s(value)
        at_s = time.time() + parse_seconds(value) if at_s is None else at_s
    except ValueError as wrong:
        allowed = "a duration from now such as 5m, or a time such as 2026-12-01T18:00:00Z"
        raise ValueError(f"{wrong}; allowed: {allowed}") from None
    if abs(at_s - time.time()) > AHEAD_MAX_S:
        raise ValueError("out of range; allowed: within 366 days of now")
    return at_s


def _source(value: str) -> str:
    if value == "operator":
        raise ValueError("operator caps are set with /v1/caps; allowed: any other name")
    return value


def _said(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError("not a reason; allowed: printable text in one line")
    return value.strip()


Time = Annotated[float | None, BeforeValidator(_time)]
CapWatts = Annotated[float, watts(0.0)]
Said = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_said)]


class CapBody(Section):
    """A cap to set: `until` a time or `for` a duration; neither leaves it open."""

    limit: CapWatts
    starts: Time = None
    until: Time = None
    for_s: Annotated[float, seconds(1.0, AHEAD_MAX_S)] | None = Field(None, alias="for")
    strict: Switch = False

    @model_validator(mode="after")
    def _one_end(self) -> "CapBody":
        if self.until is not None and self.for_s is not None:
            raise ValueError("until and for exclude each other; allowed: one of them")
        starts_s, ends_s = self.span_s()
        if ends_s is not None and ends_s <= max(starts_s or 0.0, time.time()):
            raise ValueError("the cap ends before it begins or in the past; allowed: later")
        return self

    def span_s(self) -> tuple[float | None, float | None]:
        """Return start and end as Unix times in s; None is open."""
        if self.for_s is None:
            return self.starts, self.until
        return self.starts, (self.starts or time.time()) + self.for_s


class OverrideBody(Section):
    """An override of one cap: `until` a time or `for` a duration, and why; it always ends."""

    source: Annotated[str, Field(min_length=1, max_length=64)]
    cap: Annotated[str, Field(min_length=1, max_length=512)]
    limit: CapWatts
    until: Time = None
    for_s: Annotated[float, seconds(1.0, OVERRIDE_MAX_S)] | None = Field(None, alias="for")
    reason: Said

    @model_validator(mode="after")
    def _one_end(self) -> "OverrideBody":
        if (self.until is None) == (self.for_s is None):
            raise ValueError("an override ends; allowed: one of until and for")
        ahead_s = self.ends_s() - time.time()
        if not 0 < ahead_s <= OVERRIDE_MAX_S:
            raise ValueError("out of range; allowed: it ends within 7 days from now")
        return self

    def ends_s(self) -> float:
        """Return when it ends, as Unix time in s."""
        if self.until is not None:
            return self.until
        return time.time() + (self.for_s or 0.0)


class LimitsBody(Section):
    """Power limits to set, by device."""

    limits: dict[Name, Annotated[float, watts(1.0, 100_000.0)]] = Field(
        min_length=1, max_length=LIMITS_MAX
    )


def _pattern(value: str) -> str:
    if not _PATTERN.fullmatch(value):
        raise ValueError("no device or pattern; allowed: letters, digits, any of . _ - * ? [ ]")
    return value


Pattern = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_pattern)]


class FleetBody(Section):
    """What is asked of ASICs: which, why, and for a limit how many watts (null lifts it)."""

    devices: list[Pattern] = Field(min_length=1, max_length=FLEET_MAX)
    reason: Said | None = None
    watts_w: Annotated[float, watts(1.0, 100_000.0)] | None = Field(None, alias="watts")
    override: Switch = False
    dry_run: Switch = False

    def check(self, action: str) -> None:
        """Raise ConfigInvalid where the action needs or knows no such key."""
        wrong: list[Fault] = []
        given = "watts_w" in self.model_fields_set
        if action == "limit" and not given:
            text = "is missing; allowed: 1W to 100kW, or null to lift the limit"
            wrong.append(Fault("body", "watts", None, text))
        if action != "limit" and given:
            wrong.append(Fault("body", "watts", None, f"{action} takes no watts"))
        patterns = sum(bool(set("*?[") & set(name)) for name in self.devices)
        if patterns > PATTERNS_MAX:
            text = f"holds {patterns} patterns; allowed: at most {PATTERNS_MAX}, beside plain ids"
            wrong.append(Fault("body", "devices", None, text))
        if action != "unlock" and self.override:
            wrong.append(Fault("body", "override", "true", "only unlock takes it"))
        if action == "lock" and self.reason is None:
            wrong.append(Fault("body", "reason", None, "is missing: a lock says why it is there"))
        if wrong:
            raise ConfigInvalid(wrong)


class LearntBody(Section):
    """What a commissioning learnt of ASICs, by device, as its record has it."""

    devices: dict[Name, dict[str, Any]] = Field(min_length=1, max_length=LIMITS_MAX)
    reason: Said | None = None

    @model_validator(mode="after")
    def _figures(self) -> "LearntBody":
        for name, raw in self.devices.items():
            try:
                Learnt.from_dict(raw)
            except (ValueError, OverflowError) as wrong:
                raise ValueError(f"{name}: {wrong}; allowed: what commission learnt") from None
        return self


class ProfileBody(Section):
    """How a device is measured; all of it is for ASICs, and all may be left out."""

    with_sleep: Switch = False
    points: Annotated[int, whole(2, 64)] | None = None
    dry_run: Switch = False


class EventCap(Section):
    """One cap of a grid event."""

    id: Name | None = None
    limit: CapWatts
    starts: Time = None
    ends: Time = None


class EventBody(Section):
    """A grid event: the caps of its source from now on, and a price if the event carries one."""

    source: Annotated[Name, AfterValidator(_source)] = "event"
    caps: list[EventCap] = Field(default_factory=list, max_length=CAPS_MAX)
    price: Annotated[float, usd_per_mwh(-1e5, 1e5)] | None = None

    def to_signal(self) -> dict[str, Any]:
        """Return what the controller takes: units in names, times as Unix seconds."""
        rows = [
            {"id": cap.id, "limit_w": cap.limit, "starts_s": cap.starts, "ends_s": cap.ends}
            for cap in self.caps
        ]
        signal: dict[str, Any] = {"source": self.source, "caps": rows}
        if "price" in self.model_fields_set:
            signal["price_usd_per_mwh"] = self.price
        return signal


class TokenBody(Section):
    """A token to make."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: str = "viewer"
    ttl: Annotated[float, seconds(60.0, 10 * AHEAD_MAX_S)] | None = None


B = TypeVar("B", bound=Section)


def parse_body(model: type[B], raw: object, source: str) -> B:
    """Return `raw` as `model`. Raises ConfigInvalid with one fault per wrong key or value."""
    if not isinstance(raw, dict):
        raise ConfigInvalid(
            [Fault(source, "", None, "must be a table of keys, not a list or text")]
        )
    try:
        return model.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigInvalid(faults(error, source, model)) from None


def load_table(path: Path) -> object:
    """Return what a YAML, JSON or TOML file holds.

    Raises:
        NotFound: there is no such file.
        ConfigInvalid: it is larger than 1 MiB, cannot be read, is not in its format, or holds
            several YAML documents.
    """
    documents = load_documents(path)
    if len(documents) != 1:
        told = f"holds {len(documents)} documents; allowed: one"
        raise ConfigInvalid([Fault(str(path), "", None, told)])
    return documents[0]


def _counted(document: object) -> object:
    """The document, if what it refers to again and again is bounded. Raises ValueError."""
    waiting: list[object] = [document]
    for _ in range(VALUES_MAX):
        if not waiting:
            return document
        one = waiting.pop()
        if isinstance(one, dict | list):
            waiting.extend(one.values() if isinstance(one, dict) else one)
    raise ValueError(f"it holds itself, or more than {VALUES_MAX:,} values")


def load_documents(path: Path) -> list[object]:
    """Return every document of a YAML file, or the one of a JSON or TOML file.

    An empty document between two others says nothing and is left out.

    Raises:
        NotFound: there is no such file.
        ConfigInvalid: it is larger than 1 MiB, cannot be read, or is not in its format.
    """

    def wrong(message: str) -> ConfigInvalid:
        return ConfigInvalid([Fault(str(path), "", None, message)])

    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"no file {path}") from None
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise wrong("is larger than 1 MiB")
    try:
        text = content.decode()
        if path.suffix == ".toml":
            return [tomllib.loads(text)]
        if path.suffix == ".json":
            return [json.loads(text)]
        documents = [_counted(one) for one in yaml.safe_load_all(text) if one is not None]
        return documents or [None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise wrong(f"cannot be parsed: {' '.join(str(error).split())}") from None
