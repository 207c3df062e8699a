"""How the controller and its planner speak: frames on a pipe, with dataclasses and columns in JSON.

Both ends are one version of one program, so the form follows the dataclasses themselves. A column
is its bytes, so that a plan of days costs the control loop milliseconds and no digit is lost.
"""

import base64
import json
import struct
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

FRAME_MOST_BYTES = 64 << 20
"""A plan of 576 intervals and 60 kinds is about 2 MB."""

HEADER = struct.Struct(">I")
COLUMNS = frozenset(("<f8", "<i8", "|b1"))
COLUMN_MOST_AXES = 2

T = TypeVar("T")


class NotOurs(ValueError):
    """Bytes that the other end never wrote."""


def framed(body: Mapping[str, Any]) -> bytes:
    """A frame: four bytes of length, then JSON."""
    text = json.dumps({key: written(value) for key, value in body.items()}).encode()
    if len(text) > FRAME_MOST_BYTES:
        raise NotOurs(f"a frame of {len(text):,} bytes; at most {FRAME_MOST_BYTES:,}")
    return HEADER.pack(len(text)) + text


def length_of(header: bytes) -> int:
    """How many bytes follow. Raises: NotOurs."""
    (length,) = HEADER.unpack(header)
    if length > FRAME_MOST_BYTES:
        raise NotOurs(f"a frame of {length:,} bytes; at most {FRAME_MOST_BYTES:,}")
    return int(length)


def body_of(text: bytes) -> dict[str, Any]:
    """What a frame holds, as JSON has it; `read` makes its parts. Raises: NotOurs."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise NotOurs("no JSON") from None
    if not isinstance(body, dict):
        raise NotOurs("no table")
    return body


def written(value: Any) -> Any:
    """A value as JSON takes it."""
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value)
        data = base64.b64encode(plain.tobytes()).decode()
        return {"dtype": plain.dtype.str, "shape": plain.shape, "data": data}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: written(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): written(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [written(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def read(kind: type[T], raw: Any) -> T:
    """A value of a type, as `written` wrote it. Raises: NotOurs, and what the type raises."""
    found: T = _read(kind, raw)
    return found


def _read(kind: Any, raw: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _of_union(kind, raw)
    if origin is np.ndarray:
        return _column(raw)
    if origin is tuple:
        return _row(get_args(kind), raw)
    if origin is Literal:
        _expect(raw in get_args(kind), kind)
        return raw
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _expect(isinstance(raw, dict), kind)
        return {key: _read(get_args(kind)[1], one) for key, one in raw.items()}
    if is_dataclass(kind):
        _expect(isinstance(raw, dict), kind)
        hints = get_type_hints(kind)
        known = {one.name for one in fields(kind) if one.init}
        return _made(kind, {name: _read(hints[name], raw[name]) for name in known & raw.keys()})
    if kind is float:
        _expect(isinstance(raw, int | float) and not isinstance(raw, bool), kind)
        return float(raw)
    if isinstance(kind, type):
        if isinstance(raw, kind):
            return raw
        _expect(issubclass(kind, str) and isinstance(raw, str), kind)
        return kind(raw)  # a StrEnum
    return raw


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**values)


def _of_union(kind: Any, raw: Any) -> Any:
    if raw is None:
        return None
    some = [one for one in get_args(kind) if one is not type(None)]
    return _read(some[0], raw) if len(some) == 1 else raw


def _row(parts: tuple[Any, ...], raw: Any) -> tuple[Any, ...]:
    _expect(isinstance(raw, list), tuple)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_read(parts[0], one) for one in raw)
    _expect(len(raw) == len(parts), tuple)
    return tuple(_read(part, one) for part, one in zip(parts, raw, strict=True))


def _column(raw: Any) -> Any:
    _expect(isinstance(raw, dict) and raw.get("dtype") in COLUMNS, np.ndarray)
    shape = tuple(raw["shape"])
    _expect(len(shape) <= COLUMN_MOST_AXES, np.ndarray)
    try:
        flat = np.frombuffer(base64.b64decode(raw["data"], validate=True), dtype=raw["dtype"])
        column = flat.reshape(shape)
    except (ValueError, TypeError) as fault:
        raise NotOurs(f"no column: {fault}") from None
    return column


def _expect(holds: bool, kind: Any) -> None:
    if not holds:
        raise NotOurs(f"no {getattr(kind, '__name__', kind)}")
