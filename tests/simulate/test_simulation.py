"""A simulated site: the same seed twice, real faults, no breach, and a breach without a guard."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.simulate.faults import FaultKind
from wattshift_cluster.simulate.feeds import GENERATED, Feeds, Series, read_series
from wattshift_cluster.simulate.run import ROWS, SimulationResult, run_simulation
from wattshift_scheduler.in_force import effective
from wattshift_scheduler.turn import moves

pytestmark = pytest.mark.timeout(400)  # seconds of processor time, on a machine shared with others

SITE = """
[site]
name = "sim"
state_dir = "state"
other_load = "160W"
[[feeders]]
name = "main"
limit = "46kW"
[[feeders]]
name = "west"
parent = "main"
limit = "25kW"
[[agents]]
name = "one"
address = "127.0.0.1:7401"
token_file = "token"
feeder = "west"
[[agents]]
name = "two"
address = "127.0.0.1:7402"
token_file = "token"
feeder = "main"
[compute]
name = "host"
token_file = "token"
feeder = "west"
max = "300W"
[values]
hashprice_usd_per_ph_day = 45
reserve_usd_per_mwh = 120
[grid]
default_price_usd_per_mwh = 50
[mining]
devices = ["*"]
[[services]]
name = "embed"
import_path = "app:serve"
watts_per_replica = "100W"
min_replicas = 1
max_replicas = 2
value_usd_per_h = 1
"""

SIGNAL = """starts,ends,limit,kind
1800,3600,20kW,event
5400,6000,9kW,event
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    (tmp_path / "signal.csv").write_text(SIGNAL)
    (tmp_path / "flat.csv").write_text("time,usd_per_mwh\n0,50\n1,50\n")
    return path


def _run(site: Path, **named: Any) -> SimulationResult:
    defaults: dict[str, Any] = {
        "signal": str(site.parent / "signal.csv"),
        "prices": str(site.parent / "flat.csv"),
        "days": 0.08,
        "seed": 5,
        "faults_per_day": 0.0,
    }
    return run_simulation(site, **{**defaults, **named})


def _plain(result: SimulationResult) -> dict[str, Any]:
    body = {**result.to_json(), "rows": list(result.rows)}
    del body["wall_seconds"]
    return body


def test_a_quiet_run_holds_every_cap_within_a_ramp(site: Path) -> None:
    result = _run(site)
    assert result.simulated_hours == pytest.approx(1.92)
    assert [shed["to_w"] for shed in result.sheds] == [20e3, 9e3]
    assert all((shed["seconds_to_cap"] or 0.0) <= 9.0 for shed in result.sheds)
    assert not result.breaches
    assert result.shortfall_seconds == 0.0
    assert result.overcap_seconds <= 18.0
    assert result.faults == {}
    assert result.net_usd == pytest.approx(sum(result.revenue_usd.values()) - result.cost_usd)
    total_wh = sum(result.energy_mwh.values())
    mean_w = np.mean([row[ROWS.index("total_w")] for row in result.rows])
    assert total_wh * 1e6 / result.simulated_hours == pytest.approx(mean_w, rel=0.1)


