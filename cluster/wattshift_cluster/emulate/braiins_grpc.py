"""What an emulated Braiins OS answers over gRPC, with the messages that pyasic carries.

A wire like the others: the library's HTTP/2 protocol is fed from the machine's own connection, so
limits and silence of the listener hold here, too; answers are not spoilt on this port. Everything
but the login wants the token that the login returns in its initial metadata "authorization"; what
is not answered here is unimplemented. Importing this loads pyasic, which is slow.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from pyasic.web.braiins_os.proto.braiins import bos
from pyasic.web.braiins_os.proto.braiins.bos import v1

from wattshift_cluster.emulate.braiins_rest import BOARDS, POOL_URL, POOL_USER
from wattshift_cluster.emulate.braiins_state import BraiinsState

IDLE_S = 60.0
CHUNK = 64 * 1024

Answer = Callable[[BraiinsState, Any], Any]

_SERVICES = (
    bos.ApiVersionServiceBase,
    v1.ActionsServiceBase,
    v1.ConfigurationServiceBase,
    v1.CoolingServiceBase,
    v1.MinerServiceBase,
    v1.PerformanceServiceBase,
    v1.PoolServiceBase,
)


async def speak(
    state: BraiinsState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one client until it leaves or is idle for too long."""
    protocol = Server([_Methods(state)])._protocol_factory()
    protocol.connection_made(writer.transport)
    try:
        while True:
            async with asyncio.timeout(IDLE_S):
                received = await reader.read(CHUNK)
            if not received:
                return
            protocol.data_received(received)
    finally:
        protocol.connection_lost(None)


class _Methods:
    """The methods of one machine, as the library wants them."""

    def __init__(self, state: BraiinsState) -> None:
        self._state = state

    def __mapping__(self) -> dict[str, Handler]:
        """Path, types and answer of every method; the types are those of the messages' package."""
        known = {p: row for made in _SERVICES for p, row in made().__mapping__().items()}
        mapping = {path: self._guarded(path, row) for path, row in known.items()}
        kinds = (Cardinality.UNARY_UNARY, v1.LoginRequest, v1.LoginResponse)
        return {
            **mapping,
            "/braiins.bos.v1.AuthenticationService/Login": Handler(self._login, *kinds),
        }

    async def _login(self, stream: Stream[Any, Any]) -> None:
        request: Any = await stream.recv_message()
        token = self._state.login(request.username, request.password)
        if token is None:
            raise GRPCError(Status.UNAUTHENTICATED, "invalid credentials")
        await stream.send_initial_metadata(metadata={"authorization": token})
        await stream.send_message(v1.LoginResponse(token=token, timeout_s=3600))

    def _guarded(self, path: str, row: Handler) -> Handler:
        answer = _ANSWERS.get(path.rpartition("/")[2])

        async def func(stream: Stream[Any, Any]) -> None:
            metadata: Any = stream.metadata
            if not self._state.knows(metadata.get("authorization")):
                raise GRPCError(Status.UNAUTHENTICATED, "no valid token")
            if answer is None:
                raise GRPCError(Status.UNIMPLEMENTED)
            await stream.send_message(answer(self._state, await stream.recv_message()))

        return row._replace(func=func)


def _set_target(state: BraiinsState, request: Any) -> Any:
    wanted_w = request.power_target.watt
    force = request.save_action == v1.SaveAction.SAVE_AND_FORCE_APPLY
    if not state.set_target(wanted_w, force=force):
        raise GRPCError(Status.INVALID_ARGUMENT, "power target is out of range")
    return v1.SetPowerTargetResponse(power_target=v1.Power(watt=wanted_w))


def _mode(state: BraiinsState, request: Any) -> Any:
    target = v1.PowerTargetMode(power_target=v1.Power(watt=state.target_w))
    return v1.PerformanceMode(tuner_mode=v1.TunerPerformanceMode(power_target=target))


def _tuner(state: BraiinsState, request: Any) -> Any:
    awake = v1.TunerState.TUNING if state.tuning else v1.TunerState.STABLE
    mode = v1.PowerTargetModeState(current_target=v1.Power(watt=state.target_w))
    return v1.GetTunerStateResponse(
        overall_tuner_state=v1.TunerState.DISABLED if state.paused else awake,
        power_target_mode_state=mode,
    )


def _configuration(state: BraiinsState, request: Any) -> Any:
    target = v1.Power(watt=state.target_w)
    mode = v1.TunerMode.POWER_TARGET
    tuner = v1.TunerConfiguration(enabled=True, tuner_mode=mode, power_target=target)
    return v1.GetMinerConfigurationResponse(tuner=tuner)


