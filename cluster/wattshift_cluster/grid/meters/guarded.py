"""A meter of any kind with the guard behind it: each new sample is judged once."""

import time
from collections.abc import Callable
from dataclasses import replace

from wattshift_cluster.grid.meters.guard import Memory, Raw, Rules, Verdict, judge
from wattshift_cluster.grid.meters.reading import Meter, MeterReading


class GuardedMeter:
    """See `reading.Meter`; readings say in `findings` what is wrong with them."""

    def __init__(
        self,
        meter: Meter,
        rules: Rules,
        *,
        devices_w: Callable[[], float | None] = lambda: None,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            meter: what reads.
            rules: what is possible there.
            devices_w: what the devices behind it draw by their own word, W; None while unknown.
            steady_s: a clock that nobody sets, s.
        """
        self._meter = meter
        self._rules = rules
        self._devices_w = devices_w
        self._steady_s = steady_s
        self._memory = Memory()
        self._judged_at_s: float | None = None
        self._verdict: Verdict | None = None

    async def poll(self) -> MeterReading:
        """See `reading.Meter`."""
        return self._believed(await self._meter.poll())

    def reading(self) -> MeterReading:
        """See `reading.Meter`."""
        return self._believed(self._meter.reading())

    async def close(self) -> None:
        """See `reading.Meter`."""
        await self._meter.close()

    def _believed(self, told: MeterReading) -> MeterReading:
        """A reading with what is believed of its sample; what is stale stays unknown."""
        if told.at_s is None:
            return told
        judged = self._verdict
        if judged is None or told.at_s != self._judged_at_s:
            judged = self._verdict = self._judge(told, told.at_s)
        unknown = judged.watts_w is None and told.watts_w is not None
        why = judged.findings[0].text if unknown and judged.findings else None
        return replace(
            told,
            watts_w=None if told.watts_w is None else judged.watts_w,
            energy_wh=None if told.energy_wh is None else judged.energy_wh,
            hz=None if told.hz is None else judged.hz,
            volts_v=None if told.volts_v is None else judged.volts_v,
            fault=told.fault or why,
            findings=judged.findings,
        )

    def _judge(self, told: MeterReading, at_s: float) -> Verdict:
        raw = Raw(
            watts_w=told.watts_w,
            at_s=at_s,
            taken_s=self._steady_s(),
            energy_wh=told.energy_wh,
            wraps_wh=told.wraps_wh,
            hz=told.hz,
            volts_v=told.volts_v,
            devices_w=self._devices_w(),
        )
        self._memory, verdict = judge(self._rules, self._memory, raw)
        self._judged_at_s = at_s
        return verdict