def test_jumping_over_quiet_stretches_changes_little(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.parent / "signal.csv").write_text("starts,ends,limit,kind\n500,900,20kW,event\n")
    quick = _run(site, days=0.015)
    monkeypatch.setattr("wattshift_cluster.simulate.run.JUMP_MAX_S", 0.0)
    slow = _run(site, days=0.015)
    assert slow.steps > 5 * quick.steps
    assert [shed["to_w"] for shed in quick.sheds] == [20e3]
    assert quick.sheds == slow.sheds
    for work, mwh in slow.energy_mwh.items():
        assert quick.energy_mwh[work] == pytest.approx(mwh, rel=0.01, abs=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(site: Path) -> None:
    faulty = {"faults_per_day": 1200.0, "days": 0.01}
    first = _run(site, **faulty)
    assert sum(first.faults.values()) >= 5
    assert _plain(first) == _plain(_run(site, **faulty))
    assert _plain(first) != _plain(_run(site, **faulty, seed=6))
    json.dumps(first.to_json(), allow_nan=False)


def test_faults_occur_are_felt_and_break_no_cap(site: Path) -> None:
    calm = _run(site)
    result = _run(site, faults_per_day=500.0, seed=11)
    assert sum(result.faults.values()) >= 25
    assert len(result.faults) >= 6
    assert result.decisions > calm.decisions
    assert not result.breaches


@pytest.mark.nightly
@pytest.mark.parametrize("kind", list(FaultKind))
def test_each_kind_of_fault_alone_is_borne(site: Path, kind: FaultKind) -> None:
    result = _run(site, faults_per_day=600.0, fault_kinds=[kind.value], days=0.04, seed=3)
    assert list(result.faults) == [kind.value]
    assert not result.breaches


@pytest.mark.parametrize("guard", ["the cap is not heard", "nothing is lowered"])
def test_without_a_guard_breaches_appear(
    site: Path, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    if guard == "the cap is not heard":
        real = effective.arbitrate
        monkeypatch.setattr(effective, "arbitrate", lambda caps, *rest: real((), *rest))
    else:
        real_target = moves.target
        monkeypatch.setattr(moves, "target", lambda *a, **k: _raised_only(real_target(*a, **k), a))
    result = _run(site)
    assert result.breaches
    assert result.breaches[0]["worst_w"] > 1000.0
    assert result.overcap_seconds > result.overcap_bound_s


def _raised_only(target: moves.Target, args: Sequence[Any]) -> moves.Target:
    ledger = args[0].ledger
    keep = (ledger.point >= 0) & (target.watts_w < ledger.lease_w)
    return replace(
        target,
        point=np.where(keep, ledger.point, target.point),
        watts_w=np.where(keep, ledger.lease_w, target.watts_w),
        changed=target.changed[~keep[target.changed]],
    )


def test_a_signal_beyond_what_can_be_shed_is_told_as_a_shortfall(site: Path) -> None:
    (site.parent / "signal.csv").write_text("starts,ends,limit\n600,1200,500W\n")
    result = _run(site, days=0.02)
    assert result.shortfall_seconds > 0
    assert not result.breaches


def test_what_nobody_gave_is_named_as_generated(site: Path) -> None:
    result = _run(site, days=0.01, prices=None)
    assert result.sources["prices"] == GENERATED
    assert result.sources["signal"].endswith("signal.csv")
    assert _run(site, days=0.01, signal=None).sources["signal"] == GENERATED


def test_prices_are_read_by_column_also_compressed_and_by_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "time,DAM,RTM\n2024-06-01 00:00:00,10,20\n2024-06-01 00:15:00,11,-21.5\n"
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "p.csv.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("WATTSHIFT_DATA", str(tmp_path))
    series = read_series("p.csv.gz", "RTM")
    assert series.values == (20.0, -21.5)
    assert series.times_s[1] - series.times_s[0] == 900.0
    assert series.at(series.times_s[0] - 1.0) is None
    assert series.at(series.times_s[1] + 1e6) == -21.5
    assert read_series("p.csv.gz", None).values == (10.0, 11.0)


def test_a_price_trace_begins_the_simulated_clock(site: Path) -> None:
    prices = site.parent / "prices.csv"
    prices.write_text("time,usd_per_mwh\n0,10\n3600,9000\n")
    result = _run(site, prices=str(prices), days=0.06)
    rows = {row[0]: row for row in result.rows}
    late = [row[ROWS.index("mining_w")] for at_s, row in rows.items() if at_s > 3700]
    early = [row[ROWS.index("mining_w")] for at_s, row in rows.items() if 60 < at_s < 1700]
    assert min(early) > 10e3
    assert max(late) < 1500.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("time,usd_per_mwh\n", "header line"),
        ("time,usd_per_mwh\nyesterday,3\n", ":2"),
        ("time,usd_per_mwh\n0,cheap\n", ":2"),
    ],
)
def test_a_bad_price_file_is_refused_with_its_line(site: Path, content: str, said: str) -> None:
    bad = site.parent / "bad.csv"
    bad.write_text(content)
    with pytest.raises(ConfigInvalid, match=said):
        _run(site, prices=str(bad))


def test_a_missing_file_and_a_missing_column_are_refused(site: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no such file"):
        _run(site, prices="nowhere.csv")
    good = site.parent / "good.csv"
    good.write_text("time,usd_per_mwh\n0,1\n60,2\n")
    with pytest.raises(ConfigInvalid, match="column missing"):
        _run(site, prices=str(good), column="RTM")


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ("{}", "list"),
        ('[{"count": 0, "model": "gated-cpu"}]', "count"),
        ('[{"count": 1, "model": "time-machine"}]', "models:"),
        ('[{"count": 1, "model": "gated-cpu", "agent": "nobody"}]', "agents of the site"),
        ('[{"count": 1, "model": "gated-cpu", "colour": 1}]', "unknown key"),
        ('[{"count": 30000, "model": "gated-cpu"}]', "at most"),
        ("not json", "cannot be read"),
    ],
)
def test_a_bad_fleet_file_is_refused(site: Path, fleet: str, said: str) -> None:
    path = site.parent / "fleet.json"
    path.write_text(fleet)
    with pytest.raises(ConfigInvalid, match=said):
        _run(site, fleet=path)


def test_a_fleet_file_is_what_runs(site: Path) -> None:
    path = site.parent / "fleet.json"
    path.write_text('[{"count": 3, "model": "profiled-asic", "agent": "two"}]')
    assert _run(site, fleet=path, days=0.01).devices == 3


def test_feeds_know_when_they_change_next() -> None:
    steps = Series((0.0, 10.0), (1.0, 2.0), "x")
    both = Feeds(steps, Series((0.0,), (1.0,), "y"), (), "none")
    assert both.next_change_s(0.0) == 10.0
    assert both.next_change_s(10.0) == float("inf")