def _constraints(state: BraiinsState, request: Any) -> Any:
    spec = state.machine.spec
    assert spec.limit_w is not None, "the model has a power limit"
    low, usual, high = (
        v1.Power(watt=round(watts_w))
        for watts_w in (spec.limit_w[0], spec.nameplate_w, spec.limit_w[1])
    )
    power = v1.PowerConstraints(default=usual, min=low, max=high)
    tuner = v1.TunerConstraints(power_target=power, default_mode=v1.TunerMode.POWER_TARGET)
    return v1.GetConstraintsResponse(tuner_constraints=tuner)


def _cooling(state: BraiinsState, request: Any) -> Any:
    fans = [v1.FanState(position=i, rpm=4800, target_speed_ratio=0.8) for i in range(4)]
    return v1.GetCoolingStateResponse(fans=fans, highest_temperature=_chip(state))


def _chip(state: BraiinsState) -> Any:
    hot = v1.Temperature(degree_c=state.machine.temperature_c() + 12)
    return v1.TemperatureSensor(location=v1.SensorLocation.CHIP, temperature=hot)


def _details(state: BraiinsState, request: Any) -> Any:
    uptime_s, model = int(state.machine.uptime_s()), state.machine.spec.model
    brand = v1.MinerBrand.ANTMINER
    return v1.GetMinerDetailsResponse(
        uid=state.serial,
        miner_identity=v1.MinerIdentity(brand=brand, name=model, miner_model=model),
        platform=v1.Platform.AM3_AML,
        bos_mode=v1.BosMode.NAND,
        bos_version=v1.BosVersion(current=state.version, major=state.version, bos_plus=True),
        hostname="Antminer",
        mac_address=state.mac,
        sticker_hashrate=v1.GigaHashrate(state.machine.spec.curve[-1][1] / 1e9),
        bosminer_uptime_s=uptime_s,
        system_uptime_s=uptime_s,
        status=v1.MinerStatus.PAUSED if state.paused else v1.MinerStatus.NORMAL,
        serial_number=state.serial,
    )


def _stats(state: BraiinsState, request: Any) -> Any:
    watts_w = state.watts_w
    known = {} if watts_w is None else {"approximated_consumption": v1.Power(watt=watts_w)}
    return v1.GetMinerStatsResponse(
        pool_stats=v1.PoolStats(),
        miner_stats=_work(state.hashrate_h_per_s),
        power_stats=v1.MinerPowerStats(**known),
    )


def _hashboards(state: BraiinsState, request: Any) -> Any:
    rate = state.hashrate_h_per_s
    board = {
        "enabled": True,
        "chips_count": 65,
        "board_temp": v1.Temperature(degree_c=state.machine.temperature_c()),
        "highest_chip_temp": _chip(state),
        "stats": _work(None if rate is None else rate / BOARDS),
    }
    boards = [v1.Hashboard(id=str(i + 1), **board) for i in range(BOARDS)]
    return v1.GetHashboardsResponse(hashboards=boards)


def _pools(state: BraiinsState, request: Any) -> Any:
    named = {"url": POOL_URL, "user": POOL_USER, "enabled": True, "alive": True, "active": True}
    pool = v1.Pool(uid="1", stats=v1.PoolStats(accepted_shares=1), **named)
    return v1.GetPoolGroupsResponse(
        pool_groups=[v1.PoolGroup(name="Default", quota=v1.Quota(value=1), pools=[pool])]
    )


def _write_pools(state: BraiinsState, request: Any) -> Any:
    state.machine.pool_writes += 1
    raise GRPCError(Status.UNIMPLEMENTED)


def _work(rate_h_per_s: float | None) -> Any:
    if rate_h_per_s is None:
        return v1.WorkSolverStats()
    giga = v1.GigaHashrate(gigahash_per_second=rate_h_per_s / 1e9)
    rates = v1.RealHashrate(last_5_s=giga, last_1_m=giga, last_5_m=giga)
    return v1.WorkSolverStats(real_hashrate=rates, nominal_hashrate=giga)


_ANSWERS: dict[str, Answer] = {
    "GetApiVersion": lambda state, request: bos.ApiVersion(major=1, minor=3, patch=0),
    "PauseMining": lambda state, request: v1.PauseMiningResponse(already_paused=state.pause()),
    "ResumeMining": lambda state, request: v1.ResumeMiningResponse(already_mining=state.resume()),
    "GetLocateDeviceStatus": lambda state, request: v1.LocateDeviceStatusResponse(enabled=False),
    "SetPowerTarget": _set_target,
    "GetActivePerformanceMode": _mode,
    "GetTunerState": _tuner,
    "GetMinerConfiguration": _configuration,
    "GetConstraints": _constraints,
    "GetCoolingState": _cooling,
    "GetMinerDetails": _details,
    "GetMinerStats": _stats,
    "GetHashboards": _hashboards,
    "GetPoolGroups": _pools,
    "SetPoolGroups": _write_pools,
    "CreatePoolGroup": _write_pools,
    "UpdatePoolGroup": _write_pools,
}
