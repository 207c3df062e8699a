"""The chart: what it renders is valid, safe and read by our loaders; wrong values are refused."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from tests.helm import raycluster

from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.fields import Section
from wattshift_cluster.config.load import load_agent, load_site
from wattshift_cluster.config.site import SiteConfig

CHART = Path(__file__).parents[2] / "helm" / "wattshift"
KUBERNETES = "1.34.0"
Values = dict[str, Any]
Objects = list[dict[str, Any]]


FULL: Values = {
    "site": {
        "site": {"name": "barn", "margin_pct": 3, "other_load": "500W"},
        "feeders": [
            {"name": "main", "limit": "20kW"},
            {"name": "rack", "parent": "main", "amps": 32, "phases": 3, "min_voltage": 218},
        ],
        "agents": [{"name": "node-a", "address": "10.0.0.11:7401", "feeder": "rack"}],
        "meter": {"url": "http://meter.local/v1/power"},
        "grid": {"schedule": "schedule.csv", "default_price_usd_per_mwh": -3.5},
        "mining": {"devices": ["*"]},
        "market": {
            "prices": [{"name": "day-ahead", "file": "day.csv", "table": {"where": {"hub": "h"}}}]
        },
        "drills": [
            {"name": "weekly", "days": ["tue"], "at": "14:00", "duration": "10m", "shed": "2kW"}
        ],
        "utility": {
            "modbus": {"listen": "10.0.0.5:502", "peers": ["10.0.0.0/28"], "fallback": "4kW"}
        },
        "tenants": [{"name": "research", "weight": 2, "quota": "1kW", "borrow": False}],
        "services": [
            {
                "name": "embed",
                "import_path": "wattshift_cluster.inference.app:app",
                "watts_per_replica": "60W",
                "min_replicas": 1,
                "max_replicas": 4,
            }
        ],
    },
    "files": {"schedule.csv": "starts,ends,limit,kind\n"},
    "agent": {
        "powerControl": {"enabled": True},
        "gpu": {"enabled": True},
        "consentSecret": "consent",
        "config": {
            "hashing": {"devices": "auto", "nice": 10},
            "gpu": {"strangers": "when_quiet", "steady": "450W"},
            "servers": [
                {
                    "name": "chat",
                    "kind": "vllm",
                    "url": "http://chat:8000/metrics",
                    "devices": ["node-a-gpu0"],
                    "period": "1s",
                }
            ],
            "pool": {"url": "stratum+tcp://127.0.0.1:3333", "user": "barn"},
            "asics": [{"id": "rig-1", "address": "10.0.0.20", "nameplate": "3kW"}],
        },
    },
    "ray": {
        "queueName": "ai",
        "compute": {
            "nodes": [
                {"name": "ray", "feeder": "main", "max": 0},
                {
                    "name": "node-a",
                    "feeder": "rack",
                    "max": "2kW",
                    "gpus": 8,
                    "labels": {"ray.io/accelerator-type": "H100"},
                },
            ]
        },
    },
    "imagePullSecrets": [{"name": "registry"}],
}
LEAN: Values = {
    "agent": {"enabled": False},
    "ray": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False},
    "controller": {"persistence": {"enabled": False}},
}
CASES = [
    pytest.param({}, id="default"),
    pytest.param(FULL, id="full"),
    pytest.param(LEAN, id="lean"),
]


class Refused(Exception):
    """Helm refused the values; the text is its reason."""


def _render_with_command(values: Values) -> str:
    done = subprocess.run(
        ["helm", "template", "site", str(CHART), "--namespace", "power", "--values", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def _render_with_library(values: Values) -> str:
    from helm_python.chart import Chart
    from helm_python.errors import HelmError

    try:
        files = Chart.load(CHART).render(values, name="site", namespace="power")
    except HelmError as error:
        raise Refused(str(error)) from error
    return "\n---\n".join(text for name, text in files.items() if name.endswith(".yaml"))


@pytest.fixture(scope="session")
def render() -> Callable[[Values], Objects]:
    """Render the chart with Helm itself, as a command or as a library."""
    if shutil.which("helm"):
        engine = _render_with_command
    elif find_spec("helm_python"):
        engine = _render_with_library
    else:
        pytest.skip("neither helm on PATH nor helm-python-sdk installed")
    return lambda values: [one for one in yaml.safe_load_all(engine(values)) if one]


def pod_specs(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod specification with the name of its owner."""
    for one in objects:
        spec = one.get("spec", {})
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, spec
        elif one["kind"] == "RayCluster":
            for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
                yield f"{name}/{group.get('groupName', 'head')}", group["template"]["spec"]
        elif "template" in spec:
            yield name, spec["template"]["spec"]


