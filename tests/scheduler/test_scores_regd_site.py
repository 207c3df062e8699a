"""The modelled site of the regulation benchmark follows its signal; one-sided it only sheds."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
site: Any = importlib.import_module("benchmarks.regd_site")
sys.path.remove(str(ROOT))

NEAR_PU = 0.07
"""The meter's noise, of the range, in more than three standard deviations."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firmware and warm-up of seconds instead of minutes."""
    monkeypatch.setattr(site, "FIRMWARE_S", 5.0)
    monkeypatch.setattr(site, "FREE_S", 40.0)
    monkeypatch.setattr(site, "SEEN_S", 20.0)
    monkeypatch.setattr(site, "WARM_S", 180.0)
    monkeypatch.setattr(site, "SETTLED_S", 20.0)


@pytest.mark.usefixtures("quick")
def test_it_follows_a_sample_late_in_both_directions() -> None:
    signal = np.repeat([0.0, 0.8, -0.6, -0.6, 0.3], 6)
    found = site.follow(signal)
    assert found.response_pu[1:] == pytest.approx(signal[:-1], abs=NEAR_PU)
    assert found.base_w == pytest.approx(found.aimed_base_w, rel=0.01), "the meter holds it there"


@pytest.mark.usefixtures("quick")
def test_from_its_top_it_can_only_shed() -> None:
    signal = np.repeat([0.0, 0.8, -0.6], 6)
    found = site.follow(signal, one_sided=True)
    assert found.response_pu[1:] == pytest.approx(np.maximum(signal, 0.0)[:-1], abs=NEAR_PU)
