"""What an emulated Antminer S19k Pro on VNish 1.2.7 answers on ports 80 and 4028.

Paths and fields follow the firmware's own OpenAPI document (256foundation/asic-rs, meta/vnish
/v1.2.7) and what pyasic reads. `power_usage` is named deprecated there, and pyasic takes it for
watts, so it shows watts. Readings are open; presets, settings and commands want the token of
`unlock`, plain or as a bearer. A stop is answered with empty JSON: its real body is unverified, as
is the life of a token.
"""

import random
import time
from collections.abc import Callable
from typing import Any

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import HttpRequest, HttpResponse, http
from wattshift_cluster.emulate.motion import Phase
from wattshift_cluster.emulate.specs import Profile
from wattshift_cluster.emulate.wires import Wire, cgminer

Reply = dict[str, Any]
Route = Callable[[HttpRequest], HttpResponse]

PORT_WEB, PORT_OLD = 80, 4028
VERSION = "1.2.7"
FACTORY_PASSWORD = "admin"
TOKEN_S = 3600.0
MOST_TOKENS = 16
_UNTUNED = "2052"
"""One preset below the default that was never tuned."""

_BOARDS = 3
_MAX_JOINED = 8
_PAGE = b"<!doctype html><html><head><title>AnthillOS</title></head><body></body></html>"
_POOL = {"url": "stratum+tcp://pool.invalid:3333", "user": "owner.rig", "pass": "x"}
_STATES = {
    Phase.OFF: "stopped",
    Phase.BOOTING: "initializing",
    Phase.RESTARTING: "restarting",
    Phase.WARMING: "starting",
    Phase.TUNING: "auto-tuning",
    Phase.HOT: "failure",
    Phase.ASLEEP: "stopped",
}


