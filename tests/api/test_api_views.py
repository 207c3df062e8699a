"""Views, metrics, the OpenAPI document and the page."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import wattshift_cluster.api
from wattshift_cluster.errors import WattshiftError

PAGE = Path(wattshift_cluster.api.__file__).parent / "page"


def test_every_view_answers(call: Any) -> None:
    site = call("GET", "/v1/site").json()
    assert site["cap_w"] == 14_000.0
    assert len(call("GET", "/v1/devices").json()["devices"]) == 4
    assert call("GET", "/v1/signals").json()["price_usd_per_mwh"] == 41.25
    assert call("GET", "/v1/flexibility").json()["steps"][0]["deadline_s"] == 0.25


def test_what_counts_nothing_is_told_apart_from_the_devices(call: Any, served: Any) -> None:
    assert call("GET", "/v1/devices").json()["unseen"] == []
    row = {"id": "rig-7", "agent": "row-a", "feeder": "row-a", "reason": "silence"}
    served.port.unseen_rows = [{**row, "since": "2026-01-01T00:00:00Z"}]
    view = call("GET", "/v1/devices").json()
    assert view["unseen"] == served.port.unseen_rows
    assert "rig-7" not in {one["id"] for one in view["devices"]}


def test_unknown_is_null_and_never_zero(call: Any, served: Any) -> None:
    served.port.power_w = float("nan")
    assert call("GET", "/v1/site").json()["power_w"] is None
    served.port.power_w = None
    assert 'wattshift_site_power_watts{source="meter"}' not in call("GET", "/metrics").text


def test_decisions_are_filtered(call: Any, served: Any) -> None:
    for at_s, subject in ((100.0, "asic-1"), (200.0, "site"), (300.0, "asic-1")):
        served.port.decide(subject, "shed", "why", at_s)

    def asked(query: str) -> list[float]:
        return [d["at_s"] for d in call("GET", f"/v1/decisions{query}").json()["decisions"]]

    assert asked("") == [300.0, 200.0, 100.0]
    assert asked("?subject=asic-1") == [300.0, 100.0]
    assert asked("?since=150&limit=1") == [300.0]
    assert asked("?since=1970-01-01T00:04:00Z") == [300.0]


def test_readiness_waits_for_the_first_tick(call: Any, served: Any) -> None:
    assert call("GET", "/readyz", role=None).status_code == 200
    served.port.tick = 0
    answer = call("GET", "/readyz", role=None)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert call("GET", "/healthz", role=None).json()["status"] == "ok"


def test_metrics_have_the_promised_names_and_parse(call: Any) -> None:
    answer = call("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    work = (("device", "asic-1"), ("work", "mining"))
    assert samples["wattshift_energy_joules_total", work] == 1.5e6
    assert samples["wattshift_cap_watts", (("origin", "schedule"),)] == 14_000
    assert samples["wattshift_overcap_seconds_total", ()] == 2.5
    assert samples["wattshift_leases", (("state", "confirmed"),)] == 3
    assert samples["wattshift_decision_seconds_bucket", (("le", "0.01"),)] == 5
    assert samples["wattshift_decision_seconds_bucket", (("le", "+Inf"),)] == 6
    assert samples["wattshift_decision_seconds_sum", ()] == 0.02
    hashes = (("algorithm", "sha256d"), ("device", "asic-1"))
    assert samples["wattshift_hashes_total", hashes] == 4.2e13
    pool = (("pool", "127.0.0.1:3333"), ("result", "accepted"))
    assert samples["wattshift_shares_total", pool] == 1234
    assert samples["wattshift_jobs", (("kind", "batch"), ("state", "running"))] == 1
    names = {name for name, _ in samples}
    assert "wattshift_headroom_watts" not in names, "an unknown figure is left out"
    assert ("wattshift_reading_age_seconds", (("device", "asic-3"),)) not in samples


def test_openapi_names_every_path_and_resolves(call: Any) -> None:
    document = call("GET", "/openapi.json").json()
    for path in (
        "jobs",
        "site",
        "devices",
        "signals",
        "caps",
        "flexibility",
        "decisions",
        "stream",
    ):
        assert f"/v1/{path}" in document["paths"], path
    assert call("GET", "/openapi.json").json() == document

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return (
            [ref for value in node for ref in references(value)] if isinstance(node, list) else []
        )

    found = references(document)
    assert "#/components/schemas/Job" in found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    assert "/docs" not in json.dumps(document)


def test_the_page_loads_only_from_here(call: Any) -> None:
    page = call("GET", "/", role=None)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text):
        assert name.startswith("/page/"), name
        assert call("GET", name, role=None).status_code == 200
    for path in PAGE.iterdir():
        for part in re.findall(r"from \"\./([^\"]+)\"", path.read_text()):
            assert call("GET", f"/page/{part}", role=None).status_code == 200, part
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, f"{path.name} names another host"
        assert "innerHTML" not in text, f"{path.name} could run what a device says"


def test_answers_do_not_wait_for_acknowledgements(call: Any) -> None:
    call("GET", "/healthz")
    took_s = []
    for _ in range(40):
        started_s = time.perf_counter()
        call("GET", "/healthz")
        took_s.append(time.perf_counter() - started_s)
    assert min(took_s) < 0.03, "Nagle's algorithm costs 40 ms an answer"


def test_a_taken_address_is_an_error(served: Any) -> None:
    from wattshift_cluster.grid.serving import listen

    host, port = served.url.removeprefix("http://").split(":")
    with pytest.raises(WattshiftError, match="cannot listen"):
        listen(host, int(port))
