"""The demo opens when the site obeys, serves and is warm; a machine that is busy is asked less."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.demo import opening
from wattshift_cluster.demo.opening import LOOKED_AT, PATIENCE_S, SLOWER, ready, settled
from wattshift_cluster.demo.pace import least_rate_per_s
from wattshift_cluster.demo.scenario import Scenario
from wattshift_cluster.demo.stage import Stage, build
from wattshift_cluster.errors import TryLater

STEP_S = 0.5
URL = "http://127.0.0.1:8000/embed"
PLAY = Scenario(120.0)


class Site(ControllerClient):
    """A controller that answers with what stands here; `looks` counts questions for devices."""

    def __init__(self) -> None:
        self.devices: list[dict[str, Any]] = [asic("a"), asic("b")]
        self.services: list[dict[str, Any]] = [{"kind": "service", "running": 1, "url": URL}]
        self.progress: dict[str, Any] | None = {"done": 3}
        self.looks = 0
        self.looked: Callable[[int], None] = lambda _looks: None

    def get(self, path: str, **_params: Any) -> Any:
        if path == "/v1/devices":
            self.looks += 1
            self.looked(self.looks)
            return {"devices": self.devices}
        if path == "/v1/jobs":
            return {"jobs": [{"kind": "batch", "running": 0, "url": None}, *self.services]}
        assert path == "/v1/jobs/batch-1"
        return {"progress": self.progress}


def asic(name: str, **changes: Any) -> dict[str, Any]:
    row = {"id": name, "kind": "asic", "state": "confirmed", "watts_w": 2900.0, "leased_w": 3000.0}
    return row | changes


def answered(stage: Stage, *latencies_ms: float, status: int = 200) -> None:
    """The load generator's log from now on."""
    rows = ({"sent_s": 1.0, "latency_ms": one, "status": status} for one in latencies_ms)
    stage.requests_file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = build(tmp_path / "demo", PLAY, api="127.0.0.1:1")
    answered(made, *[30.0] * LOOKED_AT)
    return made


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on by half a second a look, and no waiting."""
    passed = [0.0]

    async def look(_seconds: float) -> None:
        passed[0] += STEP_S

    clock = SimpleNamespace(monotonic=lambda: passed[0])
    monkeypatch.setattr(opening, "time", clock)
    names = {"sleep": look, "to_thread": asyncio.to_thread}
    monkeypatch.setattr(opening, "asyncio", SimpleNamespace(**names))
    return passed


def opened(site: Site) -> str:
    return asyncio.run(ready(site))


def calmed(stage: Stage, site: Site) -> Stage:
    return asyncio.run(settled(stage, site, "batch-1"))


def factor(stage: Stage) -> float | None:
    """What the crowd was told; None: nothing."""
    file = stage.load_control_file
    return float(json.loads(file.read_text())["factor"]) if file.exists() else None


def test_it_is_ready_when_devices_obey_and_the_service_runs(seconds: list[float]) -> None:
    site = Site()
    site.devices = []
    site.services = [{"kind": "service", "running": 0, "url": URL}]

    def looked(looks: int) -> None:
        if looks == 4:
            site.devices = [asic("a"), asic("b", state="settling")]
        if looks == 7:
            site.devices = [asic("a"), asic("b")]
        if looks == 9:
            site.services = [{"kind": "service", "running": 1, "url": URL}]

    site.looked = looked
    assert opened(site) == URL
    assert site.looks == 10, "the jobs were asked before that look at the devices"
    assert seconds[0] == 9 * STEP_S


@pytest.mark.parametrize(
    ("devices", "services", "told"),
    [
        ([], 1, "devices that do not obey yet: all"),
        ([asic("a"), asic("b", state="unreachable")], 1, "do not obey yet: b;"),
        ([asic("a")], 0, "the inference service does not run yet"),
        ([asic("a")], None, "the inference service does not run yet"),
    ],
)
def test_a_site_that_never_is_ready_says_what_is_missing(
    devices: list[dict[str, Any]], services: int | None, told: str, seconds: list[float]
) -> None:
    site = Site()
    site.devices = devices
    one = {"kind": "service", "running": services, "url": URL}
    site.services = [] if services is None else [one]
    with pytest.raises(TryLater) as late:
        opened(site)
    assert told in str(late.value)
    assert "not ready after 150 s" in str(late.value)
    assert opening.READY_DEADLINE_S < seconds[0] <= opening.READY_DEADLINE_S + 2 * STEP_S


def test_a_calm_machine_is_asked_as_the_scenario_stands(stage: Stage) -> None:
    kept = calmed(stage, Site())
    assert (kept.calm_factor, factor(stage)) == (1.0, None)


def test_a_queue_that_stays_slows_the_crowd_until_it_goes(
    stage: Stage, seconds: list[float]
) -> None:
    answered(stage, *[2000.0] * LOOKED_AT)
    site = Site()
    told: list[float | None] = []

    def looked(_looks: int) -> None:
        if factor(stage) not in (None, *told):
            told.append(factor(stage))
        if len(told) == 2:
            answered(stage, *[30.0] * LOOKED_AT)

    site.looked = looked
    kept = calmed(stage, site)
    assert told == pytest.approx([SLOWER, SLOWER**2])
    assert kept.calm_factor == pytest.approx(SLOWER**2)
    assert seconds[0] >= 2 * PATIENCE_S, "each step is given time to help"
    assert seconds[0] <= 2 * PATIENCE_S + 4 * STEP_S


def test_the_crowd_is_never_slowed_below_what_can_be_judged(stage: Stage) -> None:
    answered(stage, *[2000.0] * LOOKED_AT)
    with pytest.raises(TryLater, match=r"the slowest took 2,000 ms"):
        calmed(stage, Site())
    least = least_rate_per_s(PLAY) / PLAY.rate_per_s
    assert 0.0 < least < 1.0
    assert factor(stage) == pytest.approx(least)


def test_a_crowd_at_its_least_is_left_alone(tmp_path: Path) -> None:
    play = Scenario(45.0, rate_per_s=5.0)
    stage = build(tmp_path / "short", play, api="127.0.0.1:1")
    assert least_rate_per_s(play) > play.rate_per_s
    answered(stage, *[2000.0] * LOOKED_AT)
    with pytest.raises(TryLater):
        calmed(stage, Site())
    assert factor(stage) is None


@pytest.mark.parametrize(
    ("devices", "progress", "told"),
    [
        ([asic("a"), asic("b", watts_w=100.0)], {"done": 3}, "not drawn up yet: b;"),
        ([asic("a", watts_w=None)], {"done": 3}, "not drawn up yet: a;"),
        ([asic("a")], {"done": 0}, "no item done yet"),
        ([asic("a")], None, "no item done yet"),
    ],
)
def test_what_else_is_missing_is_told_and_slows_nobody(
    stage: Stage, devices: list[dict[str, Any]], progress: dict[str, Any] | None, told: str
) -> None:
    answered(stage, *[2000.0] * LOOKED_AT)
    site = Site()
    site.devices, site.progress = devices, progress
    with pytest.raises(TryLater) as late:
        calmed(stage, site)
    assert told in str(late.value)
    assert factor(stage) is None, "it is not the crowd that is waited for"


def test_only_asics_must_draw_up(stage: Stage) -> None:
    site = Site()
    site.devices = [asic("a"), asic("cpu0", kind="cpu", watts_w=0.0)]
    assert calmed(stage, site).calm_factor == 1.0


@pytest.mark.parametrize(
    ("latencies_ms", "status", "told"),
    [
        ([30.0] * (LOOKED_AT - 1), 200, f"{LOOKED_AT - 1} of {LOOKED_AT} requests answered"),
        ([30.0] * LOOKED_AT, 503, f"of the last {LOOKED_AT} requests {LOOKED_AT} failed"),
        ([*[30.0] * LOOKED_AT, opening.CALM_MS], 200, "the slowest took 250 ms"),
    ],
)
def test_warm_is_a_row_of_quick_answers(
    stage: Stage, latencies_ms: list[float], status: int, told: str
) -> None:
    answered(stage, *latencies_ms, status=status)
    with pytest.raises(TryLater) as late:
        calmed(stage, Site())
    assert told in str(late.value)


def test_what_was_slow_before_the_last_ones_does_not_count(stage: Stage) -> None:
    answered(stage, 9000.0, *[30.0] * LOOKED_AT)
    assert calmed(stage, Site()).calm_factor == 1.0
