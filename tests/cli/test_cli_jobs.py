"""Submitting all that a job may say, several at once; what is shown of jobs and of nodes."""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from wattshift_cluster.api.jobspec import parse_jobs
from wattshift_cluster.api.tokens import rfc3339
from wattshift_cluster.cli import waiting
from wattshift_cluster.cli.explain_compute import GIVES_WAY, why_job
from wattshift_cluster.cli.job_files import load_jobs
from wattshift_cluster.errors import Refused, TryLater, Unreachable
from wattshift_scheduler.jobs import Rule

Command = Callable[..., Result]
EXAMPLES = Path(__file__).parents[2] / "examples"
SERVE = """
http_options: {port: 9000}
applications:
  - name: llm
    route_prefix: /llm
    import_path: pkg.llm:app
    runtime_env: {env_vars: {HF_TOKEN: hush}}
  - name: embed
    import_path: pkg.embed:app
"""
NIGHT = """
kind: batch
id: one
name: one
command: [python, score.py]
input: in.jsonl
output: out
watts: 60W
python_path: [code]
---
kind: service
name: two
import_path: a.b:app
watts_per_replica: 60W
"""


def data(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fake(name: str) -> Any:
    return getattr(sys.modules["fakejobs"], name)


def test_options_come_to_what_a_file_says(wattshift: Command, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush")
    made = wattshift(
        "submit", "service", "--name", "llm", "--import-path", "a.b:app", "--arg", "model=small",
        "--watts-per-replica", "300W", "--power-step", "250W:95%", "--power-step", "200W:0.8",
        "--learn-watts", "--min", "0", "--max", "3", "--slo-ttft-p95", "800ms", "--slo-itl-p95",
        "40ms", "--scaling", "external", "--hand-over", "none", "--healthy-within", "10m",
        "--tenant", "ops", "--priority", "-5", "--flexibility", "2", "--label", "region=!north",
        "--gpu-type", "H100", "--gpus", "2", "--num-cpus", "4", "--env", "A=b=c", "--env",
        "HF_TOKEN", "--value", "2", "--id", "llm-1", "--dry-run", "-o", "json",
    )  # fmt: skip
    spec = data(made)
    assert spec["id"] == "llm-1"
    assert spec["args"] == {"model": "small"}
    assert [step["watts_w"] for step in spec["power_steps"]] == [250.0, 200.0]
    assert spec["labels"] == {"region": "!north", "ray.io/accelerator-type": "H100"}
    assert (spec["slo_ttft_p95_ms"], spec["slo_itl_p95_ms"]) == (800.0, 40.0)
    assert (spec["tenant"], spec["priority"], spec["flexibility"]) == ("ops", -5, 2)
    assert (spec["scaling"], spec["hand_over"], spec["healthy_within_s"]) == (
        "external", "none", 600.0,
    )  # fmt: skip
    assert spec["env"] == {"A": "(hidden)", "HF_TOKEN": "(hidden)"}
    assert spec["learn_watts"] is True


def test_learning_watts_and_sleeping_replicas_are_refused_together(
    wattshift: Command, reach: Any
) -> None:
    args = ("--name", "s", "--import-path", "a.b:c", "--watts-per-replica", "60W")
    wrong = wattshift("submit", "service", *args, "--learn-watts", "--hand-over", "sleep")
    assert (wrong.exit_code, reach.port.submitted) == (3, {})
    assert "learn_watts and hand_over: sleep do not go together" in wrong.stderr
    assert data(wattshift("submit", "service", *args, "--hand-over", "sleep", "-o", "json"))


def test_a_repeat_with_its_key_keeps_the_first_deadline(wattshift: Command, reach: Any) -> None:
    args = ("--name", "s", "--input", "i", "--output", "o", "--watts", "9W", "--callable", "a:b")
    again = ("submit", "batch", *args, "--deadline", "2h", "--key", "night", "-o", "json")
    first, second = data(wattshift(*again)), data(wattshift(*again))
    assert first["id"] == second["id"]
    assert first["spec"]["deadline_at_s"] == second["spec"]["deadline_at_s"]
    assert len(reach.port.submitted) == 1


def test_a_command_stands_last(wattshift: Command, reach: Any, tmp_path: Path) -> None:
    args = ("--name", "s", "--input", "/i", "--output", "/o", "--watts", "60W", "--gang")
    made = wattshift("submit", "batch", *args, "--python-path", tmp_path, "-o", "json",
                     "--", "python", "score.py", "--fast")  # fmt: skip
    spec = data(made)["spec"]
    assert spec["command"] == ["python", "score.py", "--fast"]
    assert (spec["gang"], spec["python_path"]) == (True, [str(tmp_path)])
    both = wattshift("submit", "batch", *args, "--callable", "a.b:c", "--", "x")
    assert (both.exit_code, "one of callable" in both.stderr) == (3, True)


@pytest.mark.parametrize(
    "extra",
    [("--env", "NOT_SET_ANYWHERE"), ("--label", "a"), ("--power-step", "250W"), ("--gpus", "x")],
    ids=" ".join,
)
def test_half_an_option_is_a_usage_error(wattshift: Command, extra: tuple[str, str]) -> None:
    args = ("--name", "s", "--import-path", "a:b", "--watts-per-replica", "60W", "--dry-run")
    assert wattshift("submit", "service", *args, *extra).exit_code == 2


def test_measured_steps_come_from_a_file(wattshift: Command, tmp_path: Path) -> None:
    args = ("--name", "s", "--import-path", "a.b:c", "--watts-per-replica", "300W", "--dry-run")
    file = tmp_path / "steps.json"

    def steps(rows: object, *more: str) -> Result:
        file.write_text(json.dumps(rows))
        return wattshift("submit", "service", *args, "--power-steps", file, "-o", "json", *more)

    rates = [{"watts": 300, "rate": 40}, {"watts": "200W", "rate": 30}, {"watts": 250, "rate": 41}]
    assert data(steps(rates))["power_steps"] == [
        {"watts_w": 250.0, "throughput": 1.0},
        {"watts_w": 200.0, "throughput": 0.75},
    ]
    shares = [{"watts": 250, "throughput": "95%"}]
    assert data(steps(shares))["power_steps"] == [{"watts_w": 250.0, "throughput": 0.95}]
    assert steps(shares, "--power-step", "200W:90%").exit_code == 2
    for wrong, says in (
        ({"watts": 1}, "not a list of 1 to 33 rows"),
        ([], "not a list of 1 to 33 rows"),
        ([1], "[0]"),
        ([{"watts": 250, "rate": 1, "note": "x"}], "[0].note"),
        ([{"watts": 250}], "a row has watts and one of throughput, rate"),
        ([{"watts": "x", "rate": 1}], "[0].watts"),
        ([{"watts": 250, "rate": 0}], "[0].rate = 0: not a number above 0"),
        ([{"watts": 250, "rate": 1}], "a run without a limit, too"),
        ([*rates, *shares], "allowed: one"),
        ([{"watts": 350, "throughput": 0.9}], "is not below watts_per_replica"),
    ):
        refused = steps(wrong)
        assert refused.exit_code == 3, wrong
        assert says in refused.stderr, refused.stderr
    missing = wattshift("submit", "service", *args, "--power-steps", tmp_path / "no.json")
    assert missing.exit_code == 4


def test_help_is_in_groups(wattshift: Command) -> None:
    text = wattshift("submit", "service", "-h").stdout
    heads = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert heads == [
        "What runs:", "Watts and worth:", "What it promises:", "For whom and where:", "Options:",
    ]  # fmt: skip


def test_one_application_of_a_serve_file_is_sent(
    wattshift: Command, reach: Any, tmp_path: Path
) -> None:
    (tmp_path / "serve.yaml").write_text(SERVE)
    job = {"kind": "service", "name": "llm", "watts_per_replica": "60W"}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**job, "serve_config": "serve.yaml#llm"}))
    made = wattshift("submit", path, "-o", "json")
    assert "http_options of serve.yaml hold for all of Serve" in made.stderr
    app = data(made)["spec"]["serve_app"]
    assert (app["name"], app["import_path"]) == ("llm", "pkg.llm:app")
    for named, says in (
        ("serve.yaml", "holds 2 applications; name one: serve.yaml#llm (llm, embed)"),
        ("serve.yaml#embde", "did you mean embed?"),
        ("nowhere.yaml", "no file"),
        ("job.json", "has no applications"),
    ):
        path.write_text(json.dumps({**job, "serve_config": named}))
        wrong = wattshift("submit", path)
        assert wrong.exit_code == 3
        assert says in wrong.stderr, wrong.stderr
    assert len(reach.port.submitted) == 1


