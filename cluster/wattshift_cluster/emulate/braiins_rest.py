"""What an emulated Braiins OS answers over HTTP: its public REST API, and a little GraphQL.

Paths, fields and status codes follow the maker's OpenAPI document (Braiins OS Public REST API 1.7)
and records of a real S21 Pro on 26.04 (256foundation/asic-rs, braiins/v26_04). Everything but the
login and the GraphQL by which clients know it wants a token. One pool is shown; a write of pools
changes nothing and is counted. What a machine says to a wrong password or target is unverified (401
and 400 here).
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from wattshift_cluster.emulate.braiins_state import BraiinsState
from wattshift_cluster.emulate.http import HttpRequest, HttpResponse

_DISABLED, _STABLE, _TUNING = 1, 2, 3
_NORMAL, _PAUSED = 2, 3
_POWER_TARGET = 1
_WINDOWS = ("last_5s", "last_15s", "last_30s", "last_1m", "last_5m", "last_15m", "last_1h")
_PAGE = b"<!doctype html><html><head><title>Braiins OS</title></head><body></body></html>"
BOARDS = 3
PROFILE_POINTS = 8
POOL_URL, POOL_USER = "stratum+tcp://pool.invalid:3333", "owner.rig"

Route = Callable[[BraiinsState, HttpRequest], HttpResponse]


def rest(state: BraiinsState) -> Callable[[HttpRequest], HttpResponse]:
    """The answers of one machine's port 80."""

    def respond(request: HttpRequest) -> HttpResponse:
        asked = (request.method, request.path)
        if route := _OPEN.get(asked):
            return route(state, request)
        if not request.path.startswith("/api/v1/"):
            return HttpResponse(404)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not state.knows(given):
            return HttpResponse(401, {"error": "unauthenticated"})
        closed = _CLOSED.get((request.method, request.path.removeprefix("/api/v1/")))
        return closed(state, request) if closed else HttpResponse(404)

    return respond


