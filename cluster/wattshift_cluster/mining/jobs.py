"""The jobs that a client may submit for, across its sessions, and the extranonce2 values it gives.

Jobs outlive their connection, because a pool may go on with the session and then still takes shares
for them. When it does not, or says that they are void, they go.
"""

from collections import OrderedDict

from wattshift_cluster.mining.extranonce import Extranonce2Space
from wattshift_cluster.mining.job import Extranonce, StratumJob
from wattshift_cluster.mining.nonces import AnyShare, Job

MAX_JOBS = 64
"""Jobs that may still be submitted for; a clean job voids all before it."""


class JobBook:
    """Attributes:
    current: what to work on; None while there is no session or no job yet.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self.current: Job | None = None
        self._jobs: OrderedDict[tuple[int, str], Job] = OrderedDict()
        self._resuming = False
        self._last: Job | None = None
        self._space_of: Extranonce | None = None
        self._space = Extranonce2Space(0)

    def take(self, job: Job) -> None:
        """Work on this job from now on."""
        self._void(job)
        key = job.session, job.job_id
        self._jobs[key] = job
        self._jobs.move_to_end(key)
        while len(self._jobs) > MAX_JOBS:
            self._jobs.popitem(last=False)
        if isinstance(job, StratumJob):
            self._renew_space(job)
        self.current = self._last = job

    def suspend(self) -> None:
        """The connection has ended: nothing to work on, but shares may still find their job."""
        self.current = None
        self._resuming = False

    def resume(self) -> None:
        """The pool goes on with the session: its next job says which of the old ones are void."""
        self._resuming = True

    def forget(self, session: int) -> None:
        """The pool knows nothing of what was before this session."""
        self._resuming = False
        for key in [key for key in self._jobs if key[0] != session]:
            del self._jobs[key]

    def find(self, share: AnyShare) -> Job | None:
        """The job of a share, while it may be submitted for."""
        return self._jobs.get((share.session, share.job_id))

    def renamed(self, job: Job) -> bool:
        """Whether the pool now calls another job by this job's name."""
        now = (other for (_, name), other in self._jobs.items() if name == job.job_id)
        return any(not other.same_template(job) for other in now)

    def next_extranonce2(self) -> bytes:
        """A value that nobody else got for the current job. Raises: Extranonce2Exhausted."""
        return self._space.encode(self._space.take()[0])

    def _void(self, job: Job) -> None:
        """Drop what this job makes worthless.

        A pool that goes on with a session announces its job anew, and as a clean one: what stands
        on the same chain tip is still good then, unless its name was given to another job.
        """
        if not self._resuming:
            if job.clean:
                self._jobs.clear()
            return
        self._resuming = False
        for key, old in list(self._jobs.items()):
            tip_gone = job.clean and old.tip != job.tip
            if tip_gone or (key[1] == job.job_id and not old.same_template(job)):
                del self._jobs[key]

    def _renew_space(self, job: StratumJob) -> None:
        """All values are free again for a new job, and for that alone.

        The same job comes again with a new version mask or after a reconnect; a value handed out
        twice for it would find the same shares twice.
        """
        if self._space_of != job.extranonce:
            self._space_of = job.extranonce
            self._space = Extranonce2Space(job.extranonce.extranonce2_size)
        last = self._last
        same = isinstance(last, StratumJob) and last.ntime == job.ntime and last.same_template(job)
        if not same:
            self._space.new_job()
