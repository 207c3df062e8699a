"""Was the promise kept? Pure arithmetic on what independent witnesses recorded.

The definition is INTERFACES' own: time to the cap, no later sample above it, inference latency and
failures in three phases, shares, hashes against accepted difficulty, batch items. A figure that
could not be had is None and breaks the promise: unknown is never good news.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HASHES_PER_DIFFICULTY = 2.0**32
TIME_TO_CAP_MAX_S = 6.0
COMMANDS_OUT_MAX_S = 1.0
P99_FACTOR = 1.5
P99_FLOOR_MS = 500.0
REQUESTS_MIN = 200
SIGMA_MAX = 4.0


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request: when it was sent (Unix s), how long it took, whether it succeeded."""

    sent_s: float
    latency_ms: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the witnesses saw. Times are Unix s.

    Attributes:
        ready_s, cut_s, restore_s, end_s: moments of the scenario.
        cap_w: the cap during the cut.
        samples: (time, watts) of the meter process; watts None where it could not read.
        commanded: machines that the journal says were shed at the cut.
        command_s: when each emulated machine received its first command after the cut.
        requests: every request of the load generator.
        shares_accepted, shares_rejected: the pool's own counts.
        accepted_difficulty: the pool's sum of accepted share difficulty.
        hashes: hashes that the workers counted.
        batch_items, batch_found: items given to the batch job; distinct items in its output.
        batch_duplicates: items that its output holds more than once.
    """

    ready_s: float
    cut_s: float
    restore_s: float
    end_s: float
    cap_w: float
    samples: Sequence[tuple[float, float | None]]
    commanded: Sequence[str]
    command_s: dict[str, float]
    requests: Sequence[Request]
    shares_accepted: int
    shares_rejected: int
    accepted_difficulty: float
    hashes: float
    batch_items: int
    batch_found: int
    batch_duplicates: int


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the promise: what was found, what was promised, and whether it holds."""

    name: str
    found: str
    promised: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Phases:
    """One figure before, during and after the cut; None if there were no requests."""

    before: float | None
    during: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The promise, judged. `figures` is the last line of `demo -o json`."""

    checks: tuple[Check, ...]
    figures: dict[str, Any]

    @property
    def kept(self) -> bool:
        """Whether every part of the promise holds."""
        return all(check.ok for check in self.checks)


def judge(seen: Evidence) -> Verdict:
    """Hold the evidence against the promise."""
    to_cap_s = _time_to_cap_s(seen)
    above = _above_after(seen, to_cap_s)
    out_s = _commands_out_s(seen)
    p99 = _p99(seen)
    counts = Phases(*(len(rows) for rows in _phases(seen)))
    failed = sum(not r.ok for r in seen.requests)
    sigma = _sigma(seen)
    lost = seen.batch_items - seen.batch_found
    bound_ms = max(P99_FACTOR * (p99.before or 0.0), P99_FLOOR_MS)
    fewest = min(counts.before or 0, counts.during or 0, counts.after or 0)
    checks = (
        _check("time to cap", to_cap_s, "s", to_cap_s is not None, TIME_TO_CAP_MAX_S),
        Check("later samples above the cap", _said(above), "0", above == 0),
        _check("commands out", out_s, "s", out_s is not None, COMMANDS_OUT_MAX_S),
        _check("inference p99 in the cut", p99.during, "ms", p99.during is not None, bound_ms),
        Check("requests in each phase", str(fewest), f">= {REQUESTS_MIN}", fewest >= REQUESTS_MIN),
        Check("requests failed", str(failed), "0", failed == 0),
        Check("shares rejected", str(seen.shares_rejected), "0", seen.shares_rejected == 0),
        Check("shares accepted", str(seen.shares_accepted), ">= 1", seen.shares_accepted >= 1),
        _check(
            "accepted difficulty against hashes",
            None if sigma is None else abs(sigma),
            "sigma",
            sigma is not None,
            SIGMA_MAX,
        ),
        Check("batch items lost", str(lost), "0", lost == 0),
        Check("batch items doubled", str(seen.batch_duplicates), "0", seen.batch_duplicates == 0),
    )
    kept = all(check.ok for check in checks)
    return Verdict(
        checks,
        {
            "verdict": "kept" if kept else "broken",
            "time_to_cap_s": _rounded(to_cap_s),
            "commands_out_s": _rounded(out_s),
            "samples_above_cap_after": above,
            "inference_p99_ms": {k: _rounded(v, 1) for k, v in asdict(p99).items()},
            "inference_requests": sum(n or 0 for n in (counts.before, counts.during, counts.after)),
            "inference_requests_by_phase": asdict(counts),
            "inference_failed": failed,
            "shares_accepted": seen.shares_accepted,
            "shares_rejected": seen.shares_rejected,
            "hash_sigma": _rounded(sigma),
            "batch_items_lost": lost,
            "seconds": _rounded(seen.end_s - seen.ready_s, 1),
        },
    )


def _check(name: str, found: float | None, unit: str, known: bool, most: float) -> Check:
    text = "unknown" if found is None else f"{found:,.2f} {unit}"
    return Check(
        name, text, f"<= {most:,.2f} {unit}", known and found is not None and found <= most
    )


def _time_to_cap_s(seen: Evidence) -> float | None:
    """From the cut to the first sample at or below the cap."""
    for at_s, watts_w in seen.samples:
        if at_s >= seen.cut_s and watts_w is not None and watts_w <= seen.cap_w:
            return at_s - seen.cut_s
    return None


def _above_after(seen: Evidence, to_cap_s: float | None) -> int | None:
    """Samples above the cap, or unreadable ones, between reaching it and the restore."""
    if to_cap_s is None:
        return None
    reached_s = seen.cut_s + to_cap_s
    inside = [w for at_s, w in seen.samples if reached_s <= at_s < seen.restore_s]
    return sum(1 for watts_w in inside if watts_w is None or watts_w > seen.cap_w)


def _commands_out_s(seen: Evidence) -> float | None:
    """From the cut until the last machine that was to be shed had received its command."""
    if not seen.commanded or any(machine not in seen.command_s for machine in seen.commanded):
        return None
    return max(seen.command_s[machine] for machine in seen.commanded) - seen.cut_s


def _phases(seen: Evidence) -> tuple[list[Request], list[Request], list[Request]]:
    before = [r for r in seen.requests if seen.ready_s <= r.sent_s < seen.cut_s]
    during = [r for r in seen.requests if seen.cut_s <= r.sent_s < seen.restore_s]
    after = [r for r in seen.requests if seen.restore_s <= r.sent_s < seen.end_s]
    return before, during, after


def _p99(seen: Evidence) -> Phases:
    return Phases(*(percentile([r.latency_ms for r in rows], 0.99) for rows in _phases(seen)))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def _sigma(seen: Evidence) -> float | None:
    """Accepted difficulty times 2^32 against hashes, in standard deviations of the share count.

    Shares of one difficulty d come as a Poisson process, one per d * 2^32 hashes. So the number of
    accepted shares has the variance of its mean.
    """
    if not seen.shares_accepted or seen.hashes <= 0:
        return None
    difficulty = seen.accepted_difficulty / seen.shares_accepted
    expected = seen.hashes / (difficulty * HASHES_PER_DIFFICULTY)
    return (seen.shares_accepted - expected) / math.sqrt(expected)


def _said(value: float | None) -> str:
    return "unknown" if value is None else str(value)


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
