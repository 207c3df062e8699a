"""The words of an Ergo pool. Sources: oliverw/miningcore `ErgoPool.cs` and `ErgoJob.cs`."""

import struct
from typing import Any

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.pool.coins.tongue import (
    CoinTemplate,
    Notice,
    Solution,
    Words,
    bytes_of,
    texts,
)
from wattshift_cluster.mining.pool.verdict import ShareRefused
from wattshift_kernels.hasher import Work


class Ergo(Words):
    """See `Tongue`."""

    algorithm = "autolykos2"

    def subscribed(self, prefix: bytes, session: str) -> Any:
        """See `Tongue`."""
        names = [["mining.set_difficulty", session], ["mining.notify", session]]
        return [names, prefix.hex(), self.nonce_bytes - len(prefix)]

    def moved(self, prefix: bytes) -> list[Notice]:
        """See `Tongue`."""
        return [("mining.set_extranonce", [prefix.hex(), self.nonce_bytes - len(prefix)])]

    def work(self, template: CoinTemplate, target: int, difficulty: float) -> list[Notice]:
        """See `Tongue`: the difficulty is in b already, so that its factor is 1."""
        bound = str(target + 1)
        job = [template.job_id, template.height, template.header.hex(), "", "", 2, bound, ""]
        return [("mining.set_difficulty", [1]), ("mining.notify", [*job, template.clean])]

    def solution(self, params: list[Any], prefix: bytes) -> Solution:
        """See `Tongue`."""
        user, job_id, rest, ntime, whole = texts(params, 5)
        if not ntime:
            raise ShareRefused(lines.MALFORMED, "nTime must not be empty")
        nonce = bytes_of(whole, self.nonce_bytes, "nonce")
        if nonce != prefix + bytes_of(rest, self.nonce_bytes - len(prefix), "extranonce2"):
            raise ShareRefused(lines.MALFORMED, "Nonce is not extranonce1 and extranonce2")
        return Solution(user, job_id, nonce)

    def hashed(self, template: CoinTemplate, nonce: bytes, target: int) -> Work:
        """See `Tongue`."""
        high, _ = struct.unpack(">4s4s", nonce)
        return Work(template.header + high, target, "autolykos2", height=template.height)
