"""What a stock Antminer says of itself, taken apart: rates, temperatures, mode, watts if any.

The layouts are those of records of real machines (256foundation/asic-rs, antminer/v2023_07). Of
the rates only the 5 s one is used: an average goes on for minutes after hashing has ended.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from wattshift_cluster.asic.antminer_conf import mode_of
from wattshift_cluster.asic.reported import Json, first, hashes, number, rows, watts

MOST_TEMPERATURE_C = 200.0
_UNITS_H_PER_S = {"mh": 1e6, "gh": 1e9, "th": 1e12}
_CHIPS = re.compile(r"temp_chip\d+|temp2_\d+")


@dataclass(frozen=True, slots=True)
class WebSample:
    """One answer of stats.cgi; None where it does not say. `mode` is the configuration's number."""

    hashrate_h_per_s: float | None
    temperature_c: float | None
    watts_w: float | None
    mode: int | None


def summary_rate(reply: Json) -> float | None:
    """Hashes per second of the cgminer `summary`."""
    return hashes(first(reply, "SUMMARY").get("GHS 5s"), 1e9)


def stats_sample(reply: Json) -> tuple[float | None, float | None]:
    """Hashes per second and the hottest chip, °C, of the cgminer `stats`."""
    rate: float | None = None
    hot: list[object] = []
    for row in rows(reply, "STATS"):
        if "GHS 5s" in row:
            rate = hashes(row["GHS 5s"], 1e9)
        for name, value in row.items():
            if _CHIPS.fullmatch(name):
                hot += value.split("-") if isinstance(value, str) else [value]
    return rate, _hottest_c(hot)


def ideal_rate(reply: Json) -> float | None:
    """Hashes per second that the cgminer `stats` names as the machine's own."""
    found = (row["total_rateideal"] for row in rows(reply, "STATS") if "total_rateideal" in row)
    return hashes(next(found, None), 1e9) or None


def web_sample(reply: Json) -> WebSample:
    """One answer of stats.cgi; a sleeping machine may give one without rows."""
    row = first(reply, "STATS")
    unit = _UNITS_H_PER_S.get(str(row.get("rate_unit", ""))[:2].lower())
    chips = [
        value
        for chain in rows(row, "chain")
        for value in (chain["temp_chip"] if isinstance(chain.get("temp_chip"), list) else ())
    ]
    return WebSample(
        hashrate_h_per_s=hashes(row.get("rate_5s"), unit) if unit else None,
        temperature_c=_hottest_c(chips),
        # A control board that answers draws something: 0 stands for "not measured".
        watts_w=watts(row.get("watt")) or None,
        mode=mode_of(row),
    )


def _hottest_c(values: Iterable[object]) -> float | None:
    """The highest; 0 is written where there is no sensor."""
    sane = (number(value) for value in values)
    return max((c for c in sane if c and c <= MOST_TEMPERATURE_C), default=None)
