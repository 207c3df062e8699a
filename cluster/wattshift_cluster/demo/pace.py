"""How much the demo may ask of this machine, found by asking it before anything is judged.

The same load is nothing for a workstation and an endless queue for two slow cores. So a few
requests go out one after another, and from what an answer takes follow the rate of the crowd and
the size of the batch job. Neither is ever above what the scenario names.
"""

import asyncio
import json
import statistics
import time
from dataclasses import replace
from itertools import islice, pairwise

from wattshift_cluster.demo.scenario import Scenario
from wattshift_cluster.demo.verdict import REQUESTS_MIN
from wattshift_cluster.errors import TryLater
from wattshift_cluster.inference.arrivals import bursts, text_of
from wattshift_cluster.inference.httplink import HttpLink

FIRST, ASKED = 4, 24
"""Requests that warm up, and those whose median counts."""

ASKING_S = 20.0
BUSY_SHARE = 0.25
"""Of one replica's time at the mean rate. The burst doubles it and the arrivals' own bursts come on
top, up to 3.2 times the mean: still below what one replica can do."""

BATCH_SHARE = 0.65
"""Of the scenario's length, for which the batch job keeps one core busy: into the cut."""

SPARE = 1.75
"""Requests expected in the shortest phase over those that the promise wants: arrivals that stay
calm all the time come at 0.7 of the mean rate."""


async def answer_s(url: str, seed: int) -> float:
    """How long the service takes for an answer when nobody else asks: the median, s.

    Raises:
        TryLater: it gives none, or takes too long for them.
    """
    link = HttpLink(url)
    taken_s: list[float] = []
    try:
        async with asyncio.timeout(ASKING_S):
            for number, arrival in enumerate(islice(bursts(1.0, seed), FIRST + ASKED)):
                began_s = time.monotonic()
                body = json.dumps({"texts": [text_of(arrival, number, seed)]}).encode()
                answer = await link.ask(body)
                if answer.status != 200:
                    raise TryLater(f"the service answers HTTP {answer.status}")
                taken_s.append(time.monotonic() - began_s)
    except TimeoutError:
        if len(taken_s) <= FIRST:
            asked = f"{len(taken_s)} answers in {ASKING_S:g} s"
            raise TryLater(f"this machine is too busy for a demo: {asked}") from None
    except OSError as fault:
        raise TryLater(f"the service at {url}: {fault}") from None
    finally:
        await link.close()
    return statistics.median(taken_s[FIRST:])


def least_rate_per_s(play: Scenario) -> float:
    """The lowest rate at which each phase has requests enough to be judged, 1/s."""
    moments = (0.0, play.cut_at, play.restore_at, 1.0)
    shortest = min(later - at for at, later in pairwise(moments))
    return SPARE * REQUESTS_MIN / (shortest * play.seconds)


def paced(play: Scenario, one_s: float) -> Scenario:
    """The scenario at a rate and with a batch job that suit a machine.

    Args:
        play: the scenario; its rate and its batch job are the most.
        one_s: what an answer takes when nobody else asks, s.
    """
    rate_per_s = min(play.rate_per_s, max(BUSY_SHARE / one_s, least_rate_per_s(play)))
    batch_items = min(play.batch_items, round(BATCH_SHARE * play.seconds / one_s))
    return replace(play, rate_per_s=round(rate_per_s, 2), batch_items=max(1, batch_items))
