"""The emulator's own HTTP port: true watts for a meter, and switches for faults and outlets.

GET  /v1/truth    {"at_s", "machines": [{"id", "address", "kind", "feeder", "watts_w",
                   "hashrate_h_per_s", "mode", "phase", "fault", "outlet", "pool_writes",
                   "commands", "commands_s"}]}
                  at_s and commands_s (the last commands taken) are on the boot clock
GET  /v1/totals   {"at_s", "machines", "watts_w", "hashrate_h_per_s", "feeders": {name: same}}
GET  /v1/feeders/NAME/power  {"watts_w", "at_s": unix, "quality"}: as that feeder's own meter
POST /v1/faults   {"id": "rig-1", "fault": "mute"}               see `faults.Fault`
                  "seconds" for slow and restart, "as" (another id) for other_identity;
                  "ids": [...] or "share": 0.05 and "seed" instead of "id" for many at once
POST /v1/outlets  {"id" or "ids" or "share", "on": false}
POST /v1/ambient  {"id" or "ids" or "share", "ambient_c": 41.5}
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from wattshift_cluster.emulate.chosen import BadRequest, Chosen, number
from wattshift_cluster.emulate.control import Response, Route, problem, serve_control
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.rows import Row, totals

FEEDERS, POWER = "/v1/feeders/", "/power"
Act = Callable[[EmulatedMiner], Awaitable[None]]


class TruthServer:
    """Answers HTTP for a set of machines.

    Args:
        miners: the machines.
        clock: seconds on the boot clock, for `at_s`.
    """

    def __init__(self, miners: Sequence[EmulatedMiner], clock: Callable[[], float]) -> None:
        self._miners = tuple(miners)
        self._chosen = Chosen(self._miners)
        self._rows = tuple(Row(miner) for miner in self._miners)
        self._clock = clock
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/v1/truth"): self._truth,
            ("GET", "/v1/totals"): self._totals,
            ("POST", "/v1/faults"): self._faults,
            ("POST", "/v1/outlets"): self._outlets,
            ("POST", "/v1/ambient"): self._ambient,
        }

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen; port 0 takes a free one. Raises OSError where the port is in use."""
        return await serve_control(host, port, self._routes, self._meter)

    async def _meter(self, path: str) -> Response | None:
        """A feeder's meter, as `grid.meters` read one; None where this is no feeder's path."""
        name = path.removeprefix(FEEDERS).removesuffix(POWER)
        if path != f"{FEEDERS}{name}{POWER}" or not name:
            return None
        miners = [miner for miner in self._miners if miner.feeder == unquote(name)]
        if not miners:
            return problem(HTTPStatus.NOT_FOUND, f"no machine hangs on a feeder {name[:64]}")
        watts_w = sum(miner.machine.watts_w() for miner in miners)
        body = {"watts_w": round(watts_w, 3), "at_s": time.time(), "quality": "emulated"}
        return HTTPStatus.OK, json.dumps(body)

    async def _truth(self, body: bytes) -> Response:
        rows = ", ".join([row.text() for row in self._rows])
        return HTTPStatus.OK, f'{{"at_s": {self._clock()!r}, "machines": [{rows}]}}'

    async def _totals(self, body: bytes) -> Response:
        return HTTPStatus.OK, json.dumps(totals(self._miners, self._clock()))

    async def _faults(self, body: bytes) -> Response:
        wanted, miners = self._chosen.of(body, {"fault", "seconds", "as"})
        try:
            fault = Fault(str(wanted.get("fault")))
        except ValueError:
            names = ", ".join(fault.value for fault in Fault)
            raise BadRequest(f'wanted a "fault", one of {names}') from None
        seconds = number(wanted, "seconds", 0.0, None)
        twin = self._chosen.one(wanted["as"]) if "as" in wanted else None
        identity = twin.seed if twin else None

        async def act(miner: EmulatedMiner) -> None:
            await miner.inject(fault, seconds=seconds, identity=identity)

        return await self._done(wanted, miners, act, lambda miner: {"fault": miner.fault.value})

    async def _outlets(self, body: bytes) -> Response:
        wanted, miners = self._chosen.of(body, {"on"})
        on = wanted.get("on")
        if not isinstance(on, bool):
            raise BadRequest('wanted "on": true or false')
        return await self._done(
            wanted, miners, lambda miner: miner.set_outlet(on), lambda miner: {"on": miner.outlet}
        )

    async def _ambient(self, body: bytes) -> Response:
        wanted, miners = self._chosen.of(body, {"ambient_c"})
        ambient_c = number(wanted, "ambient_c", -60.0, 100.0)
        if ambient_c is None:
            raise BadRequest('wanted "ambient_c", a number of degrees')

        async def act(miner: EmulatedMiner) -> None:
            miner.machine.set_ambient(ambient_c)

        return await self._done(wanted, miners, act, lambda miner: {"ambient_c": ambient_c})

    async def _done(
        self,
        wanted: dict[str, Any],
        miners: Sequence[EmulatedMiner],
        act: Act,
        now: Callable[[EmulatedMiner], dict[str, Any]],
    ) -> Response:
        failed: dict[str, str] = {}
        for miner in miners:
            try:
                await act(miner)
            except OSError as error:
                failed[miner.machine.id] = str(error)
            except ValueError as error:
                raise BadRequest(str(error)) from None
        if failed:
            return problem(HTTPStatus.CONFLICT, f"cannot listen again: {failed}")
        if "id" in wanted:
            return HTTPStatus.OK, json.dumps({"id": wanted["id"], **now(miners[0])})
        return HTTPStatus.OK, json.dumps({"ids": [miner.machine.id for miner in miners]})
