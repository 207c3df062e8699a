"""The sampler's thread on emulated cards: its pace, its cost, cards and drivers that go away."""

import time
from collections.abc import Callable, Iterator

import pytest

from wattshift_cluster.agent.gpu import GpuSample, Library, Sampler, find_cards
from wattshift_cluster.bootclock import boot_ns, boot_s
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.control import CardFault, EmulatedDriver

ShowCards = Callable[..., EmulatedDriver]
WAIT_S = 10.0
RETRY_S = 0.1
MOST_CPU_SHARE = 0.06
"""For eight cards at 20 Hz on a machine that is busy with other tests. On a quiet one it is a tenth
of that; `bench agent` measures it."""


class Sampled:
    """A driver, and the sampler that looks at it."""

    def __init__(self, driver: EmulatedDriver, library: Library) -> None:
        self.driver = driver
        self.cards = find_cards(library)
        self.sampler = Sampler(library, self.cards, period_s=0.02, retry_s=RETRY_S)

    def wait(self, place: int, done: Callable[[GpuSample], bool]) -> GpuSample:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            sample = self.sampler.latest(self.driver.cards[place].uuid)
            if sample is not None and done(sample):
                return sample
            time.sleep(0.005)
        pytest.fail(f"not within {WAIT_S} s; last: {sample}")


@pytest.fixture
def sampled(show_cards: ShowCards, library: Library) -> Iterator[Callable[..., Sampled]]:
    made: list[Sampled] = []

    def make(count: int = 2) -> Sampled:
        made.append(Sampled(show_cards(*[models.H200] * count), library))
        made[0].sampler.start()
        return made[0]

    yield make
    for one in made:
        one.sampler.close()


def test_it_tells_the_newest_look_and_those_before(sampled: Callable[..., Sampled]) -> None:
    host = sampled()
    uuid = host.cards[0].uuid
    host.driver.cards[0].load(0.5)
    sample = host.wait(0, lambda one: (one.watts_w or 0) > 380 and one.utilisation_pct == 50)
    assert boot_s() - sample.at_boot_s < 1.0
    assert host.sampler.latest("GPU-none") is None
    host.wait(0, lambda one: one.at_boot_s > sample.at_boot_s + 0.7)
    window = host.sampler.window(uuid, 0.5)
    assert 5 <= len(window) <= 26
    times = [one.at_boot_s for one in window]
    assert times == sorted(set(times))
    assert times[0] > boot_s() - 1.0
    assert host.sampler.mean_w(uuid, 0.5) == pytest.approx(387.5, rel=0.1)
    assert host.sampler.mean_w(uuid, 50.0) is None, "it was not seen for so long"
    assert host.sampler.window("GPU-none", 1.0) == ()


def test_nothing_is_known_before_the_first_look(show_cards: ShowCards, library: Library) -> None:
    show_cards(models.H200)
    (card,) = find_cards(library)
    sampler = Sampler(library, [card])
    assert sampler.latest(card.uuid) is None
    assert sampler.mean_w(card.uuid, 1.0) is None
    sampler.close()


def test_a_lost_card_keeps_its_place_and_the_others_their_pace(
    sampled: Callable[..., Sampled],
) -> None:
    host = sampled()
    host.wait(0, lambda one: one.watts_w is not None)
    host.driver.cards[0].fault(CardFault.LOST)
    lost = host.wait(0, lambda one: one.fault is not None)
    assert (lost.fault, lost.watts_w) == ("lost: GPU is lost", None)
    host.wait(1, lambda one: one.watts_w is not None and one.at_boot_s > lost.at_boot_s + 0.1)
    host.wait(0, lambda one: one.fault is not None and one.at_boot_s > lost.at_boot_s)
    host.driver.cards[0].fault(CardFault.LOST, on=False)
    assert host.wait(0, lambda one: one.fault is None).watts_w is not None


def test_a_driver_that_was_reloaded_is_opened_anew(sampled: Callable[..., Sampled]) -> None:
    host = sampled()
    host.wait(1, lambda one: one.watts_w is not None)
    host.driver.unload()
    gone = host.wait(1, lambda one: one.fault is not None)
    assert gone.fault == "driver gone: Driver Not Loaded"
    assert gone.watts_w is None
    host.driver.reload()
    for place in (0, 1):
        back = host.wait(place, lambda one: one.fault is None)
        assert back.watts_w == pytest.approx(75, abs=2)


def test_where_another_opened_the_library_anew_no_try_is_waited_for(
    show_cards: ShowCards, library: Library
) -> None:
    driver = show_cards(models.H200)
    (card,) = find_cards(library)
    sampler = Sampler(library, [card], retry_s=3600.0)
    sampler._sweep(boot_ns())
    driver.reload()
    library.reopen(library.generation)
    sampler._sweep(boot_ns())
    sampler._sweep(boot_ns())
    sample = sampler.latest(card.uuid)
    assert sample is not None
    assert sample.fault is None


def test_a_slow_card_does_not_spoil_the_ages_of_the_others(
    sampled: Callable[..., Sampled],
) -> None:
    host = sampled()
    host.wait(1, lambda one: one.watts_w is not None)
    host.driver.cards[0].lag(0.02)
    began_s = boot_s()
    host.wait(1, lambda one: one.at_boot_s > began_s + 0.9)
    slow, quick = (len(host.sampler.window(card.uuid, 0.7)) for card in host.cards)
    assert slow >= 1
    assert quick > 2 * slow, "it rests nine times as long as it takes"
    assert host.sampler.latest(host.cards[0].uuid) is not None


def test_a_look_that_is_too_old_is_no_reading(
    sampled: Callable[..., Sampled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattshift_cluster.agent.gpu.sampler.SILENT_S", 0.3)
    host = sampled(1)
    host.wait(0, lambda one: one.watts_w is not None)
    host.driver.cards[0].lag(0.7)
    silent = host.wait(0, lambda one: one.fault is not None)
    host.driver.cards[0].lag(0.0)
    assert silent.fault is not None
    assert silent.fault.startswith("no answer from its driver for 0.")
    assert (silent.watts_w, silent.enforced_limit_w) == (None, None)


def test_eight_cards_cost_little(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(*[models.H200] * 8)
    sampler = Sampler(library, find_cards(library))
    sampler.start()
    until_s = time.monotonic() + WAIT_S
    while not sampler.cpu_s and time.monotonic() < until_s:  # set after the first sweep
        time.sleep(0.01)
    before_s, began_s = sampler.cpu_s, time.monotonic()
    time.sleep(0.8)
    spent_s = sampler.cpu_s - before_s
    share = spent_s / (time.monotonic() - began_s)
    sampler.close()
    assert 0 < share < MOST_CPU_SHARE
    assert all(card.truth().at_ns for card in driver.cards)
