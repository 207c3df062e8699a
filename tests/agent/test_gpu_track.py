"""Looks at one card under a clock that we hold: units, sources, sensors that are not believed."""

import ctypes
from collections.abc import Callable
from dataclasses import replace

import pytest

from wattshift_cluster.agent.gpu import GpuSample, Library
from wattshift_cluster.agent.gpu.instruments import _HEAD, TURNS
from wattshift_cluster.agent.gpu.track import Track, mean_of, sample_of
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.control import (
    HW_SLOWDOWN,
    SW_THERMAL,
    CardFault,
    EmulatedCard,
    EmulatedDriver,
)
from wattshift_cluster.emulate.nvml.models import CardModel

ShowCards = Callable[..., EmulatedDriver]
PERIOD_S = 0.05


class Watched:
    """A card, and a track of it that looks 20 times a second of held time."""

    def __init__(self, driver: EmulatedDriver, library: Library, length: int = 1200) -> None:
        driver.hold_clock()
        library.open()
        self.driver = driver
        self.card: EmulatedCard = driver.cards[0]
        self.library = library
        self.track = Track(self.card.uuid, length, 0)
        self.track.bind(library, driver.now_ns())

    def watch(self, span_s: float) -> GpuSample:
        for _ in range(round(span_s / PERIOD_S)):
            self.driver.pass_time(PERIOD_S)
            self.track.look(self.library, self.driver.now_ns())
        return self.newest()

    def newest(self) -> GpuSample:
        row = self.track.latest()
        assert row is not None
        return sample_of(row)

    def mean_w(self, span_s: float) -> float | None:
        return mean_of(self.track.since(self.driver.now_ns() - round(span_s * 1e9)))


@pytest.fixture
def watch(show_cards: ShowCards, library: Library) -> Callable[..., Watched]:
    def make(model: CardModel = models.H200, length: int = 1200) -> Watched:
        return Watched(show_cards(model), library, length)

    return make


def test_our_field_record_is_the_bindings() -> None:
    import pynvml

    assert _HEAD.size == ctypes.sizeof(pynvml.c_nvmlFieldValue_t)
    assert pynvml.c_nvmlFieldValue_t.nvmlReturn.offset == 28
    assert pynvml.c_nvmlFieldValue_t.value.offset == 32
    assert pynvml.nvmlTemperature_v1 == 0x100000C


