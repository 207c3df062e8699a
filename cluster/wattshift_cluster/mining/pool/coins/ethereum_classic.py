"""The words of an Ethereum Classic pool: EthereumStratum/1.0.0, or the older form.

Sources: nicehash/Specifications `EthereumStratum_NiceHash_v1.0.0.txt`; ethminer for the older form.
"""

from typing import Any

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.dialects.seeds import hashed
from wattshift_cluster.mining.pool.coins.tongue import (
    CoinTemplate,
    Notice,
    Solution,
    Words,
    bytes_of,
    texts,
)
from wattshift_cluster.mining.pool.verdict import ShareRefused
from wattshift_kernels.etchash.epochs import epoch_of
from wattshift_kernels.hasher import Work


class EthereumClassic(Words):
    """See `Tongue`."""

    algorithm = "etchash"

    def __init__(self, *, older: bool = False) -> None:
        """Args: older: speak the form that gives no extranonce and wants the mix hash."""
        self._older = older
        self.prefix_bytes = 0 if older else 2

    def subscribed(self, prefix: bytes, session: str) -> Any:
        """See `Tongue`."""
        if self._older:
            return True
        return [["mining.notify", session, "EthereumStratum/1.0.0"], prefix.hex()]

    def work(self, template: CoinTemplate, target: int, difficulty: float) -> list[Notice]:
        """See `Tongue`."""
        header, seed = template.header.hex(), seed_of(template.height).hex()
        if self._older:
            words = [f"0x{header}", f"0x{seed}", f"0x{target:064x}"]
            return [("mining.notify", [template.job_id, *words, template.clean])]
        job = [template.job_id, seed, header, template.clean]
        return [("mining.set_difficulty", [difficulty]), ("mining.notify", job)]

    def solution(self, params: list[Any], prefix: bytes) -> Solution:
        """See `Tongue`."""
        if not self._older:
            user, job_id, rest = texts(params, 3)
            tail = bytes_of(rest, self.nonce_bytes - len(prefix), "minernonce")
            return Solution(user, job_id, prefix + tail)
        user, job_id, nonce, _, mix = texts(params, 5)
        if not all(one.startswith("0x") for one in params[2:]):
            raise ShareRefused(lines.MALFORMED, "Not marked as hexadecimal")
        whole = bytes_of(nonce[2:], self.nonce_bytes, "nonce")
        return Solution(user, job_id, whole, bytes_of(mix[2:], 32, "mix hash"))

    def hashed(self, template: CoinTemplate, nonce: bytes, target: int) -> Work:
        """See `Tongue`."""
        return Work(template.header + nonce[:4], target, "etchash", height=template.height)


def seed_of(height: int) -> bytes:
    """The seed hash that a node tells for a block."""
    seed = bytes(32)
    for _ in range(epoch_of(height).seed_rounds):
        seed = hashed(seed)
    return seed
