"""A report of a span, from the evidence log alone: checked first, and used as far as it holds.

Nothing after the first fault of the log is believed; intervals that no signature covers yet are
marked as such.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wattshift_cluster.config.settlement import Settlement
from wattshift_cluster.errors import NotFound
from wattshift_cluster.settle.baseline import DAYS_BACK, doubts_of
from wattshift_cluster.settle.collect import Collected, Steps
from wattshift_cluster.settle.intervals import Metered, Samples, edges, metered
from wattshift_cluster.settle.practice import Practised, is_drill, practised
from wattshift_cluster.settle.settle import Facts, Settled, settle
from wattshift_cluster.settle.statements import Statements, statements
from wattshift_cluster.settle.verify import Verified, verify
from wattshift_scheduler.signals.words import GridEvent

DAY_S = 86_400.0
INTERVALS_MOST = 600
PLAIN_INTERVALS_S = (300.0, 900.0, 1800.0, 3600.0, DAY_S)
"""Lengths of the intervals that a report shows the site's energy in."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report says.

    Attributes:
        span: from and to, unix times, s.
        verified: what checking the log found.
        terms: what was agreed.
        settled: events in the span whose program has terms, by start.
        unsettled: events in the span whose program has none.
        drills: drills in the span, by start: never paid, whatever the terms say.
        statements: of the span.
        site: the site's energy in it, by interval.
        samples, caps, plans: what the pictures are drawn from.
        unread: lines that this version cannot read.
    """

    span: tuple[float, float]
    verified: Verified
    terms: Settlement
    settled: tuple[Settled, ...]
    unsettled: tuple[GridEvent, ...]
    drills: tuple[Practised, ...]
    statements: Statements
    site: Metered
    samples: Samples
    caps: Steps
    plans: Steps
    unread: int


def report(
    folder: Path,
    from_s: float,
    to_s: float,
    *,
    terms: Settlement | None = None,
    event_id: str | None = None,
    keys: tuple[str, ...] = (),
) -> Report:
    """Report on a span.

    Args:
        folder: the evidence log.
        from_s, to_s: the span, unix times, s.
        terms: instead of those that the log holds.
        event_id: only this event.
        keys: public keys to check the log against; none takes the one beside it.

    Raises:
        NotFound: there is no log, or no such event in it.
    """
    assert from_s < to_s, "a span has a length"
    found = Collected(from_s=from_s - DAYS_BACK * DAY_S)
    verified = verify(folder, keys, found.take)
    agreed = terms or found.terms or Settlement()
    samples = found.samples()
    known_s = float(samples.at_s.max()) if len(samples.at_s) else from_s
    events = tuple(sorted(found.events.values(), key=lambda one: (one.starts_s, one.id)))
    facts = Facts(agreed, samples, found.plans(), events, known_s, found.unsigned_s)
    asked = [one for one in events if _overlaps(one, from_s, to_s) and event_id in (None, one.id)]
    if event_id is not None and not asked:
        raise NotFound(f"event {event_id!r} is not in the log between these times")
    settled, unsettled, drills = [], [], []
    for event in asked:
        if is_drill(event):
            drills.append(practised(event, samples, doubts_of(agreed)))
            continue
        program = agreed.program(event.program)
        if program is None:
            unsettled.append(event)
        else:
            settled.append(settle(event, program, facts))
    site = metered(samples, *edges(from_s, to_s, _interval(to_s - from_s)), doubts_of(agreed))
    stated = statements(
        agreed, found.devices, found.tenants, settled, (from_s, to_s), _metered_kwh(site)
    )
    return Report(
        (from_s, to_s),
        verified,
        agreed,
        tuple(settled),
        tuple(unsettled),
        tuple(drills),
        stated,
        site,
        samples,
        found.caps(),
        found.plans(),
        found.unread,
    )


def _interval(span_s: float) -> float:
    """The shortest plain interval that a span has not too many of."""
    fitting = (one for one in PLAIN_INTERVALS_S if span_s / one <= INTERVALS_MOST)
    return next(fitting, PLAIN_INTERVALS_S[-1])


def _metered_kwh(site: Metered) -> float:
    """Energy of the span, kWh; NaN where an interval of it is not known."""
    return float(np.sum(site.energy_wh)) / 1e3 if len(site.starts_s) else math.nan


def _overlaps(event: GridEvent, from_s: float, to_s: float) -> bool:
    return event.starts_s < to_s and (event.ends_s is None or event.ends_s > from_s)
