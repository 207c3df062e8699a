"""The words of an Alephium pool. Source: alephium/mining-pool `lib/stratum.js`, `jobManager.js`."""

from typing import Any

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.pool.coins.tongue import (
    CoinTemplate,
    Notice,
    Solution,
    Words,
    bytes_of,
)
from wattshift_cluster.mining.pool.verdict import ShareRefused
from wattshift_kernels.hasher import Work

CODES = {
    lines.STALE: 20,
    lines.MALFORMED: 23,
    lines.UNAUTHORIZED: 22,
    lines.DUPLICATE: 24,
    lines.LOW_DIFFICULTY: 25,
}


class Alephium(Words):
    """See `Tongue`."""

    algorithm = "blake3"
    nonce_bytes = 24
    header_bytes = 302
    chains = 16

    def subscribed(self, prefix: bytes, session: str) -> Any:
        """See `Tongue`; nobody asks."""
        return session

    def greeting(self, prefix: bytes) -> list[Notice]:
        """See `Tongue`."""
        return self.moved(prefix)

    def work(self, template: CoinTemplate, target: int, difficulty: float) -> list[Notice]:
        """See `Tongue`."""
        start, end = template.groups
        job = {
            "jobId": template.job_id,
            "fromGroup": start,
            "toGroup": end,
            "headerBlob": template.header.hex(),
            "txsBlob": "",
            "targetBlob": f"{target:x}".rjust(2 * -(-target.bit_length() // 8), "0"),
        }
        return [("mining.set_difficulty", [difficulty]), ("mining.notify", [job])]

    def solution(self, params: list[Any], prefix: bytes) -> Solution:
        """See `Tongue`."""
        said = params[0] if len(params) == 1 and isinstance(params[0], dict) else {}
        user, job_id = said.get("worker"), said.get("jobId")
        groups = (said.get("fromGroup"), said.get("toGroup"))
        if not isinstance(user, str) or not isinstance(job_id, str) or groups == (None, None):
            raise ShareRefused(lines.MALFORMED, "Malformed parameters")
        return Solution(user, job_id, bytes_of(said.get("nonce"), self.nonce_bytes, "nonce"))

    def hashed(self, template: CoinTemplate, nonce: bytes, target: int) -> Work:
        """See `Tongue`."""
        message = nonce[:20] + template.header + bytes(template.groups)
        return Work(message, target, "blake3")

    def code(self, code: int) -> int:
        """See `Tongue`."""
        return CODES.get(code, code)
