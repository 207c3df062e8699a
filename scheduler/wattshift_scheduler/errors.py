"""The exceptions of the core.

    SchedulerError
    ├── SiteInvalid      a feeder tree or a device that cannot exist
    └── JobInvalid       a job that can never run here

Operating conditions (a cap below the floor, a silent agent) are never exceptions: they are state,
alarms and decisions. A broken rule of the core itself is an assertion.
"""


class SchedulerError(Exception):
    """Base of all errors that the core raises for bad input."""


class SiteInvalid(SchedulerError):
    """A feeder tree or device that cannot exist. `item` names it, `reason` says why."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(f"{item}: {reason}")
        self.item = item
        self.reason = reason


class JobInvalid(SchedulerError):
    """A job that can never run here. `job` names it, `reason` says why."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(f"{job}: {reason}")
        self.job = job
        self.reason = reason