def named(objects: Objects, kind: str, suffix: str = "") -> dict[str, Any]:
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [one["metadata"]["name"] for one in found]
    return found[0]


@pytest.mark.parametrize("values", CASES)
def test_every_object_is_valid(render: Callable[[Values], Objects], values: Values) -> None:
    validate = pytest.importorskip("kubernetes_validate").utils.validate
    objects = render(values)
    for one in objects:
        if one["kind"] != "RayCluster":
            validate(one, KUBERNETES, strict=True)
            continue
        Draft202012Validator(raycluster.SCHEMA).validate(one)
        groups = [one["spec"]["headGroupSpec"], *one["spec"]["workerGroupSpecs"]]
        for group in groups:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "x"},
                **group["template"],
            }
            validate(pod, KUBERNETES, strict=True)


def test_the_objects_that_the_default_brings(render: Callable[[Values], Objects]) -> None:
    kinds = [one["kind"] for one in render({})]
    for kind in (
        "Deployment",
        "DaemonSet",
        "RayCluster",
        "PersistentVolumeClaim",
        "ServiceAccount",
    ):
        assert kinds.count(kind) == 1, kind
    assert "NetworkPolicy" in kinds
    assert "PodDisruptionBudget" in kinds
    assert "Secret" not in kinds, "the chart never makes a secret"
    lean = {one["kind"] for one in render(LEAN)}
    assert lean == {"ConfigMap", "Deployment", "Service", "Pod"}


def test_the_raycluster_schema_bites(render: Callable[[Values], Objects]) -> None:
    cluster = named(render({}), "RayCluster")
    worker = cluster["spec"]["workerGroupSpecs"][0]
    worker["groupNam"] = worker.pop("groupName")
    errors = list(Draft202012Validator(raycluster.SCHEMA).iter_errors(cluster))
    assert len(errors) == 2


@pytest.mark.parametrize("values", CASES)
def test_our_own_loaders_read_what_is_rendered(
    render: Callable[[Values], Objects], values: Values, tmp_path: Path
) -> None:
    objects = render(values)
    for key, text in named(objects, "ConfigMap", "-site")["data"].items():
        (tmp_path / key).write_text(text)
    site = load_site(tmp_path / "site.toml", environ={})
    assert (site.compute is not None) == any(o["kind"] == "RayCluster" for o in objects)
    if values is FULL:
        assert site.feeders[1].limit_w == pytest.approx(32 * 3 * 218 * 0.95)
        assert site.agents[0].token_file == Path("/run/wattshift/agent-token")
        assert site.grid.schedule == tmp_path / "schedule.csv"
        assert site.grid.default_price_usd_per_mwh == -3.5
    if values is not LEAN:
        text = named(objects, "ConfigMap", "-agent")["data"]["agent.toml"]
        (tmp_path / "agent.toml").write_text(text)
        environ = {"WATTSHIFT_AGENT__NAME": "node-a.local"}
        agent = load_agent(tmp_path / "agent.toml", environ=environ)
        assert agent.agent.name == "node-a.local"
        assert (agent.agent.consent_file is not None) == (values is FULL)


@pytest.mark.parametrize("values", CASES)
def test_nothing_gets_more_rights_than_it_needs(
    render: Callable[[Values], Objects], values: Values
) -> None:
    for name, spec in pod_specs(render(values)):
        assert spec["automountServiceAccountToken"] is False, name
        assert not spec.get("hostNetwork"), name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            where = f"{name}/{container['name']}"
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"]["drop"] == ["ALL"], where
            assert not security.get("privileged"), where
            added = set(security["capabilities"].get("add", []))
            assert added <= {"CHOWN", "FOWNER", "SYS_ADMIN"}, where
            if "DaemonSet" not in name:
                assert not added, where
        if "DaemonSet" not in name:
            assert spec["securityContext"]["runAsNonRoot"] is True, name


