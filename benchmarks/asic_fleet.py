"""A thousand machines: polled, and shed, with faults among them; then ten thousand polled.

The machines are emulated, of mixed kinds, each on a loopback address of its own with its firmware's
own ports. The emulator's processor time is not in these figures, but its processes share the cores.

    poll_wall_s, poll_cpu_s      one sweep of watts and hashrate by our drivers, sessions held ready
    pyasic_wall_s, pyasic_cpu_s  the same of the same machines by pyasic's get_data, discovery done
    cold_commanded_s             a shed by drivers that hold nothing ready: until the last machine
                                 was commanded, as the machines themselves saw it
    shed_commanded_s             a shed by a real agent, from the lease's way out until the same
    shed_confirmed_s             until the agent has seen the last one obey
    confirm_lag_s                the longest from a machine's true fall until the agent knew of it
    sensorless_confirmed_s       machines that report no watts count as obeying only when their
                                 time to settle is over, too; they are in none of the two before
    faulty_…, named              the shed again, one machine in twenty hung and one in twenty that
                                 says "done" and does nothing: who was named, and who wrongly, by
                                 its reading's error or its note of a command that is still open
    lost                         machines that the agent did not account for
    sharded_…                    ten thousand machines, polled by several processes at once
"""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import asic_rig
from benchmarks.asic_poller import Poller, connected, sweep

from wattshift_cluster.asic.driver import AsicDriver
from wattshift_cluster.bootclock import boot_s

MACHINES = int(os.environ.get("WATTSHIFT_BENCH_MACHINES", "1000"))
SHARDED = int(os.environ.get("WATTSHIFT_BENCH_SHARDED", "10000"))
SHARDS = 4
SWEEPS = 5
FAULTY_SHARE = 0.05
SEED = 4
PYASIC_AT_ONCE = 200
PYASIC_S = 30.0
SETTLE_S = 90.0
NAMED_S = 120.0
"""A liar that reports no watts is found out when its time to settle is over."""

LOOK_S = 0.25
PASSWORDS = {
    "default_whatsminer_rpc_password": "admin",
    "default_antminer_web_password": "root",
    "default_vnish_web_password": "admin",
    "default_bosminer_web_password": "root",
}
"""The emulated machines' own; pyasic tries its defaults anyway."""


def run() -> dict[str, object]:
    """Measure. Raises: CannotRunHere."""
    kinds = asic_rig.mix()
    with _folder() as folder:
        with asic_rig.fleet(folder, MACHINES, kinds, "127.40.0.0/16") as machines:
            figures = asyncio.run(_polled(machines))
            figures |= asyncio.run(_shed(folder, machines))
        figures |= _sharded(folder, kinds)
    return {"miners": MACHINES, **figures, "mix": kinds, "quality": "emulated"}


# Polls


async def _polled(machines: asic_rig.Fleet) -> dict[str, Any]:
    """Our sweep and pyasic's, in turns, and a shed from cold."""
    _say(f"connecting to {MACHINES} machines")
    addresses = [one["address"] for one in _asics(machines)]
    drivers = await connected(addresses)
    await asyncio.gather(*(driver.prepare() for driver in drivers), return_exceptions=True)
    await sweep(drivers)
    theirs = await _pyasic(addresses)
    ours = [await sweep(drivers) for _ in range(SWEEPS)]
    unread = max(one.unread for one in ours)
    for driver in drivers:
        await driver.close()
    _say("a shed from cold")
    cold_s = await _cold(machines, await connected(addresses))
    cpu_s = statistics.median(one.cpu_s for one in ours)
    return {
        "poll_wall_s": round(statistics.median(one.wall_s for one in ours), 3),
        "poll_cpu_s": round(cpu_s, 3),
        **theirs,
        "poll_cpu_share_of_pyasic": round(cpu_s / theirs["pyasic_cpu_s"], 3),
        "poll_unread": unread,
        "cold_commanded_s": cold_s,
    }


