"""The words of a Kaspa pool. Source: onemorebsmith/kaspa-stratum-bridge."""

import struct
from typing import Any

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.pool.coins.tongue import CoinTemplate, Notice, Solution, Words, texts
from wattshift_cluster.mining.pool.verdict import ShareRefused
from wattshift_kernels.hasher import Work


class Kaspa(Words):
    """See `Tongue`. `large` sends the header as text, as it goes to some miners."""

    algorithm = "kheavyhash"

    def __init__(self, *, large: bool = False, prefix_bytes: int = 2) -> None:
        """Args: prefix_bytes: 0 leaves the whole nonce to the miner."""
        self._large = large
        self.prefix_bytes = prefix_bytes

    def subscribed(self, prefix: bytes, session: str) -> Any:
        """See `Tongue`."""
        return [True, "EthereumStratum/1.0.0"]

    def greeting(self, prefix: bytes) -> list[Notice]:
        """See `Tongue`."""
        return self.moved(prefix) if prefix else []

    def moved(self, prefix: bytes) -> list[Notice]:
        """See `Tongue`."""
        return [("set_extranonce", [prefix.hex(), self.nonce_bytes - len(prefix)])]

    def work(self, template: CoinTemplate, target: int, difficulty: float) -> list[Notice]:
        """See `Tongue`."""
        job: list[Any] = [template.job_id]
        if self._large:
            job.append(template.header.hex() + struct.pack("<Q", template.time_ms).hex())
        else:
            job += [list(struct.unpack("<4Q", template.header)), template.time_ms]
        return [("mining.set_difficulty", [difficulty]), ("mining.notify", job)]

    def solution(self, params: list[Any], prefix: bytes) -> Solution:
        """See `Tongue`: a short nonce stands behind the extranonce."""
        user, job_id, digits = texts(params, 3)
        digits = digits.removeprefix("0x")
        room = 2 * (self.nonce_bytes - len(prefix))
        if len(digits) <= room:
            digits = prefix.hex() + digits.rjust(room, "0")
        try:
            nonce = struct.pack(">Q", int(digits, 16))
        except (ValueError, struct.error) as fault:
            raise ShareRefused(lines.MALFORMED, "Malformed nonce") from fault
        return Solution(user, job_id, nonce)

    def hashed(self, template: CoinTemplate, nonce: bytes, target: int) -> Work:
        """See `Tongue`."""
        message = struct.pack("<32sQ4s", template.header, template.time_ms, nonce[:4])
        return Work(message, target, "kheavyhash")
