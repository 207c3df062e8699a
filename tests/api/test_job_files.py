"""Job files: every key in base units, every mistake named, and nothing secret shown."""

import json
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wattshift_cluster.api import jobfields
from wattshift_cluster.api.bodies import load_documents
from wattshift_cluster.api.jobmodels import BatchJob, ServiceJob
from wattshift_cluster.api.jobspec import job_schema, parse_job, parse_jobs
from wattshift_cluster.api.tokens import rfc3339
from wattshift_cluster.config import blueprint
from wattshift_cluster.config.credentials import hidden
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_scheduler.jobs import PowerStep, Rule

BATCH: dict[str, Any] = {
    "kind": "batch",
    "name": "embed",
    "callable": "pkg.mod:fn",
    "input": "/in.jsonl",
    "output": "/out",
    "watts": "60W",
}
SERVICE: dict[str, Any] = {
    "kind": "service",
    "name": "chat",
    "import_path": "pkg.mod:app",
    "watts_per_replica": "0.3kW",
}
FULL: dict[str, Any] = {
    **SERVICE,
    "id": "chat-1",
    "args": {"model": "small", "layers": [1, 2]},
    "tenant": "research",
    "priority": -3,
    "labels": {"region": "!north"},
    "gpu_type": "H100",
    "gpus": 2,
    "num_cpus": 4,
    "env": {"N": 4, "MODE": "fast"},
    "value": 2.5,
    "flexibility": 2,
    "power_steps": [
        {"watts": "200W", "throughput": 0.8},
        {"watts": "250W", "throughput": "95%"},
    ],
    "learn_watts": True,
    "min_replicas": 2,
    "max_replicas": 5,
    "slo_p95": "500ms",
    "slo_ttft_p95": "800ms",
    "slo_itl_p95": "40ms",
    "scaling": "external",
    "healthy_within": "10m",
}


def faults(raw: object, source: str = "job.yaml") -> list[Fault]:
    with pytest.raises(ConfigInvalid) as caught:
        parse_job(raw, source)
    return [fault for fault in caught.value.faults if isinstance(fault, Fault)]


def test_a_service_says_everything_in_base_units() -> None:
    job = parse_job(FULL, "job.yaml")
    assert job.id == "chat-1"
    assert job.to_spec() == {
        "kind": "service",
        "name": "chat",
        "tenant": "research",
        "priority": -3,
        "labels": {"region": "!north", "ray.io/accelerator-type": "H100"},
        "gpus": 2.0,
        "num_cpus": 4.0,
        "env": {"N": "4", "MODE": "fast"},
        "value_usd_per_h": 2.5,
        "flexibility": 2,
        "import_path": "pkg.mod:app",
        "args": {"model": "small", "layers": [1, 2]},
        "watts_per_replica_w": 300.0,
        "power_steps": [
            {"watts_w": 250.0, "throughput": 0.95},
            {"watts_w": 200.0, "throughput": 0.8},
        ],
        "learn_watts": True,
        "min_replicas": 2,
        "max_replicas": 5,
        "slo_p95_ms": 500.0,
        "slo_ttft_p95_ms": 800.0,
        "slo_itl_p95_ms": 40.0,
        "scaling": "external",
        "hand_over": "none",
        "healthy_within_s": 600.0,
    }


def test_a_batch_job_says_everything_in_base_units() -> None:
    raw = {
        **BATCH,
        "workers": 4,
        "gang": True,
        "min_run": "10m",
        "pause_within": "1m",
        "item_attempts": 5,
        "format": "csv",
        "python_path": ["/code"],
        "deadline": "2h",
        "gpus": 0.5,
    }
    spec = parse_job(raw, "job.yaml").to_spec()
    assert 7190 < spec.pop("deadline_at_s") - time.time() <= 7200
    assert spec.pop("deadline_in_s") == 7200.0, "as it was given"
    assert spec == {
        "kind": "batch",
        "name": "embed",
        "tenant": "default",
        "priority": 0,
        "labels": {},
        "gpus": 0.5,
        "num_cpus": 0.1,
        "env": {},
        "value_usd_per_h": 0.0,
        "flexibility": 0,
        "callable": "pkg.mod:fn",
        "input": "/in.jsonl",
        "format": "csv",
        "output": "/out",
        "watts_w": 60.0,
        "workers": 4,
        "gang": True,
        "chunk_items": 64,
        "min_run_s": 600.0,
        "pause_within_s": 60.0,
        "item_attempts": 5,
        "python_path": ["/code"],
    }