class Vnish:
    """The firmware of one machine.

    `logins` counts the tokens given out, `refused_logins` the wrong passwords.

    Args:
        body: what it is built around; its password unlocks it.
    """

    def __init__(self, body: Body) -> None:
        rng = random.Random(body.seed)
        self.logins = self.refused_logins = 0
        self._machine = body.machine
        self._clock = body.clock
        self._password = FACTORY_PASSWORD if body.password is None else body.password
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._rng = rng
        self._mac = "5a:19:6e:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(3))
        self._serial = f"EMULATED{rng.randrange(10**8):08d}"
        self._tokens: dict[str, float] = {}
        self._open: dict[tuple[str, str], Route] = {
            ("GET", "info"): self._info,
            ("GET", "summary"): self._summary,
            ("GET", "status"): self._status,
            ("GET", "perf-summary"): self._perf,
            ("GET", "chains"): lambda request: HttpResponse(200, []),
            ("GET", "chains/factory-info"): self._factory,
            ("POST", "unlock"): self._unlock,
        }
        self._locked: dict[tuple[str, str], Route] = {
            ("GET", "settings"): self._settings,
            ("POST", "settings"): self._save,
            ("GET", "autotune/presets"): self._presets,
            ("POST", "mining/stop"): self._stop,
            ("POST", "mining/pause"): self._stop,
            ("POST", "mining/start"): self._start,
            ("POST", "mining/resume"): self._start,
        }

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {PORT_WEB: http(self.respond), PORT_OLD: cgminer(self.answer)}

    def restart(self) -> None:
        """See `Firmware`: it is locked again."""
        self._tokens.clear()

    def change_password(self, password: str) -> None:
        """What its owner can do in the browser: every login ends."""
        self._password = password
        self._tokens.clear()

    def respond(self, request: HttpRequest) -> HttpResponse:
        """Reply to one HTTP request."""
        if (request.method, request.path) == ("GET", "/"):
            return HttpResponse(200, _PAGE)
        if not request.path.startswith("/api/v1/"):
            return HttpResponse(404)
        asked = (request.method, request.path.removeprefix("/api/v1/"))
        if route := self._open.get(asked):
            return route(request)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._tokens.get(given, 0.0) <= self._clock():
            return HttpResponse(401)
        route = self._locked.get(asked)
        return route(request) if route else HttpResponse(404)

    # Commands

    def _unlock(self, request: HttpRequest) -> HttpResponse:
        given = request.json()
        if not isinstance(given, dict) or given.get("pw") != self._password:
            self.refused_logins += 1
            return HttpResponse(403, {"unlocked": False})
        now_s = self._clock()
        self._tokens = {t: until_s for t, until_s in self._tokens.items() if until_s > now_s}
        if len(self._tokens) >= MOST_TOKENS:
            self._tokens.pop(next(iter(self._tokens)))
        token = f"{self._rng.getrandbits(128):032x}"
        self._tokens[token] = now_s + TOKEN_S
        self.logins += 1
        return HttpResponse(200, {"token": token})

    def _save(self, request: HttpRequest) -> HttpResponse:
        given = request.json()
        miner = given.get("miner") if isinstance(given, dict) else None
        miner = miner if isinstance(miner, dict) else {}
        if "pools" in miner:
            self._machine.pool_writes += 1
        overclock = miner.get("overclock")
        name = overclock.get("preset") if isinstance(overclock, dict) else None
        # An unknown preset is answered like a known one: pyasic's source says so.
        if isinstance(name, str) and not self._ignoring():
            self._machine.set_profile(name)
        return HttpResponse(200, {"restart_required": False, "reboot_required": False})

    def _stop(self, request: HttpRequest) -> HttpResponse:
        if not self._ignoring():
            self._machine.sleep()
        return HttpResponse(200, {})

    def _start(self, request: HttpRequest) -> HttpResponse:
        if not self._ignoring():
            self._machine.wake()
        return HttpResponse(200, {})

    # Readings

    def _profile(self) -> Profile:
        assert self._machine.profile is not None, "the model has profiles"
        return self._machine.profile

    def _preset(self, profile: Profile) -> Reply:
        watts, ths = round(profile.watts_w), profile.hashrate_h_per_s / 1e12
        return {
            "name": profile.name,
            "pretty": f"{watts} watt ~ {ths:.0f} TH",
            "status": "tuned" if self._tuned(profile) else "untuned",
            "modded_psu_required": False,
        }

    def _tuned(self, profile: Profile) -> bool:
        return profile.step <= 0 and profile.name != _UNTUNED

    def _presets(self, request: HttpRequest) -> HttpResponse:
        off = {"name": "disabled", "pretty": "disabled", "status": "untuned"}
        rows = [self._preset(profile) for profile in self._machine.spec.profiles]
        return HttpResponse(200, [{**off, "modded_psu_required": False}, *rows])

    def _perf(self, request: HttpRequest) -> HttpResponse:
        current = self._preset(self._profile())
        return HttpResponse(200, {"current_preset": current, "preset_switcher": {"enabled": False}})

    def _settings(self, request: HttpRequest) -> HttpResponse:
        profile = self._profile()
        freq, volt = profile.frequency_mhz, round(profile.voltage_v * 1000)
        miner = {
            "cooling": {"mode": {"name": "auto", "param": 65}, "fan_min_count": 4},
            "misc": {"restart_temp": 85},
            "overclock": {
                "preset": profile.name,
                "modded_psu": False,
                "globals": {"freq": freq, "volt": volt},
                "chains": [{"freq": 0, "disabled": False, "chips": []} for _ in range(_BOARDS)],
                "preset_switcher": {"enabled": False, "top_preset": None, "min_preset": None},
            },
            "pools": [_POOL, _POOL, _POOL],
        }
        network = {"dhcp": True, "hostname": "Antminer"}
        regional = {"timezone": {"current": "GMT"}}
        view = {"miner": miner, "network": network, "regional": regional, "ui": {"theme": "auto"}}
        return HttpResponse(200, view)

    def _state(self) -> str:
        return _STATES.get(self._machine.phase, "mining")

    def _status(self, request: HttpRequest) -> HttpResponse:
        state = {"miner_state": self._state(), "miner_state_time": 0, "find_miner": False}
        return HttpResponse(200, {**state, "unlocked": False, "restart_required": False})

    def _ghs(self) -> float | None:
        if self._blank():
            return None
        return round(self._machine.reported_hashrate_h_per_s() / 1e9, 2)

    def _summary(self, request: HttpRequest) -> HttpResponse:
        machine, ghs = self._machine, self._ghs()
        watts = None if self._blank() else round(machine.reported_watts_w())
        hot = round(machine.temperature_c())
        miner = {
            "miner_status": {"miner_state": self._state(), "miner_state_time": 0},
            "miner_type": f"{machine.spec.model} (Vnish {VERSION})",
            "hr_stock": 120000.0,
            "hr_realtime": ghs,
            "hr_average": ghs,
            "hr_nominal": ghs,
            "pcb_temp": {"min": hot - 4, "max": hot},
            "chip_temp": {"min": hot + 4, "max": hot + 12},
            "power_consumption": watts,
            "power_usage": watts,
            "power_efficiency": None if not ghs or not watts else watts / (ghs / 1000),
            "cooling": {"fan_num": 4, "fans": [], "settings": {"mode": {"name": "auto"}}},
            "chains": [],
            "pools": [],
        }
        network = {"mac": self._mac, "hostname": "Antminer", "ip": "", "dhcp": True}
        return HttpResponse(200, {"miner": miner, "system": {"network_status": network}})

    def _info(self, request: HttpRequest) -> HttpResponse:
        uptime_s = int(self._machine.uptime_s())
        system = {
            "os": "GNU/Linux",
            "miner_name": self._machine.spec.model,
            "network_status": {"mac": self._mac, "hostname": "Antminer", "ip": "", "dns": []},
            "uptime": f"{uptime_s // 3600}:{uptime_s // 60 % 60:02d}",
        }
        body = {
            "miner": self._machine.spec.model,
            "model": "s19kpro",
            "fw_name": "Vnish",
            "fw_version": VERSION,
            "platform": "aml",
            "install_type": "nand",
            "build_time": "2025-06-01 00:00:00",
            "algorithm": "sha256d",
            "hr_measure": "GH/s",
            "serial": self._serial,
            "system": system,
        }
        return HttpResponse(200, body)

    def _factory(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, {"psu_serial": self._serial, "hr_stock": 120000.0, "chains": []})

    def answer(self, request: Reply) -> Reply:
        """Reply to one request on port 4028, joined commands included."""
        answers: dict[str, Callable[[], Reply]] = {
            "version": self._old_version,
            "stats": self._old_stats,
            "summary": self._old_summary,
            "pools": lambda: {"POOLS": []},
        }
        names = str(request.get("command", "")).split("+")
        if len(names) > _MAX_JOINED or any(name not in answers for name in names):
            return {"STATUS": [_status("E", 14, "Invalid command")], "id": 1}
        rows = {n: {"STATUS": [_status("S", 11, n)], **answers[n](), "id": 1} for n in names}
        return rows[names[0]] if len(names) == 1 else {**{n: [rows[n]] for n in rows}, "id": 1}

    def _type(self) -> str:
        return f"{self._machine.spec.model} (Vnish {VERSION})"

    def _old_version(self) -> Reply:
        row = {"API": "3.1", "CGMiner": "4.11.1", "Miner": VERSION, "Type": self._type()}
        return {"VERSION": [row]}

    def _old_stats(self) -> Reply:
        named = {"CGMiner": "4.11.1", "Miner": VERSION, "Type": self._type()}
        chains: Reply = {}
        ghs = self._ghs()
        for i in range(1, _BOARDS + 1):
            chains[f"chain_rate{i}"] = "" if ghs is None else f"{ghs / _BOARDS:.2f}"
            chains[f"chain_acn{i}"] = 77
            chains[f"temp_chip{i}"] = chains[f"temp_pcb{i}"] = "50-50-60-60"
        numbers = {"STATS": 0, "Elapsed": int(self._machine.uptime_s()), "total_rateideal": 120000}
        fans = {f"fan{i}": 4800 for i in range(1, 5)}
        return {"STATS": [named, {**numbers, **fans, **chains}]}

    def _old_summary(self) -> Reply:
        ghs = self._ghs()
        row = {"Elapsed": int(self._machine.uptime_s()), "GHS 5s": ghs, "GHS av": ghs}
        return {"SUMMARY": [row]}


def _status(letter: str, code: int, message: str) -> Reply:
    said = {"STATUS": letter, "When": int(time.time()), "Code": code, "Msg": message}
    return {**said, "Description": f"vnish {VERSION}"}
