"""An emulated NVML for the tests of this room: the real binding on cards that we hold in hand."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wattshift_cluster.agent.gpu import Library
from wattshift_cluster.emulate.nvml.build import NvmlNotBuilt, build, load
from wattshift_cluster.emulate.nvml.control import CONTROL_VARIABLE, EmulatedDriver
from wattshift_cluster.emulate.nvml.models import CardModel

ShowCards = Callable[..., EmulatedDriver]


@pytest.fixture(scope="session")
def emulated_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emulated library, compiled once for all test processes and loaded into this one."""
    try:
        library = build(tmp_path_factory.getbasetemp().parent / "nvml")
    except NvmlNotBuilt as fault:
        pytest.skip(str(fault))
    load(library)
    return library


@pytest.fixture
def show_cards(
    emulated_nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ShowCards]:
    """Makes a driver that shows these cards; once a test."""
    made: list[EmulatedDriver] = []

    def show(*models: CardModel) -> EmulatedDriver:
        driver = EmulatedDriver(tmp_path / "cards", models)
        monkeypatch.setitem(os.environ, CONTROL_VARIABLE, str(driver.path))
        made.append(driver)
        return driver

    yield show
    for driver in made:
        driver.close()


@pytest.fixture
def library() -> Iterator[Library]:
    """NVML as the agent opens it; closed at the end."""
    library = Library()
    yield library
    library.close()
