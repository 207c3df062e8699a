"""GET /v1/plan: who may read it, how much of it, and that it looks as it is described."""

import sys
from typing import Any, get_type_hints

import pytest

from wattshift_cluster.api.plan_views import PlanBrief, PlanRow, PlanView
from wattshift_cluster.controller.plan import off as plan_off


def test_a_viewer_reads_the_plan(call: Any, served: Any) -> None:
    whole = call("GET", "/v1/plan", role="viewer").json()
    assert len(whole["rows"]) == 144
    assert set(whole) == set(get_type_hints(PlanView))
    assert set(whole["rows"][0]) == set(get_type_hints(PlanRow))
    assert len(call("GET", "/v1/plan?hours=2").json()["rows"]) == 8
    assert call("GET", "/v1/plan", role=None).status_code == 401


@pytest.mark.parametrize("hours", ["-1", "soon", "1e9", "nan"])
def test_hours_that_are_none_are_refused(call: Any, hours: str) -> None:
    assert call("GET", f"/v1/plan?hours={hours}").status_code == 422


def test_no_plan_looks_like_one_without_rows(served: Any) -> None:
    for enabled, told in ((None, "nothing that one could use"), (False, "switched off")):
        view = plan_off.view(enabled)
        assert set(view) == set(get_type_hints(PlanView))
        assert (view["state"], view["rows"]) == ("off", [])
        assert told in view["reason"]
    assert set(get_type_hints(PlanBrief)) < set(get_type_hints(PlanView))
    assert set(sys.modules["fakeplan"].blank("off", "")) == set(get_type_hints(PlanView))


def test_the_plan_is_described(call: Any) -> None:
    described = call("GET", "/openapi.json").json()
    assert "/v1/plan" in described["paths"]
    assert "PlanView" in described["components"]["schemas"]
    assert call("GET", "/page/plan.js", role=None).status_code == 200
