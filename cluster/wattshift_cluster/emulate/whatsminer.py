"""What an emulated Whatsminer M60S with firmware API v3 answers on ports 4433 and 4028.

Port 4433 is the v3 API; field names follow a record of a real M60S (256foundation/asic-rs,
whatsminer/v3). On port 4028 only the older questions are answered by which clients tell a v3
machine: `version`, `devdetails` and `get_version`. A `set.*` command carries a token, the first 8
characters of base64(sha256(command + password + salt + time)). Error codes are unverified.
"""

import base64
import hashlib
import hmac
import random
import time
from typing import Any

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.wires import Wire, cgminer, framed

Reply = dict[str, Any]

PORT_V3 = 4433
PORT_OLD = 4028
FIRMWARE = "20251209.16.Rel2"
FACTORY_PASSWORD = "super"
TOKEN_AGE_S = 30 * 60
_BOARDS = 3


class Whatsminer:
    """The firmware of one machine.

    Args:
        body: what it is built around; its password is that of the account "super".
    """

    def __init__(self, body: Body) -> None:
        rng = random.Random(body.seed)
        self._machine = body.machine
        self._password = body.password or FACTORY_PASSWORD
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._rng = rng
        self._salt = ""
        self.restart()
        self._mac = "CE:02:01:" + ":".join(f"{rng.randrange(256):02X}" for _ in range(3))
        self._serial = f"EMULATED{rng.randrange(10**8):08d}"

    def restart(self) -> None:
        """Forget what a firmware forgets when its control board restarts; set points stay."""
        self._salt = "".join(self._rng.choices("abcdefghijkmnpqrstuvwxyz", k=8))

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {PORT_V3: framed(self.answer), PORT_OLD: cgminer(self.answer_old)}

    def answer_old(self, request: Reply) -> Reply:
        """Reply to one request on port 4028."""
        command = request.get("command", request.get("cmd"))
        if command == "get_version":
            versions = {"api_ver": "3.0.2", "fw_ver": FIRMWARE, "platform": "H616", "chip": "K40"}
            return {"STATUS": "S", "When": _now(), "Code": 131, "Msg": versions, "Description": ""}
        status = {"STATUS": "S", "When": _now(), "Code": 22, "Description": "btminer"}
        if command == "devdetails":
            row = {
                "DEVDETAILS": 0,
                "ID": 0,
                "Name": "SM",
                "Driver": "bitmicro",
                "Model": self._machine.spec.model,
            }
            return {"STATUS": [{**status, "Msg": "Device Details"}], "DEVDETAILS": [row], "id": 1}
        if command == "version":
            row = {"BTMiner": FIRMWARE, "API": "3.0.2"}
            return {"STATUS": [{**status, "Msg": "BTMiner versions"}], "VERSION": [row], "id": 1}
        failed = {**status, "STATUS": "E", "Code": 14, "Msg": "invalid cmd"}
        return {"STATUS": [failed], "id": 1}

    def answer(self, request: Reply) -> Reply:
        """Reply to one request on port 4433."""
        command, param = request.get("cmd"), request.get("param")
        if command == "get.device.info":
            return _reply(command, {"salt": self._salt} if param == "salt" else self._device())
        if command == "get.miner.status" and param == "summary":
            return _reply(command, {"summary": self._summary()})
        if command == "get.miner.status" and param == "edevs":
            return _reply(command, {"edevs": self._boards()})
        if command == "get.miner.status" and param == "pools":
            return _reply(command, {"pools": []})
        if command == "get.miner.setting":
            return _reply(command, {"power-limit": self._limit_w()})
        if command in ("set.miner.power_limit", "set.miner.service"):
            if not self._signed(request):
                return _reply(command, "invalid token", code=-4)
            accepted = self._apply(command, param)
            return _reply(command, "ok") if accepted else _reply(command, "invalid param", code=-2)
        return _reply(str(command), "invalid command", code=-1)

    def _signed(self, request: Reply) -> bool:
        ts, token = request.get("ts"), request.get("token")
        if request.get("account") != "super" or not isinstance(ts, int):
            return False
        if not isinstance(token, str) or abs(ts - time.time()) > TOKEN_AGE_S:
            return False
        signed = f"{request['cmd']}{self._password}{self._salt}{ts}".encode()
        right = base64.b64encode(hashlib.sha256(signed).digest())[:8]
        return hmac.compare_digest(token.encode(), right)

    def _apply(self, command: str, param: Any) -> bool:
        if command == "set.miner.power_limit":
            bounds_w = self._machine.spec.limit_w
            if bounds_w is None or not isinstance(param, int):
                return False
            if not bounds_w[0] <= param <= bounds_w[1]:
                return False
            return self._ignoring() or self._machine.set_limit(param)
        if param not in ("start", "stop", "restart"):
            return False
        if not self._ignoring():
            if param == "stop":
                self._machine.sleep()
            else:
                self._machine.wake()
        return True

    def _limit_w(self) -> int:
        return round(self._machine.limit_w or 0)

    def _device(self) -> Reply:
        return {
            "miner": {
                "board-num": str(_BOARDS),
                "fast-boot": "disable",
                "hash-board": "K40",
                "miner-sn": self._serial,
                "type": self._machine.spec.model,
                "working": "false" if self._machine.asleep else "true",
            },
            "network": {"hostname": "WhatsMiner", "mac": self._mac, "proto": "dhcp"},
            "power": {"fanspeed": 6344, "mode": "1", "model": "P221B", "type": "P221B"},
            "salt": self._salt,
            "system": {
                "api": "3.0.2",
                "apiswitch": "1",
                "control-board-version": "CB6V10",
                "fwversion": FIRMWARE,
                "ledstatus": "auto",
                "platform": "H616",
            },
        }

    def _summary(self) -> Reply:
        machine = self._machine
        ths = None if self._blank() else round(machine.reported_hashrate_h_per_s() / 1e12, 3)
        watts_w = None if self._blank() else round(machine.reported_watts_w(), 1)
        hot_c = round(machine.temperature_c(), 1)
        return {
            "board-temperature": [hot_c] * _BOARDS,
            "bootup-time": 0,
            "chip-temp-avg": hot_c + 8,
            "chip-temp-max": hot_c + 12,
            "chip-temp-min": hot_c,
            "elapsed": int(machine.uptime_s()),
            "environment-temperature": 26.0,
            "factory-hash": round(machine.spec.curve[-1][1] / 1e12, 3),
            "fan-speed-in": 5400,
            "fan-speed-out": 5280,
            "hash-1min": ths,
            "hash-average": ths,
            "hash-realtime": ths,
            "power-5min": watts_w,
            "power-limit": self._limit_w(),
            "power-realtime": watts_w,
            "up-freq-finish": 0 if machine.asleep else 1,
        }

    def _boards(self) -> list[Reply]:
        ths = round(self._machine.reported_hashrate_h_per_s() / 1e12 / _BOARDS, 3)
        hot_c = round(self._machine.temperature_c(), 1)
        row = {
            "chip-temp-avg": hot_c + 8,
            "chip-temp-max": hot_c + 12,
            "chip-temp-min": hot_c,
            "effective-chips": 75,
            "hash-average": ths,
            "hash-realtime": ths,
            "status": "alive",
        }
        return [{**row, "id": i} for i in range(_BOARDS)]


def _now() -> int:
    return int(time.time())


def _reply(command: str, message: Any, code: int = 0) -> Reply:
    return {"code": code, "desc": command, "msg": message, "when": _now()}
