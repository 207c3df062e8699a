"""When requests come and how long they are: steady, by chance, in bursts, or as a trace says.

The generator is a two-state Markov-modulated Poisson process: a calm rate, a burst rate, and
exponential stays in each. Its shape follows published traces, measured on the first hour of each:

    Azure LLM inference trace 2023, conversation (Splitwise, ISCA 2024; Azure/AzurePublicDataset):
        over windows of 10 s, peak / mean = 1.78 and p99 / mean = 1.59
    the same, coding: peak / mean = 12.8; ServeGen (Alibaba), total rate per 10 min: 1.4 to 3.3

So a burst runs at 1.6 times the mean rate, a third of the time, for 20 s on average, and the calm
between at 0.7 times; `burst_ratio` moves it toward the coding trace. Times are in seconds of
*load time*: the sender plays them faster to raise the rate.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wattshift_cluster.inference.traces import Rates, Row, read_trace

BURST_SHARE = 1 / 3
BURST_MEAN_S = 20.0
CALM_MEAN_S = BURST_MEAN_S * (1 - BURST_SHARE) / BURST_SHARE
BURST_RATIO = 1.6
BURST_RATIO_MAX = 1 / BURST_SHARE
"""Here the calm between bursts is silent."""

WORDS_PER_TOKEN = 0.75
"""Rule of thumb for English text."""

VOCABULARY = (
    "power price meter feeder grid cap lease watt device miner shed restore ramp load demand "
    "signal event baseline settle forecast model text query answer search index vector token "
    "cluster node replica queue latency the a of to and in for with on at by from under over "
    "site rack fan heat water wind solar night morning winter storm market bid hour"
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, s of load time from the start, and how many words it has.

    `answer_tokens` is the length that its answer had, where a trace says so.
    """

    at_s: float
    words: int
    answer_tokens: int | None = None


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


def steady(rate_per_s: float, *, words: int = 12) -> Iterator[Arrival]:
    """Endless arrivals at equal distances, all of the same length."""
    assert rate_per_s > 0
    return (Arrival(number / rate_per_s, words) for number in itertools.count(1))


def ramped(
    arrivals: Iterator[Arrival], first: float, last: float, ramp_s: float
) -> Iterator[Arrival]:
    """Arrivals whose rate rises or falls in a line over `ramp_s`, and then they end.

    Args:
        arrivals: at the mean rate, of whatever kind.
        first, last: rates at the start and at the end; only their ratio counts.
        ramp_s: how long the ramp takes, s.
    """
    assert first >= 0 <= last
    assert first + last > 0
    # Time is bent so that load time has run a * t + (b - a) * t**2 / (2 * ramp_s) at t, with a and
    # b the rates over their mean.
    a, b = 2 * first / (first + last), 2 * last / (first + last)
    bend_per_s = (b - a) / (2 * ramp_s)
    for arrival in arrivals:
        if arrival.at_s > ramp_s:
            return
        root = math.sqrt(max(0.0, a * a + 4 * bend_per_s * arrival.at_s))
        # The form of the root that does not lose digits, nor divide by 0 for a level ramp.
        yield replace(arrival, at_s=2 * arrival.at_s / (a + root) if a + root else 0.0)


def from_trace(
    path: Path,
    rate_per_s: float | None = None,
    *,
    words_max: int = 48,
    words: int = 12,
    seed: int = 7,
    speed: float = 1.0,
    model: str | None = None,
) -> Iterator[Arrival]:
    """Endless arrivals from a trace, repeated.

    Args:
        path: a file in one of the formats of `traces`.
        rate_per_s: mean rate: a trace of requests is stretched to it, rates are scaled to it; None
            keeps the trace's own.
        words_max: longer prompts are cut to this: the demo's machine is small.
        words: length of a text where the trace tells none.
        seed: of the chance between two steps of a rate.
        speed: how many times faster a day goes by. A trace of requests then comes as many times
            more often, if no rate says otherwise; rates stay as high as they are.
        model: which model's rates, where the file holds several.

    Raises:
        ConfigInvalid: the file cannot be read as such a trace.
    """
    told = read_trace(path, model)
    if isinstance(told, Rates):
        return _by_rates(told, rate_per_s, words, seed, speed)
    return _by_rows(told, rate_per_s, words_max, speed)


def _by_rows(
    rows: Sequence[Row], rate_per_s: float | None, words_max: int, speed: float
) -> Iterator[Arrival]:
    first_s = rows[0][0]
    span_s = rows[-1][0] - first_s
    own_per_s = (len(rows) - 1) / span_s
    stretch = 1 / speed if rate_per_s is None else own_per_s / rate_per_s
    lap_s = span_s * stretch * len(rows) / (len(rows) - 1)
    return (
        Arrival(
            lap * lap_s + (at_s - first_s) * stretch,
            max(1, min(words_max, round(tokens * WORDS_PER_TOKEN))),
            answer,
        )
        for lap in itertools.count()
        for at_s, tokens, answer in rows
    )


def _by_rates(
    rates: Rates, rate_per_s: float | None, words: int, seed: int, speed: float
) -> Iterator[Arrival]:
    scale = 1.0 if rate_per_s is None else rate_per_s / rates.mean_per_s
    rng = random.Random(seed)
    ends = [*rates.at_s[1:], rates.lap_s]
    for lap in itertools.count():
        for begin_s, end_s, own_per_s in zip(rates.at_s, ends, rates.per_s, strict=True):
            at_s = (lap * rates.lap_s + begin_s) / speed
            while own_per_s > 0:
                at_s += rng.expovariate(own_per_s * scale)
                if at_s > (lap * rates.lap_s + end_s) / speed:
                    break
                yield Arrival(at_s, rng.randint(max(1, words // 2), max(1, words * 3 // 2)))


def text_of(arrival: Arrival, number: int, seed: int) -> str:
    """The text of the number-th request; the same for the same seed."""
    rng = random.Random(f"{seed}:{number}")
    return " ".join(rng.choices(VOCABULARY.split(), k=arrival.words))
