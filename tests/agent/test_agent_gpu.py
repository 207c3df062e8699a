"""What is known of a card before it is sampled, and what NVML's refusals mean."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wattshift_cluster.agent.gpu import FaultKind, GpuFault, Library, find_cards
from wattshift_cluster.agent.gpu.library import SUCCESS
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.control import CardFault, EmulatedDriver

ShowCards = Callable[..., EmulatedDriver]


def test_a_card_is_found_with_all_that_is_known_of_it(
    show_cards: ShowCards, library: Library
) -> None:
    driver = show_cards(models.H200, models.L4)
    driver.cards[0].compute_mode(3)
    h200, l4 = find_cards(library)
    assert (h200.index, l4.index) == (0, 1)
    assert h200.uuid == driver.cards[0].uuid
    assert (h200.name, h200.driver) == ("NVIDIA H200", "580.65.06")
    assert (h200.limit_w, h200.limit_default_w) == (700.0, 700.0)
    assert (h200.limit_least_w, h200.limit_most_w) == (200.0, 700.0)
    assert h200.idle_w == pytest.approx(75.0, abs=1)
    assert (h200.mig, h200.compute_mode, l4.compute_mode) == ((), 3, 0)
    assert h200.pci == "00000000:10:00.0"


def test_a_card_found_at_work_has_at_most_three_tenths_of_its_limit_as_idle_draw(
    show_cards: ShowCards, library: Library
) -> None:
    driver = show_cards(models.A100)
    driver.hold_clock()
    library.open()
    library.ask("nvmlDeviceGetPowerUsage", library.handle(driver.cards[0].uuid))
    driver.cards[0].load(1.0)
    driver.pass_time(5.0)
    (card,) = find_cards(library)
    assert card.idle_w == pytest.approx(0.3 * 400)


def test_idle_draw_that_cannot_be_read_is_modelled(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200)
    driver.cards[0].fault(CardFault.NO_POWER)
    (card,) = find_cards(library)
    assert card.idle_w == pytest.approx(0.2 * 700)


def test_without_a_driver_there_is_no_card(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200)
    driver.unload()
    assert find_cards(library) == ()


def test_a_lost_card_and_one_without_a_limit_are_left_out(
    show_cards: ShowCards, library: Library
) -> None:
    boundless = replace(models.L4, default_limit_w=1e-4)  # less than a milliwatt is none
    driver = show_cards(models.H200, boundless, models.A100)
    driver.cards[0].fault(CardFault.LOST)
    found = find_cards(library)
    assert [card.name for card in found] == [models.A100.name]
    assert found[0].index == 2


def test_slices_are_named(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200)
    driver.cards[0].split(3)
    (card,) = find_cards(library)
    assert len(set(card.mig)) == 3
    assert all(name.startswith("MIG-") for name in card.mig)


def refusal(library: Library, name: str, *arguments: Any) -> FaultKind:
    with pytest.raises(GpuFault) as caught:
        library.ask(name, *arguments)
    assert caught.value.text
    return caught.value.kind


def test_every_refusal_is_of_a_kind(show_cards: ShowCards, library: Library) -> None:
    driver = show_cards(models.H200)
    card = driver.cards[0]
    assert refusal(library, "nvmlDeviceGetCount") is FaultKind.DRIVER_GONE, "not open yet"
    library.open()
    handle = library.handle(card.uuid)
    assert refusal(library, "nvmlDeviceGetHandleByIndex", 9) is FaultKind.INVALID
    assert refusal(library, "nvmlDeviceGetHandleByUUID", "GPU-none") is FaultKind.LOST
    card.privilege(False)
    set_limit = "nvmlDeviceSetPowerManagementLimit"
    assert refusal(library, set_limit, handle, 300_000) is FaultKind.NO_PERMISSION
    card.fault(CardFault.NO_POWER)
    assert refusal(library, "nvmlDeviceGetPowerUsage", handle) is FaultKind.NOT_SUPPORTED
    card.fault(CardFault.NO_POWER, on=False)
    card.fault(CardFault.POWER_UNKNOWN)
    assert refusal(library, "nvmlDeviceGetPowerUsage", handle) is FaultKind.UNKNOWN
    card.fault(CardFault.LOST)
    assert refusal(library, "nvmlDeviceGetPowerUsage", handle) is FaultKind.LOST
    driver.unload()
    assert refusal(library, "nvmlDeviceGetCount") is FaultKind.DRIVER_GONE
    assert refusal(library, "nvmlNoSuchFunction") is FaultKind.NOT_SUPPORTED


def test_after_a_reload_it_is_opened_once_whoever_asks(
    show_cards: ShowCards, library: Library
) -> None:
    driver = show_cards(models.H200)
    library.open()
    before = library.generation
    driver.reload()
    assert refusal(library, "nvmlDeviceGetCount") is FaultKind.DRIVER_GONE
    library.reopen(before)
    library.reopen(before)
    assert library.generation == before + 1
    uuid = driver.cards[0].uuid
    assert library.ask("nvmlDeviceGetUUID", library.handle(uuid)) == uuid


def test_a_function_that_the_driver_lacks_is_none(show_cards: ShowCards, library: Library) -> None:
    show_cards(models.H200)
    assert library.function("nvmlDeviceGetCount_v2") is None, "it is not open"
    library.open()
    assert library.function("nvmlNoSuchFunction") is None
    count = library.function("nvmlShutdown")
    assert count is not None
    assert count() == SUCCESS
    library.open()
