"""What a loopback pool of a coin credits: the algorithm's own reference has the last word."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.pool.coins.tongue import CoinTemplate, Solution, Tongue
from wattshift_cluster.mining.pool.verdict import MAX_CREDITED, Credit, ShareRefused
from wattshift_kernels.algorithms import by_name
from wattshift_kernels.header import MAX_TARGET, difficulty_of_target, target_of_difficulty


@dataclass(frozen=True, slots=True)
class Issued:
    """A job as it was sent to one miner."""

    template: CoinTemplate
    difficulty: float
    prefix: bytes


def target_of(tongue: Tongue, difficulty: float) -> int:
    """Largest hash value of a share behind which there are `difficulty` times 2^32 hashes."""
    return target_of_difficulty(difficulty / tongue.chains)


def easiest(tongue: Tongue) -> float:
    """The least difficulty: every hash meets the target."""
    return tongue.chains * difficulty_of_target(MAX_TARGET)


def judge(
    tongue: Tongue,
    solution: Solution,
    *,
    users: Collection[str],
    issued: Mapping[str, Issued],
    now_s: float,
    grace_s: float,
) -> Credit:
    """Check a share and credit it to its template. It may take seconds: not in an event loop.

    Args:
        users: authorized on this connection.
        issued: jobs sent to this connection, by their id.
        now_s: unix time, s.
        grace_s: a share for a job that was voided this recently is still credited.

    Raises:
        ShareRefused: with the code of the first rule broken.
    """
    if solution.user not in users:
        raise ShareRefused(lines.UNAUTHORIZED, "Unauthorized worker")
    found = issued.get(solution.job_id)
    if found is None:
        raise ShareRefused(lines.STALE, "Job not found")
    template, nonce = found.template, solution.nonce
    if template.retired_s is not None and now_s > template.retired_s + grace_s:
        raise ShareRefused(lines.STALE, "Stale share")
    if not nonce.startswith(found.prefix):
        raise ShareRefused(lines.MALFORMED, "Nonce without its extranonce")
    target = target_of(tongue, found.difficulty)
    reached = _reached(tongue, template, solution, target)
    if nonce in template.credited:
        raise ShareRefused(lines.DUPLICATE, "Duplicate share")
    if len(template.credited) >= MAX_CREDITED:
        raise ShareRefused(lines.MALFORMED, "Too many shares for this job")
    template.credited.add(nonce)
    return Credit(
        solution.user, found.difficulty, tongue.chains * difficulty_of_target(max(1, reached))
    )


def _reached(tongue: Tongue, template: CoinTemplate, solution: Solution, target: int) -> int:
    """The hash value of a share that is one. Raises: ShareRefused."""
    algorithm = by_name(tongue.algorithm)
    work = tongue.hashed(template, solution.nonce, target)
    counted = int.from_bytes(solution.nonce[-4:], "big")
    reached = algorithm.value(algorithm.digest(work, counted, 0))
    if reached > target:
        raise ShareRefused(lines.LOW_DIFFICULTY, "Low difficulty share")
    if algorithm.check is not None and not algorithm.check(work, counted):
        raise ShareRefused(lines.MALFORMED, "Invalid block chain index")
    if solution.proof is not None:
        assert algorithm.proof is not None, f"{tongue.algorithm} has no proof"
        if algorithm.proof(work, counted) != solution.proof:
            raise ShareRefused(lines.MALFORMED, "Wrong mix hash")
    return reached
