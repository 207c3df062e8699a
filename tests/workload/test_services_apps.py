"""Watts and scaling laid into applications, and what is said of one that cannot be built."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.workload import fault_words
from wattshift_cluster.workload.cluster.ray_link import internal
from wattshift_cluster.workload.serving.app_watts import (
    Asks,
    Part,
    autoscaling,
    bearing,
    hook,
    laid_in,
)
from wattshift_cluster.workload.serving.builds import request
from wattshift_cluster.workload.specs import service_spec

ASKS = Asks(100.0, 0.1, env={"A": "1", "B": "1"})
SPEC: dict[str, Any] = {"name": "x", "import_path": "m:app", "watts_per_replica_w": 100.0}


def test_deployments_with_gpus_get_the_watts_else_the_ingress() -> None:
    front, back, big = Part("front"), Part("back"), Part("big", {"num_gpus": 2})
    bundled = Part("tp", bundles=[{"CPU": 1}, {"GPU": 1.0}])
    assert bearing([back, front], "front") == ["front"]
    assert bearing([front, big, bundled], "front") == ["big", "tp"]
    own = Part("own", {"resources": {"power_w": 40}})
    assert bearing([own, front], "front") == ["front", "own"]


def test_what_the_author_wrote_stays() -> None:
    part = Part(
        "m",
        {
            "num_gpus": 0.5,
            "resources": {"power_w": 70, "disk": 1},
            "label_selector": {"zone": "a"},
            "runtime_env": {"pip": ["x"], "env_vars": {"B": "his"}},
        },
    )
    asks = Asks(100.0, 0.1, gpus=2, labels={"zone": "b", "gpu": "H100"}, env={"A": "1", "B": "1"})
    options = laid_in(part, asks, cpus_given=False)["ray_actor_options"]
    assert options["resources"] == {"power_w": 70, "disk": 1}
    assert options["num_gpus"] == 0.5
    assert options["num_cpus"] == 0.1
    assert options["label_selector"] == {"zone": "a", "gpu": "H100"}
    assert options["runtime_env"] == {"pip": ["x"], "env_vars": {"A": "1", "B": "his"}}
    assert "num_cpus" not in laid_in(part, asks, cpus_given=True)["ray_actor_options"]
    assert part.options["resources"] == {"power_w": 70, "disk": 1}, (
        "the author's own is not touched"
    )


def test_a_replica_with_bundles_finds_its_watts_in_the_first() -> None:
    part = Part("tp", bundles=[{"CPU": 1}, {"GPU": 1.0}, {"GPU": 1.0}])
    laid = laid_in(part, ASKS, cpus_given=False)
    assert laid["placement_group_bundles"][0] == {"CPU": 1, "power_w": 100.0}
    assert laid["placement_group_bundles"][1:] == [{"GPU": 1.0}, {"GPU": 1.0}]
    assert laid["ray_actor_options"]["resources"] == {"power_w": 100.0}


def test_the_hook_falls_back_with_the_reason() -> None:
    assert hook("policy", Part("m"), False) == ("policy", None)
    assert hook("external", Part("m"), False) == ("external", None)
    assert hook("policy", Part("m", fixed=True), False)[0] == "external"
    assert "fixes num_replicas" in str(hook("policy", Part("m", fixed=True), False)[1])
    assert "policy of its own" in str(hook("policy", Part("m", own_policy=True), False)[1])
    assert "external_scaler_enabled" in str(hook("policy", Part("m"), True)[1])


def test_the_users_autoscaling_values_are_kept_and_his_delays_act_on_the_wish() -> None:
    user = {"target_ongoing_requests": 7, "downscale_delay_s": 33, "min_replicas": 2}
    found = autoscaling("s", user, least=1, most=4, begin=9, policy="m:P")
    assert found["target_ongoing_requests"] == 7
    assert found["look_back_period_s"] == 1.0
    assert (found["min_replicas"], found["initial_replicas"], found["max_replicas"]) == (0, 1, 4)
    assert (found["upscale_delay_s"], found["downscale_delay_s"]) == (0.0, 0.0)
    kwargs = found["policy"]["policy_kwargs"]
    assert kwargs == {"app": "s", "least": 2, "downscale_delay_s": 33.0}
    assert autoscaling("s", {"look_back_period_s": 30}, 0, 1, 1, "m:P")["look_back_period_s"] == 30


def test_every_fault_of_a_service_is_named() -> None:
    wrong = {
        "import_path": "m",
        "watts_per_replica_w": 0,
        "gpus": -1,
        "labels": {"a": 1},
        "env": ["A=1"],
        "args": "x",
        "max_replicas": 0,
        "scaling": "both",
        "hand_over": "kill",
        "healthy_within_s": float("inf"),
        "num_cpus": "many",
    }
    with pytest.raises(ConfigInvalid) as caught:
        service_spec("x", wrong)
    assert {fault.path for fault in caught.value.faults if not isinstance(fault, str)} == set(wrong)
    with pytest.raises(ConfigInvalid, match="env"):
        service_spec("x", {**SPEC, "env": {f"N{n}": "" for n in range(65)}})
    spec = service_spec("x", {"serve_app": {"import_path": "m:a"}, "watts_per_replica_w": 5})
    assert spec.import_path == ""
    assert spec.scaling == "policy"
    assert not spec.promised
    assert service_spec("x", {**SPEC, "slo_itl_p95_ms": 40}).promised


def test_an_error_is_told_by_its_last_words_and_the_users_line() -> None:
    with pytest.raises(KeyError) as caught:
        exec(compile("def f():\n    raise KeyError('model_id')\nf()", "/home/u/app.py", "exec"))
    words = fault_words.told(caught.value)
    assert words == "KeyError: 'model_id' (/home/u/app.py, line 2, in f)"
    assert fault_words.last_words("one\n\n") == "one"
    assert fault_words.last_words("") == ""
    assert len(fault_words.last_words("x" * 5000)) <= fault_words.WORDS_MAX


SHOP = """
from ray import serve