def test_several_jobs_are_sent_when_all_are_right(
    wattshift: Command, reach: Any, tmp_path: Path
) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(NIGHT.replace("watts: 60W", "wats: 60W"))
    wrong = wattshift("submit", path)
    assert (wrong.exit_code, reach.port.submitted) == (3, {})
    assert "night.yaml (job 1): wats = 60W: unknown key; did you mean watts?" in wrong.stderr
    path.write_text(NIGHT)
    first, second = data(wattshift("submit", path, "--key", "k", "-o", "json"))
    assert (first["id"], second["kind"]) == ("one", "service")
    assert first["spec"]["python_path"] == [str(tmp_path / "code")], "from the file's folder"
    assert wattshift("submit", path, "--key", "k", "-q").stdout.split()[0] == "one"
    assert len(reach.port.submitted) == 2, "the same key makes the same jobs"
    assert wattshift("submit", path, "--id", "x").exit_code == 2
    again = wattshift("submit", path)
    assert (again.exit_code, "one exists" in again.stderr) == (6, True)


def test_a_refusal_ends_with_6_and_says_the_nearest(wattshift: Command, reach: Any) -> None:
    reach.port.never = Refused("a unit needs 900 W; nearest: watts 800W")
    args = ("--name", "s", "--input", "i", "--output", "o", "--watts", "900W", "--callable", "a:b")
    never = wattshift("submit", "batch", *args)
    assert (never.exit_code, never.stdout) == (6, "")
    assert "nearest: watts 800W" in never.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_jobs(path: Path) -> None:
    assert parse_jobs(load_jobs(path), path.name)


