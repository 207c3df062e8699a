"""blake3 (Alephium): no subscription, and objects instead of lists.

    mining.authorize       -> true, and then
    mining.set_extranonce  [extranonce]
    mining.notify          [{jobId, fromGroup, toGroup, headerBlob, txsBlob, targetBlob}, ...]
    mining.submit          {jobId, fromGroup, toGroup, nonce, worker}

The nonce has 24 bytes, the extranonce is the first of them, and the whole of it is submitted. A
hash must meet the target, and name the two groups of its job: one of 16 does. Of several jobs in
one notify we take one, in turn. A refusal has its own codes; some pools say null and no more.

Sources: alephium/mining-pool `lib/stratum.js`, `lib/jobManager.js`, `lib/blockTemplate.js`;
alephium/docs `mining/alephium-stratum.md`, which pools do not follow exactly; recorded jobs in
alephium/mining-pool#62; miningcore's `AlephiumPool.cs`, which notes that miners do not subscribe;
read in November 2026.
"""

from typing import Any

from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.dialects.nonce_feed import NonceFeed, at_least, parse_word
from wattshift_cluster.mining.job import JobFault, parse_hex
from wattshift_cluster.mining.nonces import NonceJob
from wattshift_cluster.mining.refusals import Kind

NONCE_BYTES = 24
GROUPS = 4
CHAINS = GROUPS * GROUPS
MOST_BLOB_BYTES = 512
"""Of a header without its nonce; Alephium's have 302."""

MOST_JOBS = CHAINS


class AlephiumFeed(NonceFeed):
    """See `dialect.Feed`."""

    algorithm = "blake3"
    nonce_bytes = NONCE_BYTES

    def __init__(self, number: int = 0) -> None:
        """Args: number: of the connection, stamped on its jobs."""
        super().__init__(number)
        self._turn = number

    def job(self, params: list[Any], prefix: bytes) -> NonceJob:
        """Raises: JobFault."""
        jobs = at_least(params, 1)
        if len(jobs) > MOST_JOBS:
            raise JobFault(f"notify has {len(jobs)} jobs, and there are {CHAINS} chains")
        self._turn += 1
        one = jobs[self._turn % len(jobs)]
        if not isinstance(one, dict):
            raise JobFault("a job that is no object")
        groups = [parse_word(one.get(key), key, GROUPS - 1) for key in ("fromGroup", "toGroup")]
        target = parse_hex(one.get("targetBlob"), "targetBlob", 32)
        return NonceJob(
            algorithm=self.algorithm,
            job_id=one.get("jobId", ""),
            before=b"",
            after=_blob(one) + bytes(groups),
            nonce_bytes=NONCE_BYTES,
            prefix=prefix,
            target=int.from_bytes(target, "big"),
            submission_of=_submission,
            session=self.number,
            notes=tuple(groups),
            chains=CHAINS,
        )


def _blob(job: dict[str, Any]) -> bytes:
    blob = parse_hex(job.get("headerBlob"), "headerBlob", MOST_BLOB_BYTES)
    if not blob:
        raise JobFault("headerBlob is empty")
    return blob


def _submission(job: NonceJob, nonce: bytes, user: str) -> dict[str, Any]:
    start, end = job.notes
    return {
        "jobId": job.job_id,
        "fromGroup": start,
        "toGroup": end,
        "nonce": nonce.hex(),
        "worker": user,
    }


DIALECT = Dialect(
    "blake3",
    AlephiumFeed,
    subscribe=None,
    codes={
        20: Kind.STALE,
        21: Kind.OTHER,
        22: Kind.UNAUTHORISED,
        23: Kind.OTHER,
        24: Kind.DUPLICATE,
        25: Kind.LOW_DIFFICULTY,
        26: Kind.OTHER,
    },
)