@serve.deployment
class Back:
    pass

@serve.deployment(ray_actor_options={"num_cpus": 2})
class Front:
    def __init__(self, back): ...

class Typed:
    def wattshift_stats(self): ...

def app(args):
    return Front.bind(Back.bind())

def typed(args: dict):
    return serve.deployment(num_replicas=int(args["replicas"]))(Typed).bind()

bound = serve.deployment(Typed).options(ray_actor_options={"num_gpus": 1}).bind()

def raises(args):
    raise KeyError(args["no"])
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's module, and a Serve that takes what it is given and starts nothing."""
    pytest.importorskip("ray")
    (tmp_path / "wsshop.py").write_text(SHOP)
    (tmp_path / "wsneeds.py").write_text("import wsabsent\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("wsshop", None)


def built(path: str, **more: Any) -> tuple[list[Any], dict[str, Any]]:
    """What would be deployed, and the plan."""
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve._private.build_app import build_app
    from ray.serve.schema import ServeApplicationSchema

    from wattshift_cluster.workload.serving import building

    spec = service_spec("x", {**SPEC, "import_path": path, "env": {"A": "1"}, **more})
    asked = request("job", spec, 2, "/gates")
    schema = None
    if spec.serve_app is not None:
        schema = ServeApplicationSchema.model_validate(spec.serve_app)
        path = schema.import_path
    found = call_user_app_builder_with_args_if_necessary(building.imported(path), dict(spec.args))
    whole = build_app(found, name="job", route_prefix="/x")
    parts = [building._overridden(one, schema) for one in whole.deployments]
    return building._laid(parts, whole.ingress_deployment_name, asked, schema)


def test_an_application_of_two_deployments_gets_watts_at_its_ingress(shop: None) -> None:
    (back, front), plan = built("wsshop:app")
    assert plan["unit"] == "Front"
    assert plan["watts"] == {"Front": 100.0}
    assert plan["hook"] == "policy"
    assert not plan["tells"]
    assert "power_w" not in back.ray_actor_options.get("resources", {})
    assert back.ray_actor_options["runtime_env"]["env_vars"]["A"] == "1"
    assert front.ray_actor_options["resources"] == {"power_w": 100.0}
    assert front.ray_actor_options["num_cpus"] == 2, "the author's own"
    scaling = front._deployment_config.autoscaling_config
    assert scaling.policy.policy_function.endswith("scaling_policy:Clamped")
    assert scaling.initial_replicas == 1
    assert front._deployment_config.graceful_shutdown_wait_loop_s == 0.2
    environment = front.ray_actor_options["runtime_env"]["env_vars"]
    assert environment == {"WATTSHIFT_GATE_DIR": "/gates", "A": "1"}


def test_a_builder_with_arguments_and_fixed_replicas_is_scaled_from_outside(shop: None) -> None:
    (one,), plan = built("wsshop:typed", args={"replicas": "3"})
    assert plan["hook"] == "external"
    assert "fixes num_replicas" in plan["note"]
    assert plan["tells"]
    assert one._deployment_config.num_replicas == 2, "what the core allows to begin with"
    assert one._deployment_config.autoscaling_config is None


def test_a_bound_application_of_a_config_file_is_overridden_as_serve_does(shop: None) -> None:
    app = {
        "import_path": "wsshop:bound",
        "runtime_env": {"env_vars": {"C": "app"}},
        "deployments": [
            {
                "name": "Typed",
                "max_ongoing_requests": 9,
                "autoscaling_config": {"target_ongoing_requests": 5, "min_replicas": 1},
                "ray_actor_options": {"num_gpus": 1, "resources": {"power_w": 70}},
            }
        ],
    }
    (one,), plan = built("", serve_app=app, max_replicas=3)
    assert (plan["unit_w"], plan["hook"]) == (70.0, "policy")
    config = one._deployment_config
    assert config.max_ongoing_requests == 9
    assert config.autoscaling_config.target_ongoing_requests == 5
    assert config.autoscaling_config.max_replicas == 3
    assert config.autoscaling_config.policy.policy_kwargs["least"] == 1
    assert one.ray_actor_options["runtime_env"]["env_vars"]["C"] == "app"
    app["deployments"] = [{"name": "Typo", "max_ongoing_requests": 9}]
    with pytest.raises(ValueError, match="no deployments named Typo"):
        built("", serve_app=app)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("wsnowhere.mod:app", "no module named 'wsnowhere'"),
        ("wsneeds:app", "no module named 'wsabsent'"),
        ("wsshop:nothing", "module 'wsshop' has no 'nothing'"),
        ("wsshop:raises", "KeyError: 'no'"),
        ("wsshop:SHOP_OF_NOBODY", "has no"),
        ("sys:path", "Expected a built Serve application"),
    ],
)
def test_an_application_that_cannot_be_built_says_why(shop: None, path: str, words: str) -> None:
    from wattshift_cluster.workload.serving.building import build

    spec = service_spec("x", {**SPEC, "import_path": path})
    error = build(request("job", spec, 1, None))["error"]
    assert error.startswith(f"{path}: ")
    assert words in error


def test_the_policy_travels_to_a_controller_that_has_no_wattshift(
    shop: None, tmp_path: Path
) -> None:
    from wattshift_cluster.workload.serving.building import POLICY_CLASS

    config = internal("ray.serve.config")
    policy = config.AutoscalingPolicy(policy_function=POLICY_CLASS, policy_kwargs={"app": "s"})
    (tmp_path / "policy").write_bytes(policy.get_serialized_policy_def() or b"")
    packages = Path(pytest.importorskip("ray").__file__).parents[1]
    controller = f"""
import importlib.util, pickle, sys
sys.path.append({str(packages)!r})
assert importlib.util.find_spec("wattshift_cluster") is None
policy = pickle.load(open({str(tmp_path / "policy")!r}, "rb"))("s", threaded=False)
print(policy.clamped(desired=3, target=1))
"""
    # Without site the editable install's paths are not there, as on a foreign node.
    command = [sys.executable, "-S", "-c", controller]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path, timeout=60
    )
    assert done.stdout == "1\n"
