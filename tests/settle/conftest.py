"""Logs on disk for the tests: written by the real writer, on a clock of the test's own."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.settle.lines import Kind
from wattshift_cluster.settle.log import Evidence, Pace

NOON_S = 1_795_867_200.0
"""2026-11-28T12:00:00Z, a Saturday."""

WAIT_S = 20.0

Words = tuple[Kind, dict[str, Any], float]


@pytest.fixture
def noon_s() -> float:
    return NOON_S


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that another thread does."""

    def wait(true: Callable[[], bool]) -> None:
        end_s = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end_s, "it did not come about"
            time.sleep(0.002)

    return wait


@pytest.fixture
def logged(tmp_path: Path) -> Callable[..., Path]:
    """Make a log with these lines, opened and closed; returns its folder."""

    def write(
        lines: Sequence[Words],
        *,
        now_s: float = NOON_S,
        pace: Pace | None = None,
        folder: Path | None = None,
    ) -> Path:
        folder = folder or tmp_path / "state" / "evidence"
        evidence = Evidence.open(folder, site="yard", pace=pace, wall_s=lambda: now_s)
        for kind, body, at_s in lines:
            assert evidence.put(kind, body, at_s)
        assert evidence.close()
        return folder

    return write