def test_every_field_is_read_in_its_unit(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.card.load(0.5)
    sample = watched.watch(4.0)
    truth = watched.card.truth()
    assert sample.watts_w == pytest.approx(truth.power_w, abs=1)
    assert sample.average_w == pytest.approx(truth.power_w, abs=1)
    assert sample.watts_source == "instant"
    assert sample.energy_j == pytest.approx(truth.energy_j, rel=0.05)
    assert (sample.utilisation_pct, sample.memory_utilisation_pct) == (50.0, 25.0)
    assert sample.sm_clock_mhz == 1980.0
    assert sample.temperature_c == pytest.approx(truth.temperature_c, abs=1)
    assert (sample.enforced_limit_w, sample.throttled, sample.fault) == (700.0, (), None)
    assert sample.at_boot_s == watched.driver.now_ns() / 1e9


def test_the_present_draw_is_preferred_to_the_mean_of_a_second(
    watch: Callable[..., Watched],
) -> None:
    watched = watch()
    watched.watch(1.5)
    watched.card.load(1.0)
    sample = watched.watch(0.5)
    assert sample.watts_w is not None
    assert sample.average_w is not None
    assert sample.watts_w > sample.average_w + 100


@pytest.mark.parametrize(
    ("model", "source", "averaged"),
    [(models.L4, "average", True), (models.A100, "instant", False), (models.H200, "instant", True)],
)
def test_a_power_is_named_after_its_source(
    watch: Callable[..., Watched], model: CardModel, source: str, averaged: bool
) -> None:
    sample = watch(model).watch(0.5)
    assert sample.watts_w == pytest.approx(model.idle_w, abs=1)
    assert sample.watts_source == source
    assert (sample.average_w is not None) == averaged


def test_a_card_older_than_the_fields_is_read_by_the_single_calls(
    watch: Callable[..., Watched],
) -> None:
    watched = watch(replace(models.GTX_1080_TI, has_instant=False, has_energy=False))
    watched.card.load(0.5)
    sample = watched.watch(1.0)
    assert sample.watts_source == "instant", "before Ampere the single call is the present draw"
    assert sample.watts_w == pytest.approx(watched.card.truth().power_w, abs=2)
    assert (sample.average_w, sample.energy_j) == (None, None)


@pytest.mark.parametrize(
    ("fault", "says"),
    [(CardFault.NO_POWER, "Not Supported"), (CardFault.POWER_UNKNOWN, "Unknown Error")],
)
def test_a_card_that_does_not_tell_its_power_says_so_and_tells_the_rest(
    watch: Callable[..., Watched], fault: CardFault, says: str
) -> None:
    watched = watch()
    watched.card.fault(fault)
    sample = watched.watch(1.0)
    assert (sample.watts_w, sample.average_w, sample.watts_source) == (None, None, None)
    assert (sample.power_age_s, sample.fault) == (None, f"power: {says}")
    assert sample.energy_j is not None
    assert sample.utilisation_pct == 0.0
    watched.card.fault(fault, on=False)
    assert watched.watch(0.2).watts_w == pytest.approx(75, abs=1), "it comes back"


def test_a_lost_card_tells_nothing_and_comes_back(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.watch(0.2)
    watched.card.fault(CardFault.LOST)
    sample = watched.watch(PERIOD_S)
    assert sample.fault == "lost: GPU is lost"
    assert (sample.watts_w, sample.utilisation_pct, sample.enforced_limit_w) == (None, None, None)
    assert not watched.track.bound
    watched.track.bind(watched.library, watched.driver.now_ns())
    assert not watched.track.bound, "still lost"
    watched.card.fault(CardFault.LOST, on=False)
    watched.track.bind(watched.library, watched.driver.now_ns())
    assert watched.watch(0.1).watts_w == pytest.approx(75, abs=1)


def test_a_power_that_stands_still_while_energy_does_not_is_not_believed(
    watch: Callable[..., Watched],
) -> None:
    watched = watch()
    watched.watch(1.0)
    watched.card.fault(CardFault.STALE_POWER)
    watched.card.load(1.0)
    sample = watched.watch(1.0)
    assert sample.watts_w is not None
    sample = watched.watch(4.0)
    assert (sample.watts_w, sample.average_w) == (None, None)
    assert sample.fault is not None
    assert sample.fault.startswith("stale power: 75 W")
    assert sample.power_age_s is not None
    assert sample.power_age_s > 4
    watched.card.fault(CardFault.STALE_POWER, on=False)
    sample = watched.watch(0.3)
    assert sample.fault is None
    assert sample.watts_w == pytest.approx(700, abs=20)


def test_a_steady_power_is_believed_while_energy_agrees(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.card.load(0.5)
    sample = watched.watch(8.0)
    assert sample.power_age_s is not None
    assert sample.power_age_s > 4, "it does stand still"
    assert sample.fault is None
    assert sample.watts_w == pytest.approx(watched.card.truth().power_w, abs=1)


def test_without_a_counter_a_power_that_stands_still_is_believed_of_an_idle_card_alone(
    watch: Callable[..., Watched],
) -> None:
    watched = watch(models.GTX_1080_TI)
    assert watched.watch(5.0).watts_w == pytest.approx(12, abs=1)
    watched.card.fault(CardFault.STALE_POWER)
    watched.card.load(0.7)
    sample = watched.watch(5.0)
    assert sample.watts_w is None
    assert sample.fault is not None
    assert "of work" in sample.fault


def test_a_counter_that_stands_still_is_unknown(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.card.fault(CardFault.STALE_ENERGY)
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        watched.card.load(share)
        sample = watched.watch(1.0)
    assert sample.energy_j is None
    assert sample.watts_w == pytest.approx(700, abs=5), "the power moves: it is alive"
    assert watched.mean_w(1.0) == pytest.approx(690, abs=20), "by its samples"
    watched.card.fault(CardFault.STALE_POWER)
    watched.card.load(0.0)
    sample = watched.watch(5.0)
    assert (sample.watts_w, sample.utilisation_pct) == (None, 0.0)
    assert "neither it nor the energy moved" in str(sample.fault)


def test_throttling_is_told_by_name_and_idleness_is_none(watch: Callable[..., Watched]) -> None:
    watched = watch(replace(models.H200, full_w=900))
    assert watched.watch(1.0).throttled == ()
    watched.card.load(1.0)
    assert watched.watch(1.0).throttled == ("power_cap",)
    watched.card.hold_reasons(HW_SLOWDOWN | SW_THERMAL)
    assert watched.watch(1.0).throttled == ("hw_slowdown", "thermal")


def test_a_sliced_card_has_power_and_no_utilisation(watch: Callable[..., Watched]) -> None:
    watched = watch()
    watched.card.split(2)
    sample = watched.watch(1.0)
    assert sample.watts_w == pytest.approx(75, abs=1)
    assert (sample.utilisation_pct, sample.fault) == (None, None)


def test_the_mean_is_of_the_energy_even_where_the_power_is_sampled_between_bursts(
    watch: Callable[..., Watched],
) -> None:
    watched = watch()
    watched.card.time_constants(power_s=0.001)
    for _ in range(20):  # busy for 40 ms of each 100 ms, idle when the sensor looks
        watched.card.load(1.0)
        watched.driver.pass_time(0.04)
        watched.card.load(0.0)
        watched.driver.pass_time(0.01)
        watched.watch(PERIOD_S)
    said = [watts for row in watched.track.since(0) if (watts := sample_of(row).watts_w)]
    truth_w = 75 + 0.4 * (700 - 75)
    assert watched.mean_w(1.5) == pytest.approx(truth_w, rel=0.03)
    assert abs(sum(said) / len(said) - truth_w) > 50, "the samples alone would mislead"


def test_a_mean_over_mostly_unknown_looks_is_unknown(watch: Callable[..., Watched]) -> None:
    watched = watch(models.GTX_1080_TI)
    watched.watch(0.4)
    assert watched.mean_w(1.0) == pytest.approx(12, abs=1)
    watched.card.fault(CardFault.POWER_UNKNOWN)
    watched.watch(0.7)
    assert watched.mean_w(1.0) is None


def test_a_ring_keeps_the_newest(watch: Callable[..., Watched]) -> None:
    watched = watch(length=30)
    watched.watch(4.0)
    times = [row[0] for row in watched.track.since(0)]
    assert len(times) == 30
    assert times == sorted(times)
    assert times[-1] == watched.driver.now_ns()
    assert len(watched.track.since(times[-5])) == 4


def test_a_look_is_one_call_and_at_most_one_more(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch()
    calls = 0
    real = watched.library.function

    def counted(name: str) -> Callable[..., int] | None:
        function = real(name)
        if function is None:
            return None

        def call(*arguments: object) -> int:
            nonlocal calls
            calls += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(watched.library, "function", counted)
    watched.track.bind(watched.library, watched.driver.now_ns())
    calls = 0
    most = 0
    for _ in range(TURNS):
        before = calls
        watched.watch(PERIOD_S)
        most = max(most, calls - before)
    assert most == 2
    assert calls == TURNS + 6
