"""What a watt of compute is worth at the margin, USD/MWh, gross of energy (mining: `ladder`).

To shed a watt for a time D costs (lost value x D + restart loss + wear) / (watts x D) (DESIGN 2.3,
"What to shed first"). So a short event is best served by what restarts cheaply, and a long one by
what earns least:

- a batch job earns its stated value, repeats what it did since its last checkpoint, and loses what
  is left of it where its deadline passes; one whose slack is gone cannot be paid for: it binds; one
  that is late has nothing left to lose but its plain value;
- a service loses the throughput that a power limit takes from what it needs, as measured, and
  binds beyond what its flexibility class lets be taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wattshift_scheduler.jobs import FLEXIBILITY_LOSS, Job, PowerStep
from wattshift_scheduler.ladder.ladder import HOUR_S

BINDS = math.inf
"""The worth of a watt that no money takes."""

UNSURE_SHARE = 0.2
"""Share of the time that a job still needs by which that may be wrong: rates of batch work differ
from chunk to chunk. Within so much of slack its deadline is at risk."""

RESTART_S = 60.0
"""What a batch worker needs to be placed, started and warm again, s: slack below that is none."""

TIMES = 2.0
"""How often a job must be able to do its work until its deadline, to give way: services surge, and
work comes that nobody knew of."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What one more watt of some work is worth, and why in words.

    Attributes:
        usd_per_mwh: gross of energy; infinite: it binds, NaN: nobody has stated a value.
        words: what that follows from, for people.
    """

    usd_per_mwh: float
    words: str


def shed_usd_per_mwh(
    lost_usd_per_h: float, watts_w: float, lasts_s: float, once_usd: float = 0.0
) -> float:
    """What it costs to shed watts for a time (DESIGN 2.3), USD/MWh.

    Args:
        lost_usd_per_h: value that is not earned meanwhile, USD/h.
        watts_w: that are shed, W; above zero.
        lasts_s: for how long, s; infinite: what happens once counts nothing.
        once_usd: restart loss and wear, USD.
    """
    per_h = lost_usd_per_h + (once_usd / lasts_s * HOUR_S if math.isfinite(lasts_s) else 0.0)
    return per_h / watts_w * 1e6


def needs_s(job: Job) -> float:
    """What a batch job still needs at the rate last reported, s; NaN where that is not known.

    One that reports none, as one that rests, is taken to go on with all of its workers at the pace
    that was last seen.
    """
    if job.total is None or job.done is None:
        return math.nan
    if not job.rate_per_s:
        return full_s(job)
    return max(job.total - job.done, 0) / job.rate_per_s


def full_s(job: Job) -> float:
    """What a batch job still needs with all of its workers at the pace last seen, s; NaN where
    that is not known."""
    if not job.pace_per_s or job.total is None:
        return math.nan
    return max(job.total - (job.done or 0), 0) / (job.pace_per_s * job.max_units)


def least_s(job: Job) -> float:
    """What a batch job needs at the very least, s; NaN where its best speed is not known.

    All of its workers run, a little faster than was ever seen, and what those that run now have in
    hand is as good as done.
    """
    if not job.best_per_s or job.total is None:
        return math.nan
    in_hand = job.units * max(int(job.spec.get("chunk_items") or 1), 1)
    left = max(job.total - (job.done or 0) - in_hand, 0)
    return left / (job.best_per_s * (1.0 + UNSURE_SHARE) * job.max_units)


def at_risk(job: Job, now_s: float, lasts_s: float) -> float:
    """How likely a batch job misses its deadline if it rests so long, 0 to 1.

    0 without a deadline, and once that is missed. An unknown need is no small one: then it is 1.
    """
    if math.isinf(job.due_s):
        return 0.0
    need_s = needs_s(job)
    if math.isnan(need_s):
        return 1.0
    spare_s = job.due_s - now_s - need_s - lasts_s - RESTART_S
    return min(max(1.0 - spare_s / max(UNSURE_SHARE * need_s, 1.0), 0.0), 1.0)


def of_batch(job: Job, now_s: float, lasts_s: float) -> Worth:
    """What a unit of a batch job is worth over a time for which it would else rest.

    Args:
        job: the batch job; what it did since its last checkpoint counts while it runs.
        now_s: our clock, s.
        lasts_s: D, s.
    """
    if not job.unit_w > 0:
        return Worth(BINDS, "it draws nothing")
    risk = at_risk(job, now_s, lasts_s)
    if risk >= 1.0:
        return Worth(BINDS, "its deadline leaves it no slack")
    if not job.value_usd_per_h > 0:
        return Worth(math.nan, "no value is stated")
    need_s = needs_s(job)
    left_usd = 0.0 if math.isnan(need_s) else job.value_usd_per_h * need_s / HOUR_S
    again_s = unsaved_s(job, now_s)
    once_usd = job.value_usd_per_h * again_s / HOUR_S + risk * left_usd
    usd = shed_usd_per_mwh(job.value_usd_per_h, job.unit_w, lasts_s, once_usd)
    words = f"{job.value_usd_per_h:,.2f} USD/h for {job.unit_w:,.0f} W"
    if again_s:
        words += f", {again_s:,.0f} s of it not saved yet"
    if risk:
        words += f", its deadline at risk by {100 * risk:.0f} %"
    return Worth(usd, words)


def unsaved_s(job: Job, now_s: float) -> float:
    """What a running job would repeat: the time since its last checkpoint, or its start, s."""
    if job.began_s is None:
        return 0.0
    since_s = job.began_s if job.checkpoint_s is None else max(job.checkpoint_s, job.began_s)
    return max(now_s - since_s, 0.0)


def allowed(job: Job) -> Sequence[PowerStep]:
    """The power steps that the flexibility class of a job lets be taken, most watts first."""
    least = 1.0 - FLEXIBILITY_LOSS[job.terms.flexibility]
    steps = (s for s in job.terms.steps if s.throughput >= least - 1e-9)
    return tuple(s for s in steps if s.watts_w < job.unit_w)


def step_usd_per_mwh(job: Job, higher: PowerStep, lower: PowerStep, used: float = 1.0) -> float:
    """What a service loses by a watt between two power steps, USD/MWh.

    Args:
        job: the service.
        higher, lower: from which step to which.
        used: the part of its full throughput that its requests need now, 0 to 1; what nobody asks
            for is not lost. 1 where that is not known.
    """
    if lower.throughput < 1.0 - FLEXIBILITY_LOSS[job.terms.flexibility] - 1e-9:
        return BINDS
    lost = max(min(used, higher.throughput) - lower.throughput, 0.0)
    watts_w = higher.watts_w - lower.watts_w
    return job.value_usd_per_h * lost / watts_w * 1e6 if watts_w > 0 else BINDS


def of_service(job: Job, used: float = 1.0) -> Worth:
    """What a service loses by the next watt that may be taken from a replica without stopping it.

    Its first power step is what is taken first; without one a replica goes as a whole, at all that
    it earns.
    """
    if not job.unit_w > 0:
        return Worth(BINDS, "it draws nothing")
    steps = allowed(job)
    if not steps:
        return Worth(job.usd_per_mwh, f"a replica earns {job.value_usd_per_h:,.2f} USD/h")
    held = next((s for s in steps if s.watts_w == job.unit_limit_w), None)
    lower = [s for s in steps if held is None or s.watts_w < held.watts_w]
    if not lower:
        return Worth(BINDS, f"class {job.terms.flexibility} lets no more be taken")
    higher = PowerStep(job.unit_w, 1.0) if held is None else held
    usd = step_usd_per_mwh(job, higher, lower[0], used)
    words = f"{higher.watts_w:,.0f} to {lower[0].watts_w:,.0f} W takes "
    words += f"{100 * (higher.throughput - lower[0].throughput):.0f} % of its throughput"
    return Worth(usd, words)
