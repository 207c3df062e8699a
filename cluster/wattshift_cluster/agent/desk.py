"""The agent's one pool session, and the work it hands out to all hashing devices of the host."""

from collections.abc import Callable

from wattshift_cluster.config.agent import Pool
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.extranonce import Extranonce2Exhausted
from wattshift_cluster.mining.job import MiningWork, Share, StratumJob
from wattshift_cluster.mining.shares import ShareResult

MOST_SUBMITTING = 256
"""Shares on their way to the pool at one time; more are lost with that reason, and counted."""

Listener = Callable[[StratumJob | None], None]


class PoolDesk:
    """Work in, shares out. Without a session there is no work, so nobody hashes for nothing."""

    def __init__(self, pool: Pool) -> None:
        """Prepare; nothing is connected before `run`. Raises: EndpointInvalid."""
        self._listeners: list[Listener] = []
        self._submitting = 0
        self._client = StratumClient(
            pool.url,
            pool.user,
            pool.password,
            suggest_difficulty=pool.suggest_difficulty,
            on_job=self._told,
        )

    @property
    def fault(self) -> str | None:
        """Why there is no work; None while there is a session."""
        return self._client.fault

    def subscribe(self, listener: Listener) -> None:
        """Have `listener` called with each new job, and with None when there is none any more."""
        self._listeners.append(listener)

    def work(self) -> MiningWork | None:
        """2^32 nonces that nobody else got; None without a job or when the job is used up."""
        try:
            return self._client.next_work()
        except Extranonce2Exhausted:
            return None

    async def submit(self, share: Share) -> ShareResult:
        """Check a share with hashlib and send it. Never raises but for cancellation."""
        if self._submitting >= MOST_SUBMITTING:
            return ShareResult(False, "lost: too many on their way", 0.0)
        self._submitting += 1
        try:
            return await self._client.submit(share)
        finally:
            self._submitting -= 1

    async def run(self) -> None:
        """Keep the session until cancelled."""
        await self._client.run()

    def _told(self, job: StratumJob | None) -> None:
        for listener in self._listeners:
            listener(job)
