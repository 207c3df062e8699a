"""What an emulated BitAxe Gamma on ESP-Miner answers on port 80.

Paths and fields follow the firmware's own OpenAPI document and source (bitaxeorg/ESP-Miner). From
2.14 it can be paused; older firmware answers 404 and reports no `miningPaused`. There is no
password. A pause lives in the control board's memory and ends with a restart. The answer of an
unknown path is unverified.
"""

import random
from typing import Any

from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import HttpRequest, HttpResponse, http
from wattshift_cluster.emulate.wires import Wire

PORT = 80
VERSION = "v2.14.0"
OLD_VERSION = "v2.9.0"
_FREQUENCY_MHZ, _CORE_MV = 525, 1150
_SMALL_CORES = 2040
_MOST_W = 40
_FREQUENCIES_MHZ = [400, 490, 525, 550, 600, 625]
_CORES_MV = [1000, 1060, 1100, 1150, 1200, 1250]
_PAGE = b"<!doctype html><html><head><title>AxeOS</title></head><body></body></html>"


class BitAxe:
    """The firmware of one machine.

    Args:
        body: what it is built around; a password is not asked for.
        version: of the firmware.
    """

    def __init__(self, body: Body, *, version: str = VERSION) -> None:
        rng = random.Random(body.seed)
        self._machine = body.machine
        self._ignoring = body.ignoring
        self._blank = body.blank
        self._version = version
        self._pauses = tuple(int(part) for part in version.strip("v").split(".")[:2]) >= (2, 14)
        self._mac = "D8:3B:DA:" + ":".join(f"{rng.randrange(256):02X}" for _ in range(3))
        self._settings: dict[str, Any] = {
            "frequency": _FREQUENCY_MHZ,
            "coreVoltage": _CORE_MV,
            "hostname": "bitaxe",
            "stratumURL": "pool.invalid",
            "stratumPort": 3333,
            "stratumUser": "owner.bitaxe",
            "fallbackStratumURL": "fallback.invalid",
            "fallbackStratumPort": 3333,
            "fallbackStratumUser": "owner.bitaxe",
        }

    def wires(self) -> dict[int, Wire]:
        """See `Firmware`."""
        return {PORT: http(self.respond)}

    def restart(self) -> None:
        """See `Firmware`: nothing that the machine itself does not forget."""

    def respond(self, request: HttpRequest) -> HttpResponse:
        """Reply to one HTTP request."""
        match request.method, request.path:
            case "GET", "/":
                return HttpResponse(200, _PAGE)
            case "GET", "/api/system/info":
                return HttpResponse(200, self._info())
            case "GET", "/api/system/asic":
                return HttpResponse(200, self._asic())
            case "PATCH", "/api/system":
                return self._patched(request)
            case "POST", "/api/system/pause" if self._pauses:
                if not self._ignoring():
                    self._machine.sleep()
                return HttpResponse(200, {"message": "Mining paused"})
            case "POST", "/api/system/resume" if self._pauses:
                if not self._ignoring():
                    self._machine.wake()
                return HttpResponse(200, {"message": "Mining resumed"})
        return HttpResponse(404, b"Nothing matches the given URI")

    def _patched(self, request: HttpRequest) -> HttpResponse:
        given = request.json()
        if not isinstance(given, dict):
            return HttpResponse(400, b"Invalid JSON")
        if any("stratum" in name.lower() for name in given):
            self._machine.pool_writes += 1
        self._settings |= {name: given[name] for name in given if name in self._settings}
        return HttpResponse(200, {"status": "success"})

    def _info(self) -> dict[str, Any]:
        machine = self._machine
        ghs = None if self._blank() else round(machine.reported_hashrate_h_per_s() / 1e9, 3)
        watts = None if self._blank() else round(machine.reported_watts_w(), 3)
        paused = {"miningPaused": machine.asleep} if self._pauses else {}
        return {
            "ASICModel": "BM1370",
            "asicCount": 1,
            "autofanspeed": 1,
            "boardVersion": "601",
            "coreVoltageActual": 0 if machine.asleep else _CORE_MV,
            "current": None if watts is None else watts / 5.0 * 1000,
            "expectedHashrate": round(machine.spec.curve[-1][1] / 1e9, 1),
            "fanrpm": 4800,
            "fanspeed": 60,
            "hashRate": ghs,
            "isUsingFallbackStratum": 0,
            "macAddr": self._mac,
            "maxPower": _MOST_W,
            "nominalVoltage": 5,
            "overheat_mode": 0,
            "power": watts,
            "sharesAccepted": 0,
            "sharesRejected": 0,
            "smallCoreCount": _SMALL_CORES,
            "temp": round(machine.temperature_c(), 1),
            "uptimeSeconds": int(machine.uptime_s()),
            "version": self._version,
            "axeOSVersion": self._version,
            "voltage": 5100,
            "vrTemp": round(machine.temperature_c()) + 4,
            "wifiStatus": "Connected!",
            **self._settings,
            **paused,
        }

    def _asic(self) -> dict[str, Any]:
        return {
            "ASICModel": "BM1370",
            "deviceModel": self._machine.spec.model,
            "swarmColor": "green",
            "asicCount": 1,
            "defaultFrequency": _FREQUENCY_MHZ,
            "frequencyOptions": _FREQUENCIES_MHZ,
            "defaultVoltage": _CORE_MV,
            "voltageOptions": _CORES_MV,
        }
