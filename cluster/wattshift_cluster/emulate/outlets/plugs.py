"""The cords between emulated PDUs and emulated machines: what hangs where, over the truth port.

A PDU's program asks the machines' program what each draws, and switches a machine's supply there
as soon as a relay has moved. So both share one physics, though each is a process of its own.
"""

import asyncio
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.emulate.outlets.strip import Strip

TRUTH_S = 0.25
RELAY_S = 0.05
START_S = 0.2
"""By then the relays stand as the machines' supplies were found."""

DEADLINE_S = 2.0
STALE_S = 2.0
BODY_LIMIT = 8 * 1024 * 1024
MOST_SWITCHINGS = 64
"""Sent at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """One emulated machine as its program tells of it.

    Attributes:
        truth: host and port of that program.
        on: whether its supply is on there.
        most_w: the most that it can draw, W.
    """

    id: str
    truth: tuple[str, int]
    feeder: str | None
    on: bool
    watts_w: float
    most_w: float


@dataclass(frozen=True, slots=True)
class Plug:
    """An outlet of a strip, and the machine on it."""

    strip: Strip
    outlet: str
    load: Load


async def loads(truths: Sequence[tuple[str, int]]) -> list[Load]:
    """The machines of these programs. Raises: OSError, TimeoutError, ValueError."""
    found: list[Load] = []
    for truth in truths:
        body = await _ask(truth, "GET", "/v1/truth")
        found += [_load(row, truth) for row in body["machines"]]
    return found


class Plugs:
    """All cords of one program.

    Args:
        plugs: each outlet and each machine once.
        clock: monotonic seconds.
    """

    def __init__(self, plugs: Sequence[Plug], clock: Callable[[], float]) -> None:
        self._plugs = tuple(plugs)
        self._clock = clock
        self._drawn_w = {plug.load.id: plug.load.watts_w for plug in plugs}
        self._asked_s = {plug.load.truth: clock() for plug in plugs}
        self._told = {plug.load.id: plug.load.on for plug in plugs}
        self._quiet: set[tuple[str, int]] = set()
        for plug in plugs:
            plug.strip.plug(plug.outlet, self._draw_of(plug.load))
            plug.strip.command(plug.outlet, on=plug.load.on)

    async def run(self) -> None:
        """Follow machines and relays until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_machines())
            group.create_task(self._follow_relays())

    def _draw_of(self, load: Load) -> Callable[[], float]:
        def draw_w() -> float:
            fresh = self._clock() - self._asked_s[load.truth] <= STALE_S
            return self._drawn_w[load.id] if fresh else math.nan

        return draw_w

    async def _follow_machines(self) -> None:
        while True:
            await asyncio.gather(*(self._read(truth) for truth in self._asked_s))
            await asyncio.sleep(TRUTH_S)

    async def _read(self, truth: tuple[str, int]) -> None:
        asked_s = self._clock()
        try:
            body = await _ask(truth, "GET", "/v1/truth")
            drawn_w = {row["id"]: float(row["watts_w"]) for row in body["machines"]}
        except (OSError, TimeoutError, ValueError, KeyError, TypeError) as fault:
            self._say(truth, fault)
            return
        self._quiet.discard(truth)
        self._asked_s[truth] = asked_s
        self._drawn_w |= {name: drawn_w[name] for name in self._drawn_w.keys() & drawn_w.keys()}

    async def _follow_relays(self) -> None:
        bound = asyncio.Semaphore(MOST_SWITCHINGS)
        await asyncio.sleep(START_S)
        while True:
            moved = [
                plug
                for plug in self._plugs
                if plug.strip.on(plug.outlet) is not self._told[plug.load.id]
            ]
            await asyncio.gather(*(self._switch(plug, bound) for plug in moved))
            await asyncio.sleep(RELAY_S)

    async def _switch(self, plug: Plug, bound: asyncio.Semaphore) -> None:
        """Carry a relay's new state to its machine; a failure is tried again at the next look."""
        on, load = plug.strip.on(plug.outlet), plug.load
        try:
            async with bound:
                await _ask(load.truth, "POST", "/v1/outlets", {"id": load.id, "on": on})
        except (OSError, TimeoutError, ValueError) as fault:
            self._say(load.truth, fault)
            return
        self._told[load.id] = on
        if not on:
            self._drawn_w[load.id] = 0.0

    def _say(self, truth: tuple[str, int], fault: Exception) -> None:
        """Say once that a program does not answer."""
        if truth not in self._quiet:
            self._quiet.add(truth)
            why = str(fault) or "no answer in time"
            sys.stderr.write(f"emulate: machines at {truth[0]}:{truth[1]}: {why}\n")


def _load(row: Mapping[str, Any], truth: tuple[str, int]) -> Load:
    try:
        spec = KINDS[row["kind"]].spec
        points_w = [watts_w for watts_w, _ in spec.curve] + [spec.nameplate_w]
        most_w = max(points_w) * (1.0 + spec.bias[1])
        feeder = None if row["feeder"] is None else str(row["feeder"])
        return Load(
            str(row["id"]), truth, feeder, bool(row["outlet"]), float(row["watts_w"]), most_w
        )
    except (KeyError, TypeError) as fault:
        raise ValueError(f"not a machine of an emulator: {fault}") from None


async def _ask(
    truth: tuple[str, int], method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One request. Raises: OSError, TimeoutError, ValueError."""
    payload = b"" if body is None else json.dumps(body).encode()
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(*truth)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: {truth[0]}\r\nConnection: close\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n".encode()
                + payload
            )
            head = await reader.readuntil(b"\r\n\r\n")
            data = await reader.read(BODY_LIMIT)
            while more := await reader.read(BODY_LIMIT):
                data += more
                if len(data) > BODY_LIMIT:
                    raise ValueError(f"an answer above {BODY_LIMIT} bytes")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
            raise ValueError(f"no HTTP answer: {fault}") from None
        finally:
            writer.close()
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(f"{method} {path}: {data[:200].decode('utf-8', 'replace')}")
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError(f"{method} {path}: the answer is no JSON object")
    return answer
