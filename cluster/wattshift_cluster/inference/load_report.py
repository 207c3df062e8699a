"""What a load came to: columns of outcomes, and the figures made of them.

Latency counts from the moment a request was due. A quantile that too few answers stand behind is
None, not their maximum. An objective is judged over all requests that were due: one that failed was
later than any; that of the time between tokens is judged over the gaps of good answers.
"""

import itertools
import math
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.inference.open_loop import Outcome

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
OBJECTIVE_SHARE = 0.95
"""Objectives are 95th percentiles."""

OUTCOMES_MAX = 2_000_000
GAPS_MAX = 5_000_000
"""Gaps between parts of streamed answers that are kept: 40 MB."""
CAUSES_MAX = 20
"""Further causes of failures are counted together."""

EDGES_MS = (
    1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750,
    1000, 1500, 2000, 3000, 5000, 10000, 20000, 60000,
)  # fmt: skip
"""Upper ends of the histogram's bars; the last bar has none."""

RECENT = 200
SLICES = 10
"""Into so many equal parts of its time a load is cut, to see when it went wrong."""


@dataclass(frozen=True, slots=True)
class Objectives:
    """What 95 % of the requests must keep, ms; None where nothing is asked.

    Attributes:
        p95_ms: of the whole answer.
        ttft_p95_ms: of the time to the first token.
        itl_p95_ms: of the time between tokens.
    """

    p95_ms: float | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None


class Tally:
    """Columns of outcomes; bounded, because an outcome is some floats."""

    def __init__(self, warmup_s: float = 0.0) -> None:
        """Count outcomes that were due `warmup_s` or more after the start."""
        self.warmup_s = warmup_s
        self.warmed_up = 0
        self.due = self.sent = self.answered = 0
        self.failed_by: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.after_s, self.latency_ms = array("d"), array("d")  # NaN: failed
        self.late_ms, self.queue_ms = array("d"), array("d")
        self.ttft_ms, self.gap_ms, self.tpot_ms = array("d"), array("d"), array("d")
        self.tokens = self.streamed = 0
        self.last_answer_s = 0.0

    @property
    def failed(self) -> int:
        """Requests that were due and got no good answer."""
        return self.failed_by.total()

    def note(self, outcome: Outcome) -> None:
        """Take in what became of one request."""
        if outcome.after_s < self.warmup_s:
            self.warmed_up += 1
            return
        self.due += 1
        if outcome.late_ms is not None:
            self.sent += 1
            self.late_ms.append(outcome.late_ms)
        self.after_s.append(outcome.after_s)
        if outcome.cause is not None:
            self.latency_ms.append(math.nan)
            self._fail(outcome.cause, outcome.error or outcome.cause)
            return
        assert outcome.latency_ms is not None
        self.latency_ms.append(outcome.latency_ms)
        self.answered += 1
        self.last_answer_s = max(self.last_answer_s, outcome.after_s + outcome.latency_ms / 1000)
        self._server_said(outcome)

    def good_ms(self) -> list[float]:
        """Latencies of the answered requests."""
        return [value for value in self.latency_ms if not math.isnan(value)]

    def recent_p95_ms(self) -> float | None:
        """The p95 of the answers among the last requests, for a progress line."""
        recent = self.latency_ms[-RECENT:]
        return quantile(sorted(v for v in recent if not math.isnan(v)), OBJECTIVE_SHARE)

    def _fail(self, cause: str, error: str) -> None:
        if cause not in self.failed_by and len(self.failed_by) >= CAUSES_MAX:
            cause = "other"
        self.failed_by[cause] += 1
        self.examples.setdefault(cause, error)

    def _server_said(self, outcome: Outcome) -> None:
        reply = outcome.reply
        if reply is None:
            return
        if reply.queue_ms is not None:
            self.queue_ms.append(reply.queue_ms)
        self.tokens += reply.tokens or 0
        if not reply.text_s:
            return
        self.streamed += 1
        times_s = reply.text_s
        self.ttft_ms.append((times_s[0] - outcome.due_mono_s) * 1000)
        gaps = [(b - a) * 1000 for a, b in itertools.pairwise(times_s)]
        self.gap_ms.extend(gaps[: max(0, GAPS_MAX - len(self.gap_ms))])
        if gaps and reply.tokens is not None and reply.tokens > 1:
            self.tpot_ms.append((times_s[-1] - times_s[0]) * 1000 / (reply.tokens - 1))


