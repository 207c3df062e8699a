"""What an emulated LuxOS answers on port 4028: a cgminer command in, a reply out.

Field names and reply codes follow a record of a real S19k Pro on LuxOS 2025.4 (256foundation/
asic-rs, luxminer/v1) and the vendor's API pages (docs.luxor.tech). Kept because clients trip over
it: a command that changes something needs a session, of which there is one at a time and which dies
after 60 s without use; a profile cannot be set while ATM is on; "Curtailment command sent"
means accepted, not done. The error codes and the session's idle limit are unverified.
"""

import random
import time
from collections.abc import Callable
from typing import Any

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.wires import Wire, cgminer

Reply = dict[str, Any]

PORT = 4028
FIRMWARE = "2025.4.8.220305"
SESSION_IDLE_S = 60.0
_BOARDS = 3
_MAX_JOINED = 16


class LuxOs:
    """The firmware of one machine.

    Args:
        body: what it is built around.
    """

    def __init__(self, body: Body) -> None:
        self._machine = body.machine
        self._clock = body.clock
        self._ids = random.Random(body.seed)
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._session: tuple[str, float] | None = None
        self._atm = True
        self._mac = "62:f7:5e:" + ":".join(f"{self._ids.randrange(256):02x}" for _ in range(3))
        self._reads: dict[str, Callable[[], Reply]] = {
            "version": self._version,
            "power": self._power,
            "summary": self._summary,
            "stats": self._stats,
            "config": self._config,
            "profiles": self._profiles,
            "temps": self._temps,
            "fans": self._fans,
            "pools": lambda: {"POOLS": []},
            "groups": lambda: {"GROUPS": []},
            "tempctrl": lambda: {"TEMPCTRL": [{"Mode": "Automatic", "Target": 60, "Hot": 75}]},
            "atm": lambda: {"ATM": [{"Enabled": self._atm, "MaxProfile": "", "MinProfile": ""}]},
            "session": lambda: {"SESSION": [{"SessionID": self._open_session() or ""}]},
        }
        self._writes: dict[str, Callable[[list[str]], Reply]] = {
            "curtail": self._curtail,
            "profileset": self._profileset,
            "atmset": self._atmset,
            "logoff": self._logoff,
        }

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {PORT: cgminer(self.answer)}

    def answer(self, request: Reply) -> Reply:
        """Reply to one request, joined commands ("power+summary") included."""
        command = request.get("command")
        parameter = request.get("parameter", "")
        if not isinstance(command, str) or not isinstance(parameter, str):
            return _error(14, "Invalid command")
        names = command.split("+")
        if len(names) == 1:
            return {**self._one(command, parameter), "id": 1}
        if len(names) > _MAX_JOINED or any(name not in self._reads for name in names):
            return _error(14, "Invalid command")
        return {**{name: [self._one(name, "")] for name in names}, "id": 1}

    def restart(self) -> None:
        """Forget what a firmware forgets when its control board restarts; set points stay."""
        self._session = None

    def _one(self, command: str, parameter: str) -> Reply:
        if command in self._reads:
            return {"STATUS": [_status("S", 0, f"LUXminer {command}")], **self._reads[command]()}
        if command == "logon":
            return self._logon()
        if command not in self._writes:
            return _error(14, "Invalid command")
        session, *arguments = parameter.split(",")
        if not session or session != self._open_session():
            return _error(403, "Invalid session")
        self._session = (session, self._clock())
        return self._writes[command](arguments)

    # Sessions

    def _open_session(self) -> str | None:
        if self._session is not None and self._clock() - self._session[1] > SESSION_IDLE_S:
            self._session = None
        return self._session[0] if self._session else None

    def _logon(self) -> Reply:
        if self._open_session() is not None:
            return _error(402, "Another session is active")
        session = "".join(self._ids.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=8))
        self._session = (session, self._clock())
        return _ok(316, "Session created", SESSION=[{"SessionID": session}])

    def _logoff(self, arguments: list[str]) -> Reply:
        self._session = None
        return _ok(317, "Session terminated")

    # Set points

    def _curtail(self, arguments: list[str]) -> Reply:
        if arguments not in (["sleep"], ["wakeup"]):
            return _error(336, "Invalid curtailment mode")
        if not self._ignoring():
            if arguments == ["sleep"]:
                self._machine.sleep()
            else:
                self._machine.wake()
        return _ok(335, "Curtailment command sent")

    def _profileset(self, arguments: list[str]) -> Reply:
        name = arguments[0] if len(arguments) == 1 else ""
        if self._atm:
            return _error(349, "Profile cannot be set while ATM is enabled")
        if name not in {p.name for p in self._machine.spec.profiles}:
            return _error(328, "Profile not found")
        if not self._ignoring():
            self._machine.set_profile(name)
        return _ok(323, "Profile set", PROFILE=[{"Profile": name}])

    def _atmset(self, arguments: list[str]) -> Reply:
        if arguments not in (["enabled=true"], ["enabled=false"]):
            return _error(341, "Invalid ATM configuration")
        self._atm = arguments == ["enabled=true"]
        return _ok(340, "Advanced Thermal Management configuration updated")

    # Readings

    def _version(self) -> Reply:
        row = {
            "API": "3.7",
            "CompileTime": "Tue Apr  8 22:05:35 UTC 2025",
            "LUXminer": f"{FIRMWARE}-57b389c7",
            "Miner": FIRMWARE,
            "Type": self._machine.spec.model,
        }
        return {"VERSION": [row]}

    def _power(self) -> Reply:
        watts_w = None if self._blank() else round(self._machine.reported_watts_w())
        return {"POWER": [{"PSU": False, "Watts": watts_w}]}

    def _summary(self) -> Reply:
        ghs = None if self._blank() else round(self._machine.reported_hashrate_h_per_s() / 1e9, 2)
        row = {
            "Elapsed": int(self._machine.uptime_s()),
            "GHS 5s": ghs,
            "GHS 1m": ghs,
            "GHS av": ghs,
            "Accepted": 0,
            "Rejected": 0,
            "Hardware Errors": 0,
        }
        return {"SUMMARY": [row]}

    def _stats(self) -> Reply:
        board_ghs = self._machine.reported_hashrate_h_per_s() / 1e9 / _BOARDS
        hot, cool = round(self._machine.temperature_c()), round(self._machine.temperature_c()) - 13
        profile = self._machine.profile
        row: Reply = {
            "STATS": 0,
            "ID": "BTM_SOC0",
            "Elapsed": int(self._machine.uptime_s()),
            "frequency": profile.frequency_mhz if profile else 0,
            "rate_unit": "GH",
            "total_rateideal": profile.hashrate_h_per_s / 1e9 if profile else 0,
        }
        for board in range(1, _BOARDS + 1):
            row[f"chain_rate{board}"] = f"{board_ghs:.2f}"
            row[f"chain_acn{board}"] = 77
            row[f"temp_chip{board}"] = row[f"temp_pcb{board}"] = f"{hot}-{cool}-{cool}-{hot}"
        return {"STATS": [{"Miner": FIRMWARE, "Type": self._machine.spec.model}, row]}

    def _config(self) -> Reply:
        profile = self._machine.profile
        row = {
            "CurtailMode": "Sleep" if self._machine.asleep else "None",
            "IsAtmEnabled": self._atm,
            "IsPowerSupplyOn": not self._machine.asleep,
            "MACAddr": self._mac,
            "Model": self._machine.spec.model,
            "OS": "LuxOS",
            "Profile": profile.name if profile else "",
            "ProfileStep": str(profile.step) if profile else "",
            "RedLed": "auto",
            "SystemStatus": "Normal",
        }
        return {"CONFIG": [row]}

    def _profiles(self) -> Reply:
        rows = [
            {
                "Profile Name": p.name,
                "Frequency": p.frequency_mhz,
                "Hashrate": p.hashrate_h_per_s / 1e12,
                "IsDynamic": True,
                "IsTuned": p.step == 0,
                "Step": str(p.step),
                "Voltage": p.voltage_v,
                "Watts": round(p.watts_w),
            }
            for p in self._machine.spec.profiles
        ]
        return {"PROFILES": rows}

    def _temps(self) -> Reply:
        hot = round(self._machine.temperature_c(), 1)
        rows = [
            {"ID": i, "TEMP": i, "TopLeft": hot, "BottomLeft": hot, "TopRight": hot - 13.0}
            for i in range(_BOARDS)
        ]
        return {"TEMPS": rows}

    def _fans(self) -> Reply:
        rows = [{"FAN": f"FAN{i + 1}", "ID": i, "RPM": 1920, "Speed": 20} for i in range(4)]
        return {"FANCTRL": [{"MinFans": 3, "PowerOffSpeed": 20}], "FANS": rows}


def _status(status: str, code: int, message: str) -> Reply:
    return {
        "Code": code,
        "Description": f"LUXminer {FIRMWARE}-57b389c7",
        "Msg": message,
        "STATUS": status,
        "When": int(time.time()),
    }


def _ok(code: int, message: str, **rows: list[Reply]) -> Reply:
    return {"STATUS": [_status("S", code, message)], **rows}


def _error(code: int, message: str) -> Reply:
    return {"STATUS": [_status("E", code, message)], "id": 1}
