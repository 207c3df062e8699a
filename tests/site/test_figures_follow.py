"""No figure of the demo is typed in: change the scenario and every figure follows."""

import asyncio
from pathlib import Path

import pytest

from wattshift_cluster.demo.run import perform
from wattshift_cluster.demo.scenario import Scenario

pytestmark = [pytest.mark.demo, pytest.mark.ray, pytest.mark.timeout(300)]

DEEP = Scenario(
    26.0,
    cap_share=0.45,
    rate_per_s=7.0,
    cut_at=0.4,
    restore_at=0.8,
    spike_at=0.6,
    spike_until=0.65,
    batch_items=96,
)
"""A deeper and later cut, and too few requests for the promise."""


def test_another_scenario_gives_other_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    outcome = asyncio.run(perform(DEEP, tmp_path / "report"))
    seen, figures = outcome.seen, outcome.verdict.figures

    before = [w for at_s, w in seen.samples if seen.ready_s <= at_s < seen.cut_s and w is not None]
    assert seen.cap_w == pytest.approx(0.45 * sum(before) / len(before), rel=0.05)
    assert seen.cut_s - seen.ready_s == pytest.approx(0.4 * DEEP.seconds)
    inside = [w for at_s, w in seen.samples if seen.cut_s + 6 <= at_s < seen.restore_s]
    assert inside
    assert max(w for w in inside if w is not None) <= seen.cap_w
    assert figures["time_to_cap_s"] > 1.5, "more than half of the power is gone later than a third"
    assert figures["samples_above_cap_after"] == 0

    # The load generator's rate is the scenario's, and the verdict sees that it is too low.
    assert figures["inference_requests"] == pytest.approx(7.0 * DEEP.seconds, rel=0.5)
    broken = {check.name for check in outcome.verdict.checks if not check.ok}
    assert "requests in each phase" in broken
    assert figures["verdict"] == "broken"

    assert figures["batch_items_lost"] == 0
    assert seen.batch_items == DEEP.batch_items
    assert figures["seconds"] == pytest.approx(DEEP.seconds)
    for picture in ("power.png", "latency.png", "report.html", "verdict.json"):
        assert (outcome.page.parent / picture).stat().st_size > 200
