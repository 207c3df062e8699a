"""`wattshift fleet sleep|wake|lock|unlock|limit|list|show` on ASICs, against a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from click.testing import Result

from wattshift_cluster.cli import fleet_follow

fakeport = sys.modules["fakeport"]
Command = Callable[..., Result]


@pytest.fixture
def rigs(reach: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Three machines at work that obey by the second look; progress is looked at often."""
    monkeypatch.setattr(fleet_follow, "LOOK_S", 0.01)
    reach.port.asics = {f"rig-{i}": fakeport.FakeAsic() for i in (1, 2, 3)}
    found: dict[str, Any] = reach.port.asics
    return found


def data(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_sleep_is_followed_until_every_machine_sleeps(
    wattshift: Command, reach: Any, rigs: dict[str, Any]
) -> None:
    rigs["rig-2"].obeys_after = 5
    slept = wattshift("fleet", "sleep", "rig-*", "--reason", "filters")
    assert slept.exit_code == 0, slept.output
    rows = [line.split()[:4] for line in slept.stdout.splitlines()[1:]]
    assert rows == [[f"rig-{i}", "confirmed", "25", "W"] for i in (1, 2, 3)]
    assert reach.port.orders[-1]["reason"] == "filters"
    woken = data(wattshift("fleet", "wake", "rig-1", "rig-3", "-o", "json"))
    assert [row["outcome"] for row in woken] == ["confirmed", "confirmed"]
    assert [rig.held for rig in rigs.values()] == [False, True, False]


def test_a_machine_that_says_yes_and_goes_on_is_named(
    wattshift: Command, rigs: dict[str, Any]
) -> None:
    rigs["rig-2"].obeys_after = 10**9
    slept = wattshift("fleet", "sleep", "rig-*", "--wait", "0.3s", "-o", "json")
    rows = {row["device"]: row for row in data(slept, 1)}
    assert rows["rig-1"]["outcome"] == "confirmed"
    assert rows["rig-2"]["outcome"] == "not confirmed"
    assert "1 not confirmed: rig-2: it is still awake and draws 3.30 kW" in slept.stderr
    assert "rig-1" not in slept.stderr


def test_what_is_not_known_is_not_asleep(wattshift: Command, rigs: dict[str, Any]) -> None:
    rigs["rig-1"].watts_w = None
    rigs["rig-2"].error = "no answer in 2 s"
    rigs["rig-2"].obeys_after = 10**9
    slept = wattshift("fleet", "sleep", "rig-1", "rig-2", "--wait", "0.2s", "-o", "yaml")
    assert slept.exit_code == 1
    reasons = {row["device"]: row["reason"] for row in yaml.safe_load(slept.stdout)}
    assert reasons["rig-1"].startswith("whether it sleeps is not known")
    assert reasons["rig-2"] == "no answer in 2 s"


def test_a_sample_of_before_the_order_confirms_nothing(
    wattshift: Command, rigs: dict[str, Any], reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = type(reach.port)._rig
    monkeypatch.setattr(
        type(reach.port), "_rig", lambda self, row, one: rig(self, row, one) | {"age_s": 60.0}
    )
    rigs["rig-1"].watts_w = 25.0
    slept = wattshift("fleet", "sleep", "rig-1", "--wait", "0.2s")
    assert slept.exit_code == 1, "it slept a minute ago; nobody has looked since"


def test_a_wake_that_no_lease_follows_is_told_and_not_waited_for(
    wattshift: Command, rigs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_follow, "HELD_S", 0.05)
    rigs["rig-1"].leased, rigs["rig-1"].watts_w = False, 25.0
    began_s = time.monotonic()
    woken = wattshift("fleet", "wake", "rig-1", "--wait", "60s")
    assert woken.exit_code == 1
    assert time.monotonic() - began_s < 30.0
    assert "no lease asks it to: its next rung is worth less than its energy" in woken.stderr


def test_refused_and_silent_machines_have_their_exit_codes(
    wattshift: Command, rigs: dict[str, Any]
) -> None:
    rigs["rig-3"].away = True
    away = wattshift("fleet", "sleep", "rig-*", "-o", "json")
    rows = {row["device"]: row for row in data(away, 5)}
    assert rows["rig-1"]["outcome"] == "confirmed", "one silent agent holds up nobody else"
    assert "1 not reached: rig-3: agent row-a: no answer in 5 s" in away.stderr
    rigs["rig-2"].lock_by = "somebody"
    refused = wattshift("fleet", "wake", "rig-*", "-o", "json")
    data(refused, 6)
    assert "1 refused: rig-2: locked by somebody" in refused.stderr
    nobody = wattshift("fleet", "sleep", "north-*")
    assert (nobody.exit_code, nobody.stdout) == (4, "")
    assert wattshift("fleet", "sleep", "rig-1", "--url", "http://127.0.0.1:1").exit_code == 5
    assert wattshift("fleet", "sleep").exit_code == 2


def test_a_dry_run_changes_nothing_and_waits_for_nothing(
    wattshift: Command, rigs: dict[str, Any]
) -> None:
    dry = wattshift("fleet", "sleep", "rig-*", "--dry-run")
    assert dry.exit_code == 0
    assert [line.split("  ")[1].strip() for line in dry.stdout.splitlines()[1:]] == ["dry run"] * 3
    assert "would sleep" in dry.stdout
    assert not any(rig.held for rig in rigs.values())
    sent = wattshift("fleet", "sleep", "rig-1", "--no-wait", "-o", "json")
    assert data(sent)[0]["outcome"] == "taken"
    assert rigs["rig-1"].looks == 0, "nobody looked"


def test_a_lock_and_who_opens_it(
    wattshift: Command, reach: Any, rigs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wattshift("fleet", "lock", "rig-1").exit_code == 2, "a lock says why it is there"
    locked = wattshift("fleet", "lock", "rig-1", "--reason", "hash board out")
    assert locked.exit_code == 0, locked.output
    shown = wattshift("fleet", "show", "rig-1").stdout
    assert "lock          by admin (taken), since" in shown
    assert "last command  lock by admin (taken)" in shown
    assert wattshift("fleet", "wake", "rig-1").exit_code == 6
    assert (
        data(wattshift("fleet", "show", "rig-1", "-o", "json"))["last_command"]["action"] == "wake"
    )
    other = ("--token", reach.secrets["operator"])
    refused = wattshift("fleet", "unlock", "rig-1", *other)
    assert refused.exit_code == 6
    assert "only admin changes that" in refused.stderr
    assert wattshift("fleet", "unlock", "rig-1", "--override", *other).exit_code == 6
    assert rigs["rig-1"].lock_by == "admin"
    assert wattshift("fleet", "unlock", "rig-1").exit_code == 0
    assert "lock          none on record" in wattshift("fleet", "show", "rig-1").stdout


def test_what_is_learnt_of_a_machine_is_shown(
    wattshift: Command, reach: Any, rigs: dict[str, Any]
) -> None:
    assert "nothing yet" in wattshift("fleet", "show", "rig-1").stdout
    point = {"mode": "normal", "driver_w": 3500.0, "told_w": 3392.0, "watts_w": 3200.0}
    point |= {"claimed_w": 2955.0}
    point |= {"error_w": 12.0, "most_w": 3210.0, "n": 7, "hashrate_h_per_s": 198e12}
    point |= {"settle_s": 84.0, "settle_n": 4, "told_s": 106.0}
    reach.port.learnt = {"points": [point], "down_s": 6.0, "up_s": 84.0}
    reach.port.learnt |= {"factor": 1.083, "factor_error": 0.004, "factor_n": 7}
    text = wattshift("fleet", "show", "rig-1").stdout
    for part in ("2.96 kW", "3,200 ± 12 W", "198.0 TH/s", "1.083 ± 0.004", "awake in 84 s"):
        assert part in text, text
    view = data(wattshift("fleet", "show", "rig-1", "-o", "json"))
    assert view["learnt"]["points"][0]["told_w"] == 3392.0


def test_a_limit_for_both_kinds_at_once(
    wattshift: Command, reach: Any, rigs: dict[str, Any]
) -> None:
    reach.port.gpus = {"rig-gpu0": fakeport.FakeGpu()}
    rows = data(wattshift("fleet", "limit", "rig-*", "450W", "-o", "json"))
    assert {row["device"]: row["enforced_w"] for row in rows} == {
        "rig-gpu0": 450.0,
        "rig-1": None,
        "rig-2": None,
        "rig-3": None,
    }
    assert [rig.limit_w for rig in rigs.values()] == [450.0] * 3
    lifted = wattshift("fleet", "limit", "rig-*", "off")
    assert lifted.exit_code == 6
    assert "rig-gpu0: off is for ASICs" in lifted.stderr
    assert [rig.limit_w for rig in rigs.values()] == [None] * 3
    dry = wattshift("fleet", "limit", "rig-*", "300W", "--dry-run")
    assert dry.exit_code == 0
    assert "would be limited" in dry.stdout
    assert reach.port.gpus["rig-gpu0"].enforced_w == 450.0
    rigs["rig-1"].away = True
    assert wattshift("fleet", "limit", "rig-1", "2kW").exit_code == 5


def test_a_list_is_filtered_and_fits_a_thousand(wattshift: Command, rigs: dict[str, Any]) -> None:
    rigs["rig-2"].watts_w, rigs["rig-2"].held = 25.0, True
    rigs["rig-3"].away = True
    rigs["rig-3"].note = "a very long note that no row of a table has the room for, really"

    def names(*words: str) -> list[str]:
        return [one["id"] for one in data(wattshift("fleet", "list", *words, "-o", "json"))]

    assert names("rig-*") == ["rig-1", "rig-2", "rig-3"]
    assert names("--kind", "asic", "--state", "unreachable") == ["asic-3", "rig-3"]
    assert names("rig-*", "--state", "asleep") == ["rig-2"]
    assert names("rig-*", "--state", "awake") == ["rig-1"]
    assert names("--kind", "gpu") == []
    text = wattshift("fleet", "list", "rig-*")
    assert text.stderr.startswith("3 devices: 2 confirmed, 1 unreachable; 1 asleep; 3.3")
    assert max(len(line) for line in text.stdout.splitlines()) <= 150
    assert wattshift("fleet", "list", "--state", "odd").exit_code == 2


def test_an_interrupt_ends_the_waiting_and_not_the_order(reach: Any, rigs: dict[str, Any]) -> None:
    rigs["rig-1"].obeys_after = 10**9
    argv = (sys.executable, "-m", "wattshift_cluster.cli", "fleet", "sleep", "rig-1")
    run = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    try:
        for _ in range(2000):
            if rigs["rig-1"].held and rigs["rig-1"].looks > 1:
                break
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
    finally:
        run.kill()
    assert (run.returncode, out) == (130, b"")
    assert b"the order stands" in err
    assert rigs["rig-1"].held


def test_every_command_explains_itself(wattshift: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole = wattshift("fleet", "--help").stdout
    assert "..." not in whole.replace("[ARGS]...", ""), "no summary is cut short"
    for name in ("sleep", "wake", "lock", "unlock", "limit", "list", "show"):
        page = wattshift("fleet", name, "--help").stdout
        assert f"  wattshift fleet {name}" in page, "an example"
        assert max(len(line) for line in page.splitlines()) <= 80
        assert name in whole


def test_a_shadow_site_refuses_orders(wattshift: Command, reach: Any, rigs: dict[str, Any]) -> None:
    reach.port.mode = "shadow"
    refused = wattshift("fleet", "sleep", "rig-1")
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert "shadow mode" in refused.stderr
    status = wattshift("status").stdout
    assert status.startswith("shadow: nothing is commanded")
    assert "shadow: nothing is commanded" in wattshift("top", "--once").stdout
