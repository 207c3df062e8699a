"""The emulator's own HTTP port: true watts for a meter, fault switches for tests.

    GET  /v1/truth   {"at_s", "machines": [{"id", "address", "kind", "watts_w",
                      "hashrate_h_per_s", "mode", "fault", "commands_s"}]}
                     at_s and commands_s (the last commands taken) are on the boot clock
    POST /v1/faults  {"id": "rig-1", "fault": "mute"}               see `faults.Fault`

Small HTTP/1.1 without a framework, so that the emulator runs where nothing is installed: one
request per connection, bodies up to 4 KiB, 5 s per request.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.listener import EmulatedMiner

BODY_LIMIT = 4096
HEADER_LIMIT = 16 * 1024
DEADLINE_S = 5.0

Response = tuple[HTTPStatus, dict[str, Any]]


def truth(miners: Sequence[EmulatedMiner], now_s: float) -> dict[str, Any]:
    """What every machine really draws and hashes, with no noise and no firmware in between."""
    rows = [
        {
            "id": miner.machine.id,
            "address": miner.address,
            "kind": miner.machine.spec.kind,
            "watts_w": round(miner.machine.watts_w(), 3),
            "hashrate_h_per_s": miner.machine.hashrate_h_per_s(),
            "mode": miner.machine.mode,
            "fault": miner.fault.value,
            "commands_s": [round(at_s, 4) for at_s in miner.machine.commands_s],
        }
        for miner in miners
    ]
    return {"at_s": now_s, "machines": rows}


class TruthServer:
    """Answers HTTP for a set of machines.

    Args:
        miners: the machines.
        clock: seconds on the boot clock, for `at_s`.
    """

    def __init__(self, miners: Sequence[EmulatedMiner], clock: Callable[[], float]) -> None:
        self._miners = {miner.machine.id: miner for miner in miners}
        self._clock = clock

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen; port 0 takes a free one. Raises OSError where the port is in use."""
        return await asyncio.start_server(self._serve, host, port, limit=HEADER_LIMIT)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, body = await self._respond(reader)
                payload = json.dumps(body).encode()
                head = (
                    f"HTTP/1.1 {status.value} {status.phrase}\r\n"
                    "Content-Type: application/json\r\n"
                    f"Content-Length: {len(payload)}\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + payload)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # The client left or stalled; there is nobody to answer.
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _respond(self, reader: asyncio.StreamReader) -> Response:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = head[0].split(" ")
        routes: dict[tuple[str, str], Callable[[bytes], Awaitable[Response]]] = {
            ("GET", "/v1/truth"): self._truth,
            ("POST", "/v1/faults"): self._faults,
        }
        route = routes.get((words[0], words[1])) if len(words) == 3 else None
        if route is None:
            return _problem(HTTPStatus.NOT_FOUND, "only GET /v1/truth and POST /v1/faults are here")
        length = _content_length(head[1:])
        if length is None or length > BODY_LIMIT:
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {BODY_LIMIT} bytes")
        return await route(await reader.readexactly(length))

    async def _truth(self, body: bytes) -> Response:
        return HTTPStatus.OK, truth(list(self._miners.values()), self._clock())

    async def _faults(self, body: bytes) -> Response:
        try:
            wanted = json.loads(body)
            miner = self._miners[wanted["id"]]
            fault = Fault(wanted["fault"])
        except KeyError as absent:
            return _problem(HTTPStatus.NOT_FOUND, f"no machine or field {absent}")
        except (TypeError, ValueError):
            names = ", ".join(fault.value for fault in Fault)
            return _problem(HTTPStatus.BAD_REQUEST, f'wanted {{"id", "fault"}}, one of {names}')
        try:
            await miner.inject(fault)
        except OSError as error:
            return _problem(HTTPStatus.CONFLICT, f"cannot listen again: {error}")
        return HTTPStatus.OK, {"id": miner.machine.id, "fault": miner.fault.value}


def _content_length(headers: list[str]) -> int | None:
    for header in headers:
        name, _, value = header.partition(":")
        if name.strip().lower() == "content-length":
            return int(value) if value.strip().isdecimal() else None
    return 0


def _problem(status: HTTPStatus, detail: str) -> Response:
    return status, {"title": status.phrase, "status": status.value, "detail": detail}