def test_waiting_tells_how_far_it_is(wattshift: Command, reach: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(waiting, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    seen = iter([12, 40, 80])

    def look(job_id: str) -> dict[str, Any]:
        done = next(seen)
        state = "completed" if done == 80 else "running"
        progress = {"done": done, "total": 80}
        figures = {"rate_per_s": 4.0, "eta_s": (80 - done) / 4, "failed_items": 1}
        base = reach.port.submitted[job_id]
        return {**base, "state": state, "reason": "r", "progress": progress, **figures}

    reach.port.job = look
    args = ("--name", "s", "--input", "i", "--output", "o", "--watts", "9W", "--callable", "a:b")
    done = wattshift("submit", "batch", *args, "--wait")
    assert done.exit_code == 0, done.output
    assert "40 of 80 items, 4.0/s, 10s left, 1 failed" in done.stderr
    assert "dead letters" in done.stdout


def test_waiting_outlives_a_restart_of_the_controller(
    wattshift: Command, reach: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    away = [Unreachable("no answer"), Unreachable("no answer"), TryLater("it starts")]

    def look(job_id: str) -> dict[str, Any]:
        if away:
            raise away.pop()
        return {**reach.port.submitted[job_id], "state": "running"}

    reach.port.job = look
    args = ("--name", "s", "--import-path", "a:b", "--watts-per-replica", "60W")
    found = wattshift("submit", "service", *args, "--wait")
    assert (found.exit_code, away) == (0, []), found.output
    assert found.stderr.count("is looked for again") == 1
    monkeypatch.setattr(waiting, "GONE_S", 0.0)
    away = [Unreachable("no answer")]
    assert wattshift("submit", "service", *args, "--wait").exit_code == 5


def test_waiting_for_a_service_ends_when_it_runs(wattshift: Command, reach: Any) -> None:
    reach.port.job = lambda job_id: {**reach.port.submitted[job_id], "state": "running"}
    args = ("--name", "s", "--import-path", "a:b", "--watts-per-replica", "60W")
    assert wattshift("submit", "service", *args, "--wait").exit_code == 0


def test_jobs_show_only_columns_that_say_something(wattshift: Command, reach: Any) -> None:
    spec = {"kind": "batch", "name": "n", "watts_w": 60.0}
    reach.port.submitted = {"a": fake("job_view")("a", spec)}
    plain = wattshift("jobs").stdout
    assert "TENANT" not in plain
    assert "  feeder  " in plain, "the rule by which it waits"
    assert "RATE" not in plain
    more = {"tenant": "ops", "priority": 5, "rate_per_s": 2.0, "eta_s": 34.0, "units": 2}
    reach.port.submitted["b"] = fake("job_view")("b", spec, **more)
    head, first, second = wattshift("jobs").stdout.splitlines()
    for column in ("TENANT", "PRIORITY", "UNITS", "RATE", "LEFT"):
        assert column in head
    assert "ops" in second
    assert "2.0/s" in second
    assert "34s" in second
    assert "ops" not in first


def test_one_job_shows_everything_that_is_known(wattshift: Command, reach: Any) -> None:
    spec = {"kind": "service", "name": "chat", "watts_per_replica_w": 300.0, "slo_p95_ms": 500.0}
    chat = fake("job_view")(
        "chat", spec | {"slo_itl_p95_ms": 40.0},
        state="running", units=3, running=2, watts_w=900.0, desired=5, p95_ms=620.0, max_units=4,
        nodes={"gpu-1": 2, "gpu-2": 1}, by_node={"gpu-1": 2}, url="http://127.0.0.1:8000/chat",
        power_step={"watts_w": 250.0, "throughput": 0.95},
    )  # fmt: skip
    reach.port.submitted = {"chat": chat}
    text = wattshift("job", "show", "chat").stdout
    for part in (
        "2 run of 3 asked for (1 to 4); Serve wants 5",
        "620 ms of 500 ms promised: missed",
        "unknown of 40 ms promised",
        "limited to 250 W each (keeps 95%)",
        "2 on gpu-1, 1 on gpu-2",
        "http://127.0.0.1:8000/chat",
        "rule feeder, bound by row-a",
    ):
        assert part in text, part
    letters = {"failed_items": 3, "dead_letters": "/o/dead_letters.jsonl", "by_node": {"n": 1}}
    old = {"checkpoint_at": rfc3339(time.time() - 90)}
    reach.port.submitted["b"] = fake("job_view")(
        "b", {"kind": "batch", "name": "b"}, **letters, **old
    )
    text = wattshift("job", "show", "b").stdout
    assert "3 items: /o/dead_letters.jsonl" in text
    assert re.search(r"1\.5\d*m ago", text), text


def test_logs_hold_what_the_code_printed(wattshift: Command, reach: Any) -> None:
    reach.port.submitted = {"b": fake("job_view")("b", {"kind": "batch", "name": "b"})}
    reach.port.printed = ["epoch 1"]
    assert "printed by its own code:\nepoch 1\n" in wattshift("job", "logs", "b").stdout
    reach.port.printed, reach.port.agent_away = None, True
    away = wattshift("job", "logs", "b")
    assert "submitted" in away.stdout
    assert "not known: no answer in 5 s" in away.stderr


def test_explain_says_rule_limit_gap_and_what_gives_way(wattshift: Command, reach: Any) -> None:
    waits = fake("job_view")("b", {"kind": "batch", "name": "b", "watts_w": 60.0})
    reach.port.submitted = {"b": waits}
    text = wattshift("explain", "b").stdout
    for part in (
        "defer, by the rule feeder",
        "it asks for 60 W more, row-a has 20 W for it: 40 W short",
        "to give way: work of a higher rank under row-a must leave",
        "when it will run, nobody can tell yet",
    ):
        assert part in text, part
    waits["verdict"] |= {"rule": "cap", "expected_at": "2026-12-01T18:00:00Z"}
    view = data(wattshift("explain", "b", "-o", "json"))
    assert "expected to run at 2026-12-01T18:00:00Z" in view["why"]


def test_every_rule_says_what_would_have_to_give_way() -> None:
    assert set(GIVES_WAY) == {rule.value for rule in Rule if rule is not Rule.FITS}


def test_a_running_service_is_explained_by_node_promise_and_step() -> None:
    spec = {"kind": "service", "name": "c", "watts_per_replica_w": 300.0, "slo_p95_ms": 500.0}
    fits = {"admission": "fit", "rule": "fits", "words": "900 W", "bound_by": None, "need_w": 0.0}
    one = fake("job_view")(
        "c", spec | {"flexibility": 1}, state="running", units=3, nodes={"a": 2, "b": 1},
        by_node={"a": 3}, desired=9, max_units=3, p95_ms=300.0,
        power_step={"watts_w": 250.0, "throughput": 0.95},
        verdict=fits | {"have_w": None, "expected_at": None},
    )  # fmt: skip
    told = why_job(one)
    assert told[0] == "it may run 3 units of 300 W: 2 on a, 1 on b"
    assert told[1] == "watts are held by 3 on a: the change is under way"
    assert "p95 300 ms of 500 ms promised: kept" in told
    assert "Serve would like 9 replicas, its max_replicas is 3" in told
    assert told[-1].startswith("each replica is limited to 250 W, as its flexibility class 1")
    assert not any("give way" in line or "expected" in line for line in told)


def test_nodes_are_listed_explained_and_drained(wattshift: Command, reach: Any) -> None:
    assert wattshift("node", "list").stdout == "no compute nodes\n"
    reach.port.nodes = {
        "gpu-1": fake("node_view")("gpu-1"),
        "gpu-2": fake("node_view")("gpu-2", up=False, unasked_w=None, used_w=None, units={}),
    }
    text = wattshift("node", "list").stdout
    assert "chat 2" in text
    assert "down" in text
    assert "unknown" in text
    assert "gpu-2" in wattshift("status").stdout
    assert "nodes (2)" in wattshift("top", "--once").stdout
    told = wattshift("explain", "gpu-1").stdout
    assert "600 W by jobs, 300 W free" in told
    assert "40 W by work that asked for no watts, 4 W by Ray itself: actor Foo 4.0" in told
    assert "unknown: its meter is silent" in wattshift("explain", "gpu-2").stdout
    asked = wattshift("node", "drain", "gpu-1")
    assert asked.exit_code == 130, "nobody said yes"
    assert not reach.port.nodes["gpu-1"]["draining"]
    assert data(wattshift("node", "drain", "gpu-1", "--yes", "-o", "json"))["draining"]
    assert wattshift("node", "drain", "gpu-9", "--yes").exit_code == 4


def test_a_lost_node_is_forgotten_by_who_vouches_for_it(wattshift: Command, reach: Any) -> None:
    reach.port.nodes = {"a": fake("node_view")("a"), "b": fake("node_view")("b", up=False)}
    asked = wattshift("node", "forget", "b")
    assert asked.exit_code == 130, "nobody said yes"
    assert "Do you vouch that this machine is switched off" in asked.stderr
    assert not reach.port.nodes["b"]["forgotten"]
    assert "down: Ray does not answer" in wattshift("explain", "b").stdout
    gone = wattshift("node", "forget", "b", "--yes")
    assert "forgotten: an operator vouches that it is off" in gone.stdout
    assert "its watts are free again" in gone.stderr
    assert "  forgotten  " in wattshift("node", "list").stdout
    assert wattshift("node", "forget", "a", "--yes").exit_code == 6
    assert wattshift("node", "forget", "c", "--yes").exit_code == 4


def test_the_bar_is_drawn_where_there_is_a_terminal(monkeypatch: Any, capsys: Any) -> None:
    """The bar itself, against views that end: what it prints is on stderr."""
    view = {"kind": "batch", "state": "completed", "reason": "80/80 items",
            "progress": {"done": 80, "total": 80}}  # fmt: skip

    class Controller:
        def get(self, path: str) -> dict[str, Any]:
            assert path == "/v1/jobs/b"
            return view

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert waiting.finish(Controller(), "b") is view  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert "80/80" in said.err
    assert said.out == ""
    assert click.unstyle(said.err).count("completed") == 1