def _page(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    return HttpResponse(200, _PAGE)


def _graphql(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    """Clients ask for the model and the version without a login; nothing else is answered."""
    asked = request.json()
    query = str(asked.get("query", "")) if isinstance(asked, dict) else ""
    data: dict[str, Any] = {}
    if "modelName" in query:
        data["bosminer"] = {"info": {"modelName": state.machine.spec.model}}
    if "version" in query:
        data["bos"] = {"info": {"version": {"full": state.version}}}
    if "appeals" in query:
        data["events"] = {"appeals": []}
    return HttpResponse(200, {"data": data})


def _login(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    given = request.json()
    given = given if isinstance(given, dict) else {}
    token = state.login(given.get("username"), given.get("password"))
    if token is None:
        return HttpResponse(401, {"error": "invalid credentials"})
    return HttpResponse(200, {"token": token, "timeout_s": 3600})


def _details(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    machine = state.machine
    uptime_s = int(machine.uptime_s())
    model = machine.spec.model
    body = {
        "bos_mode": 4,
        "bos_version": {"bos_plus": True, "current": state.version, "major": state.version},
        "bosminer_uptime_s": uptime_s,
        "control_board_soc_family": 3,
        "hostname": "Antminer",
        "kernel_version": "4.9.113",
        "mac_address": state.mac,
        "miner_identity": {"brand": 1, "miner_model": model, "model": 0, "name": model},
        "platform": 4,
        "psu_info": {"model_name": "APW171215a/c", "serial_number": None, "version": 193},
        "serial_number": state.serial,
        "status": _PAUSED if state.paused else _NORMAL,
        "sticker_hashrate": {"gigahash_per_second": machine.spec.curve[-1][1] / 1e9},
        "system_uptime": uptime_s,
        "system_uptime_s": uptime_s,
        "uid": state.serial,
    }
    return HttpResponse(200, body)


def _stats(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    rate, watts_w = state.hashrate_h_per_s, state.watts_w
    efficient = watts_w / (rate / 1e12) if rate and watts_w is not None else None
    body = {
        "miner_stats": _work(state, rate),
        "pool_stats": {"accepted_shares": 0, "rejected_shares": 0, "stale_shares": 0},
        "power_stats": {
            "approximated_consumption": None if watts_w is None else {"watt": watts_w},
            "efficiency": None if efficient is None else {"joule_per_terahash": efficient},
        },
    }
    return HttpResponse(200, body)


def _work(state: BraiinsState, rate_h_per_s: float | None) -> dict[str, Any]:
    giga = None if rate_h_per_s is None else {"gigahash_per_second": rate_h_per_s / 1e9}
    return {
        "best_share": 0,
        "error_hashrate": {"megahash_per_second": 0.0},
        "found_blocks": 0,
        "nominal_hashrate": giga,
        "real_hashrate": {**dict.fromkeys(_WINDOWS, giga), "since_restart": giga},
    }


def _hashboards(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    rate, hot_c = state.hashrate_h_per_s, state.machine.temperature_c()
    board = {
        "board_name": "A3HB70601",
        "board_temp": {"degree_c": hot_c},
        "chip_type": "BM1370",
        "chips_count": 65,
        "current_frequency": {"hertz": 0.0 if state.paused else 625865384.0},
        "current_voltage": {"volt": 0.0 if state.paused else 13.74},
        "enabled": True,
        "highest_chip_temp": {"id": 1, "location": 1, "temperature": {"degree_c": hot_c + 12}},
        "highest_outlet_temp": {"degree_c": hot_c},
        "lowest_inlet_temp": {"degree_c": hot_c - 10},
        "model": "A3HB70601",
        "serial_number": None,
        "stats": _work(state, None if rate is None else rate / BOARDS),
    }
    boards = [{"id": str(i + 1), **board} for i in range(BOARDS)]
    return HttpResponse(200, {"hashboards": boards})


def _cooling(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    fans = [{"position": i, "rpm": 4800, "target_speed_ratio": 0.8} for i in range(4)]
    hot = {"degree_c": round(state.machine.temperature_c() + 12, 3)}
    highest = {"id": None, "location": 1, "temperature": hot}
    return HttpResponse(200, {"fans": fans, "highest_temperature": highest})


def _configuration(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    tuner = {
        "enabled": True,
        "hashrate_target": None,
        "power_target": {"watt": state.target_w},
        "tuner_mode": _POWER_TARGET,
    }
    return HttpResponse(200, {"pool_groups": [], "tuner": tuner})


def _constraints(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    bounds_w = state.machine.spec.limit_w
    assert bounds_w is not None
    names = {"min": bounds_w[0], "default": state.machine.spec.nameplate_w, "max": bounds_w[1]}
    target = {name: {"watt": round(watts_w)} for name, watts_w in names.items()}
    tuner = {"default_mode": _POWER_TARGET, "enabled": {"default": True}, "power_target": target}
    return HttpResponse(200, {"tuner_constraints": {**tuner, "hashrate_target": None}})


def _profile(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    """The efficiency curve; its estimates lie above the target, as in the maker's own example."""
    if not state.profile:
        return HttpResponse(404)
    bounds_w, curve = state.machine.spec.limit_w, state.machine.spec.curve
    assert bounds_w is not None
    points = []
    for i in range(PROFILE_POINTS):
        target_w = bounds_w[0] + (bounds_w[1] - bounds_w[0]) * i / (PROFILE_POINTS - 1)
        (w0, h0), (w1, h1) = next((a, b) for a, b in pairwise(curve) if target_w <= b[0])
        rate = h0 + (h1 - h0) * (target_w - w0) / (w1 - w0)
        points.append(
            {
                "consumption": {"watt": round(target_w * 1.02)},
                "fan_speed": 60,
                "hashrate": {"terahash_per_second": rate / 1e12},
                "power_target": {"watt": round(target_w)},
                "quality": 1,
            }
        )
    return HttpResponse(200, {"points": points})


def _tuner_state(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    target, watts_w = {"watt": state.target_w}, state.watts_w
    estimate = None if watts_w is None else {"watt": watts_w}
    profile = {"created": None, "estimated_power_consumption": estimate, "target": target}
    mode = {"powertargetmodestate": {"current_target": target, "profile": profile}}
    tuner = _DISABLED if state.paused else _TUNING if state.tuning else _STABLE
    return HttpResponse(200, {"mode_state": mode, "overall_tuner_state": tuner})


def _mode(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    target = {"powertarget": {"power_target": {"watt": state.target_w}}}
    return HttpResponse(200, {"tunermode": {"target": target}})


def _set_target(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    asked = request.json()
    wanted_w = asked.get("watt") if isinstance(asked, dict) else None
    if not state.set_target(wanted_w):
        return HttpResponse(400, {"error": "power target is out of range"})
    return HttpResponse(200, {"watt": wanted_w})


def _pools(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    stats = {"accepted_shares": 1, "rejected_shares": 0, "stale_shares": 0}
    pool = {"uid": "1", "url": POOL_URL, "user": POOL_USER, "enabled": True, "stats": stats}
    group = {"uid": "0", "name": "Default", "strategy": {"quota": {"value": 1}}}
    return HttpResponse(200, [{**group, "pools": [{**pool, "active": True, "alive": True}]}])


def _write_pools(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    state.machine.pool_writes += 1
    return HttpResponse(200, [])


def _network(state: BraiinsState, request: HttpRequest) -> HttpResponse:
    body = {"hostname": "Antminer", "mac_address": state.mac, "name": "eth0", "protocol": 1}
    return HttpResponse(200, {**body, "dns_servers": [], "networks": []})


_OPEN: dict[tuple[str, str], Route] = {
    ("GET", "/"): _page,
    ("POST", "/graphql"): _graphql,
    ("POST", "/api/v1/auth/login"): _login,
}

_CLOSED: dict[tuple[str, str], Route] = {
    ("GET", "version"): lambda s, r: HttpResponse(200, {"major": 1, "minor": 3, "patch": 0}),
    ("GET", "network"): _network,
    ("GET", "miner/details"): _details,
    ("GET", "miner/stats"): _stats,
    ("GET", "miner/errors"): lambda s, r: HttpResponse(200, {"errors": []}),
    ("GET", "miner/hw/hashboards"): _hashboards,
    ("GET", "cooling/state"): _cooling,
    ("GET", "pools"): _pools,
    ("POST", "pools"): _write_pools,
    ("PUT", "pools/batch"): _write_pools,
    ("GET", "configuration/miner"): _configuration,
    ("GET", "configuration/constraints"): _constraints,
    ("GET", "performance/efficiency-profile"): _profile,
    ("GET", "performance/tuner-state"): _tuner_state,
    ("GET", "performance/mode"): _mode,
    ("PUT", "performance/power-target"): _set_target,
    ("GET", "actions/locate"): lambda s, r: HttpResponse(200, False),
    ("PUT", "actions/pause"): lambda s, r: HttpResponse(200, s.pause()),
    ("PUT", "actions/resume"): lambda s, r: HttpResponse(200, s.resume()),
}
