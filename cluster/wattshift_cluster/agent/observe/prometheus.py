"""A strict, bounded reader of Prometheus text, as an inference server writes it.

Format: "Exposition formats, text-based format" of the Prometheus documentation, version 0.0.4. Of
each line the name is checked; the samples that are asked for are read whole. Whatever does not fit
is no observation: unknown, and never idle.
"""

import re
from collections.abc import Collection

from wattshift_cluster.errors import WattshiftError

MAX_BODY_BYTES = 4 << 20
MAX_LINE_BYTES = 16 << 10
MAX_SERIES = 4096
"""Of the wanted samples; a server has one per model, engine and reason."""

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]
"""Sample name → labels in the order of their names → value."""


class ObservationFailed(WattshiftError):
    """A server could not be looked at; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


_NAME = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*(?=[ \t{])")
_NUMBER = r"(?:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?i:inf)|(?i:nan))"
_AFTER = re.compile(rf"[ \t]*({_NUMBER})(?:[ \t]+-?[0-9]+)?")
_LABEL = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\[\\"n])*)"[ \t]*(,|(?=\}))'
)
_ESCAPE = re.compile(r"\\(.)")


def parse(body: bytes, wanted: Collection[str]) -> Samples:
    """The samples called `wanted`; a name without samples is absent.

    Args:
        body: the whole text.
        wanted: sample names, as they stand on a line (with `_total`, `_count`, …).

    Raises:
        ObservationFailed: the text is malformed, cut off or too large.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ObservationFailed(f"more than {MAX_BODY_BYTES} bytes of metrics")
    if body and not body.endswith(b"\n"):
        raise ObservationFailed("the metrics are cut off: the last line has no end")
    names = {name.encode(): name for name in wanted}
    found: Samples = {}
    series = 0
    for number, raw in enumerate(body.split(b"\n"), start=1):
        if len(raw) > MAX_LINE_BYTES:
            raise ObservationFailed(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
        line = raw.strip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        match = _NAME.match(line)
        if match is None:
            raise ObservationFailed(f"line {number} is no Prometheus sample: {line[:40]!r}")
        name = names.get(match.group())
        if name is None:
            continue
        labels, value = _sample(line[match.end() :], number)
        if labels in found.setdefault(name, {}):
            raise ObservationFailed(f"line {number} gives a series of {name} twice")
        found[name][labels] = value
        series += 1
        if series > MAX_SERIES:
            raise ObservationFailed(f"more than {MAX_SERIES} series of {', '.join(sorted(wanted))}")
    return found


def _sample(rest: bytes, number: int) -> tuple[Labels, float]:
    """Labels and value: what follows a sample's name on its line."""
    try:
        text = rest.decode()
    except UnicodeDecodeError as fault:
        raise ObservationFailed(f"line {number} is not UTF-8") from fault
    labels: dict[str, str] = {}
    at = 0
    if (brace := text.lstrip(" \t")).startswith("{"):
        at = len(text) - len(brace) + 1
        while (match := _LABEL.match(text, at)) is not None:
            if match[1] in labels:
                raise ObservationFailed(f"line {number} gives the label {match[1]} twice")
            labels[match[1]] = _ESCAPE.sub(_unescape, match[2])
            at = match.end()
        closing = text[at:].lstrip(" \t")
        if not closing.startswith("}"):
            raise ObservationFailed(f"line {number} has malformed labels")
        at = len(text) - len(closing) + 1
    value = _AFTER.fullmatch(text, at)
    if value is None:
        raise ObservationFailed(f"line {number} has no proper value: {text[at : at + 40]!r}")
    return tuple(sorted(labels.items())), float(value[1])


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