def test_power_control_alone_brings_root_and_sys_admin(render: Callable[[Values], Objects]) -> None:
    def agent(values: Values) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = named(render(values), "DaemonSet")["spec"]["template"]["spec"]
        return spec["securityContext"], spec["containers"][0]["securityContext"]["capabilities"]

    pod, rights = agent({})
    assert (pod["runAsUser"], pod["runAsNonRoot"], rights) == (10001, True, {"drop": ["ALL"]})
    pod, rights = agent({"agent": {"powerControl": {"enabled": True}}})
    assert pod["runAsUser"] == 0
    assert rights == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}


def test_an_agent_with_gpus_knows_the_processes_of_its_node(
    render: Callable[[Values], Objects],
) -> None:
    for enabled in (True, False):
        objects = render({"agent": {"gpu": {"enabled": enabled}}})
        (agent,) = (one for one in objects if one["kind"] == "DaemonSet")
        assert agent["spec"]["template"]["spec"].get("hostPID", False) is enabled


def test_each_program_takes_the_arguments_it_is_given(render: Callable[[Values], Objects]) -> None:
    programs = 0
    for name, spec in pod_specs(render({})):
        for container in spec["containers"]:
            command = container.get("command", [])
            if command[:2] != ["python", "-m"]:
                continue
            programs += 1
            told = subprocess.run(
                [sys.executable, *command[1:], "--help"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
            options = [one.split("=")[0] for one in container["args"] if one.startswith("--")]
            assert options
            assert [one for one in options if f"{one} " not in told.replace("]", " ")] == [], name
    assert programs == 3


def test_there_is_one_writer(render: Callable[[Values], Objects]) -> None:
    spec = named(render({}), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_ray_starts_without_a_watt(render: Callable[[Values], Objects]) -> None:
    spec = named(render({}), "RayCluster")["spec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        resources = json.loads(json.loads(group["rayStartParams"]["resources"]))
        assert resources == {"power_w": 0}


def test_services_select_pods_that_exist(render: Callable[[Values], Objects]) -> None:
    objects = render(FULL)
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] in SETS]
    cluster = named(objects, "RayCluster")["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    labels += [group["template"]["metadata"]["labels"] for group in groups]
    policies = [
        o["spec"]["podSelector"]["matchLabels"]
        for o in objects
        if "podSelector" in o.get("spec", {})
    ]
    services = [one["spec"]["selector"] for one in objects if one["kind"] == "Service"]
    for selector in [*policies, *services]:
        assert any(selector.items() <= pod.items() for pod in labels), selector


SETS = ("Deployment", "DaemonSet")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sight": {}}, "sight"),
        ({"site": {"site": {"tik": "1s"}}}, "tik"),
        ({"site": {"site": {"name": "a b"}}}, "name"),
        ({"site": {"site": {"margin_pct": 60}}}, "margin_pct"),
        ({"site": {"feeders": []}}, "feeders"),
        ({"site": {"feeders": [{"name": "main", "limit": "-1kW"}]}}, "limit"),
        ({"site": {"feeders": [{"name": "main", "limit": "1kw"}]}}, "limit"),
        ({"site": {"feeders": [{"name": "main"}]}}, "feeders"),
        ({"site": {"feeders": [{"name": "m", "limit": 1, "amps": 1}]}}, "feeders"),
        ({"site": {"agents": [{"name": "a", "address": "here", "feeder": "m"}]}}, "address"),
        ({"agent": {"port": 70000}}, "port"),
        ({"agent": {"powerControl": {"enabled": "yes"}}}, "enabled"),
        ({"agent": {"config": {"hashing": {"devices": "gpu"}}}}, "devices"),
        ({"controller": {"persistence": {"size": "2 GB"}}}, "size"),
        ({"controller": {"replicas": 2}}, "replicas"),
        ({"tokens": {"existingSecret": ""}}, "existingSecret"),
        ({"ray": {"workerGroups": [{"groupName": "a"}]}}, "replicas"),
        ({"ray": {"enabled": False}, "site": FULL["site"]}, "ray.enabled"),
    ],
)
def test_wrong_values_are_refused(
    render: Callable[[Values], Objects], values: Values, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        render(values)


def test_nodes_are_known_by_the_names_of_the_site_file(render: Callable[[Values], Objects]) -> None:
    objects = render(FULL)
    (group,) = named(objects, "RayCluster")["spec"]["workerGroupSpecs"]
    env = group["template"]["spec"]["containers"][0]["env"]
    assert {"fieldRef": {"fieldPath": "spec.nodeName"}} in [one.get("valueFrom") for one in env]
    site = tomllib.loads(named(objects, "ConfigMap", "-site")["data"]["site.toml"])
    assert [node["name"] for node in site["compute"]["nodes"]] == ["ray", "node-a"]
    assert not {"feeder", "max", "idle"} & set(site["compute"]), "each node has its own"
    (plain,) = named(render({}), "RayCluster")["spec"]["workerGroupSpecs"]
    assert set(plain["rayStartParams"]) == {"resources"}
    assert "args" not in plain["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("node", ["node-a", "ip-10-0-0-7.ec2.internal", "1234"])
def test_ray_starts_with_the_node_s_name_as_kuberay_starts_it(
    render: Callable[[Values], Objects], tmp_path: Path, node: str
) -> None:
    """The shell line that KubeRay 1.7.0 makes of a group (BuildPod), with a `ray` that tells."""
    (group,) = named(render(FULL), "RayCluster")["spec"]["workerGroupSpecs"]
    container, params = group["template"]["spec"]["containers"][0], group["rayStartParams"]
    words = " ".join(f" {word} " for word in container["args"])
    flags = " ".join(f" --{key}={params[key]} " for key in sorted(params))
    line = f"{words} && ulimit -n ${{NO_SUCH_LIMIT:-64}}; ray start {flags}"
    labels = tmp_path / "labels.yaml"
    line = line.replace(params["labels-file"], str(labels))
    ray = tmp_path / "ray"
    ray.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    ray.chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", "-c", "--", line],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "WATTSHIFT_NODE": node},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    start, labels_flag, resources = done.stdout.splitlines()
    assert (start, labels_flag) == ("start", f"--labels-file={labels}")
    assert json.loads(resources.removeprefix("--resources=")) == {"power_w": 0}
    assert yaml.safe_load(labels.read_text()) == {"wattshift.io/node": node}


def keys(model: type[Section]) -> dict[str, set[str]]:
    """The keys of each section of a file, as they stand in it."""
    schema = model.model_json_schema(by_alias=True)
    found: dict[str, set[str]] = {}
    for key, one in schema["properties"].items():
        reference = json.dumps(one).split("#/$defs/")[1].split('"')[0]
        found[key] = set(schema["$defs"][reference]["properties"])
    return found


def test_the_values_schema_knows_the_keys_of_our_files() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    filled = {"state_dir", "token_file", "config"}
    for model, part, own in (
        (SiteConfig, schema["site"], {"api", "compute"}),
        (AgentConfig, schema["agent"]["properties"]["config"], {"agent"}),
    ):
        ours = keys(model)
        assert set(part["properties"]) == set(ours) - own
        for key, section in part["properties"].items():
            rows = section.get("items", section)
            assert set(rows["properties"]) == ours[key] - filled, key


def test_the_chart_s_version_is_the_project_s() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]
    locked = (CHART.parents[1] / "requirements.lock").read_text()
    ray = yaml.safe_load((CHART / "values.yaml").read_text())["ray"]["version"]
    assert f"\nray=={ray} " in locked


def test_helm_lint_has_nothing_to_say() -> None:
    chart = pytest.importorskip("helm_python.chart")
    found = chart.lint(str(CHART), strict=True)
    assert (found["errors"], found["messages"]) == ([], [])
