"""The physics of one emulated miner: set points in, true watts and hashes per second out.

A command takes effect after a short delay; then the draw moves at a constant rate, down within
5 s from full power to standby (all delays included), up within 10 s, as LuxOS's vendor claims for
its curtailment. With realism "real" each kind moves as `timing.REAL` says: boards warm up without
hashing, a raise settles in steps, a changed set point restarts mining, and the draw wanders.
Delays, rates, standby draw and the small departure from the table are drawn from the seed once per
machine.

Time comes in through `clock`, so a simulation steps the same model without waiting. Truth is exact:
the same moment gives the same watts. What the firmware *reports* is off by up to 1 %.
"""

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Literal

from wattshift_cluster.emulate.motion import Motion, Path, Phase
from wattshift_cluster.emulate.specs import Profile, Spec
from wattshift_cluster.emulate.timing import AMBIENT_C, QUICK, REAL
from wattshift_cluster.emulate.traits import Traits

Realism = Literal["quick", "real"]

REPORT_NOISE = 0.01
_RISE_AT_NAMEPLATE_C = 46.0

COMMANDS_KEPT = 64
"""Commands whose times a machine remembers, for those who want to know when one arrived."""


class Machine:
    """One miner. Not thread-safe; setters and getters look at the clock once each.

    `commands_s` holds the times of the last commands that it took, `commands` how many there were.
    `pool_writes` is how often its pools were changed; a firmware that has pools counts there.

    Args:
        machine_id: name in the truth and in logs.
        spec: the model.
        seed: same seed and same commands at the same times give the same machine.
        clock: monotonic seconds.
        full: whether it hashes at its default at the start, or sleeps.
        realism: "quick" moves within seconds whatever the kind, "real" as the kind does.
        ambient_c: of the air it breathes, °C.
    """

    def __init__(
        self,
        machine_id: str,
        spec: Spec,
        *,
        seed: int,
        clock: Callable[[], float],
        full: bool = False,
        realism: Realism = "quick",
        ambient_c: float = AMBIENT_C,
    ) -> None:
        rng = random.Random(seed)
        self.id = machine_id
        self.spec = spec
        self.started_s = clock()
        self._clock = clock
        self._timing = REAL.get(spec.kind, QUICK) if realism == "real" else QUICK
        self._traits = Traits.of(spec, self._timing, rng, wander=realism == "real")
        self._noise = random.Random(rng.getrandbits(64))
        self._asleep = not full
        self._profile = next((p for p in spec.profiles if p.step == 0), None)
        self._limit_w = spec.limit_w[1] if spec.limit_w else None
        self._ambient_c = ambient_c
        self._hot = ambient_c >= spec.thermal.shutdown_c
        self._powered = True
        self._boots_until_s = self.started_s
        self._motion = Motion(self.started_s, self._goal_w(), (), self._rest())
        self.commands_s: deque[float] = deque(maxlen=COMMANDS_KEPT)
        self.commands = 0
        self.pool_writes = 0

    # Set points

    def sleep(self) -> None:
        """Stop hashing and fall to standby."""
        self._asleep = True
        self._command()

    def wake(self) -> None:
        """Resume at the set point last chosen."""
        self._asleep = False
        self._command()

    def set_profile(self, name: str) -> bool:
        """Choose a profile; a sleeping machine keeps sleeping. False where there is none such."""
        chosen = next((p for p in self.spec.profiles if p.name == name), None)
        if chosen is None:
            return False
        self._profile = chosen
        self._command()
        return True

    def set_limit(self, watts_w: float) -> bool:
        """Choose a power limit; a sleeping machine keeps sleeping. False outside the range."""
        bounds_w = self.spec.limit_w
        if bounds_w is None or not bounds_w[0] <= watts_w <= bounds_w[1]:
            return False
        self._limit_w = float(watts_w)
        self._command()
        return True

    @property
    def asleep(self) -> bool:
        """Whether the set point is sleep, however far the draw has come."""
        return self._asleep

    @property
    def profile(self) -> Profile | None:
        """The chosen profile, in force or waiting for the wake; None on a power-limit machine."""
        return self._profile

    @property
    def limit_w(self) -> float | None:
        """The chosen power limit, W; None on a profile machine."""
        return self._limit_w

    @property
    def mode(self) -> str:
        """The set point in force: "sleep", the profile's name, or "limit:" and watts."""
        if self._asleep:
            return "sleep"
        return self._profile.name if self._profile else f"limit:{self._limit_w:.0f}"

    # Surroundings

    def power_off(self) -> None:
        """The outlet goes off: no watts from this moment on."""
        self._powered = False
        self._motion = self._path().jump(0.0).end(Phase.OFF)

    def power_on(self) -> None:
        """The outlet goes on: the control board boots, then mining resumes by itself."""
        if not self._powered:
            self._powered = True
            self.restart()

    def restart(self, boot_s: float | None = None) -> None:
        """The control board restarts. A sleep that it does not keep is forgotten.

        Args:
            boot_s: how long it boots; None for this machine's own time.
        """
        if not self._powered:
            return
        self._boots_until_s = self._clock() + (self._traits.boot_s if boot_s is None else boot_s)
        self._asleep = self._asleep and self.spec.keeps_sleep
        self.started_s = self._boots_until_s
        self._replan(restarts=False)

    def set_ambient(self, ambient_c: float) -> None:
        """The air is now so warm, °C; the machine lowers its clock or shuts down where it must."""
        thermal = self.spec.thermal
        self._ambient_c = ambient_c
        recovers_c = thermal.throttle_above_c if self._hot else thermal.shutdown_c
        self._hot = ambient_c > recovers_c or ambient_c >= thermal.shutdown_c
        self._retarget(restarts=False)

    @property
    def powered(self) -> bool:
        """Whether its outlet is on."""
        return self._powered

    @property
    def boots_s(self) -> float:
        """Seconds until its control board answers again; 0 when it does."""
        return max(0.0, self._boots_until_s - self._clock())

    # Truth

    def watts_w(self) -> float:
        """True draw at the wall now, W."""
        now_s = self._clock()
        return self._motion.at(now_s)[0] * self._traits.wandered(now_s)

    @property
    def phase(self) -> Phase:
        """What it is doing now."""
        return self._motion.at(self._clock())[1]

    def hashrate_h_per_s(self) -> float:
        """True hashes per second now. A machine told to sleep stops hashing at once."""
        watts_w, phase = self._motion.at(self._clock())
        if not phase.hashes:
            return 0.0
        table_w = watts_w / (1.0 + self._traits.bias)
        curve = self.spec.curve
        if table_w < curve[0][0]:
            # Below its lowest profile a machine is still bringing its boards up.
            return 0.0
        at = bisect_left(curve, (table_w, 0.0))
        if at == len(curve):
            return curve[-1][1]
        (w0, h0), (w1, h1) = curve[max(0, at - 1)], curve[at]
        return h1 if w1 == w0 else h0 + (h1 - h0) * (table_w - w0) / (w1 - w0)

    # What the firmware would say

    def reported_watts_w(self) -> float:
        """True draw with the firmware's error of up to 1 %."""
        return self.watts_w() * self._noisy()

    def reported_hashrate_h_per_s(self) -> float:
        """True hashrate with the firmware's error of up to 1 %."""
        return self.hashrate_h_per_s() * self._noisy()

    def temperature_c(self) -> float:
        """Hottest board, °C: ambient plus a rise in proportion to the draw."""
        return self._ambient_c + _RISE_AT_NAMEPLATE_C * self.watts_w() / self.spec.nameplate_w

    def uptime_s(self) -> float:
        """Seconds since the machine was made or its control board last started."""
        return max(0.0, self._clock() - self.started_s)

    def _noisy(self) -> float:
        return 1.0 + self._noise.uniform(-REPORT_NOISE, REPORT_NOISE)

    def heard(self) -> None:
        """A command has arrived that the firmware carries out later."""
        self.commands += 1
        self.commands_s.append(self._clock())

    # From one motion to the next

    def _command(self) -> None:
        self.heard()
        self._retarget(restarts=True)

    def _retarget(self, *, restarts: bool) -> None:
        # A repeated command must not start the reaction delay over again.
        if self._goal_w() != self._motion.goal_w or self._rest() is not self._motion.rest:
            self._replan(restarts=restarts)

    def _goal_w(self) -> float:
        if self._asleep or self._hot:
            return self._traits.standby_w
        table_w = self._profile.watts_w if self._profile else self._limit_w
        assert table_w is not None, "a model has profiles or a power limit"
        goal_w = table_w * (1.0 + self._traits.bias)
        thermal = self.spec.thermal
        warm = self._ambient_c > thermal.throttle_above_c
        return goal_w * thermal.throttled_share if warm else goal_w

    def _rest(self) -> Phase:
        if self._asleep:
            return Phase.ASLEEP
        return Phase.HOT if self._hot else Phase.STEADY

    def _path(self) -> Path:
        now_s = self._clock()
        return Path(
            now_s,
            self._motion.at(now_s)[0],
            down_w_per_s=self._traits.down_w_per_s,
            up_w_per_s=self._traits.up_w_per_s,
        )

    def _replan(self, *, restarts: bool) -> None:
        if not self._powered:
            return
        now_s, traits, rest, goal_w = self._clock(), self._traits, self._rest(), self._goal_w()
        was = self._motion.at(now_s)[1]
        path = self._path()
        boots_s = self._boots_until_s - now_s
        if boots_s > 0.0:
            path.spend(Phase.BOOTING, traits.standby_w, boots_s)
        else:
            path.hold(was if rest is Phase.STEADY else rest, traits.react_s)
        if rest is not Phase.STEADY:
            self._motion = path.move(rest, goal_w).end(rest)
            return
        if boots_s > 0.0:
            warm_s = traits.cold_s
        elif was.hashes and restarts and traits.restart_s:
            path.spend(Phase.RESTARTING, traits.standby_w, traits.restart_s)
            warm_s = traits.cold_s
        else:
            warm_s = self._warm_up_s(was, now_s + traits.react_s)
        path.spend(Phase.WARMING, max(self._timing.warm_share * goal_w, traits.standby_w), warm_s)
        self._motion = self._tuned(path, goal_w).end(rest)

    def _warm_up_s(self, was: Phase, from_s: float) -> float:
        """Hashless seconds that are still ahead of boards which did `was` until now."""
        if was.hashes:
            return 0.0
        if was in (Phase.WARMING, Phase.RESTARTING, Phase.BOOTING):
            return max(0.0, self._motion.end_s(Phase.WARMING) - from_s)
        return self._traits.warm_s

    def _tuned(self, path: Path, goal_w: float) -> Path:
        steps, low_w = self._timing.tune_steps, path.watts_w
        if not steps or goal_w <= low_w:
            return path.move(Phase.RAMPING, goal_w)
        share = self._timing.tune_from
        path.move(Phase.RAMPING, low_w + share * (goal_w - low_w))
        for step in range(1, steps + 1):
            path.hold(Phase.TUNING, self._traits.tune_step_s)
            reached = share + (1.0 - share) * step / steps
            path.move(Phase.TUNING, goal_w if step == steps else low_w + reached * (goal_w - low_w))
        return path
