"""An emulated Antminer S21 Pro on Braiins OS 26.04: its state, and what it answers on port 4028.

`braiins_rest` (port 80) and `braiins_grpc` (port 50051) speak for the same state. Field names of
4028 are those that pyasic reads. Kept because clients trip over it: a power target is no limit (one
record shows 3,137 W for a target of 3,031 W), a forced apply restarts mining while a plain
one changes the target on the fly, a token dies after an hour without use, and the watts are the
firmware's estimate. The length of a restart and the tuner's states while paused are unverified.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wattshift_cluster.emulate.braiins_rest import BOARDS, rest
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import http
from wattshift_cluster.emulate.motion import Phase
from wattshift_cluster.emulate.wires import Wire, cgminer

Reply = dict[str, Any]

PORT_OLD, PORT_REST, PORT_GRPC = 4028, 80, 50051
VERSION = "2026-04-14-0-912d084c-26.04-plus"
VERSION_25_07 = "2025-07-22-0-f6a2dd5f-25.07-plus"
USERNAME = "root"
FACTORY_PASSWORD = "root"
TOKEN_S = 3600.0
MOST_TOKENS = 64
RESTART_S = 20.0
_MAX_JOINED = 8


class Braiins:
    """The firmware of one machine.

    `restarts` counts the restarts of mining that clients caused, `logins` the tokens given out,
    `refused_logins` the wrong names and passwords.

    Args:
        body: what it is built around; its password is that of the user "root".
        version: of the firmware.
        profile: whether it knows the efficiency profile; older firmware does not.
    """

    def __init__(self, body: Body, *, version: str = VERSION, profile: bool = True) -> None:
        rng = random.Random(body.seed)
        self.version, self.profile = version, profile
        self.machine = body.machine
        self.restarts = self.logins = self.refused_logins = 0
        self.mac = "02:8f:77:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(3))
        self.serial = f"EMULATED{rng.randrange(10**8):08d}"
        self._clock = body.clock
        self._password = FACTORY_PASSWORD if body.password is None else body.password
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._rng = rng
        self._tokens: dict[str, float] = {}
        self._resumes_s: float | None = None
        self._answers: dict[str, Callable[[], Reply]] = {
            "version": lambda: {"VERSION": [{"API": "3.7", "BOSer": f"boser {version}"}]},
            "devdetails": self._devdetails,
            "devs": self._devs,
            "summary": self._summary,
            "tunerstatus": self._tunerstatus,
            "temps": self._temps,
            "fans": lambda: {"FANS": [{"FAN": i, "ID": i, "RPM": 4800} for i in range(4)]},
            "pools": lambda: {"POOLS": []},
        }

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {
            PORT_OLD: cgminer(self.answer),
            PORT_REST: http(rest(self)),
            PORT_GRPC: _grpc(self),
        }

    def restart(self) -> None:
        """See `Firmware`: logins are forgotten."""
        self._tokens.clear()

    def answer(self, request: Reply) -> Reply:
        """Reply to one request on port 4028, joined commands in any order included."""
        names = str(request.get("command", "")).split("+")
        if len(names) > _MAX_JOINED or any(name not in self._answers for name in names):
            return {"STATUS": [_status("E", 14, "invalid command")], "id": 1}
        if len(names) == 1:
            return {**self._one(names[0]), "id": 1}
        return {**{name: [self._one(name)] for name in names}, "id": 1}

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
        self._tokens[token] = now_s + TOKEN_S
        self.logins += 1
        return token

    def knows(self, token: object) -> bool:
        """Whether the token holds; use keeps it alive."""
        if not isinstance(token, str) or self._tokens.get(token, 0.0) <= self._clock():
            return False
        self._tokens[token] = self._clock() + TOKEN_S
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

    def _one(self, name: str) -> Reply:
        return {"STATUS": [_status("S", 11, f"BOSer {name}")], **self._answers[name](), "id": 1}

    def _devdetails(self) -> Reply:
        row = {"Driver": "", "Kernel": "", "Model": self.machine.spec.model, "Chips": 65}
        rows = [{"DEVDETAILS": i, "ID": i, "Name": "", **row} for i in range(BOARDS)]
        return {"DEVDETAILS": rows}

    def _mhs(self) -> float | None:
        rate = self.hashrate_h_per_s
        return None if rate is None else round(rate / 1e6, 2)

    def _devs(self) -> Reply:
        mhs = self._mhs()
        rate = None if mhs is None else round(mhs / BOARDS, 2)
        rates = dict.fromkeys(("MHS 5s", "MHS 1m", "MHS 5m", "MHS 15m", "MHS av"), rate)
        row = {
            "Enabled": "Y",
            "Status": "Alive",
            "Temperature": round(self.machine.temperature_c(), 1),
            "Nominal MHS": round(self.machine.spec.curve[-1][1] / 1e6 / BOARDS, 2),
            **rates,
        }
        return {"DEVS": [{"ASC": i, "ID": i, **row} for i in range(BOARDS)]}

    def _summary(self) -> Reply:
        mhs = self._mhs()
        rates = dict.fromkeys(("MHS 5s", "MHS 1m", "MHS 5m", "MHS 15m", "MHS av"), mhs)
        row = {"Elapsed": int(self.machine.uptime_s()), "Accepted": 0, "Rejected": 0, **rates}
        return {"SUMMARY": [row]}

    def _tunerstatus(self) -> Reply:
        stage = "Tuning individual chips" if self.tuning else "Stable"
        chains = [{"HashchainIndex": i + 1, "Status": stage} for i in range(BOARDS)]
        row = {
            "ApproximateMinerPowerConsumption": self.watts_w,
            "PowerLimit": self.target_w,
            "TunerRunning": not self.paused,
            "TunerChainStatus": chains,
        }
        return {"TUNERSTATUS": [row]}

    def _temps(self) -> Reply:
        hot_c = round(self.machine.temperature_c(), 1)
        return {"TEMPS": [{"ID": i, "Board": hot_c, "Chip": hot_c + 12} for i in range(BOARDS)]}


def _status(letter: str, code: int, message: str) -> Reply:
    said = {"STATUS": letter, "When": int(time.time()), "Code": code, "Msg": message}
    return {**said, "Description": "BOSer"}


def _grpc(state: Braiins) -> Wire:
    """The gRPC port. Its library takes seconds to load, so that waits for the first client."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speak = await asyncio.to_thread(_speaker)
        if speak is not None:
            await speak(state, reader, writer)

    return serve


def _speaker() -> Any:
    """`braiins_grpc.speak`; None where pyasic, whose messages it uses, is not installed."""
    try:
        from wattshift_cluster.emulate.braiins_grpc import speak
    except ModuleNotFoundError:
        return None
    return speak
