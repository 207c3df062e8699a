"""The settlement file: one row for each interval of an event, columns by their agreed names."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

COLUMNS = (
    "program",
    "event_id",
    "resource_id",
    "interval_start_utc",
    "interval_end_utc",
    "baseline_kw",
    "adjustment",
    "metered_kw",
    "reduction_kw",
    "committed_kw",
    "performance",
    "price",
    "currency",
    "payment",
    "quality",
    "samples_sha256",
    "clock_offset_s",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One interval of one event; NaN is unknown, or does not apply.

    Attributes:
        adjustment: factor or watts that moved the baseline, by its method.
        price: per MWh in `currency`; `payment` is in `currency`.
        quality: "measured", "emulated" or "modelled", then what is to be known of it, after a plus.
        samples_sha256: hash of the raw meter samples of the interval.
    """

    program: str
    event_id: str
    resource_id: str
    interval_start_s: float
    interval_end_s: float
    baseline_kw: float
    adjustment: float
    metered_kw: float
    reduction_kw: float
    committed_kw: float
    performance: float
    price: float
    currency: str
    payment: float
    quality: str
    samples_sha256: str
    clock_offset_s: float

    def cells(self) -> dict[str, str | float | None]:
        """The row by column; times as text, None for what is unknown."""
        return {
            "program": self.program,
            "event_id": self.event_id,
            "resource_id": self.resource_id,
            "interval_start_utc": utc(self.interval_start_s),
            "interval_end_utc": utc(self.interval_end_s),
            "baseline_kw": _figure(self.baseline_kw),
            "adjustment": _figure(self.adjustment),
            "metered_kw": _figure(self.metered_kw),
            "reduction_kw": _figure(self.reduction_kw),
            "committed_kw": _figure(self.committed_kw),
            "performance": _figure(self.performance),
            "price": self.price,
            "currency": self.currency,
            "payment": _figure(self.payment),
            "quality": self.quality,
            "samples_sha256": self.samples_sha256,
            "clock_offset_s": _figure(self.clock_offset_s),
        }


def as_csv(rows: Iterable[Row]) -> str:
    """The settlement file as CSV; what is unknown is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _safe(cell) for name, cell in row.cells().items()})
    return text.getvalue()


def utc(at_s: float) -> str:
    """A unix time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(round(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _figure(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _safe(cell: str | float | None) -> str | float | None:
    """A text that a spreadsheet would run as a formula is kept from it by a leading quote."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t") else cell
