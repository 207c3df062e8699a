"""What every source of signals said beside caps: age, faults, notes, alerts, prices, carbon.

The core has caps, targets and events; people want to know more, and a source that is not heard any
more is an alarm although its caps go on to hold.
"""

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from wattshift_cluster.grid.said import Alert, AlertSaid, Said, Steps
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.signals.words import spans
from wattshift_scheduler.state import Alarm

UNHEARD_ALARM_S = 5.0
"""How long a fault lasts before it is an alarm: a source has to be asked a first time."""

NOTES_REMEMBERED = 500
NOTES_TOLD_AT_ONCE = 20
"""Of one word; all of them are shown, but the journal is not for a source to fill."""

NOTES_PERIOD_S = 60.0
ALARMS_PER_SOURCE = 20
TEXT_MAX = 500


@dataclass(slots=True)
class _Heard:
    """One source.

    Attributes:
        said: its last word; None before the first.
        failed: why it is not even running; None while it does.
        faulty_s: since when it has a fault, our clock; None without.
        notes: those that were told, the newest last.
        told_s, left: when notes were told last, our clock, and how many may be told until the
            period is over.
    """

    said: Said | None = None
    failed: str | None = None
    faulty_s: float | None = None
    notes: OrderedDict[str, None] = field(default_factory=OrderedDict)
    told_s: float = -math.inf
    left: int = NOTES_TOLD_AT_ONCE

    @property
    def fault(self) -> str | None:
        return self.failed or (None if self.said is None else self.said.fault)


class Sources:
    """All sources of one site."""

    def __init__(self, named: Sequence[str]) -> None:
        """Know nothing yet.

        Args:
            named: sources of the site file; of several prices that of the first one holds.
        """
        self._named = tuple(named)
        self._heard: dict[str, _Heard] = {}
        self._prices: dict[str, float | None] = {}
        self.alarms: Mapping[str, Alarm] = {}

    def heard(self, name: str, said: Said, now_s: float) -> tuple[Decision, ...]:
        """A source has spoken; what of that is to be told."""
        one = self._heard.setdefault(name, _Heard())
        one.said, one.failed = said, None
        self._faulty(one, now_s)
        return tuple(self._new_notes(name, one, said.notes, now_s))

    def failed(self, name: str, why: str, now_s: float) -> None:
        """A source has stopped; it is started again. What it said goes on to hold."""
        one = self._heard.setdefault(name, _Heard())
        one.failed = why[:TEXT_MAX]
        self._faulty(one, now_s)

    def followed(self, name: str, fault: str | None, now_s: float) -> tuple[Decision, ...]:
        """A file that is followed was looked at: what is wrong with its newest version, None
        nothing; what of that is to be told. The version before goes on to hold."""
        one = self._heard.setdefault(name, _Heard())
        one.failed = None if fault is None else f"its file has faults: {fault}"[:TEXT_MAX]
        self._faulty(one, now_s)
        return self.judge(now_s)

    def priced(self, name: str, price_usd_per_mwh: float | None) -> float | None:
        """A source tells its price, USD/MWh; the price of the site: of the first that knows one."""
        self._prices[name] = price_usd_per_mwh
        order = (*self._named, *(one for one in self._prices if one not in self._named))
        known = (self._prices.get(one) for one in order)
        return next((price for price in known if price is not None), None)

    def speaks_of_price(self, name: str) -> bool:
        """Whether a source has ever told a price."""
        return name in self._prices

    def said(self, name: str) -> Said | None:
        """The last word of a source; None before the first."""
        one = self._heard.get(name)
        return None if one is None else one.said

    def fault(self, name: str) -> str | None:
        """Why a source was not heard lately; None while all is well, or it says nothing of that."""
        one = self._heard.get(name)
        return None if one is None else one.fault

    def carbon_g_per_kwh(self, now_s: float) -> float | None:
        """Carbon of energy now, of the first source that knows; None unknown."""
        order = dict.fromkeys((*self._named, *self._heard))
        for one in (self._heard[name] for name in order if name in self._heard):
            if one.said is not None and one.said.carbon_g_per_kwh is not None:
                value = value_at(one.said.carbon_g_per_kwh, now_s)
                if value is not None:
                    return value
        return None

    def judge(self, now_s: float) -> tuple[Decision, ...]:
        """Hold what was said against the clock; a decision for each alarm that came or went."""
        causes = dict(self._causes(now_s))
        before, kept = self.alarms, dict[str, Alarm]()
        for name, (severity, text) in causes.items():
            since_s = before[name].since_s if name in before else now_s
            kept[name] = Alarm(name, severity, text[:TEXT_MAX], since_s)
        self.alarms = kept
        came = [
            Decision(now_s, a.id, "alarm", a.text, {"severity": a.severity})
            for name, a in kept.items()
            if name not in before
        ]
        went = [a for name, a in before.items() if name not in kept]
        return (*came, *(Decision(now_s, a.id, "all clear", a.text, {}) for a in went))

    def _causes(self, now_s: float) -> Iterator[tuple[str, tuple[str, str]]]:
        for name, one in self._heard.items():
            if one.faulty_s is not None and now_s - one.faulty_s >= UNHEARD_ALARM_S:
                text = f"{name} is not heard: {one.fault}; what it said holds until it ends"
                yield f"source:{name}", ("warning", text)
            alerts = () if one.said is None else one.said.alerts
            live = [alert for alert in alerts if spans(alert.starts_s, alert.ends_s, now_s)]
            for alert in sorted(live, key=_gravest)[:ALARMS_PER_SOURCE]:
                severity = "critical" if alert.asks is Alert.LEAST else "warning"
                text = f"{name} tells {alert.name}: {alert.text or 'no more is said'}"
                yield f"alert:{name}:{alert.id}"[:TEXT_MAX], (severity, text)

    @staticmethod
    def _faulty(one: _Heard, now_s: float) -> None:
        if one.fault is None:
            one.faulty_s = None
        elif one.faulty_s is None:
            one.faulty_s = now_s

    @staticmethod
    def _new_notes(
        name: str, one: _Heard, notes: Iterable[str], now_s: float
    ) -> Iterator[Decision]:
        if now_s - one.told_s >= NOTES_PERIOD_S:
            one.told_s, one.left = now_s, NOTES_TOLD_AT_ONCE
        for note in notes:
            known = note in one.notes
            if not known and not one.left:
                continue
            one.notes[note] = None
            one.notes.move_to_end(note)
            if len(one.notes) > NOTES_REMEMBERED:
                one.notes.popitem(last=False)
            if not known:
                one.left -= 1
                yield Decision(now_s, f"source:{name}", "noted", note[:TEXT_MAX], {})


def value_at(steps: Steps, now_s: float) -> float | None:
    """The value of a series at a time; None before it, after it, and where it is no number."""
    at = bisect_right(steps.times_s, now_s) - 1
    if not 0 <= at < len(steps.values) or not now_s < steps.ends_s:
        return None
    value = steps.values[at]
    return value if math.isfinite(value) else None


def _gravest(alert: AlertSaid) -> tuple[bool, float, str]:
    return alert.asks is not Alert.LEAST, alert.starts_s, alert.id
