"""Watches the processes on one GPU that mark no gate and have no observer, and holds a busy mark.

The reading is the driver's and is taken where the GPU is sampled; here it is only judged. A reading
that is missing or stale is unknown, and counts as a stranger's process.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from wattshift_cluster.agent.observe.mark import HeldMark, Marker, Verdict
from wattshift_cluster.agent.observe.processes import UNKNOWN, Others, judge, needs_gpu
from wattshift_cluster.bootclock import boot_s

log = structlog.get_logger()

Look = Callable[[], tuple[float, Others] | None]
"""The newest look at the GPU's processes, with its moment on the boot clock, s; None before one."""


@dataclass(frozen=True, slots=True)
class NeighbourTerms:
    """What the owner said about one GPU.

    Attributes:
        opt_in: mining may go on beside processes that mark no gate, while they leave the GPU alone.
        exclusive: nothing but declared servers uses this GPU; counts where the driver does not say
            who does.
        observed: a server with an observer runs on it.
        period_s: from look to look, s.
        quiet_s: how long strangers must have left the GPU alone, s.
        stale_s: an older look counts as none, s.
    """

    opt_in: bool = False
    exclusive: bool = False
    observed: bool = False
    period_s: float = 0.5
    quiet_s: float = 5.0
    stale_s: float = 2.0


class Neighbours:
    """One GPU's strangers under watch. Busy from the start, and after the end of `run`."""

    def __init__(self, device: str, terms: NeighbourTerms, marker: Marker, look: Look) -> None:
        """Mark the gate busy. Args: device: for the log; look: quick, see `Look`."""
        self.device = device
        self._terms = terms
        self._mark = HeldMark((marker,))
        self._look = look
        self._quiet_since_s: float | None = None
        self._verdict = Verdict(True, "its processes were not looked at yet", None, None)

    def verdict(self) -> Verdict:
        """The state as of the last judgement."""
        return self._verdict

    async def run(self) -> None:
        """Judge again and again until cancelled; leaves the gate marked busy."""
        try:
            while True:
                self.judge_now()
                await asyncio.sleep(self._terms.period_s)
        finally:
            self._mark.set(busy=True)
            self._verdict = Verdict(True, "its processes are not watched any more", None, None)

    def judge_now(self) -> Verdict:
        """Judge the newest look and set the mark."""
        now_s, terms = boot_s(), self._terms
        seen = self._look()
        at_s = None if seen is None else seen[0]
        age_s = None if at_s is None else max(0.0, now_s - at_s)
        fresh = seen is not None and age_s is not None and age_s <= terms.stale_s
        found = seen[1] if seen is not None and fresh else UNKNOWN
        ruling = judge(
            found, observed=terms.observed, opt_in=terms.opt_in, exclusive=terms.exclusive
        )
        why = needs_gpu(ruling, found)
        if why is not None:
            self._quiet_since_s = None
        elif ruling.beside == "when_quiet":
            why = self._wait_for_quiet(now_s)
        busy = why is not None
        if busy != self._verdict.busy:
            log.info("gpu.shared" if busy else "gpu.free", device=self.device, why=why)
        self._mark.set(busy=busy)
        self._verdict = Verdict(busy, why or ruling.why, at_s, age_s)
        return self._verdict

    def _wait_for_quiet(self, now_s: float) -> str | None:
        if self._quiet_since_s is None:
            self._quiet_since_s = now_s
        quiet_s = now_s - self._quiet_since_s
        if quiet_s < self._terms.quiet_s:
            return f"strangers quiet for {quiet_s:.1f} s of {self._terms.quiet_s:g} s"
        return None
