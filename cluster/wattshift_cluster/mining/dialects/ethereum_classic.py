"""etchash (Ethereum Classic): EthereumStratum/1.0.0, and the older form that has no name.

    mining.subscribe       [name, "EthereumStratum/1.0.0"]
                           -> [[.., session, "EthereumStratum/1.0.0"], extranonce], or true
    mining.set_difficulty  as Bitcoin counts it
    mining.notify          [job, seed hash, header hash, clean]
           the older form  [job, header hash, seed hash, target, clean]
    mining.submit          [user, job, nonce behind the extranonce]
           the older form  [user, job, nonce, header hash, mix hash]

The nonce is a number of 64 bits whose first bytes, as it is written, are the extranonce. A pool
tells no height: the seed hash names the epoch. It is Keccak-256, applied to zeros once for each
30,000 blocks, also since ECIP-1099 has made epochs twice as long, from block 11,700,000 on.

Sources: nicehash/Specifications `EthereumStratum_NiceHash_v1.0.0.txt`; ethereum-mining/ethminer
`EthStratumClient.cpp` (the older form, and which answer means which); ECIP-1099 and core-geth's
`seedHash`; read in November 2026.
"""

from typing import Any

from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.dialects.nonce_feed import NonceFeed, at_least
from wattshift_cluster.mining.dialects.seeds import seed_number
from wattshift_cluster.mining.job import Extranonce, JobFault, parse_exact, parse_hex
from wattshift_cluster.mining.nonces import NonceJob
from wattshift_kernels.etchash.epochs import SEED_BLOCKS, epoch_of

NAME = "EthereumStratum/1.0.0"
NONCE_BYTES = 8


class EtchashFeed(NonceFeed):
    """See `dialect.Feed`."""

    algorithm = "etchash"

    def __init__(self, number: int = 0) -> None:
        """Args: number: of the connection, stamped on its jobs."""
        super().__init__(number)
        self._named = True

    def subscribed(self, result: Any) -> NonceJob | None:
        """Raises: JobFault: neither form."""
        self._named = isinstance(result, list) and len(result) >= 2
        if self._named:
            about = result[0]
            if not isinstance(about, list) or len(about) < 3 or about[2] != NAME:
                raise JobFault(f"the pool does not speak {NAME}")
            self.extranonce = self.prefixed(result[1])
        elif result is True:
            self.extranonce = Extranonce(b"", NONCE_BYTES)
        else:
            raise JobFault(f"the answer to subscribe is neither true nor that of {NAME}")
        return self.take_early()

    def job(self, params: list[Any], prefix: bytes) -> NonceJob:
        """Raises: JobFault."""
        if self._named:
            name, seed, header, clean = at_least(params, 4)[:4]
            target = self.target()
        else:
            name, header, seed, bound, clean = at_least(params, 5)[:5]
            target = int.from_bytes(parse_hex(_bare(bound), "target", 32), "big")
        return NonceJob(
            algorithm=self.algorithm,
            job_id=name,
            before=parse_exact(_bare(header), "header hash", 32),
            after=b"",
            nonce_bytes=NONCE_BYTES,
            prefix=prefix,
            target=target,
            submission_of=_submission if self._named else _older_submission,
            height=_height(parse_exact(_bare(seed), "seed hash", 32)),
            clean=bool(clean),
            session=self.number,
        )


def _height(seed: bytes) -> int:
    """The first block that has this seed. Raises: JobFault."""
    number = seed_number(seed)
    if number is None:
        raise JobFault("a seed hash of no epoch that is known")
    height = number * SEED_BLOCKS
    if epoch_of(height).seed_rounds != number:
        raise JobFault("a seed hash from the middle of an epoch")
    return height


def _bare(value: Any) -> Any:
    return value[2:] if isinstance(value, str) and value.startswith("0x") else value


def _submission(job: NonceJob, nonce: bytes, user: str) -> list[Any]:
    return [user, job.job_id, nonce[len(job.prefix) :].hex()]


def _older_submission(job: NonceJob, nonce: bytes, user: str) -> list[Any]:
    hashes = (nonce, job.before, job.proof(nonce))
    return [user, job.job_id, *("0x" + one.hex() for one in hashes)]


DIALECT = Dialect("etchash", EtchashFeed, subscribe=(NAME,), moves=True)
