"""The complete check of a submitted share: what a pool must refuse, and with which code.

Codes as real pools use them: 21 unknown or stale job, 22 duplicate, 23 above target, 24
unauthorized, 20 anything malformed (extranonce2 size, ntime out of range, bits outside the mask).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.job import MiningWork, StratumJob
from wattshift_cluster.mining.pool.template import Template
from wattshift_kernels.header import difficulty_of_target, hash_value, target_of_nbits

NTIME_AHEAD_S = 7200
"""A header may be this far ahead of the clock (Bitcoin's own rule for blocks)."""

MAX_CREDITED = 1_000_000
"""Shares remembered for each template; beyond it duplicates could pass, so nothing is credited."""


class ShareRefused(Exception):
    """A share that is not credited: `code` and `text` go to the miner, `text` to the statistics."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class IssuedJob:
    """A job as it was sent to one miner, and the template behind it.

    `former` is the job under a version mask that was in force before, with which shares are still
    credited until `former_until_s`: they were on their way.
    """

    job: StratumJob
    template: Template
    former: StratumJob | None = None
    former_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Credit:
    """A valid share: who found it, the difficulty credited and the one its hash reached.

    `block` says that the hash meets the network's target, too.
    """

    user: str
    difficulty: float
    reached: float
    block: bool = False


def judge(
    params: list[Any],
    *,
    users: Collection[str],
    issued: Mapping[str, IssuedJob],
    now_s: float,
    grace_s: float,
) -> Credit:
    """Check the parameters of a mining.submit and credit the share to its template.

    Args:
        params: user, job id, extranonce2, ntime, nonce and, with version rolling, the bits.
        users: authorized on this connection.
        issued: jobs sent to this connection.
        now_s: unix time, s.
        grace_s: a share for a job that a newer tip voided this recently is still credited, because
            it was on the wire when the new job went out.

    Raises:
        ShareRefused: with the code of the first rule broken.
    """
    if len(params) not in (5, 6) or not all(isinstance(part, str) for part in params):
        raise ShareRefused(lines.MALFORMED, "Malformed parameters")
    user, job_id, extranonce2, ntime, nonce = params[:5]
    if user not in users:
        raise ShareRefused(lines.UNAUTHORIZED, "Unauthorized worker")
    found = issued.get(job_id)
    if found is None:
        raise ShareRefused(lines.STALE, "Invalid JobID")
    retired_s = found.template.retired_s
    if retired_s is not None and now_s > retired_s + grace_s:
        raise ShareRefused(lines.STALE, "Stale")
    extra = _bytes(extranonce2, found.job.extranonce.extranonce2_size, "extranonce2 size")
    rolled_ntime = _ntime(ntime, found.job, now_s)
    job, bits = _version_bits(params, found, now_s)
    work = MiningWork(job, extra, rolled_ntime, bits)
    digest = work.digest(int.from_bytes(_bytes(nonce, 4, "nonce"), "big"))
    reached = hash_value(digest)
    if reached > work.target:
        raise ShareRefused(lines.LOW_DIFFICULTY, "Above target")
    credited = found.template.credited
    if digest in credited:
        raise ShareRefused(lines.DUPLICATE, "Duplicate")
    if len(credited) >= MAX_CREDITED:
        raise ShareRefused(lines.MALFORMED, "Too many shares for this job")
    credited.add(digest)
    block = reached <= target_of_nbits(job.nbits)
    return Credit(user, job.difficulty, difficulty_of_target(max(1, reached)), block)


def _ntime(text: str, job: StratumJob, now_s: float) -> int:
    ntime = int.from_bytes(_bytes(text, 4, "ntime"), "big")
    if not job.ntime <= ntime <= math.floor(now_s) + NTIME_AHEAD_S:
        raise ShareRefused(lines.MALFORMED, "Ntime out of range")
    return ntime


def _version_bits(params: list[str], found: IssuedJob, now_s: float) -> tuple[StratumJob, int]:
    """The rolled bits, and the job under the mask that allows them."""
    job, former = found.job, found.former
    if len(params) == 5:
        return job, job.version & job.version_mask
    bits = int.from_bytes(_bytes(params[5], 4, "version bits"), "big")
    if not bits & ~job.version_mask:
        return job, bits
    if former is None or now_s > found.former_until_s or bits & ~former.version_mask:
        raise ShareRefused(lines.MALFORMED, "Invalid version mask")
    return former, bits


def _bytes(text: str, size: int, name: str) -> bytes:
    """Exactly `size` bytes of hexadecimal, without blanks."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != size or len(text) != 2 * size:
        raise ShareRefused(lines.MALFORMED, f"Malformed {name}")
    return data
