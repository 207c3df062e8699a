"""Commands against a real server: what they print where, and the exit code they end with."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from wattshift_cluster.errors import TryLater

Command = Callable[..., Result]
BATCH = (
    "submit", "batch", "--name", "embed", "--callable", "pkg.mod:fn",
    "--input", "in.jsonl", "--output", "out", "--watts", "0.06kW",
)  # fmt: skip


def data(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_status_in_every_form(wattshift: Command, reach: Any) -> None:
    assert data(wattshift("status", "-o", "json"))["cap_w"] == 14_000.0
    assert yaml.safe_load(wattshift("status", "-o", "yaml").stdout)["tick"] == 7
    text = wattshift("status", "--devices").stdout
    assert "14.00 kW (schedule s-1), margin 280 W" in text
    assert "asic-3" in text
    assert "unreachable" in text


def test_unknown_is_said_and_never_zero(wattshift: Command, reach: Any) -> None:
    reach.port.power_w = None
    text = wattshift("status").stdout
    assert "power      unknown\n" in text
    assert "No meter tells: power is unknown" in text
    assert " 0 W (" not in text


def test_data_on_stdout_and_talk_on_stderr(wattshift: Command, reach: Any) -> None:
    made = wattshift(*BATCH, "-o", "json")
    job = data(made)
    assert made.stderr.startswith(f"submitted {job['id']}")
    assert job["spec"]["watts_w"] == 60.0
    assert job["spec"]["input"] == str(Path.cwd() / "in.jsonl"), "the controller runs elsewhere"
    assert wattshift("jobs", "-q").stdout == f"{job['id']}\n"


def test_a_job_from_submission_to_its_end(wattshift: Command, reach: Any) -> None:
    job = wattshift(*BATCH, "-q").stdout.strip()
    assert data(wattshift("job", "show", job, "-o", "json"))["state"] == "pending"
    assert data(wattshift("job", "pause", job, "-o", "json"))["state"] == "paused"
    assert "paused" in wattshift("jobs", "--state", "paused").stdout
    assert wattshift("jobs", "--state", "failed").stdout == "no jobs\n"
    assert data(wattshift("job", "resume", job, "-o", "json"))["state"] == "running"
    assert "submitted" in wattshift("job", "logs", job).stdout
    assert data(wattshift("job", "cancel", job, "-o", "json"))["state"] == "cancelled"
    refused = wattshift("job", "resume", job)
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert "is cancelled" in refused.stderr


def test_waiting_ends_with_the_job(wattshift: Command, reach: Any) -> None:
    reach.port.job = lambda job_id: {**reach.port.submitted[job_id], "state": "failed"}
    assert wattshift(*BATCH, "--wait").exit_code == 1
    reach.port.job = lambda job_id: {**reach.port.submitted[job_id], "state": "completed"}
    assert wattshift(*BATCH, "--wait").exit_code == 0


def test_the_same_key_makes_one_job(wattshift: Command, reach: Any) -> None:
    ids = {wattshift(*BATCH, "--key", "night-7", "-q").stdout for _ in range(3)}
    assert len(ids) == len(reach.port.submitted) == 1


def test_a_service_and_mining(wattshift: Command, reach: Any) -> None:
    args = ("--name", "chat", "--import-path", "a.b:app", "--watts-per-replica", "300W")
    made = wattshift("submit", "service", *args, "--max", "4", "--slo-p95", "500ms", "-o", "json")
    assert data(made)["spec"]["slo_p95_ms"] == 500.0
    made = wattshift("submit", "mining", "--devices", "a*", "--devices", "b", "-o", "json")
    assert data(made)["spec"]["devices"] == ["a*", "b"]


@pytest.mark.parametrize("suffix", ["yaml", "json", "toml"])
def test_a_job_file(wattshift: Command, reach: Any, tmp_path: Path, suffix: str) -> None:
    job = {"kind": "batch", "name": "n", "callable": "p.m:f", "input": "in", "output": "/out"}
    job |= {"watts": "60W", "deadline": "2h"}
    lines = "\n".join(f'{key} = "{value}"' for key, value in job.items())
    path = tmp_path / f"job.{suffix}"
    path.write_text(lines if suffix == "toml" else json.dumps(job))
    spec = data(wattshift("submit", path, "-o", "json"))["spec"]
    assert (spec["input"], spec["output"]) == (str(tmp_path / "in"), "/out")
    assert abs(spec["deadline_at_s"] - time.time() - 7200) < 30


def test_every_fault_of_a_job_file(wattshift: Command, reach: Any, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("kind: batch\nname: n\ncallable: nothing\ninput: i\nwatts: 60V\nspeed: 9\n")
    wrong = wattshift("submit", path)
    assert (wrong.exit_code, wrong.stdout) == (3, "")
    for part in ("callable", "watts = 60V", "1W to 10MW", "output: missing", "speed = 9: unknown"):
        assert part in wrong.stderr, part
    assert wrong.stderr.count(str(path)) == 4
    assert not reach.port.submitted


@pytest.mark.parametrize("text", ["- a\n- b", "kind: [", "kind: dance", "", "\0"])
def test_a_file_that_is_no_job(wattshift: Command, reach: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert wattshift("submit", path).exit_code == 3


def test_caps(wattshift: Command, reach: Any) -> None:
    cap = data(wattshift("cap", "set", "8kW", "--for", "30m", "-o", "json"))
    assert cap[0]["limit_w"] if isinstance(cap, list) else cap["limit_w"] == 8000.0
    assert "8.00 kW" in wattshift("cap", "show").stdout
    assert wattshift("cap", "clear", "cap-nobody").exit_code == 4
    assert wattshift("cap", "clear").exit_code == 0
    assert wattshift("cap", "show").stdout == "no caps\n"


LIFT = ("cap", "override", "utility", "evt-7/0", "--limit", "9kW", "--reason", "called by phone")


def test_overrides(wattshift: Command, reach: Any) -> None:
    assert wattshift(*LIFT, "--yes").exit_code == 2, "it must end"
    assert wattshift(*LIFT, "--for", "1h", "--until", "2h", "--yes").exit_code == 2
    unsure = wattshift(*LIFT, "--for", "20m")
    assert (unsure.exit_code, reach.port.lifted) == (130, []), "nobody has said yes"
    made = wattshift(*LIFT, "--for", "20m", "--yes", "-o", "json")
    assert made.exit_code == 0, made.output
    assert reach.port.lifted[0]["cap"] == "evt-7/0"
    assert "called by phone" in wattshift("cap", "overrides").stdout
    refused = ("cap", "override", "connection", "x", "--limit", "1MW", "--reason", "r", "--yes")
    assert wattshift(*refused, "--for", "1h").exit_code == 6
    assert wattshift("cap", "restore", "utility").exit_code == 2
    assert wattshift("cap", "restore", "utility", "nothing").exit_code == 4
    assert wattshift("cap", "restore", "utility", "evt-7/0").exit_code == 0
    assert wattshift("cap", "overrides").stdout == "no overrides\n"


def test_a_cap_that_waits_is_explained(wattshift: Command, reach: Any) -> None:
    waits = {"cap_stated_w": 20_000.0, "cap_waits": "ramp up", "target_w": 9_000.0}
    reach.port.binding = {**waits, "target_id": "evt-9"}
    for words in (("status",), ("top", "--once"), ("explain", "site")):
        text = wattshift(*words).stdout
        assert "ramp up" in text, words
        assert "9.00 kW" in text, words
    told = data(wattshift("explain", "site", "-o", "json"))
    assert told["signals"]["sources"]["event"]["kind"] == "injected"


def test_what_is_asked_next_and_what_can_be_given(wattshift: Command, reach: Any) -> None:
    later = {"next_cap_w": 6_000.0, "next_cap_at": "2026-11-28T21:00:00.250Z"}
    later |= {"next_cap_origin": "grid-utility", "next_cap_name": "peak cut"}
    reach.port.binding = {**later, "cap_name": "evening", "target_w": 10_000.0, "target_id": "t"}
    reach.port.binding |= {"next_change_at": "2026-11-28T20:59:00Z", "carbon_g_per_kwh": 412.0}
    for words in (("status",), ("top", "--once")):
        text = " ".join(wattshift(*words).stdout.replace("│", "").split())
        assert "6.00 kW from 2026-11-28T21:00:00Z (grid-utility peak cut)" in text, words
        assert "next change 2026-11-28T20:59:00Z" in text, words
        assert "14.00 kW (schedule evening)" in text, words
        assert "10.00 kW (t), draws 9.40 kW, -6.0 %" in text, words
        assert "412 g/kWh" in text, words
    text = wattshift("top", "--once").stdout
    assert "can shed in 10m" in text
    assert "540 W" in text
    assert "frequency" not in text, "no agent is enrolled"
    agents = [frequency("a", 59.97, "ready"), frequency("b", 59.91, "shed", 900.0)]
    reach.port.binding = {"frequency": [*agents, frequency("c", None, None)]}
    text = " ".join(wattshift("top", "--once").stdout.split())
    assert "59.910 Hz (b); agents: 1 ready, 1 shed, 1 unknown, 900 W shed" in text


def frequency(agent: str, hz: float | None, phase: str | None, cut_w: float = 0.0) -> Any:
    told = {"agent": agent, "programme": "FFR", "phase": phase, "share": 0.0, "cut_w": cut_w}
    told |= {"reason": None, "latched": False, "sheds": 0, "hz": hz, "v_pu": 1.0, "age_s": 0.1}
    return told | {"told_age_s": 0.2, "fault": None, "quality": "emulated", "claims": []}


def test_overridden_caps_are_marked(wattshift: Command, reach: Any) -> None:
    assert wattshift("cap", "set", "8kW").exit_code == 0
    header, row = wattshift("cap", "show").stdout.splitlines()
    at = header.index("OVERRIDDEN")
    assert row[at:].startswith("no ")
    reach.port.held_caps[0] |= {"overridden_w": 9_000.0, "name": "evening", "ends_at": None}
    header, row = wattshift("cap", "show").stdout.splitlines()
    assert row[header.index("OVERRIDDEN") :].startswith("to 9.00 kW")
    assert row.startswith("evening")


def test_a_cap_below_the_floor_is_told_or_refused(wattshift: Command, reach: Any) -> None:
    told = wattshift("cap", "set", "500W")
    assert told.exit_code == 0
    assert "stays 300 W above this cap" in told.stderr
    strict = wattshift("cap", "set", "500W", "--strict")
    assert strict.exit_code == 6
    assert "short by 300 W" in strict.stderr
    assert len(reach.port.held_caps) == 1


def test_an_event_file(wattshift: Command, reach: Any, tmp_path: Path) -> None:
    path = tmp_path / "event.yaml"
    path.write_text("source: drill\nprice: 250\ncaps:\n  - {id: c1, limit: 6kW, ends: 31m}\n")
    result = wattshift("event", "inject", path)
    assert result.exit_code == 0, result.output
    (signal,) = reach.port.injected
    assert abs(signal["caps"][0]["ends_s"] - time.time() - 1860) < 30
    assert (signal["price_usd_per_mwh"], signal["caps"][0]["limit_w"]) == (250.0, 6000.0)
    path.write_text("source: operator\nfoo: 1\n")
    assert wattshift("event", "inject", path).exit_code == 3


def test_explain(wattshift: Command, reach: Any) -> None:
    reach.port.decide("asic-2", "shed", "its last rung is worth 41 USD/MWh")
    text = wattshift("explain", "asic-2").stdout
    assert "settling" in text
    assert "its last rung is worth 41 USD/MWh" in text
    assert "cap_w" in wattshift("explain", "asic-2", "--inputs").stdout
    assert data(wattshift("explain", "asic-2", "-o", "json"))["decisions"][0]["action"] == "shed"
    assert wattshift("explain", "nobody").exit_code == 4


def test_top_once(wattshift: Command, reach: Any) -> None:
    reach.port.decide("site", "cap", "cap 14,000 W (schedule) now holds")
    text = wattshift("top", "--once").stdout
    assert "yard-7" in text
    assert "unreachable" in text
    assert "now holds" in text
    assert "\x1b[" not in text, "no colour when not a terminal"


def test_tokens_over_http_and_in_the_file(wattshift: Command, reach: Any, tmp_path: Path) -> None:
    secret = wattshift("token", "create", "ci", "--role", "viewer").stdout.strip()
    assert wattshift("status", "--token", secret).exit_code == 0
    denied = wattshift("token", "list", "--token", secret)
    assert denied.exit_code == 6
    assert "needs admin" in denied.stderr
    ids = {t["name"]: t["id"] for t in data(wattshift("token", "list", "-o", "json"))}
    assert wattshift("token", "revoke", ids["ci"]).exit_code == 0
    assert wattshift("status", "--token", secret).exit_code == 6
    folder = ("--state-dir", tmp_path / "offline")
    assert len(wattshift("token", "create", "first", "--role", "admin", *folder).stdout) > 40
    assert "first" in wattshift("token", "list", *folder).stdout
    assert wattshift("token", "revoke", "nobody", *folder).exit_code == 4


def test_exit_codes_of_the_other_side(wattshift: Command, reach: Any) -> None:
    reach.port.fails = TryLater("busy")
    assert wattshift("status").exit_code == 75
    assert wattshift("status", "--url", "http://127.0.0.1:1").exit_code == 5
    assert wattshift("job", "show", "nobody").exit_code == 4
    assert wattshift("job", "show", "../site").exit_code == 4
    assert wattshift("status", "--token", "wrong").exit_code == 6
    assert wattshift("status", "--url", "::::").exit_code in (3, 5)
    assert wattshift("status", "--token", "a\nb").exit_code == 3
