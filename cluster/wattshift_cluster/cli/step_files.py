"""Files of measured power steps, as `submit service --power-steps FILE` takes them.

A file is a list of rows. Each says the power limit of one replica (`watts`), and what the replica
did under it: the share of its throughput (`throughput`), or the answers or tokens per second that
a load test counted (`rate`). With rates, the row of the most watts is the run without a limit.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wattshift_cluster.api.bodies import load_table
from wattshift_cluster.config.quantities import parse_watts
from wattshift_cluster.errors import ConfigInvalid, Fault

ROWS_MAX = 33
"""The steps that a job may have, and the run without a limit."""

DONE = ("throughput", "rate")


def steps_of(path: Path) -> list[dict[str, Any]]:
    """Return the power steps of a file as a job writes them.

    Raises:
        ConfigInvalid: it holds anything else; the fault names the row.
        NotFound: there is no such file.
    """
    rows = load_table(path)
    if not isinstance(rows, list) or not 1 <= len(rows) <= ROWS_MAX:
        told = f"not a list of 1 to {ROWS_MAX} rows such as {{watts: 250W, throughput: 95%}}"
        raise _wrong(path, "", None, told)
    for at, row in enumerate(rows):
        _check(path, at, row)
    kinds = {key for row in rows for key in DONE if key in row}
    if len(kinds) > 1:
        raise _wrong(path, "", None, "some rows say throughput and some say rate; allowed: one")
    if kinds == {"throughput"}:
        return [dict(row) for row in rows]
    free = max(rows, key=lambda row: parse_watts(row["watts"]))
    # What a limit did not cost shows as a little more or less than all.
    shares = [(row, min(row["rate"] / free["rate"], 1.0)) for row in rows if row is not free]
    if not shares:
        raise _wrong(path, "", None, "one rate alone says nothing: a run without a limit, too")
    return [{"watts": row["watts"], "throughput": round(share, 4)} for row, share in shares]


def _check(path: Path, at: int, row: object) -> None:
    where = f"[{at}]"
    if not isinstance(row, Mapping):
        raise _wrong(path, where, row, "not a row such as {watts: 250W, throughput: 95%}")
    if unknown := sorted(map(str, row.keys() - {"watts", *DONE})):
        raise _wrong(path, f"{where}.{unknown[0]}", None, "no key of a row; allowed: watts and "
                     "one of throughput, rate")  # fmt: skip
    if "watts" not in row or len(row.keys() & set(DONE)) != 1:
        raise _wrong(path, where, None, "a row has watts and one of throughput, rate")
    try:
        parse_watts(row["watts"])
    except ValueError as fault:
        raise _wrong(path, f"{where}.watts", row["watts"], str(fault)) from None
    rate = row.get("rate", 1.0)
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not math.isfinite(rate) or rate <= 0:
        raise _wrong(path, f"{where}.rate", rate, "not a number above 0, per second")


def _wrong(path: Path, where: str, value: object, told: str) -> ConfigInvalid:
    shown = None if value is None else str(value)[:80]
    return ConfigInvalid([Fault(str(path), where, shown, told)])
