"""What an emulated Whatsminer M50S++ with firmware API v2 answers on port 4028.

Field names and codes follow the maker's API 2.0 document and a record of a real machine's summary.
Readings are plain. A command comes sealed and carries a token: `get_token` hands one out for
half an hour and has room for 32. Kept because clients trip over it: `get_*` and `status` cannot be
joined with others, and both "cmd" and "command" name a command (pyasic sends the one, pyasic-rs the
other). A new power limit restarts mining where the machine moves as real ones do (`timing`). Texts
of refusals are unverified.
"""

import random
import time
from collections.abc import Callable
from typing import Any

from wattshift_cluster.asic.whatsminer_sign import V2Secrets, seal, unseal, v2_secrets
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.wires import Wire, cgminer

Reply = dict[str, Any]

PORT = 4028
FIRMWARE = "20230914.17.Rel"
FACTORY_PASSWORD = "admin"
TOKEN_AGE_S = 30 * 60.0
MOST_TOKENS = 32
_BOARDS = 3
_MAX_JOINED = 8
_SALT = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


class WhatsminerV2:
    """The firmware of one machine.

    Args:
        body: what it is built around; its password is that of the account "admin".
    """

    def __init__(self, body: Body) -> None:
        rng = random.Random(body.seed)
        self._machine = body.machine
        self._clock = body.clock
        self._password = body.password or FACTORY_PASSWORD
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._rng = rng
        self._salt = "".join(rng.choices(_SALT, k=8))
        self._mac = "C4:08:28:" + ":".join(f"{rng.randrange(256):02X}" for _ in range(3))
        self._serial = f"EMULATED{rng.randrange(10**8):08d}"
        self._tokens: dict[str, tuple[V2Secrets, float]] = {}
        self._joinable: dict[str, Callable[[], Reply]] = {
            "summary": self._summary,
            "devs": self._devs,
            "edevs": self._devs,
            "pools": lambda: {"POOLS": []},
            "version": lambda: {"VERSION": [{"API": "2.0.5", "BTMiner": FIRMWARE}]},
            "devdetails": self._devdetails,
        }
        self._alone: dict[str, Callable[[], Reply]] = {
            "status": self._status,
            "get_version": self._version,
            "get_miner_info": self._info,
            "get_psu": lambda: _plain(
                131, {"name": "P222B", "fan_speed": "6400", "model": "P222B"}
            ),
            "get_error_code": lambda: _plain(131, {"error_code": []}),
            "get_token": self._token,
        }
        self._commands: dict[str, Callable[[Reply], bool]] = {
            "adjust_power_limit": self._adjust,
            "power_off": self._power_off,
            "power_on": self._power_on,
        }

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {PORT: cgminer(self.answer)}

    def restart(self) -> None:
        """Forget what a firmware forgets when its control board restarts; set points stay."""
        self._tokens.clear()

    def answer(self, request: Reply) -> Reply:
        """Reply to one request, joined readings ("summary+devs") and sealed commands included."""
        if request.get("enc"):
            return self._unsealed(request.get("data"))
        command = _named(request)
        if command in self._alone:
            return self._alone[command]()
        if command in self._commands:
            return _plain(45, "permission denied", "E")
        names = command.split("+")
        if len(names) > _MAX_JOINED or any(name not in self._joinable for name in names):
            return _plain(14, "invalid cmd", "E")
        if len(names) == 1:
            return {**_heard(command), **self._joinable[command](), "id": 1}
        return {**{n: [{**_heard(n), **self._joinable[n]()}] for n in names}, "id": 1}

    # Commands

    def _token(self) -> Reply:
        now_s = self._clock()
        self._tokens = {t: kept for t, kept in self._tokens.items() if kept[1] > now_s}
        if len(self._tokens) >= MOST_TOKENS:
            return _plain(136, "over max connect", "E")
        at, newsalt = f"{self._rng.randrange(10**4):04d}", "".join(self._rng.choices(_SALT, k=8))
        secrets = v2_secrets(self._password, self._salt, at, newsalt)
        self._tokens[secrets.token] = (secrets, now_s + TOKEN_AGE_S)
        return _plain(134, {"time": at, "salt": self._salt, "newsalt": newsalt})

    def _unsealed(self, data: object) -> Reply:
        # All tokens share one key, which comes from the password and a salt that does not change.
        key = next((secrets.key for secrets, _ in self._tokens.values()), None)
        if not isinstance(data, str) or key is None:
            return _plain(135, "check token error", "E")
        try:
            request = unseal(key, data)
        except ValueError:
            return _plain(23, "enc json load err", "E")
        secrets, until_s = self._tokens.get(str(request.get("token")), (None, 0.0))
        if secrets is None or until_s < self._clock():
            return _plain(135, "check token error", "E")
        command = self._commands.get(_named(request))
        if command is None:
            reply = _plain(14, "invalid cmd", "E")
        else:
            accepted = command(request)
            reply = _plain(131, "API command OK") if accepted else _plain(132, "API cmd error", "E")
        return {"enc": seal(key, reply)}

    def _adjust(self, request: Reply) -> bool:
        bounds_w, wanted = self._machine.spec.limit_w, str(request.get("power_limit"))
        if bounds_w is None or not wanted.isdecimal() or len(wanted) > 5:
            return False
        if not bounds_w[0] <= int(wanted) <= bounds_w[1]:
            return False
        return self._ignoring() or self._machine.set_limit(int(wanted))

    def _power_off(self, request: Reply) -> bool:
        if not self._ignoring():
            self._machine.sleep()
        return True

    def _power_on(self, request: Reply) -> bool:
        if not self._ignoring():
            self._machine.wake()
        return True

    # Readings

    def _mhs(self) -> float | None:
        return None if self._blank() else round(self._machine.reported_hashrate_h_per_s() / 1e6, 2)

    def _summary(self) -> Reply:
        machine, mhs = self._machine, self._mhs()
        hot_c = round(machine.temperature_c(), 2)
        row = {
            "Elapsed": int(machine.uptime_s()),
            "MHS av": mhs,
            "MHS 5s": mhs,
            "MHS 1m": mhs,
            "MHS 5m": mhs,
            "MHS 15m": mhs,
            "HS RT": mhs,
            "Accepted": 0,
            "Rejected": 0,
            "Temperature": hot_c,
            "freq_avg": 0 if machine.asleep else 646,
            "Fan Speed In": 4530,
            "Fan Speed Out": 4530,
            "Power": None if self._blank() else round(machine.reported_watts_w()),
            "Uptime": int(machine.uptime_s()),
            "Security Mode": 0,
            "Hash Stable": not machine.asleep,
            "Target Freq": 574,
            "Env Temp": 26.0,
            "Power Mode": "Normal",
            "Factory GHS": round(machine.spec.curve[-1][1] / 1e9),
            "Power Limit": round(machine.limit_w or 0),
            "Chip Temp Min": hot_c,
            "Chip Temp Max": hot_c + 12,
            "Chip Temp Avg": hot_c + 8,
            "Btminer Fast Boot": "disable",
            "MAC": self._mac,
        }
        return {"SUMMARY": [row]}

    def _devs(self) -> Reply:
        mhs, hot_c = self._mhs(), round(self._machine.temperature_c(), 2)
        rate = None if mhs is None else round(mhs / _BOARDS, 2)
        row = {
            "Enabled": "Y",
            "Status": "Alive",
            "Temperature": hot_c,
            "Chip Temp Min": hot_c,
            "Chip Temp Max": hot_c + 12,
            "Chip Temp Avg": hot_c + 8,
            "MHS av": rate,
            "MHS 5s": rate,
            "MHS 1m": rate,
            "Effective Chips": 111,
            "Factory GHS": round(self._machine.spec.curve[-1][1] / 1e9 / _BOARDS),
        }
        # pyasic reads no board behind one without "PCB SN".
        ids = [{"ASC": i, "Slot": i, "PCB SN": f"{self._serial}{i}"} for i in range(_BOARDS)]
        return {"DEVS": [{**row, **own} for own in ids]}

    def _devdetails(self) -> Reply:
        row = {"Name": "SM", "Driver": "bitmicro", "Kernel": "", "Model": self._machine.spec.model}
        return {"DEVDETAILS": [{"DEVDETAILS": i, "ID": i, **row} for i in range(_BOARDS)]}

    def _status(self) -> Reply:
        off = "true" if self._machine.asleep else "false"
        said = {"mineroff": off, "mineroff_reason": "", "Firmware Version": FIRMWARE}
        return _plain(131, {**said, "power_mode": "Normal", "hash_percent": "100%"})

    def _version(self) -> Reply:
        said = {"api_ver": "2.0.5", "fw_ver": FIRMWARE, "platform": "H616", "chip": "K30"}
        return _plain(131, said)

    def _info(self) -> Reply:
        said = {"hostname": "WhatsMiner", "mac": self._mac, "ledstat": "auto"}
        return _plain(131, {**said, "minersn": self._serial})


def _named(request: Reply) -> str:
    return str(request.get("command", request.get("cmd", "")))


def _plain(code: int, message: Any, status: str = "S") -> Reply:
    reply = {"STATUS": status, "When": int(time.time()), "Code": code, "Msg": message}
    return {**reply, "Description": ""}


def _heard(command: str) -> Reply:
    status = {"STATUS": "S", "When": int(time.time()), "Code": 11, "Msg": command}
    return {"STATUS": [{**status, "Description": "btminer"}]}
