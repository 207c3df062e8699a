"""`wattshift fleet profile` on ASICs, against a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from wattshift_cluster.cli import fleet_profile

fakeport = sys.modules["fakeport"]
Command = Callable[..., Result]


@pytest.fixture
def rigs(reach: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Three machines at work; progress is looked at often."""
    monkeypatch.setattr(fleet_profile, "LOOK_S", 0.01)
    reach.port.asics = {f"rig-{i}": fakeport.FakeAsic() for i in (1, 2, 3)}
    found: dict[str, Any] = reach.port.asics
    return found


def data(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_machine_is_followed_down_and_back(wattshift: Command, rigs: dict[str, Any]) -> None:
    done = wattshift("fleet", "profile", "rig-1", "--with-sleep", "--points", "5")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["device", "rig-1"]
    assert lines[1].split() == ["profile", "done"]
    assert lines[4].split()[:4] == ["POINT", "WATTS", "BY", "TH/S"]
    assert lines[5].split()[:6] == ["high", "3020", "±", "3", "W", "its"]
    assert lines[7].endswith("never still")
    assert lines[8].startswith("high (back)")
    assert lines[8].split()[-2:] == ["unknown", "7.5s"]
    assert "0.250 USD/h" in lines[5]
    assert rigs["rig-1"].how == {"with_sleep": True, "points": 5}
    assert "rig-1: 3 points, about 90 s" in done.stderr
    shown = wattshift("fleet", "show", "rig-1").stdout
    assert "high (back)" in shown
    assert "POINT" not in wattshift("fleet", "show", "rig-2").stdout


def test_several_go_one_at_a_time_on_each_feeder(
    wattshift: Command, reach: Any, rigs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    feeders = {"rig-1": "row-a", "rig-2": "row-a", "rig-3": "row-b"}
    rig_view = type(reach.port)._rig
    monkeypatch.setattr(
        type(reach.port),
        "_rig",
        lambda self, row, one: rig_view(self, row, one) | {"feeder": feeders[row["id"]]},
    )
    most: dict[str, int] = {"row-a": 0, "row-b": 0, "all": 0}
    walk = fakeport.FakeAsic.walk

    def counted(self: Any, device: str, **how: Any) -> Any:
        found = walk(self, device, **how)
        running = [feeders[name] for name, rig in rigs.items() if rig.walks == "running"]
        for feeder in ("row-a", "row-b"):
            most[feeder] = max(most[feeder], running.count(feeder))
        most["all"] = max(most["all"], len(running))
        return found

    monkeypatch.setattr(fakeport.FakeAsic, "walk", counted)
    rows = data(wattshift("fleet", "profile", "rig-*", "-o", "json"))
    assert [(row["device"], row["state"]) for row in rows] == [
        (f"rig-{i}", "done") for i in (1, 2, 3)
    ]
    assert most == {"row-a": 1, "row-b": 1, "all": 2}


def test_what_is_refused_or_silent_is_named_and_the_rest_goes_on(
    wattshift: Command, rigs: dict[str, Any]
) -> None:
    rigs["rig-2"].away = True
    silent = wattshift("fleet", "profile", "rig-*", "-o", "json")
    rows = {row["device"]: row for row in data(silent, 5)}
    assert rows["rig-1"]["state"] == rows["rig-3"]["state"] == "done"
    assert rows["rig-2"]["state"] == "unreachable"
    rigs["rig-1"].lock_by = "kim"
    refused = wattshift("fleet", "profile", "rig-1", "rig-3")
    assert refused.exit_code == 6
    assert "rig-1: rig-1 cannot be measured: locked by kim" in refused.stderr
    assert rigs["rig-3"].walks == "done"


def test_an_agent_that_falls_silent_in_mid_walk_is_given_up(
    wattshift: Command, rigs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_profile, "LOST_S", 0.1)
    rigs["rig-1"].stuck = True
    walk = fakeport.FakeAsic.walk

    def falls_silent(self: Any, device: str, **how: Any) -> Any:
        found = walk(self, device, **how)
        self.away = True
        return found

    monkeypatch.setattr(fakeport.FakeAsic, "walk", falls_silent)
    lost = wattshift("fleet", "profile", "rig-1", "-o", "json")
    (row,) = data(lost, 5)
    assert row["state"] == "unreachable"
    assert len(row["plan"]) == 3


def test_a_dry_run_begins_nothing(wattshift: Command, rigs: dict[str, Any]) -> None:
    dry = wattshift("fleet", "profile", "rig-1", "rig-2", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "profile      planned" in dry.stdout
    assert "back to high" in dry.stdout
    assert [rig.walks for rig in rigs.values()] == ["none"] * 3
    rigs["rig-2"].lock_by = "kim"
    assert wattshift("fleet", "profile", "rig-2", "--dry-run").exit_code == 6
    begun = wattshift("fleet", "profile", "rig-1", "--no-wait", "-o", "json")
    assert data(begun)[0]["state"] == "running"
    assert rigs["rig-1"].walked == 0, "nobody looked"


def test_usage(wattshift: Command, reach: Any, rigs: dict[str, Any]) -> None:
    reach.port.gpus = {"host-gpu0": fakeport.FakeGpu(lease_w=600.0)}
    assert wattshift("fleet", "profile").exit_code == 2
    assert wattshift("fleet", "profile", "rig-1", "--points", "1").exit_code == 2
    assert wattshift("fleet", "profile", "host-gpu0", "rig-1").exit_code == 2
    assert wattshift("fleet", "profile", "host-gpu0", "--dry-run").exit_code == 2
    assert wattshift("fleet", "profile", "north-*").exit_code == 4
    assert [rig.walks for rig in rigs.values()] == ["none"] * 3


def test_ctrl_c_breaks_it_off_and_keeps_what_was_measured(reach: Any, rigs: dict[str, Any]) -> None:
    rigs["rig-1"].walked, rigs["rig-1"].stuck = 0, True
    program = (
        "from wattshift_cluster.cli import fleet_profile; fleet_profile.LOOK_S = 0.02\n"
        "from wattshift_cluster.cli.main import main; main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, "fleet", "profile", "rig-1", "rig-2", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    try:
        ends_s = time.monotonic() + 30.0
        while rigs["rig-1"].walks != "running" and time.monotonic() < ends_s:
            time.sleep(0.02)
        rigs["rig-1"].stuck = False
        while rigs["rig-1"].walked < 1 and time.monotonic() < ends_s:
            time.sleep(0.005)
        rigs["rig-1"].stuck = True
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, err
    (row,) = json.loads(out)
    assert (row["state"], row["reason"]) == ("aborted", "stopped by an operator")
    assert row["points"]
    assert rigs["rig-1"].walks == "aborted"
    assert rigs["rig-2"].walks == "none"
    assert "not begun: rig-2" in err
