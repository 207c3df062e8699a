"""autolykos2 (Ergo): Stratum with Bitcoin's nine parameters, most of them given another meaning.

    mining.subscribe       -> [subscriptions, extranonce1, size of extranonce2]
    mining.notify          [job, height, msg, "", "", version, b, ntime, clean]
    mining.set_difficulty  a factor on b
    mining.submit          [user, job, extranonce2, ntime, whole nonce]

The nonce is extranonce1 and extranonce2, 8 bytes. `b` is a decimal number; a hash below it, times
the difficulty, is a share. ntime is not used, but some pools want it not to be empty.

Sources: mhssamadani/ErgoStratumProxy `client.js` (which number stands where; (b - 1) * difficulty),
oliverw/miningcore `ErgoJob.cs` and `ErgoPool.cs` (nonce sizes, b, difficulty 1, ntime), read in
November 2026.
"""

from fractions import Fraction
from typing import Any

from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.dialects.nonce_feed import NonceFeed, at_least, parse_word
from wattshift_cluster.mining.job import Extranonce, JobFault, parse_exact
from wattshift_cluster.mining.nonces import NonceJob
from wattshift_kernels.header import MAX_TARGET

NONCE_BYTES = 8
MOST_HEIGHT = 2**31 - 1
NTIME = "00000000"
MOST_NTIME = 16


class ErgoFeed(NonceFeed):
    """See `dialect.Feed`."""

    algorithm = "autolykos2"

    def subscribed(self, result: Any) -> NonceJob | None:
        """Raises: JobFault: it is not [subscriptions, extranonce1, size]."""
        if not isinstance(result, list) or len(result) < 3:
            raise JobFault("the answer to subscribe is not a list of three")
        given = Extranonce.parse(result[1], result[2])
        if len(given.extranonce1) + given.extranonce2_size != NONCE_BYTES:
            raise JobFault(f"the two parts of the nonce do not have {NONCE_BYTES} bytes together")
        self.extranonce = given
        return self.take_early()

    def job(self, params: list[Any], prefix: bytes) -> NonceJob:
        """Raises: JobFault."""
        name, height, message, _, _, _, bound, ntime, clean = at_least(params, 9)[:9]
        least = parse_word(bound, "b", MAX_TARGET)
        target = min(int((least - 1) * Fraction(self.difficulty)), MAX_TARGET)
        return NonceJob(
            algorithm=self.algorithm,
            job_id=name,
            before=parse_exact(message, "msg", 32),
            after=b"",
            nonce_bytes=NONCE_BYTES,
            prefix=prefix,
            target=target,
            submission_of=_submission,
            height=parse_word(height, "height", MOST_HEIGHT),
            clean=bool(clean),
            session=self.number,
            notes=(ntime if _is_ntime(ntime) else NTIME,),
        )


def _submission(job: NonceJob, nonce: bytes, user: str) -> list[Any]:
    (ntime,) = job.notes
    return [user, job.job_id, nonce[len(job.prefix) :].hex(), ntime, nonce.hex()]


def _is_ntime(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_NTIME and value.isalnum()


DIALECT = Dialect("autolykos2", ErgoFeed)
