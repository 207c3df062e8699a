"""What people want to know of devices and the core does not: models, quality, counters, energy.

The core decides on watts alone. Everything that is only shown or counted is kept here, beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wattshift_cluster.controller.books import Sample

COUNTERS = ("hashes", "shares_found", "accepted", "rejected", "lost", "accepted_difficulty")
GAP_MAX_S = 5.0
"""A longer gap between two samples is not filled: energy that nobody measured is not invented."""


@dataclass(slots=True)
class Entry:
    """One device as it is shown.

    Attributes:
        info: what its agent says it is (docs/protocol.md, DeviceInfo).
        reading: its last reading (Reading), empty before the first.
        read_s: when that came, our clock.
        energy_j: measured or modelled energy since the controller started.
        counted: counters summed over restarts of its agent.
        base: counters of the running agent at the last reading.
    """

    info: Mapping[str, Any]
    reading: Mapping[str, Any] = field(default_factory=dict)
    read_s: float | None = None
    energy_j: float = 0.0
    counted: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0.0))
    base: dict[str, float] = field(default_factory=dict)


class Roster:
    """All devices that any agent has offered since the controller started."""

    def __init__(self, booked: Callable[[str, Sample], None] | None = None) -> None:
        """Start empty. `booked` is told what each reading adds to a device."""
        self.entries: dict[str, Entry] = {}
        self._booked = booked

    def offered(self, agent: str, infos: Sequence[Mapping[str, Any]]) -> None:
        """An agent has said what it has."""
        for info in infos:
            device = str(info["id"])
            entry = self.entries.get(device)
            if entry is None:
                self.entries[device] = Entry({**info, "agent": agent})
            else:
                entry.info = {**info, "agent": agent}

    def read(self, rows: Iterable[Mapping[str, Any]], received_s: float) -> None:
        """An agent has read its devices."""
        for row in rows:
            entry = self.entries.get(str(row["device"]))
            if entry is not None:
                sample = _take(entry, row, received_s)
                if self._booked is not None:
                    self._booked(str(row["device"]), sample)

    def total(self, counter: str) -> float:
        """Sum of a counter over all devices since the controller started."""
        return sum(entry.counted[counter] for entry in self.entries.values())


def _take(entry: Entry, row: Mapping[str, Any], received_s: float) -> Sample:
    gap_s = 0.0 if entry.read_s is None else received_s - entry.read_s
    gap_s = gap_s if gap_s <= GAP_MAX_S else 0.0
    watts, hashrate = row.get("watts_w"), row.get("hashrate_h_per_s")
    energy_j = None if watts is None else float(watts) * gap_s
    entry.energy_j += energy_j or 0.0
    entry.reading, entry.read_s = row, received_s
    accepted_before = entry.counted["accepted_difficulty"]
    for name, value in (row.get("counters") or {}).items():
        if name not in entry.counted or value is None:
            continue
        # A counter that fell was restarted with its agent; one never seen counts from here on.
        before = entry.base.get(name, 0.0 if entry.base else float(value))
        entry.counted[name] += float(value) - before if value >= before else float(value)
    entry.base = {k: float(v) for k, v in (row.get("counters") or {}).items() if v is not None}
    counts = "accepted_difficulty" in entry.base
    return Sample(
        at_s=received_s,
        gap_s=gap_s,
        energy_j=energy_j,
        difficulty=entry.counted["accepted_difficulty"] - accepted_before if counts else None,
        hashes=None if hashrate is None else float(hashrate) * gap_s,
        quality=str(entry.info.get("quality") or "unknown"),
        mode=(row.get("lease") or {}).get("mode"),
    )
