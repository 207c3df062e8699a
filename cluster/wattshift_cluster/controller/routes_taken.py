"""Who answers at a service's path: one service at a time, so that a URL keeps its meaning."""

from collections.abc import Iterable

from wattshift_cluster.config.service_route import route_of
from wattshift_scheduler.jobs import Job, JobKind, JobState


def holder(jobs: Iterable[Job], job: Job) -> Job | None:
    """Return the service that has not ended and answers where `job` would; None if it is free.

    A service that is paused or waits for watts keeps its path: it comes back to it.
    """
    if job.kind is not JobKind.SERVICE:
        return None
    route = route_of(job.spec)
    for one in jobs:
        alive = one.kind is JobKind.SERVICE and not one.state.final
        if alive and one.id != job.id and route_of(one.spec) == route:
            return one
    return None


def taken(route: str, by: Job) -> str:
    """Return a refusal in words."""
    told = f"{route} is where {by.id} answers (a service named {by.name}, {by.state.value})"
    if by.state is JobState.CANCELLING:
        return f"{told}; the name is free once that has ended"
    return f"{told}; choose another name, or end that one first: wattshift job cancel {by.id}"
