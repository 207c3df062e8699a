"""Who computes on a card, as the driver tells it."""

import time
from collections.abc import Callable

from wattshift_cluster.agent.gpu import Library, busy_pids, compute_pids, find_cards
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.control import CardFault, ComputeProcess, EmulatedDriver

ShowCards = Callable[..., EmulatedDriver]


def test_processes_are_told_with_their_share(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200, models.H200)
    here, there = find_cards(library)
    driver.cards[0].processes([ComputeProcess(11, 1 << 30, sm_pct=40), ComputeProcess(12, 1 << 20)])
    assert compute_pids(library, here) == frozenset({11, 12})
    assert busy_pids(library, here, time.time() - 5) == {11: 40.0}
    assert compute_pids(library, there) == frozenset()
    assert busy_pids(library, there, time.time() - 5) == {}


def test_no_sample_since_then_is_nobody(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200)
    (card,) = find_cards(library)
    driver.cards[0].processes([ComputeProcess(11, sm_pct=40)])
    assert busy_pids(library, card, time.time() + 60) == {}


def test_what_the_driver_does_not_say_is_unknown(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200)
    (card,) = find_cards(library)
    driver.cards[0].split(2)
    assert busy_pids(library, card, time.time() - 5) is None
    driver.cards[0].fault(CardFault.LOST)
    assert compute_pids(library, card) is None
    assert busy_pids(library, card, time.time() - 5) is None
