"""The difficulty of one miner behind the proxy: its pace, the pool's own, and what it asks for."""

from wattshift_cluster.mining.proxy.pace import FLOOD_FACTOR, MAX_SHARES_PER_JOB, Pace
from wattshift_cluster.mining.proxy.settings import ProxySettings


def test_a_difficulty_follows_the_pace_from_the_next_job_on() -> None:
    settings = ProxySettings(start_difficulty=1024.0, least_difficulty=16.0, shares_per_minute=12)
    pace = Pace(settings)
    assert pace.for_job(1, 1e6, 1) == 1024.0
    pace.review(0.0)
    for _ in range(60):
        pace.credited()
    assert pace.for_job(2, 1e6, 1) is None, "60 shares and no time yet"
    pace.review(60.0)
    assert pace.for_job(3, 1e6, 1) == 5 * 1024.0, "five times too many in a minute"
    assert (pace.of(1), pace.of(2), pace.of(3), pace.of(9)) == (1024, 1024, 5120, 5120)
    assert pace.for_job(4, 2048.0, 1) == 2048.0, "the pool's is the most"
    pace.review(180.0)
    assert pace.for_job(5, 1e6, 5) == 256.0, "two minutes of silence"
    assert pace.of(5) == 256.0


def test_a_device_that_comes_back_starts_where_it_was_and_its_own_word_goes_first() -> None:
    settings = ProxySettings(start_difficulty=1024.0, least_difficulty=16.0)
    pace = Pace(settings)
    pace.remember(4096.0)
    assert pace.for_job(1, 1e6, 1) == 4096.0
    asks = Pace(settings)
    asks.suggest(2.0)
    asks.remember(4096.0)
    assert asks.for_job(1, 1e6, 1) == 16.0, "no lower than the least"
    wants = Pace(settings)
    wants.raise_floor(5000.0)
    assert wants.for_job(1, 1e6, 1) == 5000.0
    flooding = Pace(settings)
    flooding.for_job(1, 1e6, 1)
    for _ in range(MAX_SHARES_PER_JOB):
        assert not flooding.flooded
        flooding.credited()
    assert flooding.flooded
    assert flooding.wanted == 1024.0 * FLOOD_FACTOR
