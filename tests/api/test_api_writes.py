"""Jobs, caps and events over HTTP: what is accepted, once, and how it is guarded."""

import threading
import time
from typing import Any

import pytest

BATCH = {
    "kind": "batch",
    "name": "embed",
    "callable": "pkg.mod:fn",
    "input": "in.jsonl",
    "output": "out",
    "watts": "60W",
}


def test_a_job_is_made_and_found(call: Any) -> None:
    made = call("POST", "/v1/jobs", json={**BATCH, "deadline": "2h"})
    assert made.status_code == 201
    found = call("GET", made.headers["location"], role="viewer").json()
    assert found == made.json()
    assert found["spec"]["watts_w"] == 60.0
    assert 7190 < found["spec"]["deadline_at_s"] - time.time() <= 7200


def test_a_service_and_mining_keep_units_in_names(call: Any) -> None:
    body = {"kind": "service", "name": "chat", "import_path": "a.b:app", "slo_p95": "250ms"}
    spec = call("POST", "/v1/jobs", json={**body, "watts_per_replica": "0.3kW"}).json()["spec"]
    assert (spec["watts_per_replica_w"], spec["slo_p95_ms"]) == (300.0, 250.0)
    spec = call("POST", "/v1/jobs", json={"kind": "mining", "devices": ["a*"]}).json()["spec"]
    assert spec == {"kind": "mining", "name": "mining", "devices": ["a*"]}


