"""What agents do by themselves when the grid's frequency falls: shown, and written down once.

An agent tells its last events with every answer. Each is known by the boot of its machine, its
number and its time, so that neither a controller's restart nor an agent's has one written twice.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wattshift_scheduler.decisions import Decision, Input

EVENTS_MOST = 32
"""Of one answer; an agent tells 16."""

REMEMBERED = 64
"""Events of one agent that are looked up in the journal at the first answer."""

TEXT_MOST = 300
CLAIMS_MOST = 20
TEXTS = ("reason", "fault", "programme", "phase", "quality")
FIGURES = ("share", "cut_w", "hz", "v_pu", "decides_within_s")

View = dict[str, Any]
Key = tuple[str, int, float]
Kept = Callable[[str], list[Decision]]


@dataclass(frozen=True, slots=True)
class _Heard:
    """What an agent told last; `age_s` is that of its sensor's sample when it came."""

    view: View
    age_s: float | None
    received_s: float


class FrequencyBook:
    """Of all agents of a site that are enrolled."""

    def __init__(self, kept: Kept) -> None:
        """Know nothing yet. Args: kept: the newest decisions about a subject, of the journal."""
        self._kept = kept
        self._heard: dict[str, _Heard] = {}
        self._known: dict[str, set[Key]] = {}

    def heard(
        self, agent: str, answer: Mapping[str, Any], received_s: float
    ) -> tuple[Decision, ...]:
        """An agent has answered; a decision for each event that is news.

        Args:
            answer: to `hello` or `exchange`; one without `frequency` is of an agent that is not
                enrolled, and what is no figure there is unknown.
            received_s: our clock, s.
        """
        told = answer.get("frequency")
        if not isinstance(told, Mapping):
            self._heard.pop(agent, None)
            return ()
        boot_s, at_boot_s = _figure(answer.get("boot_s")), _figure(told.get("at_boot_s"))
        age_s = None if boot_s is None or at_boot_s is None else max(boot_s - at_boot_s, 0.0)
        self._heard[agent] = _Heard(_view(agent, told), age_s, received_s)
        if boot_s is None:
            return ()
        return tuple(self._news(agent, str(answer.get("boot_id")), boot_s, told, received_s))

    def views(self, now_s: float) -> list[View]:
        """Every enrolled agent as people are shown it (api.site_views.FrequencyView)."""
        return [
            {
                **one.view,
                "age_s": None if one.age_s is None else one.age_s + now_s - one.received_s,
                "told_age_s": now_s - one.received_s,
            }
            for _, one in sorted(self._heard.items())
        ]

    def _news(
        self, agent: str, boot_id: str, boot_s: float, told: Mapping[str, Any], received_s: float
    ) -> Iterator[Decision]:
        subject = f"frequency:{agent}"
        known = self._known.get(agent)
        if known is None:
            known = {_key(one.inputs) for one in self._kept(subject)}
        rows = told.get("events")
        now = set[Key]()
        for row in rows[-EVENTS_MOST:] if isinstance(rows, list) else ():
            at_boot_s = _figure(row.get("at_boot_s")) if isinstance(row, Mapping) else None
            number = _figure(row.get("number")) if at_boot_s is not None else None
            if at_boot_s is None or number is None:
                continue
            key = (boot_id, int(number), at_boot_s)
            now.add(key)
            if key in known:
                continue
            inputs: dict[str, Input] = {
                "boot_id": boot_id,
                "number": int(number),
                "at_boot_s": at_boot_s,
            }
            figures = {name: _figure(row.get(name)) for name in ("share", "hz", "v_pu")}
            inputs |= {name: value for name, value in figures.items() if value is not None}
            at_s = received_s - max(boot_s - at_boot_s, 0.0)
            yield Decision(at_s, subject, _text(row.get("what")), _text(row.get("reason")), inputs)
        self._known[agent] = now


def _key(inputs: Mapping[str, Any]) -> Key:
    number, at_boot_s = _figure(inputs.get("number")), _figure(inputs.get("at_boot_s"))
    return str(inputs.get("boot_id")), int(number or 0), at_boot_s or 0.0


def _view(agent: str, told: Mapping[str, Any]) -> View:
    claims, sheds = told.get("claims"), _figure(told.get("sheds"))
    return {
        "agent": agent,
        **{name: None if told.get(name) is None else _text(told[name]) for name in TEXTS},
        **{name: _figure(told.get(name)) for name in FIGURES},
        "latched": told.get("latched") is True,
        "sheds": None if sheds is None else int(sheds),
        "claims": [_text(x) for x in claims[:CLAIMS_MOST]] if isinstance(claims, list) else [],
    }


def _figure(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e18 else None


def _text(value: object) -> str:
    return str(value)[:TEXT_MOST]
