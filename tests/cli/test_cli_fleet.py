"""`wattshift fleet` against a real server: single devices, their limits and their power curves."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from click.testing import Result

from wattshift_cluster.cli import fleet
from wattshift_cluster.cli.fleet_text import unseen_rows

fakeport = sys.modules["fakeport"]
Command = Callable[..., Result]


@pytest.fixture
def gpus(reach: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two cards, the second under a lease of 600 W; progress is looked at often."""
    monkeypatch.setattr(fleet, "LOOK_S", 0.01)
    reach.port.gpus = {
        "host-gpu0": fakeport.FakeGpu(),
        "host-gpu1": fakeport.FakeGpu(lease_w=600.0),
    }
    found: dict[str, Any] = reach.port.gpus
    return found


def data(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_list_in_every_form(wattshift: Command, gpus: dict[str, Any]) -> None:
    text = wattshift("fleet", "list").stdout
    assert text.splitlines()[0].split()[:3] == ["DEVICE", "KIND", "STATE"]
    assert "host-gpu1  gpu" in text
    assert len(data(wattshift("fleet", "list", "-o", "json"))) == 6
    assert yaml.safe_load(wattshift("fleet", "list", "-o", "yaml").stdout)[0]["id"] == "asic-1"


def test_a_machine_that_never_answered_is_listed_and_is_no_device(
    wattshift: Command, reach: Any
) -> None:
    reach.port.unseen_rows = [
        {
            "id": "rig-7", "agent": "row-a", "feeder": "row-a", "reason": "10.0.0.7: silence",
            "since": "2026-01-01T00:00:00Z",
        }
    ]  # fmt: skip
    listed = wattshift("fleet", "list", "rig-*", "--state", "unseen")
    (row,) = [line for line in listed.stdout.splitlines() if line.startswith("rig-7")]
    assert row.split()[:3] == ["rig-7", "asic", "unseen"]
    assert "10.0.0.7: silence" in row
    assert " 0 W" not in row, "unknown is not zero"
    assert "1 unseen" in listed.stderr
    (found,) = data(wattshift("fleet", "list", "rig-*", "-o", "json"))
    assert (found["state"], found["watts_w"], found["ceiling_w"]) == ("unseen", None, None)
    assert "counts nothing" in found["reason"]
    assert len(data(wattshift("fleet", "list", "--kind", "asic", "-o", "json"))) == 4
    shown = wattshift("fleet", "show", "rig-7")
    assert (shown.exit_code, shown.stdout) == (4, "")
    assert "rig-7 is no device yet: it never answered its agent row-a" in shown.stderr
    assert unseen_rows({"devices": []}) == [], "a controller of before does not tell"


def test_show_one_device(wattshift: Command, reach: Any, gpus: dict[str, Any]) -> None:
    text = wattshift("fleet", "show", "host-gpu1").stdout
    assert "host-gpu1 (gpu, Emulated H200)" in text
    assert "600 W, ceiling 700 W, feeder root" in text
    assert "INTENSITY" not in text, "a curve that was never measured is no table of nothing"
    assert data(wattshift("fleet", "show", "asic-1", "-o", "json"))["profile"] is None
    nobody = wattshift("fleet", "show", "host-gpu9")
    assert (nobody.exit_code, nobody.stdout) == (4, "")
    assert "wattshift fleet list" in nobody.stderr


def test_show_tells_what_is_known_of_a_silent_agent_s_device(
    wattshift: Command, reach: Any, gpus: dict[str, Any]
) -> None:
    reach.port.agent_away = True
    shown = wattshift("fleet", "show", "host-gpu1")
    assert shown.exit_code == 0
    assert "host-gpu1 (gpu, Emulated H200)" in shown.stdout
    assert "no answer in 2 s" in shown.stderr


def test_show_says_which_of_several_it_shows(wattshift: Command, gpus: dict[str, Any]) -> None:
    shown = wattshift("fleet", "show", "host-gpu*", "-o", "json")
    assert data(shown)["id"] == "host-gpu0"
    assert "matches 2 devices" in shown.stderr


def test_a_limit_for_one_and_for_all_that_match(wattshift: Command, gpus: dict[str, Any]) -> None:
    one = wattshift("fleet", "limit", "host-gpu0", "0.45kW")
    assert one.exit_code == 0, one.output
    header, row = one.stdout.splitlines()
    assert header.split() == ["DEVICE", "ASKED", "ENFORCED", "TOOK", "RESULT"]
    assert row.split() == ["host-gpu0", "450", "W", "450", "W", "12", "ms", "ok"]
    rows = data(wattshift("fleet", "limit", "host-*", "400W", "-o", "json"))
    assert [row["device"] for row in rows] == ["host-gpu0", "host-gpu1"], "a CPU has no limit"
    assert [card.enforced_w for card in gpus.values()] == [400.0, 400.0]


def test_what_was_refused_is_shown_and_ends_with_6(
    wattshift: Command, gpus: dict[str, Any]
) -> None:
    wattshift("fleet", "limit", "host-gpu*", "400W")
    part = wattshift("fleet", "limit", "host-gpu*", "500W", "-o", "json")
    rows = {row["device"]: row for row in data(part, 6)}
    assert rows["host-gpu0"]["enforced_w"] == 400.0
    assert rows["host-gpu1"]["error"] is None
    assert "host-gpu0: 500 W is a raise and no lease covers it" in part.stderr
    assert "host-gpu1" not in part.stderr
    text = wattshift("fleet", "limit", "host-gpu*", "90W").stdout
    assert "90 W is outside of 200 to 700 W; 200 W is enforced" in text


def test_a_limit_that_no_device_can_have(wattshift: Command, reach: Any) -> None:
    assert wattshift("fleet", "limit", "host-gpu*", "450W").exit_code == 4
    no_gpu = wattshift("fleet", "limit", "host-cpu", "450W")
    assert (no_gpu.exit_code, no_gpu.stdout) == (6, "")
    assert "is no GPU" in no_gpu.stderr


@pytest.mark.parametrize(("watts", "code"), [("450mW", 2), ("a lot", 2), ("-5", 2), ("0.5W", 3)])
def test_watts_that_are_none(
    wattshift: Command, gpus: dict[str, Any], watts: str, code: int
) -> None:
    wrong = wattshift("fleet", "limit", "host-gpu0", "--", watts)
    assert (wrong.exit_code, wrong.stdout) == (code, "")
    assert gpus["host-gpu0"].enforced_w == 700.0


def test_a_release(wattshift: Command, gpus: dict[str, Any]) -> None:
    wattshift("fleet", "limit", "host-gpu1", "400W")
    text = wattshift("fleet", "release", "host-gpu1").stdout
    assert text.startswith("host-gpu1 is at its safe point\n\nDEVICE")
    assert gpus["host-gpu1"].enforced_w == 700.0
    plain = wattshift("fleet", "release", "asic-1")
    assert plain.stdout == "asic-1 is at its safe point\n"
    assert wattshift("fleet", "release", "nobody").exit_code == 4


def test_a_limit_that_does_not_come_back_ends_with_6(
    wattshift: Command, reach: Any, gpus: dict[str, Any]
) -> None:
    async def refused(device_id: str) -> dict[str, Any]:
        row = {"device": device_id, "asked_w": 700.0, "enforced_w": 400.0, "took_s": 0.1}
        return {"device": device_id, "limit": {**row, "error": "no permission"}}

    reach.port.release_device = refused
    wrong = wattshift("fleet", "release", "host-gpu1")
    assert wrong.exit_code == 6
    assert "no permission" in wrong.stdout
    assert "its first power limit is not back" in wrong.stderr


def test_a_curve_is_followed_to_its_end(wattshift: Command, gpus: dict[str, Any]) -> None:
    done = wattshift("fleet", "profile", "host-gpu1")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1] == "profile  done"
    assert lines[2] == "watts    emulated", "an emulated figure never looks measured"
    assert lines[3] == "fit      off by 0.4 W (rms)"
    assert lines[5].split("  ")[0] == "INTENSITY"
    assert lines[-1].split() == (
        ["100", "%", "500.0", "±", "0.8", "W", "494", "to", "506", "W", "3.1", "GH/s", "5.2", "s"]
    )
    assert len(lines) == 12
    assert "INTENSITY" in wattshift("fleet", "show", "host-gpu1").stdout


