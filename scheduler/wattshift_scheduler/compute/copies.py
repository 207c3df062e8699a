"""Copies of jobs with a few fields changed, several times as fast as `dataclasses.replace`.

A pass over a long queue copies many jobs of some forty fields; `replace` looks at each field in
turn, in Python.
"""

from dataclasses import fields
from operator import attrgetter
from typing import Any

from wattshift_scheduler.jobs import Job

_NAMES = tuple(field.name for field in fields(Job))
_VALUES = attrgetter(*_NAMES)


def changed(job: Job, **changes: Any) -> Job:
    """The job with other values in some fields; checked as every job is."""
    return Job(**(dict(zip(_NAMES, _VALUES(job), strict=True)) | changes))
