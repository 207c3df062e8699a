"""A site whose machines misbehave in every way at random, while its cap moves: ten minutes of it.

Real controller, agents and meter; emulated machines of mixed kinds on two feeders that carry three
quarters of them. The witness is the emulator's own truth, five times a second: what no firmware
says.

    over_feeder_samples   samples in which a feeder's true watts were above its limit
    worst_feeder_share    the most that a feeder carried, of its limit
    pool_writes           pool settings that were changed on any machine
    missing               machines that the controller did not account for, at any look
    not_recovered         machines that did not obey again after their faults had ended; one that
                          reports no watts need only be settling, which takes it minutes
"""

import asyncio
import json
import os
import random
import socket
import sys
import tempfile
import time
import tomllib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import asic_rig

from wattshift_cluster.client import ControllerClient
from wattshift_cluster.demo.children import Child, listens
from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.wire.token import create_token

SECONDS = float(os.environ.get("WATTSHIFT_BENCH_SECONDS", "600"))
MACHINES = int(os.environ.get("WATTSHIFT_BENCH_MACHINES", "80"))
SEED = int(os.environ.get("WATTSHIFT_BENCH_SEED", "4"))
FEEDERS = ("a", "b")
CARRIED_SHARE = 0.75
"""Of the machines' nameplates: a feeder that never binds shows nothing."""

FAULTS = (
    *("mute", "slow", "refuse", "offline", "restart", "power_cut", "ignore", "blank", "garbage"),
    *("half", "wrong_type", "flood", "wrong_password", "other_identity"),
)
FAULT_EVERY_S = 1.5
FAULT_HOLDS_S = (5.0, 25.0)
CAP_EVERY_S = 20.0
LOOK_S, WITNESS_S = 5.0, 0.2
READY_S = 90.0
RECOVER_S = 420.0
"""A machine without a sensor that was silent is believed again five minutes after its command."""

SITE = """
[site]
name = "soak"
state_dir = "state"
other_load = "100W"
[[feeders]]
name = "main"
limit = "{main_w}W"
{parts}
[meter]
url = "http://{meter}/v1/power"
[grid]
default_price_usd_per_mwh = 20
[mining]
devices = ["*"]
[api]
listen = "{api}"
"""

PART = """
[[feeders]]
name = "{name}"
parent = "main"
limit = "{limit_w}W"
[[agents]]
name = "rack-{name}"
address = "{address}"
token_file = "{name}.token"
feeder = "{name}"
config = "agent-{name}.toml"
"""

AGENT = """
[agent]
name = "rack-{name}"
listen = "{address}"
token_file = "{name}.token"
state_dir = "agent-{name}"
gate_dir = "gates"
[hashing]
devices = "none"
{asics}"""