def test_the_core_takes_a_job_on_its_terms() -> None:
    job = blueprint.job_of("chat-1", parse_job(FULL, "f").to_spec(), 0.0)
    terms = job.terms
    assert (terms.tenant, terms.priority, terms.gpus, terms.flexibility) == ("research", -3, 2, 2)
    assert terms.selector == (("ray.io/accelerator-type", "H100"), ("region", "!north"))
    assert terms.steps == (PowerStep(250.0, 0.95), PowerStep(200.0, 0.8))
    assert (terms.slo_ttft_p95_ms, terms.slo_itl_p95_ms) == (800.0, 40.0)
    assert (job.unit_w, job.min_units, job.max_units, job.slo_p95_ms) == (300.0, 2, 5, 500.0)
    gang = {**BATCH, "workers": 4, "gang": True, "min_run": "10m"}
    batch = blueprint.job_of("b", parse_job(gang, "f").to_spec(), 0.0)
    assert (batch.max_units, batch.terms.gang, batch.terms.min_run_s) == (4, True, 600.0)


def test_a_command_is_words_or_text() -> None:
    raw = {key: value for key, value in BATCH.items() if key != "callable"}
    for command in (["python", "score.py", "a b"], "python score.py 'a b'"):
        spec = parse_job({**raw, "command": command}, "f").to_spec()
        assert spec["command"] == ["python", "score.py", "a b"]
        assert "callable" not in spec


