"""A recorded day instead of a sensor, at its own pace; for trials and tests."""

import asyncio
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.frequency import FrequencyReplay
from wattshift_cluster.grid.frequency.heard import Heard
from wattshift_scheduler.frequency.response import Sample


class Replay:
    """See `FrequencySensor`. When the record ends it is silent, as a sensor that has failed."""

    def __init__(self, section: FrequencyReplay) -> None:
        """Nothing is read yet."""
        self._section = section
        self.fault: str | None = None

    async def run(self, heard: Heard) -> None:
        """See `FrequencySensor`."""
        try:
            await self._play(heard)
        except (OSError, EOFError, KeyError, TypeError, ValueError) as fault:
            self.fault = f"{self._section.file.name} cannot be replayed: {fault!r}"
        else:
            self.fault = "the record has ended"
        await asyncio.Event().wait()

    async def _play(self, heard: Heard) -> None:
        began_s, first_s = boot_s(), None
        for one in recorded(self._section.file):
            first_s = one.t_s if first_s is None else first_s
            due_s = began_s + one.t_s - first_s
            await asyncio.sleep(max(0.0, due_s - boot_s()))
            heard(Sample(due_s, one.hz, one.v_pu))


def recorded(path: Path) -> Iterator[Sample]:
    """The samples of a CSV file with columns t_s, hz and v_pu (may be empty), times rising.

    Raises:
        OSError, EOFError: it cannot be read, or ends within its packing.
        KeyError, TypeError, ValueError: a row is no sample.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="ascii") as rows:
        for row in csv.DictReader(rows):
            v_pu = row.get("v_pu") or None
            yield Sample(float(row["t_s"]), float(row["hz"]), None if v_pu is None else float(v_pu))
