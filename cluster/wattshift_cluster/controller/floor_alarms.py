"""Alarms of feeders that cannot carry what hangs on them even at rest, as machines join and leave.

Nothing is refused for it: a machine that is there draws, so it is counted, and a person must know.
"""

from collections.abc import Mapping

from wattshift_scheduler import floors
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.state import Alarm, State


class FloorAlarms:
    """Judges each fleet of a running site once.

    Attributes:
        alarms: that hold now, by id: one for each feeder.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.alarms: Mapping[str, Alarm] = {}
        self._fleet: Fleet | None = None

    def judge(self, state: State, now_s: float) -> tuple[Decision, ...]:
        """Hold the feeders against the fleet, where that has changed; a decision for each alarm
        that came or went."""
        if state.fleet is self._fleet:
            return ()
        self._fleet = state.fleet
        before = self.alarms
        self.alarms = {}
        for one in floors.lacking(state.site, state.fleet):
            key = f"feeder-below-floor:{one.feeder}"
            since_s = before[key].since_s if key in before else now_s
            text = f"feeder {one.feeder}: {one.words}"
            self.alarms = {**self.alarms, key: Alarm(key, "critical", text, since_s)}
        came = [a for key, a in self.alarms.items() if key not in before]
        went = [a for key, a in before.items() if key not in self.alarms]
        told = [Decision(now_s, a.id, "alarm", a.text, {"severity": a.severity}) for a in came]
        return (*told, *(Decision(now_s, a.id, "all clear", a.text, {}) for a in went))
