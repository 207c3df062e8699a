"""A controller behind a VTN: how long an event takes to become its effective cap, and what holds
when the VTN is dead. A part of the benchmark `signals`.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rig import ranked
from benchmarks.signals_wire import HOST, PROGRAM, WAIT_S, Utility, Vtn, broker_process, vtn_process

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens

POLL_S = 2.0
NOTICED = 60
POLLED = 20
LOOK_S = 0.001

LIMIT = "IMPORT_CAPACITY_LIMIT"
SUBSCRIPTION_W = 600e3
LAST_S = 6.0
"""How long the last limit of a VTN that dies holds, s."""

SITE = """
[site]
name = "bench"
state_dir = "state"
margin_pct = 0
[[feeders]]
name = "main"
limit = "1MW"
[[openadr]]
name = "utility"
url = "{url}"
client_id = "site"
secret_file = "{secret}"
verify = false
ven_name = "bench"
subscription = "{subscription_w:.0f}W"
poll = "{poll_s}s"
mqtt = {mqtt}
{more}
"""
HOOK = """
[openadr.webhook]
listen = "{at}"
url = "http://{at}/told"
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """Milliseconds from a POST to the effective cap, over so many events."""

    p50_ms: float
    p99_ms: float
    events: int


@dataclass(frozen=True, slots=True)
class Caps:
    """All that is measured here; the ways are "webhook", "mqtt" and "poll"."""

    ways: Mapping[str, Taken]
    comms_loss_error_s: float


async def measure(folder: Path) -> Caps:
    """Measure each way with a VTN and a controller of its own. Raises CannotRunHere."""
    ways = {}
    for way, events in (("webhook", NOTICED), ("mqtt", NOTICED), ("poll", POLLED)):
        place = folder / way
        place.mkdir()
        with _utility(place, way) as vtn:
            async with _program(vtn) as (utility, program), _site(place, vtn, way) as site:
                await _ready(site, utility, program)
                ways[way] = await _taken(site, utility, program, events)
    place = folder / "loss"
    place.mkdir()
    return Caps(ways, await _lost(place))


@contextmanager
def _utility(folder: Path, way: str) -> Any:
    """A VTN; with a broker where notices come by MQTT."""
    if way != "mqtt":
        with vtn_process(folder) as vtn:
            yield vtn
        return
    with broker_process(folder) as broker, vtn_process(folder, "--mqtt", broker) as vtn:
        yield vtn


@asynccontextmanager
async def _program(vtn: Vtn) -> AsyncIterator[tuple[Utility, str]]:
    utility = Utility(vtn)
    try:
        made = await utility.post("programs", {"programName": PROGRAM})
        yield utility, made["id"]
    finally:
        await utility.close()


@asynccontextmanager
async def _site(folder: Path, vtn: Vtn, way: str) -> AsyncIterator[Controller]:
    """A controller that runs; only by polling does it poll often."""
    more = HOOK.format(at=f"{HOST}:{_free_port()}") if way == "webhook" else ""
    file = folder / "site.toml"
    file.write_text(
        SITE.format(
            url=vtn.url,
            secret=vtn.secrets["site"],
            subscription_w=SUBSCRIPTION_W,
            poll_s=POLL_S if way == "poll" else 3600,
            mqtt=str(way == "mqtt").lower(),
            more=more,
        )
    )
    config = load_site(file, environ={})
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens({}, None))
    stop = asyncio.Event()
    task = asyncio.create_task(controller.run(stop, feeds_of(controller)))
    try:
        await _holds(controller, SUBSCRIPTION_W)
        yield controller
    finally:
        stop.set()
        await task
        journal.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


async def _ready(site: Controller, utility: Utility, program: str) -> None:
    """Wait until notices arrive: a subscription or a session takes its time, and is no event's."""
    async with asyncio.timeout(WAIT_S):
        limit_kw = 500.0
        while True:
            await utility.post("events", _limit(program, limit_kw, 3600.0))
            for _ in range(int(POLL_S * 1.5 / 0.05)):
                if site.state.outlook.cap_w == limit_kw * 1e3:
                    return
                await asyncio.sleep(0.05)
            limit_kw -= 1.0


async def _taken(site: Controller, utility: Utility, program: str, events: int) -> Taken:
    """Post ever lower limits, each after the one before has become the cap."""
    took = []
    limit_kw = 400.0
    for number in range(events):
        # A poll must find the POST at any moment of its period.
        await asyncio.sleep(0.05 + POLL_S * (number * 0.618034 % 1.0) * (events == POLLED))
        limit_kw -= 1.0
        began_s = time.perf_counter()
        post = asyncio.create_task(utility.post("events", _limit(program, limit_kw, 3600.0)))
        await _holds(site, limit_kw * 1e3)
        took.append((time.perf_counter() - began_s) * 1e3)
        await post
    took.sort()
    return Taken(ranked(took, 0.5), ranked(took, 0.99), events)


async def _lost(folder: Path) -> float:
    """Let the VTN die while its limit holds; how far from the limit's end the next cap held, s."""
    with vtn_process(folder) as vtn:
        async with _program(vtn) as (utility, program), _site(folder, vtn, "poll") as site:
            ends_s = round(time.time() + LAST_S, 3)
            body = _limit(program, 300.0, LAST_S, starts_s=ends_s - LAST_S)
            await utility.post("events", body)
            await _holds(site, 300e3)
            vtn.end()
            await _holds(site, SUBSCRIPTION_W)
            return round(abs(site.state.decided_s - ends_s), 3)


async def _holds(site: Controller, cap_w: float) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if site.state.outlook.cap_w == cap_w:
                return
            await asyncio.sleep(LOOK_S)


def _limit(
    program: str, limit_kw: float, lasts_s: float, starts_s: float | None = None
) -> dict[str, Any]:
    begun_s = time.time() - 1.0 if starts_s is None else starts_s
    start = datetime.fromtimestamp(begun_s, UTC).isoformat().replace("+00:00", "Z")
    return {
        "programID": program,
        "eventName": f"limit {limit_kw:g}",
        "intervalPeriod": {"start": start, "duration": f"PT{lasts_s:g}S"},
        "payloadDescriptors": [
            {
                "objectType": "EVENT_PAYLOAD_DESCRIPTOR",
                "payloadType": "IMPORT_CAPACITY_LIMIT",
                "units": "KW",
            }
        ],
        "intervals": [{"id": 0, "payloads": [{"type": LIMIT, "values": [limit_kw]}]}],
    }
