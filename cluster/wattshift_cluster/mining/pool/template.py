"""Synthetic block templates for the loopback pool: shaped like real ones, paying nobody.

The coinbase has a single output of zero satoshi that can never be spent (OP_RETURN), so even a
header that meets the network's target is worth nothing. Everything follows from a seed.
"""

import random
from dataclasses import dataclass, field

from wattshift_cluster.mining.job import Extranonce, StratumJob

VERSION = 0x20000000

PAYS_NOBODY = b"wattshift loopback pool: pays nobody"


@dataclass(slots=True)
class Template:
    """One block template and the shares already credited for it.

    Attributes:
        number: of this template; part of its job ids.
        nbits: the network's target.
        retired_s: when a newer chain tip voided it; None while it may be mined.
        credited: digests of credited shares, against duplicates.
    """

    number: int
    prevhash: bytes
    coinbase1: bytes
    coinbase2: bytes
    branches: tuple[bytes, ...]
    ntime: int
    clean: bool
    nbits: int
    retired_s: float | None = None
    credited: set[bytes] = field(default_factory=set)

    def job(
        self, job_id: str, *, extranonce: Extranonce, difficulty: float, mask: int, clean: bool
    ) -> StratumJob:
        """The template as a job of one connection."""
        return StratumJob(
            job_id=job_id,
            prevhash=self.prevhash,
            coinbase1=self.coinbase1,
            coinbase2=self.coinbase2,
            branches=self.branches,
            version=VERSION,
            nbits=self.nbits,
            ntime=self.ntime,
            clean=clean,
            extranonce=extranonce,
            difficulty=difficulty,
            version_mask=mask,
        )


class TemplateSource:
    """Makes templates; the same seed gives the same sequence."""

    def __init__(self, seed: int, extranonce_bytes: int, nbits: int) -> None:
        """Args: extranonce_bytes: extranonce1 and extranonce2 together; nbits: in every header."""
        self._nbits = nbits
        self._rng = random.Random(seed)
        self._extranonce_bytes = extranonce_bytes
        self._number = 0
        self._height = 900_000 + self._rng.randrange(100_000)
        self._prevhash = self._rng.randbytes(28) + bytes(4)

    def next(self, ntime: int, *, clean: bool) -> Template:
        """The next template; a clean one stands on a new chain tip."""
        if clean:
            self._height += 1
            # A header hash is a small number: its last bytes (little-endian) are zero.
            self._prevhash = self._rng.randbytes(28) + bytes(4)
        self._number += 1
        coinbase1, coinbase2 = self._coinbase()
        branches = tuple(self._rng.randbytes(32) for _ in range(self._rng.randint(1, 12)))
        return Template(
            self._number, self._prevhash, coinbase1, coinbase2, branches, ntime, clean, self._nbits
        )

    def _coinbase(self) -> tuple[bytes, bytes]:
        """A coinbase transaction around the extranonce (BIP 34: the height comes first)."""
        script = b"\x03" + self._height.to_bytes(3, "little") + b"/wattshift/"
        script_size = len(script) + self._extranonce_bytes
        null_outpoint = bytes(32) + b"\xff" * 4
        head = b"\x01\x00\x00\x00\x01" + null_outpoint + bytes([script_size]) + script
        message = PAYS_NOBODY + b" #" + str(self._number).encode()
        output_script = b"\x6a" + bytes([len(message)]) + message  # OP_RETURN
        output = bytes(8) + bytes([len(output_script)]) + output_script
        return head, b"\xff" * 4 + b"\x01" + output + bytes(4)
