"""Orders to ASICs over HTTP: who may give them, what a body may say, what is answered."""

import sys
from typing import Any

import pytest

fakeport = sys.modules["fakeport"]


@pytest.fixture
def rigs(served: Any) -> dict[str, Any]:
    """Two machines at work."""
    served.port.asics = {"rig-1": fakeport.FakeAsic(), "rig-2": fakeport.FakeAsic()}
    found: dict[str, Any] = served.port.asics
    return found


def order(call: Any, action: str, role: str | None = "operator", **body: Any) -> Any:
    body.setdefault("devices", ["rig-1"])
    return call("POST", f"/v1/fleet/{action}", role, json=body)


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    return found


def test_an_order_reaches_every_machine_that_it_names(call: Any, rigs: dict[str, Any]) -> None:
    answer = order(call, "sleep", devices=["rig-*"], reason="filters").json()
    assert (answer["action"], answer["dry_run"]) == ("sleep", False)
    assert [(row["device"], row["ok"], row["fault"]) for row in answer["rows"]] == [
        ("rig-1", True, None),
        ("rig-2", True, None),
    ]
    assert all(rig.held for rig in rigs.values())


def test_who_gave_an_order_is_the_token_and_never_the_body(
    call: Any, served: Any, rigs: dict[str, Any]
) -> None:
    (fault,) = problem(order(call, "lock", reason="r", by="boss"), 422)["errors"]
    assert fault["path"] == "by"
    order(call, "lock", reason="hash board out")
    assert (served.port.orders[-1]["by"], rigs["rig-1"].lock_by) == ("operator", "operator")
    order(call, "lock", "admin", devices=["rig-2"], reason="mine")
    assert rigs["rig-2"].lock_by == "admin"


@pytest.mark.parametrize("action", ["sleep", "wake", "lock", "unlock", "limit"])
def test_an_order_needs_an_operator(call: Any, rigs: dict[str, Any], action: str) -> None:
    body: dict[str, Any] = {"reason": "why"}
    body |= {"watts": "2kW"} if action == "limit" else {}
    problem(order(call, action, None, **body), 401)
    problem(order(call, action, "viewer", **body), 403)
    assert order(call, action, **body).is_success


def test_an_override_needs_an_admin(call: Any, served: Any, rigs: dict[str, Any]) -> None:
    order(call, "lock", "admin", reason="mine")
    assert "this needs admin" in problem(order(call, "unlock", override=True), 403)["detail"]
    assert rigs["rig-1"].lock_by == "admin"
    assert [one["action"] for one in served.port.orders] == ["lock"], "nothing was even asked"
    (row,) = order(call, "unlock").json()["rows"]
    assert (row["ok"], row["fault"]) == (False, "refused")
    assert "only admin changes that" in row["error"]
    order(call, "lock", devices=["rig-2"], reason="mine")
    (row,) = order(call, "unlock", "admin", devices=["rig-2"], override=True).json()["rows"]
    assert row["ok"]
    assert served.port.orders[-1]["override"] is True


@pytest.mark.parametrize(
    ("action", "body", "path", "says"),
    [
        ("sleep", {"devices": []}, "devices", "at least 1"),
        ("sleep", {"devices": ["a b"]}, "devices[0]", "no device or pattern"),
        ("sleep", {"devices": ["x" * 129]}, "devices[0]", "at most 128"),
        ("sleep", {"reason": "two\nlines"}, "reason", "printable"),
        ("sleep", {"reason": "x" * 201}, "reason", "at most 200"),
        ("sleep", {"watts": "2kW"}, "watts", "takes no watts"),
        ("sleep", {"devices": ["rig-*"] * 101}, "devices", "101 patterns"),
        ("wake", {"override": True}, "override", "only unlock"),
        ("lock", {}, "reason", "says why"),
        ("limit", {}, "watts", "is missing"),
        ("limit", {"watts": "0W"}, "watts", "1W to 100kW"),
    ],
)
def test_a_fault_in_an_order_is_named_and_nothing_is_asked(
    call: Any,
    served: Any,
    rigs: dict[str, Any],
    action: str,
    body: dict[str, Any],
    path: str,
    says: str,
) -> None:
    (fault,) = problem(order(call, action, **body), 422)["errors"]
    assert fault["path"].startswith(path)
    assert says in fault["message"]
    assert served.port.orders == []


def test_a_limit_in_watts_and_its_end(call: Any, served: Any, rigs: dict[str, Any]) -> None:
    order(call, "limit", watts="2.5kW")
    assert rigs["rig-1"].limit_w == 2500.0
    assert order(call, "limit", watts=None).is_success
    assert rigs["rig-1"].limit_w is None


def test_there_are_five_actions(call: Any, rigs: dict[str, Any]) -> None:
    assert "sleep, wake, lock" in problem(order(call, "explode"), 404)["detail"]
    assert (
        "no device matches 'north-1'"
        in problem(order(call, "sleep", devices=["north-1"]), 404)["detail"]
    )


def test_the_same_key_acts_once(call: Any, served: Any, rigs: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"devices": ["rig-1"]}
    first = call("POST", "/v1/fleet/sleep", json=body, headers=headers)
    again = call("POST", "/v1/fleet/sleep", json=body, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(served.port.orders) == 1


def test_a_shadow_site_refuses_and_says_so_everywhere(
    call: Any, served: Any, rigs: dict[str, Any]
) -> None:
    served.port.mode = "shadow"
    assert "shadow mode" in problem(order(call, "sleep"), 409)["detail"]
    assert call("GET", "/v1/site").json()["mode"] == "shadow"


def test_the_document_tells_of_orders(call: Any) -> None:
    document = call("GET", "/openapi.json").json()
    post = document["paths"]["/v1/fleet/{action}"]["post"]
    body = post["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/FleetBody"}
    assert "dry_run" in document["components"]["schemas"]["FleetBody"]["properties"]
