"""The settlement file as a table of pandas, for Parquet and for whoever goes on with it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.settle.rows import COLUMNS, Row

TEXTS = (
    "program",
    "event_id",
    "resource_id",
    "currency",
    "quality",
    "samples_sha256",
)
TIMES = ("interval_start_utc", "interval_end_utc")


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One row for each interval; times in UTC, unknown figures NaN."""
    table = pd.DataFrame([row.cells() for row in rows], columns=list(COLUMNS))
    for name in TIMES:
        table[name] = pd.to_datetime(table[name], utc=True)
    for name in COLUMNS:
        if name in TEXTS:
            table[name] = table[name].astype("string")
        elif name not in TIMES:
            table[name] = table[name].astype("float64")
    return table


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write the settlement file as Parquet. Raises: WattshiftError: no pyarrow here; OSError."""
    try:
        frame(rows).to_parquet(path, index=False)
    except ImportError:
        raise WattshiftError("Parquet needs pyarrow: pip install 'wattshift[batch]'") from None