@dataclass(slots=True)
class Seen:
    """What the witnesses saw so far."""

    samples: int = 0
    over: int = 0
    worst_share: float = 0.0
    looks: int = 0
    missing: int = 0
    caps: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def run() -> dict[str, object]:
    """Measure. Raises: CannotRunHere."""
    kinds = asic_rig.mix()
    with tempfile.TemporaryDirectory(prefix="wattshift-bench-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        figures = asyncio.run(_soak(Path(folder), kinds))
    return {
        "machines": MACHINES,
        "seconds": SECONDS,
        **figures,
        "mix": kinds,
        "quality": "emulated",
    }


async def _soak(folder: Path, kinds: str) -> dict[str, Any]:
    ports = iter(_free_ports(3 + len(FEEDERS)))
    truth, meter, api = (f"127.0.0.1:{next(ports)}" for _ in range(3))
    addresses = {name: f"127.0.0.1:{next(ports)}" for name in FEEDERS}
    world = _world(folder, kinds, truth, meter)
    emulator = await asyncio.create_subprocess_exec(*world[0])
    seen, rng = Seen(), random.Random(SEED)
    try:
        await _until(lambda: _answers(truth), READY_S)
        limits_w = _site(folder, truth, meter, api, addresses)
        site = EmbeddedSite(folder / "site.toml")
        try:
            await site.start((Child("meter", world[1], ready=lambda: listens(meter)),))
            client = ControllerClient(site.url, site.admin_token_file.read_text().strip())
            await _until(lambda: _obeying(client) == MACHINES, READY_S)
            sys.stderr.write("asic-soak: every machine is at work; faults begin\n")
            await _faulty(client, truth, limits_w, seen, rng)
            sys.stderr.write("asic-soak: faults have ended\n")
            not_recovered = await _recovered(client)
        finally:
            await site.stop()
        pool_writes = sum(row["pool_writes"] for row in _truth(truth)["machines"])
    finally:
        emulator.terminate()
        await emulator.wait()
    return {
        "samples": seen.samples,
        "over_feeder_samples": seen.over,
        "worst_feeder_share": round(seen.worst_share, 4),
        "pool_writes": pool_writes,
        "looks": seen.looks,
        "missing": seen.missing,
        "not_recovered": not_recovered,
        "caps": seen.caps,
        "faults": dict(sorted(seen.faults.items())),
    }


async def _faulty(
    client: ControllerClient,
    truth: str,
    limits_w: dict[str, float],
    seen: Seen,
    rng: random.Random,
) -> None:
    """Faults, caps and witnesses until the time is over; then every fault ends."""
    ends_s = time.monotonic() + SECONDS
    async with asyncio.TaskGroup() as group:
        group.create_task(_witness(truth, limits_w, seen, ends_s))
        group.create_task(_look(client, seen, ends_s))
        group.create_task(_caps(client, sum(limits_w.values()), seen, rng, ends_s))
        ids = [row["id"] for row in _truth(truth)["machines"]]
        faulty: set[str] = set()
        while time.monotonic() < ends_s - FAULT_HOLDS_S[1]:
            name, fault = rng.choice(sorted(set(ids) - faulty)), rng.choice(FAULTS)
            held_s = rng.uniform(*FAULT_HOLDS_S)
            group.create_task(_fault(truth, name, fault, held_s, faulty))
            seen.faults[fault] += 1
            await asyncio.sleep(FAULT_EVERY_S)


async def _fault(truth: str, name: str, fault: str, held_s: float, faulty: set[str]) -> None:
    faulty.add(name)
    more = {"seconds": 4.0} if fault in ("slow", "restart") else {}
    await _post(truth, {"id": name, "fault": fault, **more})
    await asyncio.sleep(held_s)
    await _post(truth, {"id": name, "fault": "power_on" if fault == "power_cut" else "none"})
    faulty.discard(name)


async def _caps(
    client: ControllerClient, most_w: float, seen: Seen, rng: random.Random, ends_s: float
) -> None:
    while time.monotonic() < ends_s - CAP_EVERY_S:
        cap = {"limit": round(rng.uniform(0.35, 1.0) * most_w)}
        await asyncio.to_thread(client.post, "/v1/caps", cap)
        seen.caps += 1
        await asyncio.sleep(CAP_EVERY_S)
    await asyncio.to_thread(client.delete, "/v1/caps")


async def _witness(truth: str, limits_w: dict[str, float], seen: Seen, ends_s: float) -> None:
    """True watts of each feeder, which nobody here controls."""
    while time.monotonic() < ends_s:
        feeders = (await asyncio.to_thread(asic_rig.call, truth, "/v1/totals"))["feeders"]
        seen.samples += 1
        shares = [feeders[name]["watts_w"] / limit_w for name, limit_w in limits_w.items()]
        seen.over += max(shares) > 1.0
        seen.worst_share = max(seen.worst_share, *shares)
        await asyncio.sleep(WITNESS_S)


async def _look(client: ControllerClient, seen: Seen, ends_s: float) -> None:
    while time.monotonic() < ends_s:
        devices = (await asyncio.to_thread(client.get, "/v1/devices"))["devices"]
        seen.looks += 1
        seen.missing += MACHINES - len({one["id"] for one in devices})
        await asyncio.sleep(LOOK_S)


async def _recovered(client: ControllerClient) -> int:
    """Machines that are not confirmed once all had their time."""
    with suppress(TimeoutError):
        await _until(lambda: _obeying(client) == MACHINES, RECOVER_S)
    devices = (await asyncio.to_thread(client.get, "/v1/devices"))["devices"]
    left = [one for one in devices if not _obeys(one)]
    for one in left:
        sys.stderr.write(f"asic-soak: {one['id']}: {one['state']}: {one['error'] or one['note']}\n")
    return len(left)


def _obeying(client: ControllerClient) -> int:
    try:
        devices = client.get("/v1/devices")["devices"]
    except WattshiftError:
        return 0
    return sum(map(_obeys, devices))


def _obeys(device: dict[str, Any]) -> bool:
    state = device["state"]
    return state == "confirmed" or (state == "settling" and device["watts_w"] is None)


def _world(folder: Path, kinds: str, truth: str, meter: str) -> tuple[tuple[str, ...], ...]:
    emulator = (
        *(sys.executable, "-m", "wattshift_cluster.cli", "emulate", "asic"),
        *(f"--fleet={MACHINES}", f"--mix={kinds}", "--net=127.48.0.0/16", "--start=sleep"),
        *(f"--feeders={len(FEEDERS)}", f"--seed={SEED}", f"--truth={truth}"),
        f"--write={folder / 'asics.toml'}",
    )
    metering = (
        *(sys.executable, "-m", "wattshift_cluster.grid.own_meter.process", "--listen", meter),
        *("--truth", f"http://{truth}/v1/truth", "--host-idle-w", "50", "--host-core-w", "1"),
        *("--log", str(folder / "meter.jsonl")),
    )
    return emulator, metering


def _site(
    folder: Path, truth: str, meter: str, api: str, addresses: dict[str, str]
) -> dict[str, float]:
    """Write the files of the site; each feeder's limit, W, by the emulator's name of it."""
    from wattshift_cluster.emulate.kinds import KINDS

    asics = tomllib.loads((folder / "asics.toml").read_text())["asics"]
    rows = {row["id"]: row for row in _truth(truth)["machines"]}
    names = sorted({row["feeder"] for row in rows.values()})
    assert len(names) == len(FEEDERS), names
    limits_w: dict[str, float] = {}
    parts = ""
    for name, feeder in zip(FEEDERS, names, strict=True):
        mine = [one for one in asics if rows[one["id"]]["feeder"] == feeder]
        nameplates_w = sum(KINDS[rows[one["id"]]["kind"]].spec.nameplate_w for one in mine)
        limits_w[feeder] = float(round(CARRIED_SHARE * nameplates_w))
        text = "".join(
            f"[[asics]]\nid = {json.dumps(one['id'])}\naddress = {json.dumps(one['address'])}\n"
            "emulated = true\n"
            for one in mine
        )
        agent = AGENT.format(name=name, address=addresses[name], asics=text)
        (folder / f"agent-{name}.toml").write_text(agent)
        create_token(folder / f"{name}.token")
        parts += PART.format(name=name, limit_w=limits_w[feeder], address=addresses[name])
    main_w = round(sum(limits_w.values()))
    (folder / "site.toml").write_text(SITE.format(main_w=main_w, parts=parts, meter=meter, api=api))
    return limits_w


async def _until(holds: Any, most_s: float) -> None:
    ends_s = time.monotonic() + most_s
    while not await asyncio.to_thread(holds):
        if time.monotonic() > ends_s:
            raise TimeoutError(f"not within {most_s:g} s")
        await asyncio.sleep(0.5)


def _answers(truth: str) -> bool:
    try:
        return len(_truth(truth)["machines"]) == MACHINES
    except OSError:
        return False


def _truth(truth: str) -> dict[str, Any]:
    return asic_rig.call(truth, "/v1/truth")


async def _post(truth: str, body: dict[str, Any]) -> None:
    await asyncio.to_thread(asic_rig.call, truth, "/v1/faults", body)


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports
