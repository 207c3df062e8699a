"""What a simulated site is made of: the site file's tree and rules, and a modelled fleet.

Devices are not in a site file, because agents report them live. So a simulation takes a fleet file,
a JSON list of {"count", "model", "agent", "wear_usd_per_cycle"}, or the small default below, and
hangs it on the agents that the site file names.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_scheduler import floors
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.site import Device, OperatingPoint, Site

MAX_DEVICES = 20_000

DEFAULT_FLEET: Sequence[Mapping[str, Any]] = (
    {"count": 12, "model": "profiled-asic"},
    {"count": 6, "model": "limited-asic"},
    {"count": 2, "model": "gated-cpu"},
)
"""Twenty devices: whole firmware profiles, continuous power limits, and gates beside compute."""

TH = 1e12


def _points(
    rows: Sequence[tuple[str, float, float]], transition_s: float
) -> tuple[OperatingPoint, ...]:
    return tuple(OperatingPoint(mode, w, th * TH, transition_s) for mode, w, th in rows)


_PROFILES = (
    ("sleep", 30.0, 0.0),
    ("190MHz", 784.0, 39.2),
    ("240MHz", 978.0, 49.5),
    ("290MHz", 1188.0, 59.8),
    ("600MHz", 2760.0, 120.0),
)
_LIMITS = (("sleep", 45.0, 0.0), ("limit:1800", 1800.0, 68.0), ("limit:3300", 3300.0, 114.0))
_GATE = (("idle", 0.0, 0.0), ("mine", 150.0, 1e-5))

MODELS: Mapping[str, Device] = MappingProxyType(
    {
        "profiled-asic": Device(
            "", "asic", "", "", _points(_PROFILES, 5.0), 2760.0, power_on_w=2760.0, safe_w=30.0
        ),
        "limited-asic": Device(
            "", "asic", "", "", _points(_LIMITS, 8.0), 3300.0, continuous=True, safe_w=45.0
        ),
        "gated-cpu": Device(
            "", "cpu", "", "", _points(_GATE, 0.01), 150.0, 0.0, continuous=True, fenced=True
        ),
    }
)
"""The modelled models. Figures are of the size of real machines, not of one real machine."""


def jobs_of(config: SiteConfig) -> tuple[Job, ...]:
    """Standing mining, the site's services, and one batch job that takes what watts are left."""
    patterns = list(config.mining.devices or ("*",))
    jobs = [Job("mining", JobKind.MINING, "standing", {"devices": patterns}, 0.0)]
    if config.compute is None:
        return tuple(jobs)
    jobs += [
        Job(
            f"service-{one.name}",
            JobKind.SERVICE,
            one.name,
            {},
            0.0,
            unit_w=one.watts_per_replica_w,
            min_units=one.min_replicas,
            max_units=one.max_replicas,
            value_usd_per_h=one.value_usd_per_h,
        )
        for one in config.services
    ]
    used_w = sum(job.unit_w * job.max_units for job in jobs)
    # A worker runs on one node, so it asks for no more than the largest has.
    most_w = max(node.max_w for node in config.compute.nodes)
    batch_w = max(min(config.compute.max_w - used_w, most_w), most_w / 4.0)
    value = config.values.batch_usd_per_kwh * batch_w / 1000.0
    jobs.append(
        Job("batch", JobKind.BATCH, "batch", {}, 0.0, unit_w=batch_w, value_usd_per_h=value)
    )
    return tuple(jobs)


def devices_of(config: SiteConfig, fleet: Sequence[Mapping[str, Any]]) -> tuple[Device, ...]:
    """Hang a fleet on the site's agents, in turn. Raises ConfigInvalid on an unknown model."""
    homes = [(agent.name, agent.feeder) for agent in config.agents]
    homes = homes or [("modelled", config.feeders[-1].name)]
    host = None if config.compute is None else config.compute.nodes[0].name
    devices: list[Device] = []
    turns = itertools.cycle(homes)
    for row in fleet:
        for _ in range(int(row["count"])):
            wanted = row.get("agent")
            agent, feeder = next(turns) if wanted is None else (wanted, dict(homes)[wanted])
            devices.append(
                dataclasses.replace(
                    (model := MODELS[row["model"]]),
                    id=f"{row['model']}-{len(devices):03d}",
                    agent=agent,
                    feeder=feeder,
                    host=host if model.fenced else None,
                    wear_usd_per_cycle=float(row.get("wear_usd_per_cycle", 0.0)),
                )
            )
    return tuple(devices)


def fitting(site: Site, devices: tuple[Device, ...], file: str) -> tuple[Device, ...]:
    """The devices, where the site's feeders carry them at rest. Raises ConfigInvalid naming the
    feeder of `file` that does not."""
    try:
        floors.check(site, devices)
    except SiteInvalid as fault:
        raise ConfigInvalid([Fault(file, f"feeder {fault.item}", None, fault.reason)]) from None
    return devices


def read_fleet(path: str | Path | None, config: SiteConfig) -> tuple[Device, ...]:
    """The devices of a fleet file, or of the default fleet. Raises ConfigInvalid."""
    if path is None:
        return devices_of(config, DEFAULT_FLEET)
    try:
        rows = json.loads(Path(path).read_text())
    except (OSError, ValueError) as fault:
        raise ConfigInvalid([Fault(str(path), "", None, f"cannot be read: {fault}")]) from None
    faults = list(_faults(rows, str(path), {agent.name for agent in config.agents}))
    if faults:
        raise ConfigInvalid(faults)
    return devices_of(config, rows)


def _faults(rows: object, file: str, agents: set[str]) -> Sequence[Fault]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return [Fault(file, "", None, 'must be a list of {"count", "model", "agent"} objects')]
    found, total = [], 0
    for i, row in enumerate(rows):
        count = row.get("count")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            found.append(Fault(file, f"[{i}].count", str(count), "must be a whole number from 1"))
        else:
            total += count
        if row.get("model") not in MODELS:
            told = f"unknown; models: {', '.join(MODELS)}"
            found.append(Fault(file, f"[{i}].model", str(row.get("model")), told))
        if row.get("agent") is not None and row["agent"] not in agents:
            told = f"unknown; agents of the site: {', '.join(sorted(agents)) or 'none'}"
            found.append(Fault(file, f"[{i}].agent", str(row["agent"]), told))
        wear = row.get("wear_usd_per_cycle", 0.0)
        if isinstance(wear, bool) or not isinstance(wear, int | float) or not 0 <= wear <= 1000:
            told = "must be a number, 0 to 1000 USD"
            found.append(Fault(file, f"[{i}].wear_usd_per_cycle", str(wear), told))
        unknown = sorted(row.keys() - {"count", "kind", "model", "agent", "wear_usd_per_cycle"})
        found += [Fault(file, f"[{i}].{key}", None, "unknown key") for key in unknown]
    if total > MAX_DEVICES:
        found.append(Fault(file, "", str(total), f"at most {MAX_DEVICES} devices"))
    return found
