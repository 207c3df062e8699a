"""Prices, demand and caps for a simulation: from files, or from a seeded generator that says so.

Traces come as their publishers wrote them, so the reader is lenient where the live feeds are
strict: gzip, a named column, times without a zone (taken for UTC). Simulated second 0 is the first
row of the price trace, else of the demand trace, else of the signal file.
"""

import bisect
import csv
import gzip
import itertools
import math
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wattshift_cluster.economics.files import NEEDED, STATED, hashprice_of, parse
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.schedule import parse_schedule
from wattshift_scheduler.hashprice import Scheme
from wattshift_scheduler.signals.words import Cap

GENERATED = "seeded generator"
MAX_ROWS = 1_000_000
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Series:
    """Steps: each value holds until the next time; before the first one the value is unknown."""

    times_s: tuple[float, ...]
    values: tuple[float, ...]
    source: str

    def at(self, now_s: float) -> float | None:
        """The value that holds now."""
        index = bisect.bisect_right(self.times_s, now_s + 1e-9) - 1
        return self.values[index] if index >= 0 else None

    def next_change_s(self, now_s: float) -> float:
        """When the next step is; infinite after the last one."""
        index = bisect.bisect_right(self.times_s, now_s + 1e-9)
        return self.times_s[index] if index < len(self.times_s) else math.inf