@pytest.mark.parametrize(
    ("base", "changes", "path", "says"),
    [
        (BATCH, {"wats": "60W"}, "wats", "did you mean watts?"),
        (BATCH, {"slo_p95": "1s"}, "slo_p95", "it is one of service"),
        (SERVICE, {"deadline": "1h"}, "deadline", "it is one of batch"),
        (BATCH, {"command": "a"}, "", "one of callable"),
        (BATCH, {"callable": None}, "", "one of callable"),
        (BATCH, {"callable": None, "command": []}, "command", "at least 1"),
        (BATCH, {"callable": None, "command": "a 'b"}, "command", "cannot be split"),
        (BATCH, {"workers": 0}, "workers", "allowed: 1 to 1000"),
        (BATCH, {"format": "xml"}, "format", "parquet"),
        (BATCH, {"min_run": "-1s"}, "min_run", "allowed: 0s to 30d"),
        (BATCH, {"item_attempts": 0}, "item_attempts", "allowed: 1 to 20"),
        (BATCH, {"gpus": 1.5}, "gpus", "not whole"),
        (BATCH, {"gpus": -1}, "gpus", "allowed: 0 to 64"),
        (BATCH, {"priority": 1001}, "priority", "-1000 to 1000"),
        (BATCH, {"flexibility": 4}, "flexibility", "0 to 3"),
        (BATCH, {"tenant": "a b"}, "tenant", "not a name"),
        (BATCH, {"id": "-x"}, "id", "not a name"),
        (BATCH, {"id": "site"}, "id", "taken"),
        (BATCH, {"labels": {"a b": "c"}}, "labels", "no key of a Ray label"),
        (BATCH, {"labels": {"a": "in(b,c)"}}, "labels", "!H100"),
        (BATCH, {"env": {"1A": "x"}}, "env", "no name of a variable"),
        (BATCH, {"env": {"WATTSHIFT_GATE_DIR": "x"}}, "env", "set by wattshift"),
        (BATCH, {"env": {"A": True}}, "env.A", "quotes"),
        (BATCH, {"env": {f"A{n}": "x" for n in range(65)}}, "env", "at most 64"),
        (BATCH, {"gpu_type": "A100", "labels": {"ray.io/accelerator-type": "L4"}}, "", "differ"),
        (SERVICE, {"serve_app": {"import_path": "a:b"}}, "", "one of import_path"),
        (SERVICE, {"import_path": None}, "", "one of import_path"),
        (SERVICE, {"import_path": None, "serve_app": {"name": "x"}}, "", "no import_path"),
        (SERVICE, {"serve_config": "s.yaml"}, "", "send it as serve_app"),
        (SERVICE, {"import_path": "a.b"}, "import_path", "package.module:name"),
        (SERVICE, {"args": {"big": "x" * 300_000}}, "args", "allowed: up to 256 KiB"),
        (SERVICE, {"power_steps": [{"wats": 1}]}, "power_steps[0].wats", "did you mean watts?"),
        (SERVICE, {"power_steps": [{"watts": 1}]}, "power_steps[0].throughput", "missing"),
        (SERVICE, {"power_steps": [{"watts": 99, "throughput": 95}]},
         "power_steps[0].throughput", "95% or 0.95"),
        (SERVICE, {"power_steps": [{"watts": 300, "throughput": 1}]}, "", "watts_per_replica"),
        (SERVICE, {"power_steps": [{"watts": 200, "throughput": 0.5},
                                   {"watts": 100, "throughput": 0.6}]}, "", "keeps more"),
        (SERVICE, {"min_replicas": 2}, "", "above max_replicas"),
        (SERVICE, {"scaling": "magic"}, "scaling", "external"),
        (SERVICE, {"hand_over": "yes"}, "hand_over", "sleep"),
        (SERVICE, {"hand_over": "sleep", "learn_watts": True}, "", "do not go together"),
        (SERVICE, {"kind": "serivce"}, "kind", "not a kind of job"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(
    base: dict[str, Any], changes: dict[str, Any], path: str, says: str
) -> None:
    found = {fault.path: fault.message for fault in faults({**base, **changes})}
    assert says in found.get(path, ""), found


def test_every_fault_is_found_and_every_job_of_a_file_looked_at() -> None:
    wrong = {**BATCH, "watts": "-1W", "worker": 2}
    with pytest.raises(ConfigInvalid) as caught:
        parse_jobs([BATCH, wrong, {**SERVICE, "gpus": 1.5}, "text"], "night.yaml")
    text = str(caught.value)
    assert "night.yaml (job 2): watts = -1W" in text
    assert "night.yaml (job 2): worker = 2: unknown key; did you mean workers?" in text
    assert "night.yaml (job 3): gpus" in text
    assert "night.yaml (job 4): must be a table" in text
    assert "job 1" not in text


def test_an_id_given_twice_in_a_file_is_a_fault() -> None:
    twice = [{**BATCH, "id": "a"}, {**BATCH, "id": "b"}, {**SERVICE, "id": "a"}]
    with pytest.raises(ConfigInvalid, match="id = a: given to more than one job"):
        parse_jobs(twice, "night.yaml")
    with pytest.raises(ConfigInvalid, match="holds 0 jobs"):
        parse_jobs([], "night.yaml")


def test_no_error_shows_what_may_be_a_credential() -> None:
    app = {"import_path": "m:a", "runtime_env": {"env_vars": {"KEY": "hush"}}}
    for changes in (
        {"env": {"A": ["hush"]}},
        {"env": {"bad name": "hush"}},
        {"env": "A=hush"},
        {"args": "hush"},
        {"serve_app": [app]},
        {"serve_app": app, "import_path": "a:b"},
        {"envs": {"HF_TOKEN": "hush"}},
        {"hf_token": "hush"},
    ):
        with pytest.raises(ConfigInvalid) as caught:
            parse_job({**SERVICE, **changes}, "f")
        assert "hush" not in str(caught.value), changes


@pytest.mark.parametrize("inner", [lambda tree: {"a": tree}, lambda tree: [tree]])
def test_no_tree_is_too_deep_for_what_walks_it(inner: Any) -> None:
    tree: Any = "leaf"
    for _ in range(jobfields.TREE_DEPTH_MAX - 1):
        tree = inner(tree)
    body = {**SERVICE, "import_path": "a.b:c", "args": {"a": tree}}
    hidden(parse_job(body, "body").to_spec())
    with pytest.raises(ConfigInvalid, match="tables within tables; allowed: 32"):
        parse_job({**body, "args": {"a": inner(tree)}}, "body")


def test_the_page_about_jobs_tells_every_key_and_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()
    keys = {key for model in (BatchJob, ServiceJob) for key in model.model_fields}
    untold = {"kind", "serve_app"}  # the word itself, and what `serve_config` becomes
    words = keys - untold | {rule.value for rule in Rule}
    assert sorted(word for word in words if f"`{word}`" not in page) == []


def test_the_schema_describes_what_is_taken() -> None:
    schema = job_schema()
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema)
    command = {**BATCH, "command": "python score.py"}
    del command["callable"]
    for job in (BATCH, SERVICE, FULL, command, {"kind": "mining", "devices": ["*"]}):
        assert valid.is_valid(job), json.dumps(job)
    assert not valid.is_valid({**BATCH, "wats": 1})


def test_a_time_is_kept_as_a_time_and_nothing_else() -> None:
    at = rfc3339(time.time() + 3600)
    for deadline in (at, datetime.fromisoformat(at)):
        spec = parse_job({**BATCH, "deadline": deadline}, "f").to_spec()
        assert "deadline_in_s" not in spec
        assert abs(spec["deadline_at_s"] - time.time() - 3600) < 30


def test_two_services_of_a_file_answer_at_two_paths() -> None:
    app = {"import_path": "a.b:app", "route_prefix": f"/{SERVICE['name']}/"}
    same = {**SERVICE, "name": "other", "import_path": None, "serve_app": app}
    assert len(parse_jobs([SERVICE, {**SERVICE, "name": "other"}], "f")) == 2
    for second in (SERVICE, same):
        with pytest.raises(ConfigInvalid, match="more than one service of the file"):
            parse_jobs([SERVICE, second], "f")


@pytest.mark.parametrize(
    "text",
    [
        "&a\nkind: batch\nname: x\nenv: *a\n",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghijklmnopq")
        ),
    ],
    ids=["itself", "a billion times"],
)
def test_a_file_that_says_one_thing_without_end_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match="it holds itself, or more than 100,000 values"):
        load_documents(path)
