"""Jobs called by the names that people gave them."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

Command = Callable[..., Result]


def have(reach: Any, **states: str) -> None:
    """Jobs by id with their states, all named `triage`, in the order given."""
    view = sys.modules["fakejobs"].job_view
    spec = {"kind": "batch", "name": "triage", "watts_w": 60.0}
    reach.port.submitted = {
        job_id: view(job_id, spec, state=state) for job_id, state in states.items()
    }


def shown(result: Result) -> str:
    assert result.exit_code == 0, result.output
    job_id: str = json.loads(result.stdout)["id"]
    return job_id


def test_a_name_means_the_one_job_of_that_name_that_is_not_over(
    wattshift: Command, reach: Any
) -> None:
    have(reach, a="failed", b="running", c="completed")
    assert shown(wattshift("job", "show", "triage", "-o", "json")) == "b"
    assert shown(wattshift("job", "show", "c", "-o", "json")) == "c"
    assert shown(wattshift("job", "pause", "triage", "-o", "json")) == "b"
    assert wattshift("job", "logs", "triage").exit_code == 0
    told = json.loads(wattshift("explain", "triage", "-o", "json").stdout)
    assert (told["subject"], told["now"]["id"]) == ("b", "b")


def test_of_jobs_that_are_over_a_name_means_the_newest(wattshift: Command, reach: Any) -> None:
    have(reach, a="failed", b="cancelled")
    assert shown(wattshift("job", "show", "triage", "-o", "json")) == "b"


@pytest.mark.parametrize(
    "command", [("job", "cancel"), ("job", "show"), ("explain",)], ids=" ".join
)
def test_a_name_that_several_have_is_refused_with_their_ids(
    wattshift: Command, reach: Any, command: tuple[str, ...]
) -> None:
    have(reach, a="running", b="pending", c="failed")
    wrong = wattshift(*command, "triage")
    assert wrong.exit_code == 4
    assert "2 jobs are named triage: a, b; say which by its id" in wrong.stderr
    assert {one["state"] for one in reach.port.submitted.values()} == {
        "running", "pending", "failed",
    }  # fmt: skip


def test_an_id_goes_before_a_name_and_nobody_is_nobody(wattshift: Command, reach: Any) -> None:
    have(reach, triage="paused", b="running")
    assert shown(wattshift("job", "show", "triage", "-o", "json")) == "triage"
    assert wattshift("job", "show", "nobody").exit_code == 4
    assert "no job nobody" in wattshift("job", "cancel", "nobody").stderr
