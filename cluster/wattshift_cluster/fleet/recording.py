"""The recording of one machine's pulse: the level before, asleep, and after, at every meter.

Whatever ends a pulse, be it an error, a cap that comes into force, or Ctrl-C, wakes the machine.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from wattshift_cluster.errors import Refused, Unreachable, WattshiftError
from wattshift_cluster.fleet.levels import Trace, level
from wattshift_cluster.fleet.pulses import (
    Kind,
    Pulse,
    Verdict,
    judge,
    nearest_meter,
    resolvable_w,
    samples_needed,
)
from wattshift_cluster.fleet.site_port import DeviceLook, Look, Plan, Port, Stopped

REASON = "commissioning: pulse against the meters"
MOST_LOOKS = 20_000
"""At one machine: more than five hours at one a second, and a bound on what is kept."""

WAKE_TRIES = 3
BACK_SHARE = 0.9
TAIL_SHARE = 0.25
LAST_LOOKS = 5


class Recording:
    """The recording of one machine's pulse."""

    def __init__(self, port: Port, plan: Plan, device: DeviceLook) -> None:
        self._port = port
        self._plan = plan
        self._device = device
        self._looks: list[Look] = []
        self._slept_s = math.inf

    def unfit(self) -> Verdict | None:
        """Record the level before; a verdict where a pulse would show nothing."""
        self._for(self._plan.window_s)
        look, mine = self._looks[-1], self._mine(self._looks[-1])
        if mine is None or mine.state == "unreachable":
            return Verdict(Kind.SKIPPED, "it does not answer")
        if mine.asleep is not False:
            return Verdict(Kind.SKIPPED, "it is not awake" if mine.asleep else "nothing is known")
        meter = nearest_meter(mine.feeder, look.tree, look.meters)
        if meter is None:
            return Verdict(Kind.SKIPPED, "no meter on its feeder or above it")
        samples = self._trace(lambda one: one.meters.get(meter)).watts_w
        known = samples[np.isfinite(samples)]
        if len(known) < 2:
            return Verdict(Kind.SKIPPED, f"the meter of {meter} says nothing", meter)
        steady = level(samples)
        noise_w = float(np.std(known)) if steady is None else steady.noise_w
        expected_w = mine.watts_w or self._plan.expected_w
        if resolvable_w(noise_w, len(known)) <= expected_w:
            return None
        pulse_s = 2.0 * samples_needed(noise_w, expected_w) * self._plan.period_s
        text = (
            f"{meter} moves by {noise_w:.0f} W by itself; {expected_w:.0f} W would need a pulse of "
            f"{pulse_s:.0f} s"
        )
        return Verdict(Kind.TOO_NOISY, text, meter)

    def pulse(self) -> Verdict:
        """Sleep, watch, wake, watch; whatever happens in between, it is woken."""
        slept_s = self._slept_s = self._looks[-1].at_s
        lost: WattshiftError | None = None
        asked, failed = True, None
        try:
            self._port.command("sleep", self._device.id, REASON)
            self._for(self._plan.pulse_s)
        except Refused as fault:
            asked = False
            return Verdict(Kind.SKIPPED, str(fault))
        except Unreachable as fault:
            # An answer that was lost may hide a command that was carried out.
            lost = fault
        finally:
            if asked:
                failed = self._woken()
        if failed is not None:
            return failed
        if lost is not None:
            return Verdict(Kind.SKIPPED, str(lost))
        woke_s = self._looks[-1].at_s
        self._until_back(slept_s, woke_s)
        self._for(self._plan.window_s)
        return judge(self._pulse(slept_s, woke_s))

    def _woken(self) -> Verdict | None:
        """Wake it; a verdict where that failed."""
        fault: WattshiftError | None = None
        for _ in range(WAKE_TRIES):
            try:
                self._port.command("wake", self._device.id, REASON)
            except WattshiftError as refused:
                fault = refused
                self._port.pause(self._plan.period_s)
            else:
                return None
        return Verdict(Kind.LEFT_ASLEEP, f"it sleeps and could not be woken: {fault}")

    def _until_back(self, slept_s: float, woke_s: float) -> None:
        """Watch until it draws again what it drew before, by its own word or else by the meter."""
        plan = self._plan
        before_w = self._drawn_w(slept_s - plan.window_s, slept_s)
        asleep_w = self._drawn_w(woke_s - plan.window_s, woke_s)
        back_w = asleep_w + BACK_SHARE * (before_w - asleep_w)
        while self._looks[-1].at_s < woke_s + plan.restore_s:
            self._for(plan.period_s)
            now_s, mine = self._looks[-1].at_s, self._mine(self._looks[-1])
            drawn_w = self._drawn_w(now_s - LAST_LOOKS * plan.period_s, now_s)
            if mine is not None and mine.asleep is False and not drawn_w < back_w:
                # The last tenth of the way takes its time, too.
                self._for(max(LAST_LOOKS * plan.period_s, TAIL_SHARE * (now_s - woke_s)))
                return

    def _drawn_w(self, from_s: float, to_s: float) -> float:
        """Median of its own watts, or else of the nearest meter; NaN where neither says."""
        looks = [look for look in self._looks if from_s < look.at_s <= to_s]
        own = [self._own_w(look) for look in looks]
        if all(watts_w is None for watts_w in own):
            feeder, last = self._device.feeder, self._looks[-1]
            meter = nearest_meter(feeder, last.tree, last.meters) or feeder
            own = [look.meters.get(meter) for look in looks]
        known = [watts_w for watts_w in own if watts_w is not None]
        return float(np.median(known)) if known else math.nan

    def rate_h_per_s(self) -> float | None:
        """What it hashed before it slept, a median; None where it did not tell."""
        before = [self._mine(look) for look in self._looks if look.at_s <= self._slept_s]
        rates = [
            mine.hashrate_h_per_s
            for mine in before
            if mine is not None and mine.hashrate_h_per_s is not None
        ]
        return float(np.median(rates)) if rates else None

    def _for(self, span_s: float) -> None:
        """Look every period for so long. Raises Stopped when a cap comes into force."""
        end_s = self._looks[-1].at_s + span_s if self._looks else None
        while end_s is None or self._looks[-1].at_s < end_s - self._plan.period_s / 2.0:
            if len(self._looks) >= MOST_LOOKS:
                raise Stopped(f"{self._device.id} took more than {MOST_LOOKS} looks")
            look = self._port.look()
            self._looks.append(look)
            if end_s is None:
                end_s = look.at_s + span_s
            if look.event is not None:
                raise Stopped(look.event)
            self._port.pause(self._plan.period_s)

    def _mine(self, look: Look) -> DeviceLook | None:
        return next((one for one in look.devices if one.id == self._device.id), None)

    def _own_w(self, look: Look) -> float | None:
        mine = self._mine(look)
        return None if mine is None else mine.watts_w

    def _others_w(self, look: Look) -> float | None:
        watts = [one.watts_w for one in look.devices if one.id != self._device.id]
        known = [watts_w for watts_w in watts if watts_w is not None]
        return sum(known) if len(known) == len(watts) else None

    def _trace(self, of: Callable[[Look], float | None]) -> Trace:
        values = [of(look) for look in self._looks]
        return Trace(
            np.array([look.at_s for look in self._looks]),
            np.array([math.nan if value is None else value for value in values]),
        )

    def _pulse(self, slept_s: float, woke_s: float) -> Pulse:
        # A look is taken, then commanded: the levels end with the look, not before it.
        just_after_s = self._plan.period_s / 2.0
        names = set().union(*(look.meters for look in self._looks))
        return Pulse(
            device=self._device.id,
            feeder=self._device.feeder,
            tree=self._looks[-1].tree,
            slept_s=slept_s + just_after_s,
            woke_s=woke_s + just_after_s,
            end_s=self._looks[-1].at_s + just_after_s,
            window_s=self._plan.window_s,
            meters={name: self._trace(partial(_metered_w, name)) for name in names},
            own=self._trace(self._own_w),
            others=self._trace(self._others_w),
        )


def _metered_w(feeder: str, look: Look) -> float | None:
    return look.meters.get(feeder)
