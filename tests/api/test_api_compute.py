"""Compute nodes over HTTP, ids of one's own, refusals for machines, and what /metrics says."""

import math
import sys
from typing import Any

from wattshift_cluster.api.metrics import exposition
from wattshift_cluster.controller.feasible import Infeasible
from wattshift_scheduler.jobs import Admission, Rule, Verdict

BATCH = {
    "kind": "batch",
    "name": "embed",
    "callable": "pkg.mod:fn",
    "input": "in.jsonl",
    "output": "out",
    "watts": "60W",
}


def node_view(name: str, **changes: Any) -> dict[str, Any]:
    view: dict[str, Any] = sys.modules["fakejobs"].node_view(name, **changes)
    return view


def test_nodes_are_listed_for_a_viewer(call: Any, served: Any) -> None:
    served.port.nodes = {"gpu-1": node_view("gpu-1", used_w=None)}
    (node,) = call("GET", "/v1/nodes", "viewer").json()["nodes"]
    assert (node["node"], node["power_w"], node["used_w"]) == ("gpu-1", 900.0, None)
    assert call("GET", "/v1/site", "viewer").json()["compute"] == [node]


def test_only_an_admin_drains_a_node_and_only_one_that_is_there(call: Any, served: Any) -> None:
    served.port.nodes = {"gpu-1": node_view("gpu-1")}
    assert call("POST", "/v1/nodes/gpu-1:drain", "operator").status_code == 403
    assert not served.port.nodes["gpu-1"]["draining"]
    drained = call("POST", "/v1/nodes/gpu-1:drain", "admin")
    assert (drained.status_code, drained.json()["draining"]) == (202, True)
    assert call("POST", "/v1/nodes/gpu-2:drain", "admin").status_code == 404
    assert call("POST", "/v1/nodes/gpu-1:reboot", "admin").status_code == 404
    assert "by admin" in served.port.told[0]["reason"]


def test_only_an_admin_forgets_a_node_and_only_one_that_is_lost(call: Any, served: Any) -> None:
    served.port.nodes = {"gpu-1": node_view("gpu-1"), "gpu-2": node_view("gpu-2", up=False)}
    assert call("POST", "/v1/nodes/gpu-2:forget", "operator").status_code == 403
    assert not served.port.nodes["gpu-2"]["forgotten"]
    gone = call("POST", "/v1/nodes/gpu-2:forget", "admin")
    assert (gone.status_code, gone.json()["forgotten"]) == (202, True)
    assert call("POST", "/v1/nodes/gpu-1:forget", "admin").status_code == 409
    assert call("POST", "/v1/nodes/gpu-9:forget", "admin").status_code == 404
    assert "by admin" in served.port.told[0]["reason"]


def test_an_id_of_ones_own_is_refused_when_a_job_has_it(call: Any) -> None:
    made = call("POST", "/v1/jobs", json={**BATCH, "id": "night"})
    assert (made.status_code, made.json()["id"]) == (201, "night")
    assert "id" not in made.json()["spec"]
    again = call("POST", "/v1/jobs", json={**BATCH, "id": "night"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:wattshift:problem:refused")
    assert "night exists" in again.json()["detail"]


def test_a_refusal_tells_machines_the_rule_and_the_limit(call: Any, served: Any) -> None:
    words = "a unit needs 900 W; the most is 800 W (gpu-1)"
    verdict = Verdict(Admission.DENY, Rule.NODE, words, "gpu-1", 900.0, 800.0)
    served.port.never = Infeasible(verdict)
    never = call("POST", "/v1/jobs", json=BATCH).json()
    assert (never["status"], never["detail"]) == (409, words)
    (row,) = never["errors"]
    assert row["path"] == "node"
    assert row["value"] == '{"bound_by": "gpu-1", "need_w": 900.0, "have_w": 800.0}'
    served.port.never = Infeasible(Verdict(Admission.DENY, Rule.NO_SUCH_NODE, "x", "", 0, math.nan))
    assert '"have_w": null' in call("POST", "/v1/jobs", json=BATCH).json()["errors"][0]["value"]


def test_logs_are_bounded(call: Any, served: Any) -> None:
    job = call("POST", "/v1/jobs", json=BATCH).json()["id"]
    served.port.printed = ["hello"]
    assert call("GET", f"/v1/jobs/{job}/logs?lines=5").json()["printed"] == ["hello"]
    assert call("GET", f"/v1/jobs/{job}/logs?lines=5000").status_code == 422


def test_metrics_of_nodes_and_units() -> None:
    figures = {
        "node_power_w": [("gpu-1", "granted", 900.0), ("gpu-1", "used", None)],
        "unasked_w": {"gpu-1": 40.0, "gpu-2": None},
        "job_units": [("chat", "gpu-1", 2)],
    }
    text = exposition(figures).decode()
    assert 'wattshift_node_power_watts{kind="granted",node="gpu-1"} 900.0' in text
    assert 'wattshift_unasked_watts{node="gpu-1"} 40.0' in text
    assert 'wattshift_job_units{job="chat",node="gpu-1"} 2.0' in text
    assert 'kind="used"' not in text, "unknown is left out, and is not 0"
    assert "gpu-2" not in text


def test_the_openapi_document_knows_the_new_words(call: Any) -> None:
    document = call("GET", "/openapi.json", "viewer").json()
    assert "/v1/nodes/{node}:{action}" in document["paths"]
    schemas = document["components"]["schemas"]
    assert "verdict" in schemas["JobView"]["properties"]
    assert "power_steps" in schemas["ServiceJob"]["properties"]
    assert "$defs" not in str(document)
