"""Whatever a server or a file says: figures, or a fault in words; never anything else."""

import asyncio
import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.economics import mempool
from wattshift_cluster.economics.feed import HashpriceFeed, Terms
from wattshift_cluster.economics.figures import BOUNDS, Answer, Seen
from wattshift_cluster.economics.files import History, parse
from wattshift_cluster.errors import ConfigInvalid

KEYS = ["time", "USD", "nextRetargetHeight", "remainingBlocks", "currentDifficulty", "totalFee"]
KEYS += ["startBlock", "endBlock", *BOUNDS]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=50),
    st.sampled_from(["1e400", "-0", "nan", "1_0", "9" * 50, "١٢"]),
)
values = st.one_of(scalars, st.sampled_from([[], {}, [1], {"USD": 1}, [[]]]))
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=8)


@settings(max_examples=60)
@given(objects)
def test_every_answer_of_a_server_is_figures_or_a_fault(body: dict[str, Any]) -> None:
    for take in (mempool._prices, mempool._height, mempool._difficulty, mempool._fees):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            for seen in take(body, 1e9).values():
                assert isinstance(seen.value, float)
                assert isinstance(seen.at_s, float)


@settings(max_examples=60)
@given(st.one_of(objects, st.lists(objects, max_size=3), values))
def test_every_json_file_is_a_history_or_a_fault(body: Any) -> None:
    with contextlib.suppress(ConfigInvalid):
        assert isinstance(parse(json.dumps(body), "f"), History)


@pytest.mark.parametrize(
    "time", ["1" + "0" * 400, "-1" + "0" * 400, "true", "null", '"1e999"', "[]", "-1", "NaN"]
)
def test_a_row_without_a_time_that_can_be_is_a_fault(time: str) -> None:
    with pytest.raises(ConfigInvalid, match="time"):
        parse(f'[{{"time": {time}, "usd_per_ph_day": 42}}]', "f")


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_every_text_is_a_history_or_a_fault(text: str) -> None:
    with contextlib.suppress(ConfigInvalid):
        parse(text, "f")
    with contextlib.suppress(ConfigInvalid):
        parse(f"time,usd_per_ph_day\n{text}", "f")


class Liar:
    """A source that says what it is told to."""

    name, local = "liar", False

    def __init__(self) -> None:
        self.figures: dict[str, Seen] = {}

    async def read(self, now_s: float) -> Answer:
        return Answer(self.figures)

    async def close(self) -> None:
        return None


figures = st.dictionaries(
    st.sampled_from([*BOUNDS, "novelty"]),
    st.builds(Seen, st.one_of(st.floats(), st.sampled_from([1e5, 1.5e14, 9e5])), st.floats(0, 2e9)),
)


@settings(max_examples=40)
@given(st.lists(figures, max_size=6))
def test_a_hashprice_is_finite_and_above_zero_or_unknown(said: list[dict[str, Seen]]) -> None:
    source = Liar()
    feed = HashpriceFeed(source, Terms(confirm_samples=1))

    async def run() -> None:
        for now_s, row in enumerate(said, 2_000_000_000):
            source.figures = row
            await feed.refresh(float(now_s))
            price = feed.at(float(now_s)).usd_per_ph_day
            assert price is None or (math.isfinite(price) and price > 0)
            await feed.confirm()

    asyncio.run(run())


@pytest.mark.parametrize("at_s", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_no_sample(at_s: float) -> None:
    source = Liar()
    feed = HashpriceFeed(source, Terms())
    source.figures = {"usd_per_ph_day": Seen(42.0, at_s)}
    asyncio.run(feed.refresh(1e9))
    assert feed.at(1e9).usd_per_ph_day is None
