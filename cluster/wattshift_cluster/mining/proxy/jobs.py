"""The pool's jobs as the miners know them: numbered by us, encoded once, void when it says so.

All miners get the same line for a job, since what differs between them (extranonce1 and difficulty)
is told apart from it. Numbers only grow; a job that the pool sends again, as in a resumed session,
keeps its number and its credited shares.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.job import StratumJob
from wattshift_cluster.mining.pool.template import Template

MAX_JOBS = 16
"""Jobs that may still be submitted for. Pools renew theirs every 15 to 60 s, so the oldest of these
is minutes old: a share for it would be refused."""


@dataclass(slots=True)
class LiveJob:
    """A job that may be submitted for.

    Attributes:
        number: ours; in hexadecimal it is the job's name for every miner.
        since: number under which the same work was first told.
        upstream: as the pool's client has it now.
        template: the shares credited for it.
        alone: all before it is void.
        line, clean_line: mining.notify without and with the word that all else is void.
    """

    number: int
    since: int
    upstream: StratumJob
    template: Template
    alone: bool
    line: bytes
    clean_line: bytes


class JobBook:
    """The jobs of one upstream, the newest last.

    Attributes:
        oldest: number of the oldest work among them; what only had lower ones is void.
    """

    def __init__(self) -> None:
        """No job yet."""
        self.oldest = 1
        self._jobs: OrderedDict[str, LiveJob] = OrderedDict()
        self._number = 0

    @property
    def newest(self) -> LiveJob | None:
        """The job to work on; None before the first."""
        return next(reversed(self._jobs.values()), None)

    def get(self, name: str) -> LiveJob | None:
        """The job that a miner means; None if there is no such job or it is void."""
        return self._jobs.get(name)

    def add(self, upstream: StratumJob) -> tuple[LiveJob, bool]:
        """Take a job of the pool; says too whether it is news to the miners.

        A clean job voids all before it, and so does the first of a session that cannot submit for
        the jobs of the one before. A resumed session announces its jobs anew, perhaps as clean
        ones; what stands on the same chain tip is still good then.
        """
        newest = self.newest
        twin = next(
            (one for one in self._jobs.values() if _same_work(one.upstream, upstream)), None
        )
        if twin is not None and (twin is newest or not upstream.clean):
            twin.upstream = upstream
            return twin, False
        if newest is None or (upstream.clean and not _resumed(newest.upstream, upstream)):
            self._jobs.clear()
        elif newest.upstream.session != upstream.session:
            self._keep(upstream)
        self._number += 1
        live = LiveJob(
            self._number,
            self._number if twin is None else twin.since,
            upstream,
            _template(self._number, upstream) if twin is None else twin.template,
            not self._jobs,
            _notify(upstream, f"{self._number:x}", clean=False),
            _notify(upstream, f"{self._number:x}", clean=True),
        )
        self._jobs[f"{self._number:x}"] = live
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)
        self.oldest = min(one.since for one in self._jobs.values())
        return live, True

    def _keep(self, upstream: StratumJob) -> None:
        """Of the jobs of an earlier session, those that can still be submitted for in this one."""
        for name, old in list(self._jobs.items()):
            if not _resumed(old.upstream, upstream) or old.upstream.prevhash != upstream.prevhash:
                del self._jobs[name]


def _same_work(one: StratumJob, other: StratumJob) -> bool:
    """Whether both make the same headers, whatever they are called."""
    return one.same_template(other) and one.ntime == other.ntime


def _resumed(before: StratumJob, after: StratumJob) -> bool:
    """Whether another session goes on where the one before has ended."""
    return before.session != after.session and before.extranonce == after.extranonce


def _notify(upstream: StratumJob, name: str, *, clean: bool) -> bytes:
    params = replace(upstream, job_id=name, clean=clean).notify()
    return lines.encode({"id": None, "method": "mining.notify", "params": params})


def _template(number: int, job: StratumJob) -> Template:
    return Template(
        number=number,
        prevhash=job.prevhash,
        coinbase1=job.coinbase1,
        coinbase2=job.coinbase2,
        branches=job.branches,
        ntime=job.ntime,
        clean=job.clean,
        nbits=job.nbits,
    )
