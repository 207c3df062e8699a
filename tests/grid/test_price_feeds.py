"""Prices: steps, validity, staleness and sanity; unknown is None."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.market.prices import (
    FilePrices,
    FirstKnown,
    FixedPrice,
    HttpPrices,
    parse_prices,
)
from wattshift_cluster.jsonhttp import address, serve_json

SERIES = "time,usd_per_mwh\n1000,40\n1300,-12.5\n1600,0.3USD/kWh\n"


def prices_file(tmp_path: Path, text: str = SERIES) -> Path:
    file = tmp_path / "prices.csv"
    file.write_text(text)
    return file


def test_a_price_holds_until_the_next_and_the_last_for_one_interval(tmp_path: Path) -> None:
    feed = FilePrices(prices_file(tmp_path))
    known = {at: feed.at(at).usd_per_mwh for at in (999, 1000, 1299.9, 1300, 1600, 1899.9, 1900)}
    assert known == {
        999: None,
        1000: 40.0,
        1299.9: 40.0,
        1300: -12.5,
        1600: 300.0,
        1899.9: 300.0,
        1900: None,
    }
    assert feed.at(1310).age_s == 10.0
    assert "begins later" in (feed.at(5).fault or "")
    assert feed.at(2000).age_s == 400.0
    assert "ended" in (feed.at(2000).fault or "")


def test_the_hold_of_the_last_price_can_be_given(tmp_path: Path) -> None:
    feed = FilePrices(prices_file(tmp_path), hold_s=10)
    assert feed.at(1609.9).usd_per_mwh == 300.0
    assert feed.at(1610).usd_per_mwh is None


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=20), st.integers(0, 300_000))
def test_steps_agree_with_a_plain_search(gaps: list[int], now_s: int) -> None:
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    text = "time,usd_per_mwh\n" + "".join(f"{time},{n}\n" for n, time in enumerate(times))
    steps = parse_prices(text, "p.csv", hold_s=1e9).issues[0]
    begun = [n for n, time in enumerate(times) if time <= now_s]
    expected = float(begun[-1]) if begun else None
    index = [i for i, time in enumerate(steps.times_s) if time <= now_s]
    assert (steps.values[index[-1]] if index else None) == expected


def test_faults_name_their_lines() -> None:
    text = "time,usd_per_mwh\n1000,40\n1000,41\n1200,90000\n1300,\nnoon,5\n"
    with pytest.raises(ConfigInvalid) as caught:
        parse_prices(text, "p.csv")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["p.csv:3", "p.csv:4", "p.csv:5", "p.csv:6"]
    assert "not after" in lines[0]
    assert "outside -5000 to 30000" in lines[1]
    with pytest.raises(ConfigInvalid, match="no values"):
        parse_prices("time,usd_per_mwh\n", "p.csv")


def test_a_broken_edit_keeps_the_old_series_and_says_so(tmp_path: Path) -> None:
    file = prices_file(tmp_path)
    feed = FilePrices(file)
    file.write_text("time,usd_per_mwh\n1000,forty!!\n")
    price = feed.at(1000)
    assert price.usd_per_mwh == 40.0
    assert "prices.csv:2" in (price.fault or "")


def test_the_first_feed_that_knows_wins(tmp_path: Path) -> None:
    feed = FirstKnown([FilePrices(prices_file(tmp_path)), FixedPrice(55.0)])
    assert feed.at(1000).usd_per_mwh == 40.0
    assert feed.at(9000).usd_per_mwh == 55.0
    assert feed.at(9000).source == "default"
    assert FirstKnown([]).at(0).usd_per_mwh is None
    unknown = FirstKnown([FilePrices(prices_file(tmp_path))]).at(9000)
    assert unknown.usd_per_mwh is None
    assert "ended" in (unknown.fault or "")


def test_an_http_feed_goes_stale_and_refuses_nonsense() -> None:
    async def body() -> None:
        answer: dict[str, Any] = {"usd_per_mwh": -3.5, "at_s": 990.0}
        now = 1000.0
        server = await serve_json("127.0.0.1", 0, {"/p": lambda: answer})
        feed = HttpPrices(
            f"http://{address(server)}/p", stale_after_s=60, deadline_s=2, clock_s=lambda: now
        )
        assert feed.at(now).usd_per_mwh is None
        await feed.refresh()
        assert (feed.at(1010).usd_per_mwh, feed.at(1010).age_s) == (-3.5, 20.0)
        for nonsense in ({"usd_per_mwh": 1e9}, {"usd_per_mwh": None}, {}, {"usd_per_mwh": True}):
            answer.clear()
            answer.update(json.loads(json.dumps(nonsense)))
            await feed.refresh()
            assert feed.at(1010).usd_per_mwh == -3.5
            assert feed.at(1010).fault
        server.close()
        assert feed.at(1051).usd_per_mwh is None
        assert feed.at(1051).age_s == 61.0
        await feed.close()

    asyncio.run(body())
