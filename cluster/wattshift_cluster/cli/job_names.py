"""A job as people call it: by its id or, where that says which one is meant, by its name."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import NotFound

OVER = ("completed", "failed", "cancelled")
SHOWN_MAX = 5
"""Ids in an error; more help nobody."""


class SeveralJobs(NotFound):
    """A name that more than one job has; the text has their ids."""


def all_jobs(controller: ControllerClient, state: str | None = None) -> list[dict[str, Any]]:
    """Return every job, oldest first, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = controller.get("/v1/jobs", state=state, cursor=cursor, limit=1000)
        found += page["jobs"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def of_job(controller: ControllerClient, called: str, ask: Callable[[str], Any]) -> Any:
    """Return what `ask` makes of the path of a job, `/v1/jobs/ID`.

    `called` is an id; else the name of the one job that goes by it and is not over, or, if all are
    over, of the newest.

    Raises:
        NotFound: no job has that id or name.
        SeveralJobs: several that are not over have the name.
    """
    try:
        return ask(_path(called))
    except NotFound:
        named = [one for one in all_jobs(controller) if one["name"] == called]
        if not named:
            raise
    meant = [one["id"] for one in named if one["state"] not in OVER] or [named[-1]["id"]]
    if len(meant) > 1:
        more = "" if len(meant) <= SHOWN_MAX else ", …"
        ids = ", ".join(meant[:SHOWN_MAX])
        raise SeveralJobs(f"{len(meant)} jobs are named {called}: {ids}{more}; say which by its id")
    return ask(_path(meant[0]))


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