def quantile(ranked: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of sorted values; None if there are too few to say."""
    if len(ranked) * (1 - share) < 1 - 1e-9 and share > 0.95:
        return None
    return ranked[max(0, math.ceil(share * len(ranked) - 1e-9) - 1)] if ranked else None


def spread(values: Iterable[float]) -> dict[str, float | int | None] | None:
    """Quantiles, mean and maximum; None of nothing."""
    ranked = sorted(values)
    if not ranked:
        return None
    found: dict[str, float | int | None] = {"n": len(ranked)}
    for name, share in QUANTILES.items():
        found[name] = _rounded(quantile(ranked, share))
    found["mean"] = _rounded(math.fsum(ranked) / len(ranked))
    found["max"] = _rounded(ranked[-1])
    return found


def histogram(values: Iterable[float]) -> list[int]:
    """Values per bar: up to each of the edges, and above the last."""
    bars = [0] * (len(EDGES_MS) + 1)
    for value in values:
        bars[next((i for i, edge in enumerate(EDGES_MS) if value <= edge), len(EDGES_MS))] += 1
    return bars


def figures(
    tally: Tally, sent_for_s: float, objectives: Objectives, load: Mapping[str, Any]
) -> dict[str, Any]:
    """The report of a load.

    Args:
        tally: its outcomes.
        sent_for_s: for how long it sent, with the warm-up, s.
        objectives: what to judge.
        load: what was asked for, put in front.
    """
    seconds = max(0.0, sent_for_s - tally.warmup_s)
    # An overloaded server answers long after the last request was due.
    answering_s = max(seconds, tally.last_answer_s - tally.warmup_s)
    return {
        **load,
        "ended_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
        "warmup_requests": tally.warmed_up,
        "due": tally.due,
        "sent": tally.sent,
        "answered": tally.answered,
        "failed": tally.failed,
        "failed_by": dict(tally.failed_by.most_common()),
        "examples": tally.examples,
        "rate_due_per_s": _per_s(tally.due, seconds),
        "rate_sent_per_s": _per_s(tally.sent, seconds),
        "rate_answered_per_s": _per_s(tally.answered, answering_s),
        "latency_ms": spread(tally.good_ms()),
        "histogram": {"up_to_ms": list(EDGES_MS), "answers": histogram(tally.good_ms())},
        "slices": slices(tally, seconds),
        "late_ms": spread(tally.late_ms),
        "queue_ms": spread(tally.queue_ms),
        "ttft_ms": spread(tally.ttft_ms),
        "itl_ms": spread(tally.gap_ms),
        "tpot_ms": spread(tally.tpot_ms),
        "tokens": tally.tokens or None,
        "tokens_per_s": _per_s(tally.tokens, answering_s) if tally.tokens else None,
        "objectives": judged(tally, objectives),
    }


def slices(tally: Tally, seconds: float) -> list[dict[str, Any]]:
    """Equal parts of the time: the rate that was due, the p50 and p95, and failures of each."""
    if seconds <= 0:
        return []
    parts: list[list[float]] = [[] for _ in range(SLICES)]
    for after_s, latency_ms in zip(tally.after_s, tally.latency_ms, strict=True):
        at = int((after_s - tally.warmup_s) / seconds * SLICES)
        parts[max(0, min(SLICES - 1, at))].append(latency_ms)
    found = []
    for at, values in enumerate(parts):
        ranked = sorted(value for value in values if not math.isnan(value))
        found.append(
            {
                "from_s": round(at * seconds / SLICES, 3),
                "rate_due_per_s": _per_s(len(values), seconds / SLICES),
                "p50_ms": _rounded(quantile(ranked, 0.5)),
                "p95_ms": _rounded(quantile(ranked, OBJECTIVE_SHARE)),
                "failed": len(values) - len(ranked),
            }
        )
    return found


def judged(tally: Tally, objectives: Objectives) -> list[dict[str, Any]]:
    """Each objective with what was found."""
    rows = (
        ("p95", objectives.p95_ms, tally.good_ms(), tally.due),
        ("ttft_p95", objectives.ttft_p95_ms, tally.ttft_ms, tally.due),
        ("itl_p95", objectives.itl_p95_ms, tally.gap_ms, len(tally.gap_ms)),
    )
    found = []
    for name, allowed_ms, values, of in rows:
        if allowed_ms is None:
            continue
        within = sum(value <= allowed_ms for value in values)
        ranked = sorted(values)
        # Failures stand behind the slowest answer.
        rank = math.ceil(OBJECTIVE_SHARE * of - 1e-9) - 1
        found.append(
            {
                "name": name,
                "allowed_ms": allowed_ms,
                "found_ms": _rounded(ranked[rank]) if 0 <= rank < len(ranked) else None,
                "within_pct": round(100 * within / of, 2) if of else None,
                "met": of > 0 and within >= OBJECTIVE_SHARE * of - 1e-9,
            }
        )
    return found


def _per_s(count: int, seconds: float) -> float | None:
    return round(count / seconds, 3) if seconds > 0 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
