"""What a hashing device draws and does: counters of its worker, and watts from NVML or a model.

A CPU has no meter here, so its watts are modelled: the worker's processor time times the watts of
one busy CPU. A GPU's are those of its sensor, inference included.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from wattshift_cluster.agent.child import Totals
from wattshift_cluster.agent.gpu.sample import GpuSample
from wattshift_cluster.agent.gpu.sampler import Sampler
from wattshift_cluster.agent.specs import HashingSpec

WINDOW_S = 1.0
"""Rates are means over this long."""

MOST_LOOKS = 64


@dataclass(frozen=True, slots=True)
class Draw:
    """What was seen over the last second.

    Attributes:
        at_s: of the newest look, boot clock, s.
        watts_w: now; None where it is unknown.
        mean_w: over the last second or so, the time that `duty` is of; None where unknown.
        duty: share of time within launches, 0 to 1; None before the second look.
        hashrate_h_per_s: None before the second look.
        totals: counters of all workers so far.
        card: the GPU's last sample; None for a CPU.
        fault: why the watts are unknown; None when they are known.
    """

    at_s: float
    watts_w: float | None
    mean_w: float | None
    duty: float | None
    hashrate_h_per_s: float | None
    totals: Totals
    card: GpuSample | None = None
    fault: str | None = None


class HashMeter:
    """Looks at one device; each look is cheap and blocks for nothing."""

    def __init__(
        self, spec: HashingSpec, totals: Callable[[], Totals], sampler: Sampler | None
    ) -> None:
        """Args: totals: of the workers; sampler: of this host's GPUs, None for a CPU."""
        self._spec = spec
        self._totals = totals
        self._sampler = sampler
        self._looks: deque[tuple[float, Totals]] = deque(maxlen=MOST_LOOKS)

    def look(self, now_s: float) -> Draw:
        """Read the counters and the newest sample; `now_s` is the boot clock, s."""
        totals = self._totals()
        self._looks.append((now_s, totals))
        while now_s - self._looks[0][0] > WINDOW_S and len(self._looks) > 2:
            self._looks.popleft()
        first_s, first = self._looks[0]
        span_s = now_s - first_s
        duty = rate = cpus = None
        if span_s > 0:
            duty = min(1.0, (totals.launching_ns - first.launching_ns) / 1e9 / span_s)
            rate = (totals.hashes - first.hashes) / span_s
            cpus = (totals.cpu_ns - first.cpu_ns) / 1e9 / span_s
        card = self._spec.card
        if card is None:
            watts_w = None if cpus is None else cpus * self._spec.top_w
            return Draw(now_s, watts_w, watts_w, duty, rate, totals)
        assert self._sampler is not None, "a card is read by the host's sampler"
        sample = self._sampler.latest(card.uuid)
        if sample is None:
            return Draw(now_s, None, None, duty, rate, totals, fault="its sensor was not read yet")
        return Draw(
            at_s=sample.at_boot_s,
            watts_w=sample.watts_w,
            mean_w=None if sample.watts_w is None else self._sampler.mean_w(card.uuid, WINDOW_S),
            duty=duty,
            hashrate_h_per_s=rate,
            totals=totals,
            card=sample,
            fault=sample.fault,
        )