def test_jobs_come_in_pages(call: Any) -> None:
    ids = [call("POST", "/v1/jobs", json={**BATCH, "name": f"n{i}"}).json()["id"] for i in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = call("GET", f"/v1/jobs?limit=2{cursor and '&cursor=' + cursor}").json()
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
    assert seen == ids


def test_actions(call: Any) -> None:
    job = call("POST", "/v1/jobs", json=BATCH).json()["id"]
    assert call("POST", f"/v1/jobs/{job}:pause").json()["state"] == "paused"
    assert call("GET", "/v1/jobs?state=paused").json()["jobs"][0]["id"] == job
    assert call("POST", f"/v1/jobs/{job}:resume").json()["state"] == "running"
    assert call("POST", f"/v1/jobs/{job}:cancel").json()["state"] == "cancelled"
    assert call("POST", f"/v1/jobs/{job}:resume").status_code == 409
    assert call("GET", f"/v1/jobs/{job}/logs").json()["lines"]


def test_the_same_key_makes_one_job(call: Any, served: Any) -> None:
    key = {"Idempotency-Key": "k1"}
    first = call("POST", "/v1/jobs", json=BATCH, headers=key)
    again = call("POST", "/v1/jobs", json=BATCH, headers=key)
    assert first.json() == again.json()
    assert (again.status_code, again.headers["location"]) == (201, first.headers["location"])
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(served.port.submitted) == 1


def test_a_key_with_another_body_is_refused(call: Any, served: Any) -> None:
    key = {"Idempotency-Key": "k1"}
    call("POST", "/v1/jobs", json=BATCH, headers=key)
    other = call("POST", "/v1/jobs", json={**BATCH, "name": "other"}, headers=key)
    assert other.status_code == 422
    assert other.json()["type"].endswith("key-reused")
    assert len(served.port.submitted) == 1


def test_keys_of_two_tokens_are_apart(call: Any, served: Any) -> None:
    for role in ("operator", "admin"):
        call("POST", "/v1/caps", role, json={"limit": 9000}, headers={"Idempotency-Key": "k"})
    assert len(served.port.held_caps) == 2


def test_a_second_request_while_the_first_runs(call: Any, served: Any) -> None:
    served.port.delay_s = 0.6
    key = {"Idempotency-Key": "slow"}
    first: list[Any] = []
    thread = threading.Thread(
        target=lambda: first.append(call("POST", "/v1/jobs", json=BATCH, headers=key))
    )
    thread.start()
    time.sleep(0.2)
    assert call("POST", "/v1/jobs", json=BATCH, headers=key).status_code == 409
    thread.join()
    assert first[0].status_code == 201
    assert len(served.port.submitted) == 1


def test_a_failed_request_frees_its_key(call: Any) -> None:
    key = {"Idempotency-Key": "k"}
    assert call("POST", "/v1/jobs", json={"kind": "batch"}, headers=key).status_code == 422
    assert call("POST", "/v1/jobs", json=BATCH, headers=key).status_code == 201


def test_caps_are_set_listed_and_lifted(call: Any, served: Any) -> None:
    before = time.time()
    made = call("POST", "/v1/caps", json={"limit": "8kW", "for": "30m"})
    assert made.status_code == 201
    assert made.json()["limit_w"] == 8000.0
    assert made.json()["origin"] == "operator"
    assert made.json()["ends_at"] is not None
    assert call("GET", "/v1/caps").json()["caps"] == [made.json()]
    assert call("DELETE", made.headers["location"]).status_code == 204
    assert call("DELETE", made.headers["location"]).status_code == 404
    call("POST", "/v1/caps", json={"limit": 8000, "until": "2h", "starts": "1h"})
    assert call("DELETE", "/v1/caps").status_code == 204
    assert served.port.held_caps == []
    assert time.time() - before < 10


LIFT = {"source": "utility", "cap": "evt-7/0", "limit": "9kW", "reason": "called by phone"}


def test_an_admin_lifts_a_cap_for_a_while_and_an_operator_ends_that(call: Any, served: Any) -> None:
    made = call("POST", "/v1/overrides", "admin", json={**LIFT, "for": "20m"})
    assert made.status_code == 201, made.text
    assert (made.json()["limit_w"], made.json()["by"]) == (9000.0, "admin")
    assert call("GET", "/v1/overrides").json()["overrides"] == [made.json()]
    half = call("DELETE", "/v1/overrides?source=utility")
    assert half.status_code == 422, "half a name must not end every override"
    assert len(served.port.lifted) == 1
    query = "?source=utility&cap=evt-7%2F0"
    assert call("DELETE", f"/v1/overrides{query}").status_code == 204
    assert call("DELETE", f"/v1/overrides{query}").status_code == 404
    assert call("DELETE", "/v1/overrides").status_code == 204


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"for": "8d"},
        {"until": "2020-01-01T00:00:00Z"},
        {"for": "1h", "until": "2h"},
        {"for": "1h", "reason": " "},
        {"for": "1h", "reason": None},
        {"for": "1h", "limit": -5},
    ],
    ids=str,
)
def test_an_override_that_does_not_end_or_says_no_reason(
    call: Any, served: Any, more: dict[str, Any]
) -> None:
    answer = call("POST", "/v1/overrides", "admin", json={**LIFT, **more})
    assert answer.status_code == 422, answer.text
    assert not served.port.lifted


def test_if_match_guards_a_change_of_caps(call: Any, served: Any) -> None:
    old = {"If-Match": call("GET", "/v1/caps").headers["etag"]}
    assert call("POST", "/v1/caps", json={"limit": 8000}, headers=old).status_code == 201
    late = call("DELETE", "/v1/caps", headers=old)
    assert late.status_code == 412
    assert late.json()["type"].endswith("precondition-failed")
    assert len(served.port.held_caps) == 1
    now = {"If-Match": call("GET", "/v1/caps").headers["etag"]}
    assert call("DELETE", "/v1/caps", headers=now).status_code == 204


def test_an_event_reaches_the_controller_in_base_units(call: Any, served: Any) -> None:
    body = {"source": "drill", "price": "0.25USD/kWh", "caps": [{"limit": "6kW", "ends": "30m"}]}
    assert call("POST", "/v1/signals", json=body).status_code == 202
    (signal,) = served.port.injected
    assert (signal["source"], signal["price_usd_per_mwh"]) == ("drill", 250.0)
    (cap,) = signal["caps"]
    assert cap["limit_w"] == 6000.0
    assert 1790 < cap["ends_s"] - time.time() <= 1800
    call("POST", "/v1/signals", json={"source": "drill"})
    assert "price_usd_per_mwh" not in served.port.injected[1], "no price said leaves the price"
