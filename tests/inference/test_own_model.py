"""The examples as a user meets them: the own model without Ray, and every job file."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from wattshift_cluster.api.jobspec import parse_job
from wattshift_cluster.gate import GATE_DIR_VARIABLE

ROOT = Path(__file__).parents[2]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Request:
    """What Serve hands to a replica, as far as the example looks at it."""

    def __init__(self, document: Any) -> None:
        self.document = document

    async def json(self) -> Any:
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


@pytest.fixture(scope="module")
def triage() -> Any:
    return example("own_model").Triage()


@pytest.mark.parametrize(
    ("text", "team"),
    [
        ("you charged my card two times", "billing"),
        ("ALL requests time out!", "outage"),
        ("cannot log in to my account", "account"),
    ],
)
def test_tickets_that_it_has_not_seen_get_to_their_team(triage: Any, text: str, team: str) -> None:
    answer = asyncio.run(triage(Request({"text": text})))
    assert answer["team"] == team
    assert 1 / 3 < answer["share"] <= 1


def test_unknown_words_are_an_even_guess_and_a_bad_body_is_told(triage: Any) -> None:
    assert triage.label("zzz")["share"] == pytest.approx(1 / 3, abs=0.001)
    for wrong in ({}, {"text": 3}, [], ValueError("no JSON")):
        answer = asyncio.run(triage(Request(wrong)))
        assert answer.status_code == 400


def test_the_job_files_are_valid() -> None:
    found = {}
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        for raw in yaml.safe_load_all(path.read_text()):
            if isinstance(raw, dict) and "kind" in raw:
                found[path.name] = parse_job(raw, path.name).to_spec()
    assert found["own-model.yaml"]["slo_p95_ms"] == 300
    assert found["llm-service.yaml"]["hand_over"] == "sleep"
    assert found["llm-service.yaml"]["slo_ttft_p95_ms"] == 800


def test_the_examples_can_be_imported_without_ray() -> None:
    """Their modules are read where Ray is not: in editors, in checks, at a submission."""
    code = (
        "import sys, importlib\n"
        "sys.modules['ray'] = None\n"
        "for name in ('own_model', 'llm_service', 'serve_busy'):\n"
        "    importlib.import_module(f'examples.{name}')\n"
    )
    env = {"PATH": "", GATE_DIR_VARIABLE: ""}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True, timeout=60)


def test_ray_takes_the_settings_of_the_language_model() -> None:
    """As far as that goes without vLLM: the names and kinds of LLMConfig's values."""
    configs = pytest.importorskip(
        "ray.llm._internal.serve.core.configs.llm_config", exc_type=ImportError
    )
    raw = yaml.safe_load((ROOT / "examples" / "llm-service.yaml").read_text())
    settings = example("llm_service").settings(raw["args"])
    config = configs.LLMConfig(**settings)
    assert config.model_id == "qwen"
    assert config.accelerator_config.kind == "gpu"
    assert set(settings) <= set(configs.LLMConfig.model_fields)
    with pytest.raises(ValueError, match="H999"):
        configs.LLMConfig(**{**settings, "accelerator_type": "H999"})
