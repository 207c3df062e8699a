"""`wattshift demo`: build the stage, run the scenario, ask the witnesses, judge, report.

The driver plays the outside world only: it makes the utility's event at an OpenADR server, writes
the price file, raises the load, submits one batch job over the public API, and waits. It never
tells the controller what to do about any of it.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.demo import recorder, report
from wattshift_cluster.demo.opening import ready, settled, speed_load, until
from wattshift_cluster.demo.pace import answer_s, paced
from wattshift_cluster.demo.scenario import SHORTEST_S, Scenario
from wattshift_cluster.demo.stage import SEED, Stage, build, gate_dir, load, world
from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.demo.utility import announce
from wattshift_cluster.demo.verdict import Evidence, Verdict, judge
from wattshift_cluster.errors import ConfigInvalid, Fault, TryLater
from wattshift_cluster.process import stop_event

CUT_MOVES_WITHIN_S = 1.0
"""Decisions of the first second after the cut are the ones whose commands must be out in time."""

BATCH_DEADLINE_S = 60.0
DRAIN_S = 2.0
"""After the last phase: time for requests and shares in flight to come home."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo leaves: what the witnesses saw, the verdict on it, and the report's page."""

    seen: Evidence
    verdict: Verdict
    page: Path


@dataclass(frozen=True, slots=True)
class Baseline:
    """Counters at the moment of ready, so that the demo judges only its own length."""

    accepted: int
    rejected: int
    difficulty: float
    hashes: float


def run_demo(
    seconds: float = 120.0,
    headless: bool = False,
    output: str = "table",
    report_dir: Path | None = None,
    scenario: Scenario | None = None,
) -> int:
    """Run the demo; returns 0 if the promise was kept, 1 if it was broken.

    Args:
        seconds: length, counted from ready.
        headless: no live view in the terminal.
        output: "table" or "json"; JSON puts the verdict on the last line of stdout.
        report_dir: where the report goes; ./demo-report by default.
        scenario: what happens when; the standard one by default.

    Raises:
        ConfigInvalid: `seconds` is too short for the promise to be judged.
    """
    if seconds < SHORTEST_S:
        allowed = f"at least {SHORTEST_S:g} s: shorter runs cannot hold 200 requests per phase"
        raise ConfigInvalid([Fault("command line", "--seconds", f"{seconds:g}", allowed)])
    play = scenario or Scenario(seconds)
    outcome = asyncio.run(perform(play, report_dir or Path("demo-report"), headless=headless))
    _print(outcome.verdict, outcome.page, output)
    return 0 if outcome.verdict.kept else 1


