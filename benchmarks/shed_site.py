"""The demo's site without the demo: its processes, and cuts of its cap at random moments.

Everything is real but the machines: controller, agents, a CPU hashing behind its gate, a MiniLM
service on Ray under an open-loop load, a meter process. The ASICs are emulated and spoken to over
their own protocols. Each cut is a grid event, sent over HTTP with no warning: a cap, and a price at
which a watt behind the gate is not worth its energy while an ASIC's is. So each cut begins with the
gate. (In the demo a gated watt is the dearest, and only goes last.)

What a cut did is read from witnesses: the worker's own seat for its last launch, the machines for
when a command reached them, the meter process for watts, the load generator for every request.
"""

import asyncio
import json
import random
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.demo import recorder
from wattshift_cluster.demo.scenario import Scenario
from wattshift_cluster.demo.stage import RESERVE_USD_PER_MWH, Stage, build, gate_dir, load, world
from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.gate import SeatView
from wattshift_cluster.gate.agent_file import GateReader

CHEAP_RESERVE_USD_PER_MWH = 50.0
EVENT_USD_PER_MWH = 52.0
"""Energy costs 45 USD/MWh between events: the gate mines. In an event it costs more than a gated
watt is worth, and still less than the least that a rung of the ASICs earns, 54 USD/MWh."""

RATE_PER_S = 8.0
READY_S = 120.0
STEADY_S = 45.0
LOOK_S = 0.001
SEEN_FOR_S = 1.5
"""How long the gate is watched after a cut."""

FRESH_NS = 200_000_000
"""A worker that ended a launch this recently was mining when the cut came."""

WARM_MS = 400.0
"""The service's own promise of latency: below it a starting service counts as warm."""


@dataclass(frozen=True, slots=True)
class GateFall:
    """What the gate's device did after a cut; ms from just before the cap was sent.

    Attributes:
        mining: whether it was hashing when the cut came.
        shut_ms: until the agent had written the gate; None if it stayed open.
        gone_ms: until the end of the last launch; None if it went on.
        stop_ms: from the gate's writing to the end of the last launch; None if either is unknown.
    """

    mining: bool
    shut_ms: float | None
    gone_ms: float | None
    stop_ms: float | None


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut. Times are Unix s.

    Attributes:
        at_s: just before the cap was sent.
        ends_s: when the cap ended.
        before_w, cap_w: the meter's mean before it, and the cap, W.
        gate: what the gate's device did.
        calm_s: since when the site had been left alone.
    """

    at_s: float
    ends_s: float
    before_w: float
    cap_w: float
    gate: GateFall
    calm_s: float


@dataclass(frozen=True, slots=True)
class Live:
    """A running site."""

    site: EmbeddedSite
    stage: Stage
    client: ControllerClient


@asynccontextmanager
async def running() -> AsyncIterator[Live]:
    """Start the site and its load; yield it once it is steady; end everything.

    Raises:
        CannotRunHere: it does not get ready on this machine in time.
    """
    folder = Path(tempfile.mkdtemp(prefix="wattshift-shed-"))
    play = Scenario(120.0, rate_per_s=RATE_PER_S)
    stage = build(folder, play, api=f"127.0.0.1:{_free_port()}")
    _cheapen(stage)
    stage.prices_file.write_text(play.prices_csv(time.time() + 10 * 86400.0))
    site = EmbeddedSite(stage.site_file)
    try:
        await site.start(world(stage))
        client = ControllerClient(site.url, site.admin_token_file.read_text().strip())
        live = Live(site, stage, client)
        url = await _served(live)
        await site.children.start(load(stage, url))
        await _until(lambda: _steady(live), STEADY_S, "the site did not settle")
        yield live
        await site.children.end("load")
    finally:
        await site.stop()
        shutil.rmtree(gate_dir(stage), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


async def cut(live: Live, share: float, lasts_s: float, calm_s: float) -> Cut:
    """Cap the site at `share` of what it draws now, for so long, and watch its gate meanwhile.

    The last watts are given back with the price, right after the cap has ended.
    """
    before_w = mean_w(live.stage)
    cap_w = share * before_w
    ends_s = time.time() + 0.05 + lasts_s
    row = {"id": "cut", "limit": f"{cap_w:.0f}W", "ends": rfc3339(ends_s)}
    watching = asyncio.create_task(asyncio.to_thread(_watch_gate, live.stage))
    await asyncio.sleep(0.05)
    at_s, at_ns = time.time(), boot_ns()
    await _signal(live, [row], EVENT_USD_PER_MWH)
    looks = await watching
    await asyncio.sleep(max(ends_s - time.time(), 0.0))
    await calm_signal(live)
    return Cut(at_s, ends_s, before_w, cap_w, _fall(looks, at_ns), calm_s)


async def _signal(live: Live, caps: list[dict[str, str]], usd_per_mwh: float) -> None:
    body = {"source": "grid", "caps": caps, "price": usd_per_mwh}
    await asyncio.to_thread(live.client.post, "/v1/signals", body)


async def calm_signal(live: Live) -> None:
    """An event without a cap, so that the first cut meets a door that has been used before."""
    await _signal(live, [], live.stage.scenario.price_usd_per_mwh)


async def recovered(live: Live, before_w: float, within_s: float) -> None:
    """Wait until the site draws nearly what it drew before, or for so long."""

    async def up() -> bool:
        return mean_w(live.stage, 5) >= 0.96 * before_w

    with suppress(CannotRunHere):
        await _until(up, within_s, "the site did not draw up again")


def random_pauses(seed: int, low_s: float, high_s: float) -> Callable[[], float]:
    """Seeded pauses before each cut, s."""
    dice = random.Random(seed)
    return lambda: dice.uniform(low_s, high_s)


def mean_w(stage: Stage, samples: int = 15) -> float:
    """Mean of the meter's last samples, W. Raises CannotRunHere where it has none."""
    recent = [w for _, w in recorder.samples(stage.samples_file)[-samples:] if w is not None]
    if not recent:
        raise CannotRunHere("the meter process has no samples")
    return sum(recent) / len(recent)


