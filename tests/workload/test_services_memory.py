"""What a bridge remembers of its services, and what it takes before there is a Ray."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.errors import NotFound
from wattshift_cluster.workload.serving.service import Plan
from wattshift_cluster.workload.serving.services import EVICT_ORDERS_MAX, Services
from wattshift_cluster.workload.specs import service_spec

SPEC = service_spec(
    "s",
    {
        "name": "embed",
        "serve_app": {"import_path": "m:app", "deployments": [{"name": "M"}]},
        "watts_per_replica_w": 60,
        "labels": {"gpu": "H100"},
        "env": {"A": "1"},
        "args": {"n": 1},
        "slo_p95_ms": 200,
    },
)


def services(folder: Path) -> Services:
    return Services("127.0.0.1", 8000, None, folder / "services.json")


def test_a_specification_comes_back_as_it_was_so_that_nothing_is_deployed_anew(
    tmp_path: Path,
) -> None:
    one = services(tmp_path)
    one.set_target("s", SPEC, 2, {"n0": 2})
    known = one._services["s"]
    known.plan = Plan("M", 60.0, {"M": 60.0}, "policy", None, "M", "/embed", tells=True)
    known.held = True
    one.remember("cluster")
    again = services(tmp_path)
    again.recover("cluster")
    found = again._services["s"]
    assert (found.spec, found.target, found.plan, found.held) == (SPEC, 2, known.plan, True)
    again.set_target("s", SPEC, 3)
    assert not found.redeploy
    again.set_target("s", replace(SPEC, num_cpus=1), 3)
    assert found.redeploy


def test_a_failure_is_remembered_until_the_specification_changes(tmp_path: Path) -> None:
    one = services(tmp_path)
    one.set_target("s", SPEC, 1)
    one._services["s"].fail("no weights")
    one._services["s"].fail("what came of that")
    one.remember("cluster")
    again = services(tmp_path)
    again.recover("cluster")
    again.set_target("s", SPEC, 1)
    row: dict[str, Any] = again.report()[0]
    assert (row["state"], row["error"]) == ("failed", "no weights")
    again.set_target("s", replace(SPEC, args={"n": 2}), 1)
    assert again.report()[0]["state"] == "starting"


@pytest.mark.parametrize("text", ["", "[]", '{"cluster": "cluster", "services": {"s": {}}}'])
def test_a_memory_of_another_cluster_or_of_another_release_is_none(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "services.json").write_text(text)
    one = services(tmp_path)
    one.recover("cluster")
    assert one.names() == frozenset()
    one.set_target("s", SPEC, 1)
    one.remember("cluster")
    other = services(tmp_path)
    other.recover("elsewhere")
    assert other.names() == frozenset()
    assert json.loads((tmp_path / "services.json").read_text())["cluster"] == "cluster"


def test_evictions_are_of_known_services_and_bounded(tmp_path: Path) -> None:
    one = services(tmp_path)
    with pytest.raises(NotFound, match="no service s"):
        one.evict("s", "n0", 1)
    one.set_target("s", SPEC, 1)
    for _ in range(EVICT_ORDERS_MAX + 5):
        one.evict("s", "n0", 1)
    assert len(one._orders) == EVICT_ORDERS_MAX


def test_a_service_that_nobody_knows_yet_tells_unknown_and_not_zero(tmp_path: Path) -> None:
    one = services(tmp_path)
    one.set_target("s", SPEC, 1)
    (row,) = one.report()
    unknown = ("desired", "ongoing", "queued", "p95_ms", "ttft_p95_ms", "itl_p95_ms", "rate_per_s")
    assert [row[key] for key in unknown] == [None] * len(unknown)
    assert row["by_node"] == {}
    assert row["url"] == "http://127.0.0.1:8000/embed"