async def _pyasic(addresses: Sequence[str]) -> dict[str, Any]:
    """pyasic's own sweep of watts and hashrate: the quicker of two."""
    import pyasic

    for name, password in PASSWORDS.items():
        pyasic.settings.update(name, password)
    room = asyncio.Semaphore(PYASIC_AT_ONCE)

    async def within(doing: Any) -> Any:
        async with room:
            try:
                return await asyncio.wait_for(doing, PYASIC_S)
            except Exception:  # it raises whatever it met; the machine then counts as not read
                return None

    _say("pyasic finds them")
    found = await asyncio.gather(*(within(pyasic.get_miner(one)) for one in addresses))
    miners = [one for one in found if one is not None]
    figures = []
    for _ in range(2):
        wall_s, cpu_s = time.monotonic(), time.process_time()
        rows = await asyncio.gather(
            *(within(one.get_data(include=["wattage", "hashrate"])) for one in miners)
        )
        wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
        read = sum(row is not None and row.hashrate is not None for row in rows)
        figures.append((wall_s, cpu_s, read))
    wall_s, cpu_s, read = min(figures)
    return {
        "pyasic_wall_s": round(wall_s, 3),
        "pyasic_cpu_s": round(cpu_s, 3),
        "pyasic_read": read,
    }


async def _cold(machines: asic_rig.Fleet, drivers: Sequence[AsicDriver]) -> float | None:
    began_s = boot_s()
    await asyncio.gather(*(driver.sleep() for driver in drivers), return_exceptions=True)
    commanded_s = _commanded_s(machines, began_s, everybody=True)
    for driver in drivers:
        await driver.close()
    return commanded_s


# Sheds by an agent


async def _shed(folder: Path, machines: asic_rig.Fleet) -> dict[str, Any]:
    with asic_rig.agent(folder, machines) as agent:
        _say("the agent looks for them")
        devices = await agent.ready(MACHINES)
        await _raise(agent, devices)
        _say("shed")
        calm = await _one_shed(agent, machines, devices, set())
        await _raise(agent, devices)
        ids = sorted(one["id"] for one in _asics(machines))
        chosen = random.Random(SEED).sample(ids, 2 * round(FAULTY_SHARE * len(ids)))
        hung, lying = chosen[::2], chosen[1::2]
        machines.fault(hung, "mute")
        machines.fault(lying, "ignore")
        _say("shed with faults")
        faulty = await _one_shed(agent, machines, devices, {*hung, *lying})
        named = await _named(agent, devices, {*hung, *lying})
        wrong = named - {*hung, *lying}
        await agent.link.close()
    return {
        **calm,
        "faulty_hung": len(hung),
        "faulty_lying": len(lying),
        "faulty_commanded_s": faulty["shed_commanded_s"],
        "faulty_confirmed_s": faulty["shed_confirmed_s"],
        "named": len(named & {*hung, *lying}),
        "not_named": len({*hung, *lying} - named),
        "named_wrongly": len(wrong),
    }


async def _raise(agent: asic_rig.FleetAgent, devices: dict[str, dict[str, Any]]) -> None:
    """Everything to its top, and wait until it is there."""
    top = {name: one["points"][-1] for name, one in devices.items()}
    ends_s = time.monotonic() + SETTLE_S
    while True:
        readings = await agent.lease(top)
        # One without a sensor counts as up only after minutes, by the rule; nobody waits for it.
        open_ = [r for r in readings if r["error"] or (r["note"] and r["watts_w"] is not None)]
        if not open_:
            return
        if time.monotonic() > ends_s:
            told = "; ".join(f"{r['device']}: {r['error'] or r['note']}" for r in open_[:5])
            raise RuntimeError(f"{len(open_)} machines did not come up: {told}")
        await asyncio.sleep(1.0)