async def commands_out_s(live: Live, one: Cut) -> tuple[float | None, int]:
    """From a cut until the last machine that was to be shed had its command, s; how many were."""
    told = await asyncio.to_thread(
        lambda: live.client.get("/v1/decisions", since=rfc3339(one.at_s), limit=1000)
    )
    machines = {machine.id for machine in live.stage.machines}
    shed = recorder.shed_machines(told["decisions"], one.at_s, 1.0) & machines
    truth = await asyncio.to_thread(_json, f"http://{live.stage.truth}/v1/truth")
    first = recorder.first_commands(truth, one.at_s, time.time())
    if not shed or any(machine not in first for machine in shed):
        return None, len(shed)
    return max(first[machine] for machine in shed) - one.at_s, len(shed)


def devices(live: Live) -> int:
    """How many devices obey leases here."""
    return len(live.client.get("/v1/devices")["devices"])


def say(text: str) -> None:
    """Tell a person, on stderr."""
    print(f"site-shed: {text}", file=sys.stderr, flush=True)


def _cheapen(stage: Stage) -> None:
    text = stage.site_file.read_text()
    dear = f"reserve_usd_per_mwh = {RESERVE_USD_PER_MWH}"
    assert dear in text, "the demo's site file names the value of its reserve"
    cheap = f"reserve_usd_per_mwh = {CHEAP_RESERVE_USD_PER_MWH}"
    stage.site_file.write_text(text.replace(dear, cheap))


async def _served(live: Live) -> str:
    """Wait for the devices to obey and for the service to run; where it answers."""

    async def serving() -> bool:
        found = await asyncio.to_thread(live.client.get, "/v1/devices")
        return (
            bool(found["devices"])
            and all(one["state"] == "confirmed" for one in found["devices"])
            and any(job["kind"] == "service" and job["running"] for job in await _jobs(live))
        )

    await _until(serving, READY_S, "the site did not get ready")
    return next(str(job["url"]) for job in await _jobs(live) if job["kind"] == "service")


async def _steady(live: Live) -> bool:
    """Rigs have drawn up and inference is warm."""
    rows = (await asyncio.to_thread(live.client.get, "/v1/devices"))["devices"]
    up = all(
        one["watts_w"] is not None and one["watts_w"] >= 0.85 * one["leased_w"]
        for one in rows
        if one["kind"] == "asic"
    )
    last = recorder.requests(live.stage.requests_file)[-20:]
    return up and len(last) == 20 and all(r.ok and r.latency_ms < WARM_MS for r in last)


async def _jobs(live: Live) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await asyncio.to_thread(live.client.get, "/v1/jobs"))["jobs"]
    return rows


async def _until(holds: Callable[[], Awaitable[bool]], within_s: float, otherwise: str) -> None:
    ends_s = time.monotonic() + within_s
    while not await holds():
        if time.monotonic() > ends_s:
            raise CannotRunHere(f"{otherwise} within {within_s:g} s: the machine is too busy")
        await asyncio.sleep(0.5)


def _watch_gate(stage: Stage) -> list[tuple[int, bool, int, int]]:
    """(boot ns, gate open, end of the last launch, launches so far), again and again."""
    path = next(gate_dir(stage).glob("*.gate"))
    gate, seat = GateReader(path), SeatView(path.with_suffix(".worker"))
    looks, ends_ns = [], boot_ns() + int(SEEN_FOR_S * 1e9)
    try:
        while (now_ns := boot_ns()) < ends_ns:
            state = seat.read()
            open_now = gate.read().duty_pct(now_ns, busy=False) > 0
            looks.append((now_ns, open_now, state.last_launch_end_ns, state.launches))
            time.sleep(LOOK_S)
    finally:
        gate.close()
        seat.close()
    return looks


def _fall(looks: Sequence[tuple[int, bool, int, int]], at_ns: int) -> GateFall:
    """What the looks say about a cut at `at_ns`."""
    before = [look for look in looks if look[0] <= at_ns]
    mining = bool(before) and before[-1][1] and at_ns - before[-1][2] < FRESH_NS
    shut_ns = next((now for now, is_open, *_ in looks if now > at_ns and not is_open), None)
    if shut_ns is None or looks[-1][1]:
        return GateFall(mining, None, None, None)
    last_ns = looks[-1][2]
    return GateFall(
        mining,
        shut_ms=(shut_ns - at_ns) / 1e6,
        gone_ms=max(last_ns - at_ns, 0) / 1e6,
        stop_ms=max(last_ns - shut_ns, 0) / 1e6,
    )


def _json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        body: dict[str, Any] = json.load(answer)
        return body


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port