@dataclass(frozen=True, slots=True)
class Feeds:
    """What the grid, the market and the users do during the run, on simulated seconds."""

    price_usd_per_mwh: Series
    demand_share: Series
    caps: tuple[Cap, ...]
    caps_source: str
    hashprice_usd_per_ph_day: Series | None = None

    def next_change_s(self, now_s: float) -> float:
        """When any of them changes next; infinite if none does."""
        edges = [edge for cap in self.caps for edge in (cap.starts_s, cap.ends_s)]
        later = [edge for edge in edges if edge is not None and edge > now_s + 1e-9]
        series = (self.price_usd_per_mwh, self.demand_share, self.hashprice_usd_per_ph_day)
        return min([*later, *(one.next_change_s(now_s) for one in series if one is not None)])

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each came from."""
        return {
            "prices": self.price_usd_per_mwh.source,
            "demand": self.demand_share.source,
            "signal": self.caps_source,
            "hashprice": "site file"
            if self.hashprice_usd_per_ph_day is None
            else self.hashprice_usd_per_ph_day.source,
        }


def feeds(
    *,
    prices: str | None,
    demand: str | None,
    signal: str | None,
    column: str | None,
    seed: int,
    days: float,
    connection_w: float,
    hashprice: str | None = None,
    hashprice_column: str | None = None,
    scheme: Scheme = Scheme.FPPS,
) -> Feeds:
    """Read or generate what drives a run.

    Args:
        prices, demand: CSV of time and value, .gz too; None generates.
        signal: schedule file (starts, ends, limit, kind); None generates.
        column: column of the prices; by default `usd_per_mwh`, else the second column.
        seed, days: of the generators.
        connection_w: limit of the root feeder, W; generated caps are shares of it.
        hashprice: CSV of a hashprice, or of the network's figures (docs/economics.md); None: the
            site file's constant.
        hashprice_column: by default the figures, else `usd_per_ph_day`, else the second.
        scheme: how the pool pays, for a history of figures.

    Raises:
        ConfigInvalid: a file that cannot be read or holds what is no time or number.
    """
    read_prices = None if prices is None else read_series(prices, column)
    read_demand = None if demand is None else read_series(demand, None)
    caps = None if signal is None else _read_caps(signal)
    earned = None if hashprice is None else read_hashprice(hashprice, hashprice_column, scheme)
    begin_s = next(
        (one.times_s[0] for one in (read_prices, read_demand, earned) if one is not None),
        min((cap.starts_s or 0.0 for cap in caps), default=0.0) if caps else 0.0,
    )
    return Feeds(
        _moved(read_prices, begin_s) or generated_prices(seed, days),
        _moved(read_demand, begin_s) or generated_demand(seed, days),
        generated_caps(seed, days, connection_w) if caps is None else _begun(caps, begin_s),
        GENERATED if signal is None else str(signal),
        _moved(earned, begin_s),
    )


def located(name: str) -> Path:
    """The file itself, or the one of that name below the folder WATTSHIFT_DATA.

    Raises:
        ConfigInvalid: there is none.
    """
    folder = os.environ.get("WATTSHIFT_DATA")
    places = [Path(name)]
    if folder:
        places += [Path(folder) / name, Path(folder) / "grid" / name]
    for place in places:
        if place.is_file():
            return place
    hint = "" if folder else "; WATTSHIFT_DATA names no folder of traces"
    raise ConfigInvalid([Fault(name, "", None, f"no such file{hint}")])


def read_series(name: str, column: str | None) -> Series:
    """Read a CSV of times and values. Raises ConfigInvalid with file and line."""
    path = located(name)
    rows = list(itertools.islice(csv.reader(_text(path).splitlines()), MAX_ROWS))
    if len(rows) < 2 or len(rows[0]) < 2:
        raise ConfigInvalid([Fault(str(path), "", None, "needs a header line and two columns")])
    names = [cell.strip() for cell in rows[0]]
    wanted = column or ("usd_per_mwh" if "usd_per_mwh" in names else names[1])
    if wanted not in names:
        told = f"column missing; there are {', '.join(names)}"
        raise ConfigInvalid([Fault(f"{path}:1", wanted, None, told)])
    at = names.index(wanted)
    values: dict[float, float] = {}
    for line, row in enumerate(rows[1:], 2):
        try:
            time_s, value = _unix_s(row[0]), float(row[at])
        except (ValueError, IndexError) as fault:
            raise ConfigInvalid([Fault(f"{path}:{line}", wanted, None, str(fault))]) from None
        if math.isfinite(value):
            values[time_s] = value
    times_s = sorted(values)
    return Series(tuple(times_s), tuple(values[t] for t in times_s), f"{path.name} ({wanted})")


def read_hashprice(name: str, column: str | None, scheme: Scheme) -> Series:
    """Read a history of the hashprice, USD per PH/s and day. Raises ConfigInvalid.

    A file of the network's figures is read as strictly as the live feed reads it; any other CSV of
    times and values as leniently as a price trace.
    """
    path = located(name)
    text = _text(path)
    header = {cell.strip() for cell in text.lstrip().split("\n", 1)[0].split(",")}
    if column is None and {"time", *NEEDED} <= header:
        history = parse(text, str(path))
        try:
            values = tuple(hashprice_of(row, scheme) or 0.0 for row in history.rows)
        except ValueError as fault:
            raise ConfigInvalid([Fault(str(path), "", None, str(fault))]) from None
        return Series(history.times_s, values, f"{path.name} (figures, {scheme.value})")
    series = read_series(name, column or (STATED if STATED in header else None))
    for time_s, value in zip(series.times_s, series.values, strict=True):
        if value < 0.0:
            told = f"a hashprice of {value:g} USD/PH/day at {time_s:g}; allowed: 0 or more"
            raise ConfigInvalid([Fault(str(path), column or "", None, told)])
    return series


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as fault:
        raise ConfigInvalid([Fault(str(path), "", None, f"cannot be read: {fault}")]) from None


def _unix_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    for form in (datetime.fromisoformat, _american):
        try:
            moment = form(text.strip())
        except ValueError:
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise ValueError(f"not a time: {text[:40]!r}")


def _american(text: str) -> datetime:
    return datetime.strptime(text, "%m/%d/%Y %H:%M").replace(tzinfo=UTC)


def _read_caps(name: str) -> tuple[Cap, ...]:
    path = located(name)
    entries = parse_schedule(_text(path), str(path))
    return tuple(Cap(e.id, e.kind, e.limit_w, e.starts_s, e.ends_s) for e in entries)


def _moved(series: Series | None, by_s: float) -> Series | None:
    if series is None:
        return None
    return Series(tuple(t - by_s for t in series.times_s), series.values, series.source)


def _begun(caps: tuple[Cap, ...], by_s: float) -> tuple[Cap, ...]:
    def moved(edge_s: float | None) -> float | None:
        return None if edge_s is None else edge_s - by_s

    return tuple(
        Cap(cap.id, cap.origin, cap.limit_w, moved(cap.starts_s), moved(cap.ends_s)) for cap in caps
    )


def generated_prices(seed: int, days: float) -> Series:
    """A quarter-hourly price: a daily wave, slow noise, now and then a spike or a negative hour."""
    rng = random.Random(f"prices {seed}")
    wander = 0.0

    def price(at_s: float) -> float:
        nonlocal wander
        wander = 0.9 * wander + rng.gauss(0.0, 4.0)
        spike = rng.choice((400.0, 900.0)) if rng.random() < 0.01 else 0.0
        return 45.0 + 25.0 * math.sin(math.tau * (at_s / DAY_S - 0.4)) + wander + spike

    return _generated(price, 900.0, days)


def generated_demand(seed: int, days: float) -> Series:
    """A five-minute load of the services: a daily wave with bursts, share 0 to 1."""
    rng = random.Random(f"demand {seed}")

    def share(at_s: float) -> float:
        wave = 0.45 + 0.3 * math.sin(math.tau * (at_s / DAY_S - 0.3))
        burst = 0.5 if rng.random() < 0.05 else 0.0
        return min(max(wave + burst + rng.gauss(0.0, 0.05), 0.0), 1.0)

    return _generated(share, 300.0, days)


def generated_caps(seed: int, days: float, connection_w: float) -> tuple[Cap, ...]:
    """Three events a day on average: a cut by 20 to 50 % for 10 to 60 minutes."""
    rng = random.Random(f"caps {seed}")
    caps: list[Cap] = []
    at_s = 0.0
    while True:
        at_s += rng.expovariate(3.0 / DAY_S)
        if at_s >= days * DAY_S:
            return tuple(caps)
        limit_w = connection_w * rng.uniform(0.5, 0.8)
        lasts_s = rng.uniform(600.0, 3600.0)
        caps.append(Cap(f"event-{len(caps) + 1}", "event", limit_w, at_s, at_s + lasts_s))


def _generated(value: Callable[[float], float], every_s: float, days: float) -> Series:
    times_s = tuple(i * every_s for i in range(int(days * DAY_S / every_s) + 1))
    return Series(times_s, tuple(value(t) for t in times_s), GENERATED)
