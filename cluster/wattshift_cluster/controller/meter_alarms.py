"""What the site meter's own readings give away: flaws, and that it and the devices disagree.

A flaw is told while it is seen and for a while after, so that one that comes and goes is one alarm.
Nothing of this reaches the core: what is not believed is unknown there.
"""

from collections.abc import Iterator, Mapping

from wattshift_cluster.config.site import SiteConfig
from wattshift_cluster.grid.meters.build import bounds_of
from wattshift_cluster.grid.meters.compare import Beside, Seen, compare
from wattshift_cluster.grid.meters.reading import Flaw, MeterReading
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.state import Alarm

FLAW_HELD_S = 60.0
"""How long the alarm of a flaw stands after the last reading that had it."""


class MeterAlarms:
    """Judges the readings of one site meter.

    Attributes:
        alarms: that hold now, by id.
    """

    def __init__(self, config: SiteConfig) -> None:
        """Prepare for the `[meter]` of a site file, which must have one."""
        assert config.meter is not None, "made for a meter"
        self.alarms: Mapping[str, Alarm] = {}
        self._bounds = bounds_of(config.meter)
        computes_w = 0.0 if config.compute is None else config.compute.max_w
        most_w = config.site.other_load_w + computes_w
        # Generation behind the meter may be anything that the connection carries.
        least_w = -config.root.limit_w if config.meter.exports else 0.0
        self._beside = Beside(least_w, most_w)
        self._seen = Seen()
        self._flaws: dict[Flaw, tuple[float, str]] = {}

    def judge(
        self, reading: MeterReading, devices_w: float | None, now_s: float
    ) -> tuple[Decision, ...]:
        """Judge a reading; a decision for each alarm that came or went.

        Args:
            reading: the meter now.
            devices_w: what the devices say that they draw together, W; None unknown.
            now_s: the controller's clock, s.
        """
        before, texts = self.alarms, dict(self._causes(reading, devices_w, now_s))
        self.alarms = {
            name: Alarm(name, "warning", text, before[name].since_s if name in before else now_s)
            for name, text in texts.items()
        }
        came = [alarm for name, alarm in self.alarms.items() if name not in before]
        went = [alarm for name, alarm in before.items() if name not in self.alarms]
        told = [Decision(now_s, a.id, "alarm", a.text, {"severity": a.severity}) for a in came]
        return (*told, *(Decision(now_s, a.id, "all clear", a.text, {}) for a in went))

    def _causes(
        self, reading: MeterReading, devices_w: float | None, now_s: float
    ) -> Iterator[tuple[str, str]]:
        for found in reading.findings:
            self._flaws[found.flaw] = (now_s, found.text)
        for flaw, (seen_s, text) in tuple(self._flaws.items()):
            if now_s - seen_s > FLAW_HELD_S:
                del self._flaws[flaw]
            else:
                yield f"meter-flaw:{flaw}", f"the site meter: {text}"
        self._seen, compared = compare(
            self._bounds, self._seen, reading.watts_w, devices_w, self._beside, now_s
        )
        if compared.disagree:
            # While one of the two is unknown the figures that it was raised with stand.
            known = compared.meter_w is not None and compared.expected_w is not None
            held = self.alarms.get("meter-differs")
            yield "meter-differs", compared.text if known or held is None else held.text
