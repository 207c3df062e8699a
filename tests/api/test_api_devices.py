"""Power limits, releases and power curves of single devices over HTTP."""

import sys
from typing import Any

import pytest

fakeport = sys.modules["fakeport"]
CURVE = "/v1/devices/host-gpu0/profile"


@pytest.fixture
def gpus(served: Any) -> dict[str, Any]:
    """Two cards, the second under a lease of 600 W."""
    served.port.gpus = {
        "host-gpu0": fakeport.FakeGpu(),
        "host-gpu1": fakeport.FakeGpu(lease_w=600.0),
    }
    found: dict[str, Any] = served.port.gpus
    return found


def limit(call: Any, limits: dict[str, Any], **request: Any) -> Any:
    return call("POST", "/v1/limits", json={"limits": limits}, **request)


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    return found


def test_limits_take_units_and_each_answers_for_itself(call: Any, gpus: dict[str, Any]) -> None:
    rows = limit(call, {"host-gpu0": "0.45kW", "host-gpu1": 450}).json()["limits"]
    assert [(row["device"], row["asked_w"], row["enforced_w"]) for row in rows] == [
        ("host-gpu0", 450.0, 450.0),
        ("host-gpu1", 450.0, 450.0),
    ]
    assert all(row["error"] is None and row["took_s"] >= 0 for row in rows)
    raised = limit(call, {"host-gpu0": "500W", "host-gpu1": "500W"}).json()["limits"]
    assert "no lease covers it" in raised[0]["error"]
    assert raised[0]["enforced_w"] == 450.0
    assert (raised[1]["error"], raised[1]["enforced_w"]) == (None, 500.0)


@pytest.mark.parametrize(
    ("limits", "path", "says"),
    [
        ({}, "limits", "at least 1"),
        ({"host-gpu0": "0W"}, "limits.host-gpu0", "1W to 100kW"),
        ({"host-gpu0": "101kW"}, "limits.host-gpu0", "1W to 100kW"),
        ({"host-gpu0": "450mW"}, "limits.host-gpu0", "unknown unit mW"),
        ({"host-gpu0": None}, "limits.host-gpu0", "not a power"),
        ({"a gpu": 450}, "limits", "not a name"),
        ({f"gpu{n}": 450 for n in range(1001)}, "limits", "at most 1000"),
    ],
)
def test_a_fault_in_limits_sets_none(
    call: Any, gpus: dict[str, Any], limits: dict[str, Any], path: str, says: str
) -> None:
    (fault,) = problem(limit(call, {**limits}), 422)["errors"]
    assert fault["path"].startswith(path)
    assert says in fault["message"]
    assert gpus["host-gpu0"].enforced_w == 700.0


def test_limits_of_what_is_not_there_or_is_no_gpu(call: Any, gpus: dict[str, Any]) -> None:
    both = {"host-gpu0": 450, "host-gpu9": 450}
    assert "no device host-gpu9" in problem(limit(call, both), 404)["detail"]
    assert gpus["host-gpu0"].enforced_w == 700.0, "a slip in one name sets nothing"
    assert "is no GPU" in problem(limit(call, {"asic-1": 450}), 409)["detail"]


def test_a_silent_agent_is_a_bad_gateway(call: Any, served: Any, gpus: dict[str, Any]) -> None:
    served.port.agent_away = True
    for answer in (
        limit(call, {"host-gpu0": 450}),
        call("POST", "/v1/devices/host-gpu0/release", json={}),
        call("GET", CURVE),
    ):
        assert "no answer" in problem(answer, 502)["detail"]


def test_a_release_gives_the_first_limit_back_once(call: Any, gpus: dict[str, Any]) -> None:
    limit(call, {"host-gpu1": 450})
    limit(call, {"host-gpu1": 400})
    released = call("POST", "/v1/devices/host-gpu1/release", json={}).json()
    assert released["device"] == "host-gpu1"
    assert released["limit"]["enforced_w"] == 700.0
    assert gpus["host-gpu1"].lease_w is None
    again = call("POST", "/v1/devices/host-gpu1/release", json={}).json()
    assert again == {"device": "host-gpu1", "limit": None}
    problem(call("POST", "/v1/devices/nobody/release", json={}), 404)


def test_a_power_curve_from_none_to_done(call: Any, gpus: dict[str, Any]) -> None:
    curve = "/v1/devices/host-gpu1/profile"
    assert call("GET", curve, "viewer").json()["state"] == "none"
    started = call("POST", curve, json={})
    assert (started.status_code, started.json()["state"]) == (202, "running")
    assert "already" in problem(call("POST", curve, json={}), 409)["detail"]
    seen = [call("GET", curve).json() for _ in range(7)]
    assert [view["state"] for view in seen] == ["running"] * 6 + ["done"]
    assert seen[0]["points"] == []
    assert seen[0]["residual_w"] is None, "one step fits nothing, and that is not a perfect fit"
    assert [point["intensity_pct"] for point in seen[-1]["points"]] == [0, 10, 25, 50, 75, 100]
    assert len(seen[-1]["fitted"]) == 6
    assert seen[-1]["quality"] == "emulated"


def test_a_curve_is_not_begun_without_a_lease_or_a_gpu(call: Any, gpus: dict[str, Any]) -> None:
    assert "no lease" in problem(call("POST", CURVE, json={}), 409)["detail"]
    assert "no power curve" in problem(call("GET", "/v1/devices/asic-1/profile"), 409)["detail"]
    problem(call("GET", "/v1/devices/nobody/profile"), 404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/limits", {"limits": {"host-gpu1": 450}}),
        ("/v1/devices/host-gpu1/release", {}),
        ("/v1/devices/host-gpu1/profile", {}),
    ],
)
def test_a_write_needs_an_operator_and_the_same_key_acts_once(
    call: Any, gpus: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    problem(call("POST", path, None, json=body), 401)
    problem(call("POST", path, "viewer", json=body), 403)
    card = gpus["host-gpu1"]
    assert (card.enforced_w, card.lease_w, card.state) == (700.0, 600.0, "none")
    first = call("POST", path, json=body, headers={"Idempotency-Key": "k"})
    assert first.is_success
    card.enforced_w, card.lease_w, card.state = 650.0, 600.0, "none"
    again = call("POST", path, json=body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert (card.enforced_w, card.lease_w, card.state) == (650.0, 600.0, "none")


def test_the_document_tells_of_them(call: Any) -> None:
    document = call("GET", "/openapi.json").json()
    assert set(document["paths"]["/v1/devices/{device_id}/profile"]) == {"delete", "get", "post"}
    body = document["paths"]["/v1/limits"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/LimitsBody"}
    assert "LimitsBody" in document["components"]["schemas"]
