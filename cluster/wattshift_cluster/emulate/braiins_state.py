"""The state of an emulated Braiins OS, whatever language it is asked in: logins and set points.

A power target is no limit, a forced apply restarts mining while a plain one changes the target on
the fly, and a token dies after an hour without use. The length of a restart is unverified.
"""

import asyncio
import random
from contextlib import suppress

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.motion import Phase

USERNAME = "root"
MOST_TOKENS = 64
RESTART_S = 20.0


class BraiinsState:
    """One machine's.

    `restarts` counts the restarts of mining that clients caused, `logins` the tokens given out,
    `refused_logins` the wrong names and passwords.

    Args:
        body: what it is built around.
        version: of the firmware.
        profile: whether it knows the efficiency profile; older firmware does not.
        password: of the user "root".
        token_s: after so long without use a token is dead.
    """

    def __init__(
        self, body: Body, *, version: str, profile: bool, password: str, token_s: float
    ) -> None:
        rng = random.Random(body.seed)
        self.version, self.profile = version, profile
        self.machine = body.machine
        self.restarts = self.logins = self.refused_logins = 0
        self.mac = "02:8f:77:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(3))
        self.serial = f"EMULATED{rng.randrange(10**8):08d}"
        self._clock = body.clock
        self._password = password
        self._token_s = token_s
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._rng = rng
        self._tokens: dict[str, float] = {}
        self._resumes_s: float | None = None

    def restart(self) -> None:
        """See `Firmware`: logins are forgotten."""
        self._tokens.clear()

    # Logins

    def login(self, username: object, password: object) -> str | None:
        """A fresh token; None for a wrong name or password."""
        if username != USERNAME or password != self._password:
            self.refused_logins += 1
            return None
        now_s = self._clock()
        self._tokens = {
            token: until_s for token, until_s in self._tokens.items() if until_s > now_s
        }
        if len(self._tokens) >= MOST_TOKENS:
            self._tokens.pop(next(iter(self._tokens)))
        token = f"{self._rng.getrandbits(64):016x}"
        self._tokens[token] = now_s + self._token_s
        self.logins += 1
        return token

    def knows(self, token: object) -> bool:
        """Whether the token holds; use keeps it alive."""
        if not isinstance(token, str) or self._tokens.get(token, 0.0) <= self._clock():
            return False
        self._tokens[token] = self._clock() + self._token_s
        return True

    def change_password(self, password: str) -> None:
        """What its owner can do in the browser: every login ends."""
        self._password = password
        self._tokens.clear()

    # Set points

    def set_target(self, watts_w: object, *, force: bool = False) -> bool:
        """Take a power target; False outside the constraints. `force` restarts mining for it."""
        bounds_w = self.machine.spec.limit_w
        assert bounds_w is not None
        if not isinstance(watts_w, int) or not bounds_w[0] <= watts_w <= bounds_w[1]:
            return False
        if self._ignoring():
            return True
        if force and not self.paused:
            self._restart_mining()
        self.machine.set_limit(watts_w)
        return True

    def pause(self) -> bool:
        """Stop hashing. True where it was paused already."""
        already = self.paused
        if not self._ignoring():
            self._resumes_s = None
            self.machine.sleep()
        return already

    def resume(self) -> bool:
        """Hash at the target. True where it was hashing already."""
        already = not self.paused
        if not self._ignoring() and not already:
            self.machine.wake()
        return already

    def _restart_mining(self) -> None:
        self.restarts += 1
        self.machine.sleep()
        self._resumes_s = self._clock() + RESTART_S
        self._look_again()

    def _look_again(self) -> None:
        """End a restart whose time is over; the clock may run faster than the loop's own."""
        if self._resumes_s is None:
            return
        left_s = self._resumes_s - self._clock()
        if left_s <= 0.0:
            self._resumes_s = None
            self.machine.wake()
            return
        with suppress(RuntimeError):  # without a loop nobody waits for the restart to end
            wait_s = min(0.5, max(0.01, left_s / 50))
            asyncio.get_running_loop().call_later(wait_s, self._look_again)

    # What it says, in every language

    @property
    def paused(self) -> bool:
        """Whether mining was paused; a restart is no pause."""
        return self.machine.asleep and self._resumes_s is None

    @property
    def target_w(self) -> int:
        """The power target in force or kept for the resume, W."""
        return round(self.machine.limit_w or 0)

    @property
    def watts_w(self) -> int | None:
        """The firmware's estimate of its draw, W."""
        return None if self._blank() else round(self.machine.reported_watts_w())

    @property
    def hashrate_h_per_s(self) -> float | None:
        """As the firmware counts it."""
        return None if self._blank() else self.machine.reported_hashrate_h_per_s()

    @property
    def tuning(self) -> bool:
        """Whether the draw is still on its way to the target."""
        return not self.paused and self.machine.phase is not Phase.STEADY
