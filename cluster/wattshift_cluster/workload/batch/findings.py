"""What a batch job's folder says of it: whose it is, how far it is, and how it ended.

Files are the truth, whoever wrote them; looking at them takes a bounded part of the time.
"""

import math
import time

from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.plans import Outcome

LOOK_PART = 20.0
"""Looking at the output folder takes at most this part of the time."""

LOOK_MAX_S = 30.0
ERROR_CHARS_MAX = 500


class Findings:
    """What was found in the folder of one job.

    Attributes:
        done, total: items; None while there is no plan.
        left: chunks that nobody has committed; None while there is no plan.
        failed_items: items that have no output; None while unknown.
    """

    def __init__(self, job: str) -> None:
        """Nothing is known yet of the job of that id."""
        self._job = job
        self.done: int | None = None
        self.total: int | None = None
        self.left: int | None = None
        self.failed_items: int | None = None
        self._letters: dict[int, int] = {}
        self._committed_at_s: float | None = None
        self._look_at_s = -math.inf
        self._taken: str | None = None

    @property
    def checkpoint_age_s(self) -> float | None:
        """Since the last chunk was committed, s; None if none was."""
        if self._committed_at_s is None or not self.done:
            return None
        return round(max(0.0, time.time() - self._committed_at_s), 1)

    def begin(self) -> None:
        """Look with fresh eyes: the folder may be free by now, and items be tried anew."""
        self._taken = None
        self._letters.clear()

    def look(self, store: ChunkStore, now_s: float) -> bool | None:
        """Look at the folder, if it is time to.

        Returns:
            Whether more is done than before; None if nothing was looked at, or it is another's.
        """
        if now_s < self._look_at_s:
            return None
        began_s = time.monotonic()
        plan = store.plan()
        if plan is None:
            return None
        if plan.job != self._job:
            owner = f"{store.folder} holds the output of job {plan.job}"
            self._taken = f"{owner}; name another output"[:ERROR_CHARS_MAX]
            return None
        chunks = store.committed()
        done = sum(plan.items_of(chunk) for chunk in chunks)
        more = done > (self.done or 0)
        self.done, self.total, self.left = done, plan.items, plan.chunks - len(chunks)
        self.failed_items = store.dead_letters(self._letters)
        self._committed_at_s = store.committed_at_s()
        spent_s = time.monotonic() - began_s
        self._look_at_s = now_s + min(LOOK_MAX_S, LOOK_PART * spent_s)
        return more

    def outcome(self, store: ChunkStore) -> Outcome | None:
        """How the job ended; None while it has not."""
        if self._taken is not None:  # two were given one folder at once, and the other was first
            return Outcome("failed", self._taken)
        outcome = store.outcome()
        if outcome is None:
            return None
        plan = store.plan()
        if plan is not None and plan.job != self._job:
            return None
        # Without a plan the input or the work was at fault, before there was anything to plan.
        if plan is not None and outcome.state == "completed":
            self.done, self.total, self.left = plan.items, plan.items, 0
        return outcome
