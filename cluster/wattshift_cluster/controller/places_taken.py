"""What one job has at a time: the path where a service answers, the folder where a batch writes.

A URL keeps its meaning, and no two jobs mix their outputs.
"""

import posixpath
from collections.abc import Iterable

from wattshift_cluster.config.service_route import route_of
from wattshift_scheduler.jobs import Job, JobKind, JobState


def place_of(job: Job) -> str | None:
    """The path of a service, the output folder of a batch; None of any other job."""
    if job.kind is JobKind.SERVICE:
        return route_of(job.spec)
    output = job.spec.get("output") if job.kind is JobKind.BATCH else None
    return None if output is None else posixpath.normpath(str(output))


def holder(jobs: Iterable[Job], job: Job) -> Job | None:
    """Return the job that has not ended and has the place of `job`; None if it is free.

    One that is paused or waits for watts keeps its place: it comes back to it.
    """
    place = place_of(job)
    if place is None:
        return None
    for one in jobs:
        alive = one.kind is job.kind and not one.state.final
        if alive and one.id != job.id and place_of(one) == place:
            return one
    return None


def taken(place: str, by: Job) -> str:
    """Return a refusal in words."""
    if by.kind is JobKind.BATCH:
        told = f"{place} is where {by.id} writes (a batch named {by.name}, {by.state.value})"
        return f"{told}; choose another output folder, or wait for its end"
    told = f"{place} is where {by.id} answers (a service named {by.name}, {by.state.value})"
    if by.state is JobState.CANCELLING:
        return f"{told}; the name is free once that has ended"
    return f"{told}; choose another name, or end that one first: wattshift job cancel {by.id}"
