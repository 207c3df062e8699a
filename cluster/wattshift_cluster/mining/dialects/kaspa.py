"""kheavyhash (Kaspa): a subscription that says little, and jobs ten times a second.

    mining.subscribe       -> [true, "EthereumStratum/1.0.0"], or [.., extranonce, size]
    set_extranonce         [extranonce, size]; also mining.set_extranonce; not every pool has one
    mining.set_difficulty  as Bitcoin counts it
    mining.notify          [job, [four numbers of 64 bits], time in ms], or [job, 80 digits]
    mining.submit          [user, job, whole nonce]

The four numbers are the pre-PoW hash, little-endian each; in the 80 digits it stands as it is, and
the time behind it, little-endian. The nonce is a number of 64 bits whose first bytes, as it is
written, are the extranonce.

Sources: onemorebsmith/kaspa-stratum-bridge `hasher.go`, `client_handler.go`, `share_handler.go`;
tmrlvi/kaspa-miner `src/client/stratum.rs`; a recorded conversation in rigelminer/rigel#48; read in
November 2026. Difficulty 1 is 2^224 - 1 in the bridge and 0xffff * 2^208 in the miner: the second
is below the first, so a share by it is one by both.
"""

from typing import Any

from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.dialects.nonce_feed import NonceFeed, at_least, parse_word
from wattshift_cluster.mining.job import Extranonce, JobFault, parse_exact
from wattshift_cluster.mining.nonces import NonceJob

NONCE_BYTES = 8
MOST_WORD = 2**64 - 1
LARGE_DIGITS = 80


class KaspaFeed(NonceFeed):
    """See `dialect.Feed`. Without an extranonce the whole nonce is ours."""

    algorithm = "kheavyhash"
    methods = NonceFeed.methods | {"set_extranonce"}

    def __init__(self, number: int = 0) -> None:
        """Args: number: of the connection, stamped on its jobs."""
        super().__init__(number)
        self.extranonce = Extranonce(b"", NONCE_BYTES)

    def subscribed(self, result: Any) -> NonceJob | None:
        """Raises: JobFault: a third value that is no size of an extranonce."""
        if isinstance(result, list) and len(result) >= 3:
            self.extranonce = self.prefixed(result[1])
        return None

    def job(self, params: list[Any], prefix: bytes) -> NonceJob:
        """Raises: JobFault."""
        return NonceJob(
            algorithm=self.algorithm,
            job_id=at_least(params, 2)[0],
            before=_header(params),
            after=b"",
            nonce_bytes=NONCE_BYTES,
            prefix=prefix,
            target=self.target(),
            submission_of=_submission,
            session=self.number,
        )


def _header(params: list[Any]) -> bytes:
    """Pre-PoW hash and time, 40 bytes. Raises: JobFault."""
    header = _header_bytes(params)
    if not any(header[:32]):
        raise JobFault("a pre-PoW hash of zeros has no matrix")
    return header


def _header_bytes(params: list[Any]) -> bytes:
    if len(params) == 2 and isinstance(params[1], str):
        return parse_exact(params[1], "the header", LARGE_DIGITS // 2)
    _, words, time = at_least(params, 3)[:3]
    if not isinstance(words, list) or len(words) != 4:
        raise JobFault("the header is not a list of four numbers")
    numbers = [*words, time]
    return b"".join(
        parse_word(number, "a word of the header", MOST_WORD).to_bytes(8, "little")
        for number in numbers
    )


def _submission(job: NonceJob, nonce: bytes, user: str) -> list[Any]:
    return [user, job.job_id, nonce.hex()]


DIALECT = Dialect("kheavyhash", KaspaFeed)