def test_a_curve_that_is_not_waited_for(wattshift: Command, gpus: dict[str, Any]) -> None:
    begun = wattshift("fleet", "profile", "host-gpu1", "--no-wait")
    assert begun.exit_code == 0
    assert "profile  running" in begun.stdout
    assert "INTENSITY" not in begun.stdout
    assert gpus["host-gpu1"].steps == 0, "nobody looked"


def test_a_curve_that_was_given_up_ends_with_1(wattshift: Command, gpus: dict[str, Any]) -> None:
    gpus["host-gpu1"].gives_up = "inference needs the device"
    ended = wattshift("fleet", "profile", "host-gpu1", "-o", "json")
    view = data(ended, 1)
    assert (view["state"], len(view["points"])) == ("aborted", 3)
    assert "host-gpu1 was not measured to the end: inference needs the device" in ended.stderr


def test_a_curve_that_never_ends_is_not_followed_for_ever(
    wattshift: Command, gpus: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PROFILE_MOST_S", 0.2)
    monkeypatch.setattr(fakeport.FakeGpu, "advance", lambda self: None)
    ended = wattshift("fleet", "profile", "host-gpu1")
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert "still being measured" in ended.stderr


def test_exit_codes_of_the_other_side(wattshift: Command, reach: Any, gpus: dict[str, Any]) -> None:
    refused = wattshift("fleet", "profile", "host-gpu0")
    assert refused.exit_code == 6
    assert "it has no lease" in refused.stderr
    reach.port.agent_away = True
    for words in (
        ("limit", "host-gpu0", "450W"),
        ("release", "host-gpu0"),
        ("profile", "host-gpu0"),
    ):
        away = wattshift("fleet", *words)
        assert (away.exit_code, away.stdout) == (5, ""), words
        assert "agent host: no answer in 2 s" in away.stderr
    viewer = ("--token", reach.secrets["viewer"])
    assert wattshift("fleet", "limit", "host-gpu0", "450W", *viewer).exit_code == 6
    assert wattshift("fleet", "list", *viewer).exit_code == 0
    assert wattshift("fleet", "list", "--url", "http://127.0.0.1:1").exit_code == 5


def test_help_reads_whole_at_80_columns(
    wattshift: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pages = [wattshift("fleet", "--help").stdout]
    pages += [
        wattshift("fleet", name, "--help").stdout
        for name in ("list", "show", "limit", "release", "profile")
    ]
    for page in pages:
        assert page.startswith("Usage: ")
        assert max(len(line) for line in page.splitlines()) <= 80
    assert "..." not in pages[0].replace("[ARGS]...", ""), "no summary is cut short"
