"""The commissioning of a site: each machine is put to sleep and woken while all meters are watched.

One machine at a time, and nothing is left as it was not found: whatever ends a pulse, be it an
error, a grid event or the operator's Ctrl-C, wakes the machine again. The world is a port, so the
same steps run against a controller and against a modelled site.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from wattshift_cluster.errors import NotFound
from wattshift_cluster.fleet.learn import Learnt
from wattshift_cluster.fleet.pulses import Kind, Verdict
from wattshift_cluster.fleet.recording import Recording
from wattshift_cluster.fleet.site_port import DeviceLook, Look, Plan, Port, Stopped

PULSES = 2
"""A pulse that others disturbed is made once more; a third would only wear."""

UNCLEAR = (Kind.DISTURBED, Kind.TOO_NOISY)
STANDBY_W = 30.0
"""Asleep a rig draws tens of watts; half of it is counted as error until it is learnt."""

VERSION = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One device's verdict and what was learnt of it."""

    device: str
    model: str
    feeder: str
    mode: str | None
    verdict: Verdict
    learnt: Learnt = field(default_factory=Learnt)


@dataclass(slots=True)
class Record:
    """A commissioning: grows by a row per device, and is whole at any time."""

    plan: Plan
    impossible: tuple[str, ...]
    meters: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    stopped: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "version": VERSION,
            "plan": asdict(self.plan),
            "meters": list(self.meters),
            "impossible": list(self.impossible),
            "stopped": self.stopped,
            "devices": [_row(row) for row in self.rows],
        }


def chosen(look: Look, pattern: str = "*", feeder: str | None = None) -> list[DeviceLook]:
    """The ASICs that a pattern and a feeder name. Raises NotFound where there are none."""
    if feeder is not None and feeder not in look.tree:
        raise NotFound(f"no feeder {feeder}; there are {', '.join(sorted(look.tree))}")
    found = [
        device
        for device in look.devices
        if device.kind == "asic"
        and fnmatchcase(device.id, pattern)
        and (feeder is None or device.feeder == feeder)
    ]
    if not found:
        where = "" if feeder is None else f" on feeder {feeder}"
        raise NotFound(f"no ASIC matches {pattern}{where}")
    return found


def impossible(look: Look, devices: Sequence[DeviceLook]) -> tuple[str, ...]:
    """The checks that this site's meters do not allow, in words."""
    said = []
    if not look.meters:
        said.append("no check at all: the site has no meter that answers")
    elif len(look.meters) == 1:
        only = next(iter(look.meters))
        said.append(f"wrong feeders cannot be found: {only} has the only meter")
    bare = sorted({one.feeder for one in devices if one.feeder not in look.meters})
    if look.meters and bare:
        said.append(f"wiring is confirmed only above these feeders, which have no meter: {bare}")
    silent = [one.id for one in devices if one.watts_w is None]
    if silent:
        said.append(f"{len(silent)} machines report no watts: nothing to compare the meter with")
    return tuple(said)


def commission(
    port: Port,
    plan: Plan,
    devices: Sequence[DeviceLook],
    tell: Callable[[str], None],
    record: Record,
) -> Record:
    """Pulse the devices one by one and add a row for each to `record`.

    Returns early with `record.stopped` set when a cap comes into force, when a machine cannot be
    woken, or on Ctrl-C; each time after waking what was asleep.

    Raises:
        WattshiftError: the controller cannot be reached.
    """
    try:
        for number, device in enumerate(devices, 1):
            tell(f"{number} of {len(devices)}: {device.id}")
            row = _one(port, plan, device)
            record.rows.append(row)
            tell(f"  {row.verdict.kind.value}: {row.verdict.text}")
            if row.verdict.kind is Kind.LEFT_ASLEEP:
                raise Stopped(f"{device.id} could not be woken")
    except Stopped as why:
        record.stopped = str(why)
    except KeyboardInterrupt:
        record.stopped = "interrupted"
    return record


def _one(port: Port, plan: Plan, device: DeviceLook) -> Row:
    for _ in range(PULSES):
        watch = Recording(port, plan, device)
        unfit = watch.unfit()
        verdict = unfit or watch.pulse()
        if unfit is not None or verdict.kind not in UNCLEAR:
            break
    learnt = Learnt()
    if verdict.step is not None and verdict.kind in (Kind.CONFIRMED, Kind.PARTLY):
        mode = device.mode or "as found"
        learnt = learnt.with_sleep_step(mode, verdict.step, STANDBY_W, watch.rate_h_per_s())
        learnt = learnt.with_times(down_s=verdict.down_s, up_s=verdict.up_s)
        if verdict.reported_w is not None:
            learnt = learnt.with_claim(
                verdict.reported_w, verdict.step.watts_w, verdict.step.error_w
            )
    return Row(device.id, device.model, device.feeder, device.mode, verdict, learnt)


def _row(row: Row) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "device": row.device,
        "model": row.model,
        "feeder": row.feeder,
        "mode": row.mode,
        "verdict": verdict.kind.value,
        "text": verdict.text,
        "meter": verdict.meter,
        "step_w": verdict.step_w,
        "error_w": verdict.error_w,
        "reported_w": verdict.reported_w,
        "off_pct": verdict.off_pct,
        "down_s": verdict.down_s,
        "up_s": verdict.up_s,
        "learnt": row.learnt.to_dict(),
    }