async def perform(play: Scenario, target: Path, *, headless: bool = True) -> Outcome:
    """Run a scenario and judge it; the report goes to `target`. Nothing is left running."""
    folder = Path(tempfile.mkdtemp(prefix="wattshift-demo-"))
    try:
        return await _perform(folder, play, headless, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _perform(folder: Path, play: Scenario, headless: bool, target: Path) -> Outcome:
    stage = build(folder, play)
    site = EmbeddedSite(stage.site_file)
    stop = stop_event()
    stopped = asyncio.create_task(stop.wait())
    show = asyncio.create_task(_show(site, stage, headless, target))
    try:
        await asyncio.wait({show, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not show.done():
            raise KeyboardInterrupt
        return await show
    finally:
        show.cancel()
        stopped.cancel()
        await asyncio.gather(show, return_exceptions=True)
        await site.stop()
        _keep_logs(site, target)
        shutil.rmtree(gate_dir(stage), ignore_errors=True)


def _keep_logs(site: EmbeddedSite, target: Path) -> None:
    source = site.config.site.state_dir / "logs"
    if source.is_dir():
        shutil.copytree(source, target / "logs", dirs_exist_ok=True)


async def _show(site: EmbeddedSite, stage: Stage, headless: bool, target: Path) -> Outcome:
    _say("starting: utility, emulated ASICs, pool, meter, agents, Ray, controller")
    stage.prices_file.write_text(stage.scenario.prices_csv(time.time() + 10 * 86400.0))
    await site.start(world(stage))
    token = _token(site)
    _say(f"watch it at {site.url}/#token={token}")
    client = ControllerClient(site.url, token)
    service_url = await ready(client)
    one_s = await answer_s(service_url, SEED)
    stage = replace(stage, scenario=paced(stage.scenario, one_s))
    play = stage.scenario
    _say(
        f"an answer takes {one_s * 1e3:.0f} ms here: {play.rate_per_s:g} requests per second, "
        f"a batch job of {play.batch_items:,} texts"
    )
    await site.children.start(load(stage, service_url))
    items = _items(stage)
    job = (await asyncio.to_thread(client.post, "/v1/jobs", _batch(stage, items)))["id"]
    stage = await settled(stage, client, job)
    return await _scenes(site, stage, client, job, headless, target)


def _token(site: EmbeddedSite) -> str:
    return site.admin_token_file.read_text().strip()


async def _scenes(
    site: EmbeddedSite,
    stage: Stage,
    client: ControllerClient,
    job: str,
    headless: bool,
    target: Path,
) -> Outcome:
    play = stage.scenario
    ready_s = time.time()
    base = await _baseline(stage, client)
    stage.prices_file.write_text(play.prices_csv(ready_s))
    _say(f"ready: {play.seconds:g} s of scenario begin")
    viewer = None if headless else asyncio.create_task(_view(client, _token(site)))
    await _sleep_to(play.moment_s(ready_s, play.burst_at))
    speed_load(stage, play.burst_factor * stage.calm_factor)
    await _sleep_to(play.moment_s(ready_s, play.burst_until))
    speed_load(stage, stage.calm_factor)
    cap_w = play.cap_share * await _power_before_w(stage)
    await _cut(stage, ready_s, cap_w)
    _say(f"the utility announces a cap of {cap_w:,.0f} W by OpenADR")
    await _sleep_to(ready_s + play.seconds)
    await site.children.end("load")
    await asyncio.sleep(DRAIN_S)
    await until(lambda: _unfinished(client, job), BATCH_DEADLINE_S)
    if viewer is not None:
        viewer.cancel()
    seen = await _evidence(stage, client, base, ready_s, cap_w)
    verdict = judge(seen)
    page = report.write(target, seen, verdict, await _page(stage, client, ready_s))
    return Outcome(seen, verdict, page)


async def _cut(stage: Stage, ready_s: float, cap_w: float) -> None:
    """The utility announces the cut."""
    play = stage.scenario
    await announce(
        stage.vtn,
        stage.utility_secret,
        starts_s=play.moment_s(ready_s, play.cut_at),
        ends_s=play.moment_s(ready_s, play.restore_at),
        cap_w=cap_w,
    )


async def _unfinished(client: ControllerClient, job: str) -> str | None:
    view = await asyncio.to_thread(client.get, f"/v1/jobs/{job}")
    ended = view["state"] in ("completed", "failed", "cancelled")
    return None if ended else f"the batch job is {view['state']}"


async def _sleep_to(moment_s: float) -> None:
    await asyncio.sleep(max(moment_s - time.time(), 0.0))


async def _power_before_w(stage: Stage) -> float:
    """Mean of the meter over the last five seconds before the cap is announced, W."""
    recent = [w for _, w in recorder.samples(stage.samples_file)[-25:] if w is not None]
    if not recent:
        raise TryLater("the meter has no samples; see demo-report/logs/meter.log")
    return sum(recent) / len(recent)


def _items(stage: Stage) -> Path:
    """The batch job's input: numbered sentences."""
    path = stage.folder / "items.jsonl"
    rows = (
        json.dumps({"index": i, "text": f"Sentence number {i} about power, work and the grid."})
        for i in range(stage.scenario.batch_items)
    )
    path.write_text("\n".join(rows) + "\n")
    return path


def _batch(stage: Stage, items: Path) -> dict[str, Any]:
    return {
        "kind": "batch",
        "name": "embed-sentences",
        "callable": "wattshift_cluster.workload.samples:embed_text",
        "input": str(items),
        "output": str(stage.folder / "batch"),
        "watts": "100W",
        "value": 0.5,
        "chunk_items": 8,
    }


async def _baseline(stage: Stage, client: ControllerClient) -> Baseline:
    pool = await _pool(stage)
    site = await asyncio.to_thread(client.get, "/v1/site")
    return Baseline(
        accepted=int(pool["accepted"]),
        rejected=int(pool["rejected"]),
        difficulty=float(pool["accepted_difficulty"]),
        hashes=float(site["hashes_total"]),
    )


async def _pool(stage: Stage) -> dict[str, Any]:
    return await _json(f"http://{stage.pool_status}/v1/status")


async def _json(url: str) -> dict[str, Any]:
    async with httpx2.AsyncClient(timeout=5.0) as http:
        answer = await http.get(url)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body


async def _evidence(
    stage: Stage, client: ControllerClient, base: Baseline, ready_s: float, cap_w: float
) -> Evidence:
    play = stage.scenario
    cut_s = play.moment_s(ready_s, play.cut_at)
    after = await _baseline(stage, client)
    output = recorder.batch_output(stage.folder / "batch")
    truth = await _json(f"http://{stage.truth}/v1/truth")
    machines = {machine.id for machine in stage.machines}
    decisions = await _decisions(client, cut_s, 1000)
    shed = recorder.shed_machines(decisions, cut_s, CUT_MOVES_WITHIN_S) & machines
    return Evidence(
        ready_s=ready_s,
        cut_s=cut_s,
        restore_s=play.moment_s(ready_s, play.restore_at),
        end_s=ready_s + play.seconds,
        cap_w=cap_w,
        samples=recorder.samples(stage.samples_file),
        commanded=sorted(shed),
        command_s=recorder.first_commands(truth, cut_s, time.time()),
        requests=[r for r in recorder.requests(stage.requests_file) if r.sent_s >= ready_s],
        shares_accepted=after.accepted - base.accepted,
        shares_rejected=after.rejected - base.rejected,
        accepted_difficulty=after.difficulty - base.difficulty,
        hashes=after.hashes - base.hashes,
        batch_items=stage.scenario.batch_items,
        batch_found=output.found,
        batch_duplicates=output.duplicates,
    )


async def _decisions(client: ControllerClient, since_s: float, limit: int) -> list[dict[str, Any]]:
    """Decisions since a Unix time, newest first."""
    answer = await asyncio.to_thread(
        lambda: client.get("/v1/decisions", since=rfc3339(since_s), limit=limit)
    )
    rows: list[dict[str, Any]] = answer["decisions"]
    return rows


async def _page(stage: Stage, client: ControllerClient, ready_s: float) -> report.Page:
    play = stage.scenario
    decisions = await _decisions(client, ready_s, 400)
    qualities = recorder.qualities(stage.samples_file)
    origins = {
        f"power of {name}": f"{quality}; 5 samples a second, by the meter process"
        for name, quality in qualities.items()
    }
    origins |= {
        "inference latency, failures": "measured by the load generator, every request",
        "shares, difficulty": "measured by the pool, which checks every share completely",
        "hashes": "counted by the hashing worker",
        "commands out": "measured by the emulated machines when a command reached them",
        "batch items": "counted in the job's output files",
        "prices, hashprice": "scenario input, not a market",
        "the cap": "an event of a loopback OpenADR server, as a utility makes it",
    }
    steps = [
        (ready_s, play.price_usd_per_mwh),
        (play.moment_s(ready_s, play.spike_at), play.spike_usd_per_mwh),
        (play.moment_s(ready_s, play.spike_until), play.price_usd_per_mwh),
        (ready_s + play.seconds, play.price_usd_per_mwh),
    ]
    rows = [row for row in recorder.parts(stage.samples_file) if row[0] >= ready_s]
    return report.Page(rows, steps, origins, list(reversed(decisions)))


async def _view(client: ControllerClient, token: str) -> None:
    """`wattshift top` on this terminal, until cancelled."""
    environment = {**os.environ, "WATTSHIFT_URL": client.url, "WATTSHIFT_TOKEN": token}
    viewer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wattshift_cluster.cli", "top", env=environment
    )
    try:
        await viewer.wait()
    finally:
        if viewer.returncode is None:
            viewer.terminate()
            await viewer.wait()


def _say(text: str) -> None:
    sys.stderr.write(f"demo: {text}\n")
    sys.stderr.flush()


def _print(verdict: Verdict, page: Path, output: str) -> None:
    if output == "json":
        sys.stdout.write(json.dumps(verdict.figures) + "\n")
        return
    width = max(len(check.name) for check in verdict.checks)
    for check in verdict.checks:
        mark = "kept  " if check.ok else "BROKEN"
        sys.stdout.write(f"{mark} {check.name:{width}}  {check.found:>14}  ({check.promised})\n")
    sys.stdout.write(f"the promise was {verdict.figures['verdict']}; report: {page}\n")
