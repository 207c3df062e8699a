"""What an emulated stock Antminer S21 answers: CGI pages behind a digest login, cgminer on 4028.

Field names follow records of real machines (256foundation/asic-rs, antminer/v2023_07). What a write
of the configuration does is in `antminer_conf`. Kept because clients trip over it: no watts
anywhere; a joined cgminer command is refused; a change of mode answers only after a second and
restarts the miner, which then reports no hashrate for a while although it draws; the
page names the mode of the configuration, whether or not the miner follows it.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from wattshift_cluster.emulate.antminer_conf import MODE, SLEEP, Json, fresh_conf, rewritten
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import Digest, HttpRequest, HttpResponse, http
from wattshift_cluster.emulate.wires import Wire, cgminer

PORT = 4028
WEB_PORT = 80
REALM = "antMiner Configuration"
ACCOUNT = "root"
FACTORY_PASSWORD = "root"
BUILT = "Mon Dec 26 17:10:01 CST 2022"
MINER = "uart_trans.1.3"
WRITE_S = 1.0
"""A write answers after so long: the script sleeps for a second before it restarts the miner."""

RESTART_S = 15.0
"""A restarted miner reports no hashrate for so long; minutes on a real machine (unverified)."""

MOST_SCRIPTED = 16
_POLL_S = 0.02
_BOARDS, _CHIPS = 3, 108
_OK = {"stats": "success", "code": "M000", "msg": "OK!"}


class Antminer:
    """The firmware of one machine.

    Attributes:
        conf: its configuration, as the page gives it.
        writes: how often the configuration was written.
        scripted: answers to the next reads of the configuration, None for the true one; for tests
            of clients.

    Args:
        body: what it is built around; its password is that of the account "root".
    """

    def __init__(self, body: Body) -> None:
        rng = random.Random(body.seed)
        self.writes = 0
        self.scripted: deque[HttpResponse | None] = deque(maxlen=MOST_SCRIPTED)
        self._machine = body.machine
        self._clock = body.clock
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._mac = "02:" + ":".join(f"{rng.randrange(256):02X}" for _ in range(5))
        self._serial = f"EMULATED{rng.randrange(10**8):08d}"
        self.conf = fresh_conf(f"site.{rng.randrange(10**6)}", asleep=body.machine.asleep)
        self._started_s = body.clock() - RESTART_S
        self._writing = self._owing = False
        self._blinking = False
        users = {ACCOUNT: body.password or FACTORY_PASSWORD}
        self._digest = Digest(REALM, users, seed=body.seed, clock=body.clock)
        self._pages: dict[str, Callable[[HttpRequest], Json]] = {
            "get_system_info": lambda _: self._system(),
            "get_network_info": lambda _: {"nettype": "DHCP", "macaddr": self._mac},
            "miner_type": lambda _: {"miner_type": self._machine.spec.model, "subtype": "AMLCtrl"},
            "summary": lambda _: self._web("summary", "SUMMARY", self._web_summary()),
            "stats": lambda _: self._web("stats", "STATS", self._web_stats()),
            "pools": lambda _: self._web("pools", "POOLS", *self._pool_rows()),
            "get_blink_status": lambda _: {"blink": self._blinking},
            "blink": self._blink,
        }
        self._reads: dict[str, Callable[[], Json]] = {
            "version": lambda: {"VERSION": [self._version()]},
            "summary": lambda: {"SUMMARY": [self._summary()]},
            "stats": lambda: {"STATS": [self._version(), self._stats()]},
            "pools": lambda: {"POOLS": self._pool_rows()},
            "devs": lambda: {"DEVS": []},
        }

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {PORT: cgminer(self.answer), WEB_PORT: http(self.respond)}

    def restart(self) -> None:
        """Forget the logins; a mode that was written and not followed comes into force."""
        self._digest.forget()
        if not self._owing:
            # Another firmware object may have spoken for the machine meanwhile.
            asleep = self._machine.asleep
            if asleep != (self.conf[MODE] == SLEEP):
                self.conf = {**self.conf, MODE: SLEEP if asleep else "0"}
        self._start()

    # Port 4028

    def answer(self, request: Json) -> Json:
        """Reply to one cgminer request; a joined one is refused."""
        command = request.get("command")
        if not isinstance(command, str) or command not in self._reads:
            return {"STATUS": [_status("E", 14, "Invalid command")], "id": 1}
        status = _status("S", 11, f"CGMiner {command}")
        return {"STATUS": [status], **self._reads[command](), "id": 1}

    def _version(self) -> Json:
        row = {"BMMiner": "1.0.0", "API": "3.1", "Miner": MINER, "CompileTime": BUILT}
        return {**row, "Type": self._machine.spec.model}

    def _summary(self) -> Json:
        ghs = self._ghs()
        row = {"Elapsed": self._elapsed_s(), "GHS 5s": ghs, "GHS av": ghs, "rate_30m": ghs}
        return {**row, "Accepted": 0, "Rejected": 0, "Hardware Errors": 0, "Utility": 0.0}

    def _stats(self) -> Json:
        ghs, hot, cool = self._ghs(), *self._temperatures_c()
        row: Json = {
            "STATS": 0,
            "ID": "BTM_SOC0",
            "Elapsed": self._elapsed_s(),
            "GHS 5s": ghs,
            "GHS av": ghs,
            "rate_unit": "GH",
            "total_rateideal": self._ideal_ghs(),
            "miner_count": _BOARDS,
        }
        for board in range(1, _BOARDS + 1):
            row[f"chain_rate{board}"] = "" if ghs is None else f"{ghs / _BOARDS:.2f}"
            row[f"chain_acn{board}"] = _CHIPS
            row[f"temp_chip{board}"] = f"{cool}-{cool}-{hot}-{hot}"
            row[f"temp_pcb{board}"] = f"{cool - 10}-{cool - 10}-{hot - 10}-{hot - 10}"
        return row

    def _pool_rows(self) -> list[Json]:
        return [
            {"POOL": i, "URL": pool["url"], "User": pool["user"], "Status": "Alive"}
            for i, pool in enumerate(self.conf["pools"])
            if pool["url"]
        ]

    # Port 80

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """Reply to one HTTP request; nothing is told without a login."""
        if refusal := self._digest.refusal(request):
            return refusal
        if request.path == "/":
            return HttpResponse(200, b"<html><title>Antminer</title></html>")
        name = request.path.removeprefix("/cgi-bin/").removesuffix(".cgi")
        if request.path != f"/cgi-bin/{name}.cgi":
            return HttpResponse(404, b"404 Not Found")
        if name == "get_miner_conf":
            scripted = self.scripted.popleft() if self.scripted else None
            return scripted or HttpResponse(200, self.conf)
        if name == "set_miner_conf" and request.method == "POST":
            return await self.write_conf(request)
        if name not in self._pages:
            return HttpResponse(404, b"404 Not Found")
        return HttpResponse(200, self._pages[name](request))

    async def write_conf(self, request: HttpRequest) -> HttpResponse:
        """Rewrite the configuration as the firmware's script does; one write at a time."""
        if self._writing:
            return HttpResponse(200, {"stats": "error", "code": "M001", "msg": "request busy"})
        posted = request.json()
        if not isinstance(posted, dict):
            return HttpResponse(200, {"stats": "error", "code": "M001", "msg": "Illegal request!"})
        before, self.conf = self.conf, rewritten(self.conf, posted)
        self.writes += 1
        self._machine.heard()
        self._machine.pool_writes += before["pools"] != self.conf["pools"]
        self._writing = True
        try:
            await self._second()
        finally:
            self._writing = False
            if self.conf[MODE] != before[MODE]:
                self._owing = self._ignoring()
                if not self._owing:
                    self._start()
        return HttpResponse(200, _OK)

    async def _second(self) -> None:
        """Wait by the machine's clock; a clock that stands still is not waited for longer."""
        until_s = self._clock() + WRITE_S
        for _ in range(round(WRITE_S / _POLL_S)):
            if self._clock() >= until_s:
                return
            await asyncio.sleep(_POLL_S)

    def _start(self) -> None:
        """Start the miner in the mode of the configuration; low (3) and high (2) draw as normal."""
        self._started_s, self._owing = self._clock(), False
        if (self.conf[MODE] == SLEEP) == self._machine.asleep:
            return
        if self._machine.asleep:
            self._machine.wake()
        else:
            self._machine.sleep()

    def _blink(self, request: HttpRequest) -> Json:
        asked = request.json()
        self._blinking = isinstance(asked, dict) and asked.get("blink") in (True, "true")
        return {"code": "B000" if self._blinking else "B100"}

    def _system(self) -> Json:
        return {
            "minertype": self._machine.spec.model,
            "nettype": "DHCP",
            "netdevice": "eth0",
            "macaddr": self._mac,
            "hostname": "Antminer",
            "system_mode": "GNU/Linux",
            "system_kernel_version": "Linux 4.9.113",
            "system_filesystem_version": BUILT,
            "firmware_type": "Release",
            "serinum": self._serial,
        }

    def _web(self, name: str, key: str, *rows: Json) -> Json:
        status = {"STATUS": "S", "when": int(time.time()), "Msg": name, "api_version": "1.0.0"}
        info = {"miner_version": MINER, "CompileTime": BUILT, "type": self._machine.spec.model}
        return {"STATUS": status, "INFO": info, key: list(rows)}

    def _web_summary(self) -> Json:
        well = [
            {"type": kind, "status": "s", "code": 0, "msg": ""}
            for kind in ("rate", "network", "fans", "temp")
        ]
        return {"elapsed": self._elapsed_s(), **self._rates(), "hw_all": 0, "status": well}

    def _web_stats(self) -> Json:
        ghs, hot, cool = self._ghs(), *self._temperatures_c()
        chains = [
            {
                "index": board,
                "rate_ideal": self._ideal_ghs() / _BOARDS,
                "rate_real": None if ghs is None else round(ghs / _BOARDS, 2),
                "asic_num": _CHIPS,
                "temp_chip": [cool, cool, hot, hot],
                "temp_pcb": [cool - 10, cool - 10, hot - 10, hot - 10],
                "temp_pic": [cool - 10, cool - 10, hot - 10, hot - 10],
                "sn": f"{self._serial}B{board}",
            }
            for board in range(_BOARDS)
        ]
        modes = {"miner-mode": int(self.conf[MODE]), "freq-level": 100}
        fans = {"fan_num": 4, "fan": [4200, 4200, 4260, 4260]}
        rates = {"elapsed": self._elapsed_s(), **self._rates(), "chain_num": _BOARDS}
        return {**rates, **fans, **modes, "chain": chains}

    def _rates(self) -> Json:
        ghs = self._ghs()
        rates: Json = {"rate_5s": ghs, "rate_30m": ghs, "rate_avg": ghs}
        return {**rates, "rate_ideal": self._ideal_ghs(), "rate_unit": "GH/s"}

    def _ghs(self) -> float | None:
        if self._blank():
            return None
        if self._clock() - self._started_s < RESTART_S:
            return 0.0
        return round(self._machine.reported_hashrate_h_per_s() / 1e9, 2)

    def _ideal_ghs(self) -> float:
        return self._machine.spec.curve[-1][1] / 1e9

    def _temperatures_c(self) -> tuple[int, int]:
        hot = round(self._machine.temperature_c())
        return hot, hot - 8

    def _elapsed_s(self) -> int:
        return int(self._clock() - self._started_s)


def _status(status: str, code: int, message: str) -> dict[str, Any]:
    told = {"STATUS": status, "When": int(time.time()), "Code": code, "Msg": message}
    return {**told, "Description": "cgminer 1.0.0"}