async def _one_shed(
    agent: asic_rig.FleetAgent,
    machines: asic_rig.Fleet,
    devices: dict[str, dict[str, Any]],
    faulty: set[str],
) -> dict[str, Any]:
    """Lease the lowest point to everything; times until commanded, and until known to be obeyed."""
    low = {name: one["points"][0] for name, one in devices.items()}
    healthy = set(devices) - faulty
    fell_s: dict[str, float] = {}
    known_s: dict[str, float] = {}
    clock = await agent.clock()
    began_s = boot_s()
    readings = await agent.lease(low, clock)
    blind = {row["device"] for row in readings if row["watts_w"] is None}
    while boot_s() - began_s < SETTLE_S and set(known_s) < healthy:
        now_s = boot_s()
        for row in await asyncio.to_thread(machines.look):
            if row["watts_w"] <= 1.05 * low[row["id"]]["watts_w"]:
                fell_s.setdefault(row["id"], now_s)
        readings = (await agent.link.call("exchange", leases=[]))["readings"]
        for row in readings:
            if row["device"] in healthy and _obeyed(row, low[row["device"]]):
                known_s.setdefault(row["device"], boot_s())
        await asyncio.sleep(LOOK_S)
        if now_s - began_s > 5.0:
            readings = await agent.lease(low)
    told = {row["device"] for row in readings}
    seen = {name: at_s for name, at_s in known_s.items() if name not in blind}
    lags_s = [at_s - fell_s[name] for name, at_s in seen.items() if name in fell_s]
    slow_s = [at_s - began_s for name, at_s in known_s.items() if name in blind]
    return {
        "shed_commanded_s": _commanded_s(machines, began_s, among=healthy),
        "shed_confirmed_s": round(max(seen.values()) - began_s, 3) if seen else None,
        "sensorless_confirmed_s": round(max(slow_s), 3) if slow_s else None,
        "shed_true_s": round(max(fell_s.values()) - began_s, 3) if fell_s else None,
        "confirm_lag_s": round(max(lags_s), 3) if lags_s else None,
        "lost": len(set(devices) - told) + len(healthy - set(known_s)),
    }


def _obeyed(row: dict[str, Any], point: dict[str, Any]) -> bool:
    """Whether the agent knows that a machine is at its lowest point, and has nothing to add."""
    if row["error"] or row["note"]:
        return False
    if row["watts_w"] is not None:
        return bool(row["watts_w"] <= 1.05 * point["watts_w"])
    return bool(row["hashrate_h_per_s"] == 0)


async def _named(
    agent: asic_rig.FleetAgent, devices: dict[str, dict[str, Any]], faulty: set[str]
) -> set[str]:
    """Who is told not to obey, by an error or as a command still open, once all had their time."""
    low = {name: one["points"][0] for name, one in devices.items()}
    ends_s = time.monotonic() + NAMED_S
    named: set[str] = set()
    while time.monotonic() < ends_s:
        readings = await agent.lease(low)
        found = {row["device"] for row in readings if row["error"] or row["note"]}
        if faulty <= named and faulty <= found:  # twice in a row, so that others have had time, too
            return found
        named = found
        await asyncio.sleep(5.0)
    return named


def _commanded_s(
    machines: asic_rig.Fleet,
    began_s: float,
    *,
    among: set[str] | None = None,
    everybody: bool = False,
) -> float | None:
    """Until the last machine saw its first command since; None where one saw none."""
    latest_s = 0.0
    for row in machines.look():
        if among is not None and row["id"] not in among:
            continue
        since = [at_s for at_s in row["commands_s"] if at_s >= began_s]
        if not since:
            if everybody or among is not None:
                _say(f"{row['id']} ({row['kind']}) was not commanded")
                return None
            continue
        latest_s = max(latest_s, min(since) - began_s)
    return round(latest_s, 3)


# Ten thousand


def _sharded(folder: Path, kinds: str) -> dict[str, Any]:
    """Several processes poll all machines at once."""
    _say(f"{SHARDED} machines in {SHARDS} processes, polled by {SHARDS}")
    with asic_rig.fleet(folder, SHARDED, kinds, "127.44.0.0/14", shards=SHARDS) as machines:
        addresses = [one["address"] for one in _asics(machines)]
        pollers = [Poller(addresses[place::SHARDS]) for place in range(SHARDS)]
        try:
            unread = sum(poller.ready() for poller in pollers)
            walls_s = []
            for _ in range(3):
                began_s = time.monotonic()
                for poller in pollers:
                    poller.begin()
                swept = [poller.swept() for poller in pollers]
                walls_s.append(time.monotonic() - began_s)
            rss_mb = sum(poller.rss_mb() for poller in pollers)
        finally:
            for poller in pollers:
                poller.close()
    return {
        "sharded_miners": SHARDED,
        "sharded_processes": SHARDS,
        "sharded_wall_s": round(statistics.median(walls_s), 3),
        "sharded_cpu_s": round(sum(one.cpu_s for one in swept), 3),
        "sharded_rss_mb": round(rss_mb, 1),
        "sharded_unread": sum(one.unread for one in swept) + unread,
    }


# Small things


def _asics(machines: asic_rig.Fleet) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads(machines.asics)["asics"]
    return rows


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wattshift-bench-") as folder:
        yield Path(folder)


def _say(text: str) -> None:
    sys.stderr.write(f"asic-fleet: {text}\n")
