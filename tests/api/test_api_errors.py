"""Every way to be wrong leaves as a problem detail with the right status and slug."""

from typing import Any

import pytest

from wattshift_cluster.api.bodylimit import BODY_BYTES_MAX
from wattshift_cluster.errors import ConfigInvalid, NotFound, Refused, TryLater, Unreachable

BATCH = {
    "kind": "batch",
    "name": "embed",
    "callable": "pkg.mod:fn",
    "input": "in.jsonl",
    "output": "out",
    "watts": "60W",
}


def is_problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(body)
    assert body["type"] == f"urn:wattshift:problem:{slug}"
    assert body["status"] == status
    return body


def test_unknown_path_and_wrong_method(call: Any) -> None:
    assert is_problem(call("GET", "/v1/nothing"), 404, "not-found")["instance"] == "/v1/nothing"
    wrong = call("PUT", "/v1/site")
    is_problem(wrong, 405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET"


def test_unknown_job_and_action(call: Any) -> None:
    assert "no job x-1" in is_problem(call("GET", "/v1/jobs/x-1"), 404, "not-found")["detail"]
    is_problem(call("POST", "/v1/jobs/x-1:pause"), 404, "not-found")
    is_problem(call("POST", "/v1/jobs/x-1:explode"), 404, "not-found")


def test_every_fault_of_a_job_is_listed(call: Any) -> None:
    bad = {**BATCH, "name": "two words", "watts": "-3W", "colour": "red", "deadline": "2001-01-01"}
    body = is_problem(call("POST", "/v1/jobs", json=bad), 422, "invalid")
    by_path = {fault["path"]: fault for fault in body["errors"]}
    assert set(by_path) == {"name", "watts", "colour", "deadline"}
    assert by_path["watts"]["value"] == "-3W"
    assert "1W to 10MW" in by_path["watts"]["message"]
    assert "unknown key" in by_path["colour"]["message"]


def test_query_faults_have_the_same_shape(call: Any) -> None:
    body = is_problem(call("GET", "/v1/jobs?limit=0&state=asleep"), 422, "invalid")
    assert {fault["path"] for fault in body["errors"]} == {"query.limit", "query.state"}
    is_problem(call("GET", "/v1/decisions?since=yesterday"), 422, "invalid")
    is_problem(call("GET", "/v1/jobs?cursor=nobody"), 422, "invalid")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 200_000])
def test_a_body_that_is_not_json(call: Any, content: bytes) -> None:
    is_problem(call("POST", "/v1/jobs", content=content), 400, "malformed")


def test_a_body_that_claims_another_type(call: Any) -> None:
    headers = {"Content-Type": "text/plain"}
    is_problem(
        call("POST", "/v1/caps", content=b"{}", headers=headers), 415, "unsupported-media-type"
    )


def test_a_declared_body_above_the_limit(call: Any) -> None:
    is_problem(call("POST", "/v1/jobs", content=b"x" * (BODY_BYTES_MAX + 1)), 413, "too-large")


def test_an_undeclared_body_above_the_limit(call: Any, served: Any) -> None:
    def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 65536

    is_problem(call("POST", "/v1/jobs", content=chunks()), 413, "too-large")
    assert not served.port.submitted


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (NotFound("gone"), 404, "not-found"),
        (Refused("the cap forbids it"), 409, "refused"),
        (TryLater("busy"), 503, "try-later"),
        (Unreachable("the bridge is gone"), 502, "unreachable"),
        (ConfigInvalid(["one", "two"]), 422, "invalid"),
        (ZeroDivisionError("a bug"), 500, "internal"),
    ],
)
def test_errors_of_the_controller(
    call: Any, served: Any, error: Exception, status: int, slug: str
) -> None:
    served.port.fails = error
    answer = call("GET", "/v1/site")
    body = is_problem(answer, status, slug)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "a bug" not in body["detail"], "an internal error tells nothing about the inside"


def test_a_strict_cap_below_the_floor_is_refused(call: Any) -> None:
    body = is_problem(
        call("POST", "/v1/caps", json={"limit": "500W", "strict": True}), 409, "refused"
    )
    assert "short by 300 W" in body["detail"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "limit"),
        ({"limit": "-1W"}, "limit"),
        ({"limit": "12mW"}, "limit"),
        ({"limit": 10, "until": "5m", "for": "5m"}, ""),
        ({"limit": 10, "until": "2001-01-01T00:00:00Z"}, "until"),
        ({"limit": 10, "until": "2026-12-01T00:00:00"}, "until"),
        ({"limit": 10, "for_s": 3}, "for_s"),
    ],
)
def test_faults_of_a_cap(call: Any, body: dict[str, Any], path: str) -> None:
    found = is_problem(call("POST", "/v1/caps", json=body), 422, "invalid")["errors"]
    assert [fault["path"] for fault in found] == [path]


def test_an_event_may_not_pose_as_the_operator(call: Any, served: Any) -> None:
    is_problem(call("POST", "/v1/signals", json={"source": "operator"}), 422, "invalid")
    assert not served.port.injected
