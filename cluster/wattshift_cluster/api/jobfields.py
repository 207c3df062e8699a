"""The kinds of value that a job file holds, each with its allowed range and a bound on its size."""

import json
import re
import shlex
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from wattshift_cluster.config.fields import (
    Name,
    Section,
    number,
    seconds,
    usd,
    watts,
    whole,
)
from wattshift_cluster.config.quantities import parse_seconds

WATTS_MAX_W = 10e6
UNITS_MAX = 1000
"""Replicas of a service, or workers of a batch job."""

CHUNK_ITEMS_MAX = 100_000
VALUE_MAX_USD_PER_H = 1e6
DEADLINE_MAX_S = 366 * 86400.0
GPUS_MAX = 64.0
ENV_MAX = 64
ENV_CHARS = 4096
LABELS_MAX = 64
STEPS_MAX = 32
COMMAND_WORDS = 256
FOLDERS_MAX = 16
TREE_BYTES_MAX = 256 << 10
"""A Serve application or a builder's arguments, as JSON: far above any that a person writes."""

TREE_DEPTH_MAX = 32
"""Tables in each other there. Whatever walks a job's specification calls itself once for each: a
job so deep that this fails would bring the controller down, and again at each start."""

RESERVED_IDS = ("site", "mining-standing")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LABEL_KEY = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{0,252}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}\w)?")
_LABEL_VALUE = re.compile(r"!?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
LABEL_RULE = 'a value of a Ray label such as H100, or "!H100" for every other'


def absolute_s(value: object) -> float | None:
    """Return an RFC 3339 text or a datetime as a Unix time in s; None if it is neither."""
    moment = value
    if isinstance(value, str) and re.match(r"\s*\d{4}-", value):
        moment = datetime.fromisoformat(value.strip())
    if not isinstance(moment, datetime):
        return None
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a job should be done.

    Attributes:
        at_s: Unix time, s.
        in_s: as it was given, if that was a duration from now, s; None if it was a time.
    """

    at_s: float
    in_s: float | None = None


def _deadline(value: object) -> Deadline | None:
    """Return the deadline of a duration that counts from now, or of an RFC 3339 time with zone."""
    if value is None:
        return None
    now_s, in_s = time.time(), None
    try:
        at_s = absolute_s(value)
        if at_s is None:
            in_s = parse_seconds(value)
            at_s = now_s + in_s
    except ValueError as wrong:
        allowed = "a duration such as 2h, or a time such as 2026-12-01T18:00:00Z"
        raise ValueError(f"{wrong}; allowed: {allowed}") from None
    if not 0 < at_s - now_s <= DEADLINE_MAX_S:
        raise ValueError("out of range; allowed: later than now and within 366 days")
    return Deadline(at_s, in_s)


def _id(value: str) -> str:
    if value in RESERVED_IDS:
        raise ValueError(f"taken; allowed: any name but {', '.join(RESERVED_IDS)}")
    return value


def _gpus(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("not a share of one GPU and not whole; allowed: 0 to 1, 2, 3, 4 and so on")
    return value


def _share(value: object) -> float:
    """Return a share of 1 from `95%` or 0.95."""
    text = value.strip() if isinstance(value, str) else value
    allowed = "allowed: above 0% and at most 100%, such as 95% or 0.95"
    try:
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError
        per_cent = isinstance(text, str) and text.endswith("%")
        share = float(str(text).removesuffix("%")) / (100.0 if per_cent else 1.0)
    except ValueError:
        raise ValueError(f"not a share; {allowed}") from None
    if not 0 < share <= 1:
        raise ValueError(f"out of range; {allowed}")
    return share


def _env(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a variable; allowed: A-Z a-z 0-9 _")
        if name.startswith("WATTSHIFT_"):
            raise ValueError(f"{name[:40]} is set by wattshift itself; allowed: any other prefix")
    return value


def _env_text(value: object) -> object:
    # A number is meant as its digits; what `yes` or `null` mean is for the writer to say.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("not text; write it in quotes")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, wanted in value.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key[:60]!r} is no key of a Ray label, such as ray.io/region")
        if not _LABEL_VALUE.fullmatch(wanted):
            raise ValueError(f"{key} = {wanted[:60]!r}; allowed: {LABEL_RULE}")
    return value


def _command(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as wrong:
        raise ValueError(f"cannot be split into words: {wrong}") from None


def _tree(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(TREE_DEPTH_MAX):
        tables = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for table in tables for one in table if isinstance(one, dict | list)]
    if level:
        raise ValueError(f"tables within tables; allowed: {TREE_DEPTH_MAX} of them")
    try:
        size = len(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("holds what JSON cannot: dates, or numbers that are not finite") from None
    if size > TREE_BYTES_MAX:
        raise ValueError(f"{size >> 10} KiB as JSON; allowed: up to {TREE_BYTES_MAX >> 10} KiB")
    return value


class Step(Section):
    """A power limit under which a unit may run, and the share of its throughput that it keeps."""

    watts: Annotated[float, watts(1.0, WATTS_MAX_W)]
    throughput: Annotated[
        float,
        BeforeValidator(_share),
        WithJsonSchema({"type": ["number", "string"], "description": "0.95, or text such as 95%"}),
    ]


When = Annotated[
    Deadline | None,
    BeforeValidator(_deadline),
    WithJsonSchema({"type": ["string", "number", "null"]}),
]
JobId = Annotated[Name, AfterValidator(_id)]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]
UsdPerHour = Annotated[float, usd(0, VALUE_MAX_USD_PER_H)]
Watts = Annotated[float, watts(1.0, WATTS_MAX_W)]
Slo = Annotated[float, seconds(0.001, 600.0)]
Gpus = Annotated[float, number(0, GPUS_MAX), AfterValidator(_gpus)]
Units = Annotated[int, whole(1, UNITS_MAX)]
EnvValue = Annotated[
    str,
    BeforeValidator(_env_text),
    Field(max_length=ENV_CHARS),
    WithJsonSchema({"type": ["string", "number"], "maxLength": ENV_CHARS}),
]
Env = Annotated[dict[str, EnvValue], Field(max_length=ENV_MAX), AfterValidator(_env)]
Labels = Annotated[dict[str, str], Field(max_length=LABELS_MAX), AfterValidator(_labels)]
LabelValue = Annotated[str, Field(min_length=1, max_length=64)]
Steps = Annotated[list[Step], Field(max_length=STEPS_MAX)]
Words = Annotated[
    list[PathText],
    BeforeValidator(_command),
    Field(min_length=1, max_length=COMMAND_WORDS),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Folders = Annotated[list[PathText], Field(max_length=FOLDERS_MAX)]
Tree = Annotated[dict[str, Any], AfterValidator(_tree)]
