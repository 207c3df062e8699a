"""A curve that is asked for now and then, and said whenever it changes.

What was told stays until it is stale; a newer answer takes its place wherever it speaks. A source
that fails is asked less and less often, and says so.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

import structlog

from wattshift_cluster.grid.curves.readers import CurveFailed, Reader
from wattshift_cluster.grid.curves.steps import overlaid, since
from wattshift_cluster.grid.said import Said, Say, Steps

log = structlog.get_logger()

BACKOFF_MOST_S = 3600.0
KEPT_S = 86_400.0
"""How long a value stays after its end: what was known of the day is still shown."""

SAID_AGAIN_S = 60.0
"""How often a source that goes on as before says that it was heard."""

SKEW_S = 300.0


class Kind(StrEnum):
    """What a curve is of."""

    PRICE = "price"
    """USD/MWh."""

    CARBON = "carbon"
    """g/kWh."""


class CurveSource:
    """One curve as a source of signals (see `said.Source`)."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        reader: Reader,
        *,
        poll_s: float = 300.0,
        stale_after_s: float = math.inf,
        clock_s: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            name: unique in the site.
            kind: what its values are.
            reader: who is asked.
            poll_s: pause between two questions, s.
            stale_after_s: age of what was told beyond which it is unknown, s.
            clock_s: unix time, s.
            pause: sleeps so many seconds.
            rng: of the back-off's jitter.
        """
        self._name, self._kind, self._reader = name, kind, reader
        self._poll_s, self._stale_after_s = poll_s, stale_after_s
        self._clock_s, self._pause = clock_s, pause
        self._rng = rng or random.Random()
        self._steps: Steps | None = None
        self._heard_s = -math.inf
        self._notes: tuple[str, ...] = ()
        self._fault: str | None = "never read"
        self._failures = 0
        self._said: Said | None = None

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._name

    def steps(self, now_s: float) -> Steps | None:
        """What is known at `now_s`, also of later; None: nothing, or it is stale."""
        if self._steps is None or now_s - self._steps.told_s > self._stale_after_s:
            return None
        return since(self._steps, now_s - KEPT_S)

    def fault(self, now_s: float) -> str | None:
        """Why it was not heard lately or is not believed any more; None while all is well."""
        if self._steps is not None and self.steps(now_s) is None:
            return f"stale; {self._fault}" if self._fault else "stale"
        return self._fault

    async def run(self, say: Say) -> None:
        """Ask and speak until cancelled; faults of the outside world are said, not raised."""
        try:
            while True:
                wait_s = await self.refresh()
                self._speak(say)
                stale_s = self._stale_in_s()
                if stale_s < wait_s:
                    await self._pause(stale_s)
                    self._speak(say)
                    wait_s -= stale_s
                await self._pause(wait_s)
        finally:
            await self._reader.close()

    async def refresh(self) -> float:
        """Ask once. Returns for how long it is to be left alone, s. Does not raise."""
        now_s = self._clock_s()
        try:
            told = await self._reader.read(now_s)
        except CurveFailed as failed:
            if str(failed) != self._fault:
                log.warning("curve.failed", source=self._name, reason=str(failed))
            self._fault = str(failed)
            return self._after_failure(failed.retry_after_s)
        self._failures, self._fault = 0, told.fault
        self._heard_s, self._notes = self._clock_s(), told.notes
        if told.steps is None:
            self._notes = (*self._notes, "nothing is known yet")
        elif self._reader.local:
            # A file says all there is: what its owner took out of it is gone.
            self._steps = self._dated(told.steps, now_s)
        else:
            kept = None if self._steps is None else since(self._steps, now_s - KEPT_S)
            self._steps = overlaid(kept, self._dated(told.steps, now_s))
        return self._poll_s

    def _dated(self, steps: Steps, now_s: float) -> Steps:
        """The curve, told no later than now."""
        if steps.told_s <= now_s:
            return steps
        ahead_s = steps.told_s - now_s
        if ahead_s > SKEW_S:
            self._notes = (*self._notes, f"told {ahead_s:.0f} s in the future: a clock is wrong")
        return Steps(steps.times_s, steps.values, steps.ends_s, now_s)

    def _after_failure(self, retry_after_s: float | None) -> float:
        if self._reader.local:
            return self._poll_s
        most_s = max(BACKOFF_MOST_S, self._poll_s)
        wait_s = min(self._poll_s * 2.0 ** min(self._failures, 12), most_s)
        self._failures += 1
        return min(max(wait_s * self._rng.uniform(0.75, 1.0), retry_after_s or 0.0), most_s)

    def _stale_in_s(self) -> float:
        if self._steps is None:
            return math.inf
        left_s = self._steps.told_s + self._stale_after_s - self._clock_s()
        # A moment more, so that it is stale when it is looked at.
        return left_s + 0.001 if left_s >= 0 else math.inf

    def _speak(self, say: Say) -> None:
        now_s = self._clock_s()
        steps = self.steps(now_s)
        said = Said(
            self._name,
            self._heard_s,
            prices_usd_per_mwh=steps if self._kind is Kind.PRICE else None,
            carbon_g_per_kwh=steps if self._kind is Kind.CARBON else None,
            notes=self._notes,
            fault=self.fault(now_s),
        )
        if self._said is None or _differs(self._said, said):
            self._said = said
            say(said)


def _differs(before: Said, now: Said) -> bool:
    if now.heard_s - before.heard_s >= SAID_AGAIN_S:
        return True
    kept = (before.notes, before.fault, _curve(before))
    return kept != (now.notes, now.fault, _curve(now))


def _curve(said: Said) -> object:
    # `told_s` alone is no news. Every NaN of a curve is the one of math, which equals itself here.
    steps = said.prices_usd_per_mwh or said.carbon_g_per_kwh
    return None if steps is None else (steps.times_s, steps.values, steps.ends_s)
