"""What a real service saw: public traces of requests, and of rates, read from their files.

    Azure LLM inference traces    TIMESTAMP, ContextTokens, GeneratedTokens: a row a request
    Mooncake (FAST '25)           timestamp_ms, input_length, output_length: a row a request
    ServeGen (Alibaba)            model, t_s, total_rate_rps: a row a step of the total rate

Plain CSV or .gz.
"""

import csv
import gzip
import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from wattshift_cluster.errors import ConfigInvalid, Fault

TRACE_ROWS_MAX = 2_000_000

Row: TypeAlias = tuple[float, int, int | None]
"""When, s; tokens asked with; tokens answered with."""


@dataclass(frozen=True, slots=True)
class Rates:
    """A rate that changes in steps.

    Attributes:
        at_s: beginnings of the steps, rising from 0.
        per_s: requests per second in each.
        lap_s: when the last step ends.
    """

    at_s: Sequence[float]
    per_s: Sequence[float]
    lap_s: float

    @property
    def mean_per_s(self) -> float:
        """The mean over all steps."""
        ends = [*self.at_s[1:], self.lap_s]
        whole = sum(
            (end - begin) * rate
            for begin, end, rate in zip(self.at_s, ends, self.per_s, strict=True)
        )
        return whole / self.lap_s


def read_trace(path: Path, model: str | None = None) -> Sequence[Row] | Rates:
    """The requests of a trace in the order of their times, or the steps of its rate.

    Args:
        path: a file in one of the formats above.
        model: which model's rates, where the file holds several.

    Raises:
        ConfigInvalid: the file cannot be read as such a trace.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with _reading(path), opener(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        rows = itertools.islice(reader, TRACE_ROWS_MAX)
        for at, asked, answered, time_s in FORMATS:
            if {at, asked} <= columns:
                return _requests(path, rows, (at, asked, answered), time_s)
        if {"t_s", "total_rate_rps"} <= columns:
            return _rates(path, rows, model)
    known = "TIMESTAMP and ContextTokens; timestamp_ms and input_length; t_s and total_rate_rps"
    raise trace_invalid(path, f"not a trace: it has none of the columns {known}")


def trace_invalid(path: Path, message: str) -> ConfigInvalid:
    """The error that a trace is answered with."""
    return ConfigInvalid([Fault(str(path), "trace", None, message)])


def _requests(
    path: Path,
    rows: Iterable[Mapping[str, str]],
    names: tuple[str, str, str],
    time_s: Callable[[str], float],
) -> Sequence[Row]:
    at, asked, answered = names
    found = [
        (time_s(row[at]), int(row[asked]), int(row[answered]) if row.get(answered) else None)
        for row in rows
    ]
    if not all(math.isfinite(at_s) for at_s, _, _ in found):
        raise trace_invalid(path, f"a {at} that is no time")
    found.sort(key=lambda row: row[:2])
    if len(found) < 2 or found[-1][0] <= found[0][0]:
        raise trace_invalid(path, "a trace needs at least two different times")
    return found


def _rates(path: Path, rows: Iterable[Mapping[str, str]], model: str | None) -> Rates:
    by_model: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step = (float(row["t_s"]), float(row["total_rate_rps"]))
        if not (math.isfinite(step[0]) and 0 <= step[1] < math.inf):
            raise trace_invalid(path, f"{step[1]:g} per second at {step[0]:g} s is no rate")
        by_model.setdefault(row.get("model") or "", []).append(step)
    if model is None and len(by_model) > 1:
        raise trace_invalid(
            path, f"name one of its models after a #: {', '.join(sorted(by_model))}"
        )
    steps = sorted(by_model.get(model, []) if model else next(iter(by_model.values()), []))
    if model and not steps:
        raise trace_invalid(path, f"no model {model}; it has {', '.join(sorted(by_model))}")
    if len(steps) < 2 or steps[-1][0] <= steps[0][0]:
        raise trace_invalid(path, "a trace needs at least two different times")
    first_s = steps[0][0]
    at_s = [at - first_s for at, _ in steps]
    found = Rates(at_s, [rate for _, rate in steps], at_s[-1] * len(steps) / (len(steps) - 1))
    if not found.mean_per_s > 0:
        raise trace_invalid(path, "a rate that is never above 0")
    return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as fault:
        raise trace_invalid(path, str(fault)) from fault
    except (AttributeError, KeyError, TypeError, ValueError, csv.Error) as fault:
        raise trace_invalid(path, f"not a trace of requests: {fault}") from fault


def _azure_s(text: str) -> float:
    """Unix time of `2023-11-16 18:15:46.6805900` (UTC, seven decimals as Azure writes them)."""
    moment, _, decimals = text.partition(".")
    whole = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    return whole + float(f"0.{decimals or 0}")


FORMATS = (
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens", _azure_s),
    ("timestamp_ms", "input_length", "output_length", lambda text: float(text) / 1000),
)
"""Columns of the time, of the tokens asked with and answered with; and how a time is read."""
