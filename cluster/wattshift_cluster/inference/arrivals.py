"""When requests come and how long they are: seeded bursts, or a trace of a real service.

The generator is a two-state Markov-modulated Poisson process: a calm rate, a burst rate, and
exponential stays in each. Its shape follows published traces, measured on the first hour of each:

    Azure LLM inference trace 2023, conversation (Splitwise, ISCA 2024; Azure/AzurePublicDataset):
        over windows of 10 s, peak / mean = 1.78 and p99 / mean = 1.59
    the same, coding: peak / mean = 12.8; ServeGen (Alibaba), total rate per 10 min: 1.4 to 3.3

So a burst runs at 1.6 times the mean rate, a third of the time, for 20 s on average, and the calm
between at 0.7 times; `burst_ratio` moves it toward the coding trace. Times are in seconds of
*load time*: the sender plays them faster to raise the rate.
"""

import csv
import gzip
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wattshift_cluster.errors import ConfigInvalid, Fault

BURST_SHARE = 1 / 3
BURST_MEAN_S = 20.0
CALM_MEAN_S = BURST_MEAN_S * (1 - BURST_SHARE) / BURST_SHARE
BURST_RATIO = 1.6
BURST_RATIO_MAX = 1 / BURST_SHARE
"""Here the calm between bursts is silent."""

WORDS_PER_TOKEN = 0.75
"""Rule of thumb for English text."""

TRACE_ROWS_MAX = 2_000_000

VOCABULARY = (
    "power price meter feeder grid cap lease watt device miner shed restore ramp load demand "
    "signal event baseline settle forecast model text query answer search index vector token "
    "cluster node replica queue latency the a of to and in for with on at by from under over "
    "site rack fan heat water wind solar night morning winter storm market bid hour"
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, s of load time from the start, and how many words it has."""

    at_s: float
    words: int


def bursts(
    rate_per_s: float, seed: int, *, words: int = 12, burst_ratio: float = BURST_RATIO
) -> Iterator[Arrival]:
    """Endless arrivals at a mean rate; the same for the same seed.

    Args:
        rate_per_s: mean over bursts and calm, requests per second; above 0.
        seed: of everything random here.
        words: mean length; each text has half to one and a half times as many.
        burst_ratio: rate in a burst over the mean rate, 1 (steady Poisson) to 3.
    """
    assert rate_per_s > 0
    assert 1 <= burst_ratio <= BURST_RATIO_MAX
    rng = random.Random(seed)
    burst_per_s = rate_per_s * burst_ratio
    calm_per_s = (rate_per_s - burst_per_s * BURST_SHARE) / (1 - BURST_SHARE)
    at_s, bursting = 0.0, rng.random() < BURST_SHARE
    while True:
        ends_s = at_s + rng.expovariate(1 / (BURST_MEAN_S if bursting else CALM_MEAN_S))
        now_per_s = burst_per_s if bursting else calm_per_s
        while now_per_s > 1e-9:
            at_s += rng.expovariate(now_per_s)
            if at_s > ends_s:
                break
            yield Arrival(at_s, rng.randint(max(1, words // 2), max(1, words * 3 // 2)))
        # Memoryless: what was left of the gap at the change of state is drawn anew.
        at_s, bursting = ends_s, not bursting


def from_trace(
    path: Path, rate_per_s: float | None = None, *, words_max: int = 48
) -> Iterator[Arrival]:
    """Endless arrivals from a CSV (or CSV.GZ) with TIMESTAMP and ContextTokens, repeated.

    Args:
        path: a trace in the columns of Azure's LLM inference traces.
        rate_per_s: mean rate to stretch the trace to; None keeps its own.
        words_max: longer prompts are cut to this, because the demo's machine is small.

    Raises:
        ConfigInvalid: the file cannot be read as such a trace.
    """
    rows = _trace_rows(path)
    first_s = rows[0][0]
    span_s = rows[-1][0] - first_s
    if len(rows) < 2 or span_s <= 0:
        raise _invalid(path, "a trace needs at least two different times")
    own_per_s = (len(rows) - 1) / span_s
    stretch = 1.0 if rate_per_s is None else own_per_s / rate_per_s
    lap_s = span_s * stretch * len(rows) / (len(rows) - 1)
    for lap in itertools.count():
        for at_s, tokens in rows:
            words = max(1, min(words_max, round(tokens * WORDS_PER_TOKEN)))
            yield Arrival(lap * lap_s + (at_s - first_s) * stretch, words)


def _trace_rows(path: Path) -> list[tuple[float, int]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            reader = itertools.islice(csv.DictReader(file), TRACE_ROWS_MAX)
            rows = [(_time_s(row["TIMESTAMP"]), int(row["ContextTokens"])) for row in reader]
    except (OSError, EOFError, UnicodeDecodeError) as fault:
        raise _invalid(path, str(fault)) from fault
    except (KeyError, TypeError, ValueError) as fault:
        raise _invalid(path, f"not a trace with TIMESTAMP and ContextTokens: {fault}") from fault
    if not rows:
        raise _invalid(path, "an empty trace")
    return sorted(rows)


def _time_s(text: str) -> float:
    """Unix time of `2023-11-16 18:15:46.6805900` (UTC, seven decimals as Azure writes them)."""
    moment, _, decimals = text.partition(".")
    whole = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    return whole + float(f"0.{decimals or 0}")


def _invalid(path: Path, message: str) -> ConfigInvalid:
    return ConfigInvalid([Fault(str(path), "trace", None, message)])


def text_of(arrival: Arrival, number: int, seed: int) -> str:
    """The text of the number-th request; the same for the same seed."""
    rng = random.Random(f"{seed}:{number}")
    return " ".join(rng.choices(VOCABULARY.split(), k=arrival.words))
