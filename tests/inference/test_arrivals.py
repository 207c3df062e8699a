"""The arrivals: the same for a seed, at the rate asked, and burstier than chance."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.inference import arrivals


def take(rate: float, seed: int, until_s: float, **more: float) -> np.ndarray:
    stream = arrivals.bursts(rate, seed, **more)
    times = itertools.takewhile(lambda arrival: arrival.at_s < until_s, stream)
    return np.array([arrival.at_s for arrival in times])


def dispersion(times: np.ndarray, window_s: float, until_s: float) -> float:
    counts = np.histogram(times, np.arange(0, until_s + window_s, window_s))[0]
    return float(counts.var() / counts.mean())


def test_a_seed_fixes_times_and_texts() -> None:
    first, second = (list(itertools.islice(arrivals.bursts(16, 7), 500)) for _ in range(2))
    other = list(itertools.islice(arrivals.bursts(16, 8), 500))
    assert first == second
    assert first != other
    assert arrivals.text_of(first[3], 3, 7) == arrivals.text_of(second[3], 3, 7)
    assert arrivals.text_of(first[3], 3, 7) != arrivals.text_of(first[3], 3, 8)
    assert len(arrivals.text_of(first[3], 3, 7).split()) == first[3].words


def test_times_rise_and_lengths_stay_in_range() -> None:
    some = list(itertools.islice(arrivals.bursts(40, 1, words=12), 4000))
    assert all(a.at_s < b.at_s for a, b in itertools.pairwise(some))
    assert {arrival.words for arrival in some} == set(range(6, 19))


@pytest.mark.parametrize("rate", [2.0, 16.0])
def test_the_mean_rate_is_the_rate_asked(rate: float) -> None:
    until_s = 40_000.0
    assert len(take(rate, 3, until_s)) / until_s == pytest.approx(rate, rel=0.05)


def test_bursts_are_burstier_than_poisson_and_as_strong_as_said() -> None:
    until_s = 20_000.0
    calm, bursty = (take(16, 5, until_s, burst_ratio=ratio) for ratio in (1.0, 1.6))
    assert dispersion(calm, 10, until_s) == pytest.approx(1.0, abs=0.15)
    assert dispersion(bursty, 10, until_s) > 5
    counts = np.histogram(bursty, np.arange(0, until_s + 10, 10))[0]
    assert float(np.percentile(counts, 99) / counts.mean()) == pytest.approx(1.7, abs=0.25)


def test_the_strongest_ratio_leaves_silence_between_bursts() -> None:
    times = take(8, 2, 5000, burst_ratio=arrivals.BURST_RATIO_MAX)
    assert float(np.max(np.diff(times))) > 20
    assert len(times) / 5000 == pytest.approx(8, rel=0.2)


TRACE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:48.6805900,8,109\n"
    "2023-11-16 18:15:50.6805900,1,55\n"
)


def test_a_trace_keeps_its_times_or_takes_the_rate_asked(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(TRACE)
    own = list(itertools.islice(arrivals.from_trace(path), 6))
    assert [round(a.at_s, 6) for a in own] == [0, 2, 4, 6, 8, 10]
    assert [a.words for a in own] == [48, 6, 1, 48, 6, 1]
    faster = list(itertools.islice(arrivals.from_trace(path, 5.0), 6))
    assert [round(a.at_s, 6) for a in faster] == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "TIMESTAMP,ContextTokens\nnever,3\n", TRACE[:80]]
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(ConfigInvalid, match=r"trace\.csv"):
        next(arrivals.from_trace(path))
