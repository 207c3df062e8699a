"""An emulated Antminer S21 Pro on Braiins OS 26.04: its ports, and what it answers on 4028.

`braiins_rest` (port 80) and `braiins_grpc` (port 50051) speak for the same `braiins_state`. Field
names of 4028 are those that pyasic reads. Kept because clients trip over it: a power target is no
limit (one record shows 3,137 W for a target of 3,031 W), and the watts are the firmware's estimate.
The tuner's states while paused are unverified.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from wattshift_cluster.emulate.braiins_rest import BOARDS, rest
from wattshift_cluster.emulate.braiins_state import BraiinsState
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import http
from wattshift_cluster.emulate.wires import Wire, cgminer

Reply = dict[str, Any]

PORT_OLD, PORT_REST, PORT_GRPC = 4028, 80, 50051
VERSION = "2026-04-14-0-912d084c-26.04-plus"
VERSION_25_07 = "2025-07-22-0-f6a2dd5f-25.07-plus"
FACTORY_PASSWORD = "root"
TOKEN_S = 3600.0
_MAX_JOINED = 8


class Braiins(BraiinsState):
    """The firmware of one machine; see `BraiinsState` for what it counts.

    Args:
        body: what it is built around; its password is that of the user "root".
        version: of the firmware.
        profile: whether it knows the efficiency profile; older firmware does not.
    """

    def __init__(self, body: Body, *, version: str = VERSION, profile: bool = True) -> None:
        password = FACTORY_PASSWORD if body.password is None else body.password
        super().__init__(body, version=version, profile=profile, password=password, token_s=TOKEN_S)
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

    def answer(self, request: Reply) -> Reply:
        """Reply to one request on port 4028, joined commands in any order included."""
        names = str(request.get("command", "")).split("+")
        if len(names) > _MAX_JOINED or any(name not in self._answers for name in names):
            return {"STATUS": [_status("E", 14, "invalid command")], "id": 1}
        if len(names) == 1:
            return {**self._one(names[0]), "id": 1}
        return {**{name: [self._one(name)] for name in names}, "id": 1}

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
