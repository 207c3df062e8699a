"""From events as heard to what they ask of this site, payload by payload.

Whose event it is, in which units it speaks, and what each payload becomes is decided here; nothing
is guessed: what cannot be read is refused and told, and takes back nothing that was known before.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from wattshift_cluster.grid.openadr.asked import UNSTATED_PRIORITY, Asked, Terms
from wattshift_cluster.grid.openadr.kept import Heard
from wattshift_cluster.grid.openadr.meanings import Becomes, meaning
from wattshift_cluster.grid.openadr.times import Laid, Span, TimeInvalid, lay_out
from wattshift_cluster.grid.openadr.units import (
    AmountRefused,
    Scale,
    g_per_kwh,
    number,
    share_of,
    usd_per_mwh,
    watts,
)
from wattshift_cluster.grid.openadr.words import Event, Payload, Program, Value
from wattshift_scheduler.signals.words import Work

MAX_TEXT_SHOWN = 200
MAX_NAME_SHOWN = 60

SERIES = frozenset({Becomes.PRICE, Becomes.CARBON})
"""Types whose several values each hold for an equal part of the interval (User Guide 7.3)."""
TIGHTENS = frozenset({Becomes.LIMIT, Becomes.SUBSCRIPTION, Becomes.LEVEL, Becomes.LEAST})
"""What an older version of an event goes on to hold until a poll has confirmed the newer one."""
BINDS = TIGHTENS | {Becomes.TARGET, Becomes.SHED}
ALERTS = frozenset({Becomes.LEAST, Becomes.NOTICE})
DEMANDS = frozenset({Becomes.LIMIT, Becomes.LEVEL, Becomes.TARGET, Becomes.SHED, Becomes.LEAST})
"""What makes an event one that can be settled."""


@dataclass(frozen=True, slots=True)
class Read:
    """An event as read: what it asks, its span as a whole, and what was not taken.

    Attributes:
        refused: the first reason why something that binds the site was not; None: nothing was.
        settles: whether it asks, or asked before it was called off, what can be settled.
        shed_w: the largest reduction below the baseline that it asks or asked, W; 0: none.
    """

    asked: tuple[Asked, ...] = ()
    starts_s: float | None = None
    ends_s: float | None = None
    notes: tuple[str, ...] = ()
    refused: str | None = None
    settles: bool = False
    shed_w: float = 0.0


def named(event: Event, program: Program | None) -> str:
    """An event in the words of its utility: its program's name and its own. Ids are for machines.

    What a terminal would obey, and not show, is left out.
    """
    told = (_shown(program.name) if program is not None else "", _shown(event.name or ""))
    return ": ".join(dict.fromkeys(part for part in told if part))


def _shown(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_NAME_SHOWN]


def ours(event: Event, terms: Terms) -> Work | None:
    """Which work of this site an event is aimed at; None: it is for others."""
    targets = set(event.targets)
    if not targets or targets & {terms.ven_name, *terms.groups}:
        return Work.ALL
    hit = [work for name, work in terms.resources.items() if name in targets]
    if not hit:
        return None
    return Work.MINING if all(work is Work.MINING for work in hit) else Work.ALL


def read_heard(
    heard: Heard,
    program: Program | None,
    terms: Terms,
    draw: Callable[[str, int], float],
    now_s: float,
) -> Read:
    """What an event asks; while a notice is unconfirmed, the older version's caps hold as well.

    Args:
        program: its program; None: the VTN has not told of it.
        draw: event and place of the interval -> random draw, -1 to 1.
        now_s: unix time, s.
    """
    if heard.cancelled_s is not None:
        whole = _read(heard.event, heard, program, terms, draw, now_s)
        return Read(
            starts_s=whole.starts_s,
            ends_s=whole.ends_s,
            settles=whole.settles,
            shed_w=whole.shed_w,
        )
    newest = _read(heard.event, heard, program, terms, draw, now_s)
    if heard.before is None:
        return newest
    older = _read(heard.before, heard, program, terms, draw, now_s)
    kept = [one for one in older.asked if one.becomes in TIGHTENS]
    return replace(
        newest,
        asked=(*newest.asked, *(_before(one) for one in kept)),
        refused=None,
        settles=newest.settles or older.settles,
    )


def fault_of(
    event: Event, first_s: float, program: Program | None, terms: Terms, now_s: float
) -> str | None:
    """Why an event, or something in it that binds the site, cannot be taken; None: it can."""
    read = _read(event, Heard(event, first_s), program, terms, lambda name, place: 0.0, now_s)
    return read.refused


def _before(one: Asked) -> Asked:
    return replace(one, id=f"{one.id} (before)", confirmed=True)


def _read(
    event: Event,
    heard: Heard,
    program: Program | None,
    terms: Terms,
    draw: Callable[[str, int], float],
    now_s: float,
) -> Read:
    label = event.name or event.id
    if event.unreadable is not None:
        wrong = f"it breaks the schema: {event.unreadable}"
        return Read(notes=(f"event {label} is refused: {wrong}",), refused=wrong)
    work = ours(event, terms)
    if work is None:
        return Read(notes=(f"event {label} is for others: {', '.join(event.targets)[:100]}",))
    try:
        laid = lay_out(event, heard.first_s, lambda place: draw(event.id, place), now_s)
    except TimeInvalid as fault:
        return Read(notes=(f"event {label} is refused: {fault}",), refused=str(fault))
    notes = [f"event {label}: {note}" for note in laid.notes]
    reader = _Reader(event, heard.confirmed, work, program, terms, notes)
    asked = tuple(reader.asked(laid))
    demands = [one for one in asked if one.becomes in DEMANDS]
    shed_w = max((one.shed_w for one in demands), default=0.0)
    return Read(
        asked,
        laid.starts_s,
        laid.ends_s,
        tuple(notes),
        reader.refused,
        settles=bool(demands),
        shed_w=shed_w,
    )


class _Reader:
    """Reads the payloads of one event, and notes what it does not take."""

    def __init__(
        self,
        event: Event,
        confirmed: bool,
        work: Work,
        program: Program | None,
        terms: Terms,
        notes: list[str],
    ) -> None:
        self._event, self._confirmed, self._work = event, confirmed, work
        self._terms, self._notes = terms, notes
        self._label = event.name or event.id
        self._program = (program.name or program.id) if program is not None else event.program_id
        self._named = named(event, program)
        told = [*(program.descriptors if program is not None else ()), *event.descriptors]
        # The event's own descriptors come last and so hold over the program's.
        self._descriptors = {one.payload_type: one for one in told}
        self._ids: set[str] = set()
        self.refused: str | None = None

    def asked(self, laid: Laid) -> Iterator[Asked]:
        """Everything that the event asks."""
        for span in laid.spans:
            for payload in span.interval.payloads:
                means = meaning(payload.type)
                if means.becomes is Becomes.IGNORED:
                    self._note(f"{payload.type[:40]} is ignored: {means.why}")
                    continue
                try:
                    yield from self._payload(payload, means.becomes, span)
                except AmountRefused as wrong:
                    self._note(f"{payload.type} is refused: {wrong}")
                    if means.becomes in BINDS:
                        self.refused = self.refused or f"{payload.type}: {wrong}"

    def _payload(self, payload: Payload, becomes: Becomes, span: Span) -> Iterator[Asked]:
        if becomes in ALERTS:
            text = " ".join(str(value) for value in payload.values)[:MAX_TEXT_SHOWN]
            yield self._one(payload, becomes, span.starts_s, span.ends_s, text=text)
            return
        if not payload.values:
            raise AmountRefused("it has no value")
        if becomes in SERIES:
            yield from self._series(payload, becomes, span)
            return
        lasts_s = None if span.ends_s is None else span.ends_s - span.starts_s
        if becomes is Becomes.LEVEL:
            yield from self._level(payload, span)
        elif becomes is Becomes.SHED:
            yield self._shed(payload, span, lasts_s)
        elif becomes is Becomes.RESERVATION and not span.bounded:
            raise AmountRefused("a grant of more watts must say when it ends")
        else:
            amount_w = min(watts(one, self._scale(payload), lasts_s) for one in payload.values)
            if becomes is not Becomes.TARGET and self._work is Work.MINING:
                self._note(f"{payload.type} is for miners alone; the whole site keeps it")
            yield self._one(payload, becomes, span.starts_s, span.ends_s, amount_w)

    def _series(self, payload: Payload, becomes: Becomes, span: Span) -> Iterator[Asked]:
        """One piece for each value, or the first value where the interval has no end."""
        values: tuple[Value, ...] = payload.values
        if span.ends_s is None and len(values) > 1:
            raise AmountRefused("several values divide an interval, and it has no end")
        for place, value in enumerate(values):
            starts_s, ends_s = span.starts_s, span.ends_s
            if span.ends_s is not None:
                step_s = (span.ends_s - span.starts_s) / len(values)
                starts_s = span.starts_s + place * step_s
                ends_s = span.starts_s + (place + 1) * step_s
            if becomes is Becomes.PRICE:
                amount = usd_per_mwh(value, self._scale(payload))
            else:
                amount = g_per_kwh(value)
            yield self._one(payload, becomes, starts_s, ends_s, amount)

    def _level(self, payload: Payload, span: Span) -> Iterator[Asked]:
        level = max(number(one) for one in payload.values)
        if level not in (0, 1, 2, 3):
            raise AmountRefused(f"{level:g} is no level from 0 to 3")
        ladder = self._terms.levels_w
        if level == 0:
            return
        if not ladder:
            raise AmountRefused("no ladder of caps is set; set levels")
        if level > len(ladder):
            self._note(f"level {level:g} has no cap of its own; that of level {len(ladder)} holds")
        amount_w = ladder[min(int(level), len(ladder)) - 1]
        yield self._one(payload, Becomes.LEVEL, span.starts_s, span.ends_s, amount_w)

    def _shed(self, payload: Payload, span: Span, lasts_s: float | None) -> Asked:
        scale = self._scale(payload)
        baseline_w = self._terms.baseline_w(self._event.id, span.starts_s, span.ends_s)
        if baseline_w is None:
            raise AmountRefused("it asks less than the baseline, which is unknown")
        if scale.units == "PERCENT":
            shed_w = max(share_of(one) for one in payload.values) * baseline_w
        else:
            shed_w = max(watts(one, scale, lasts_s) for one in payload.values)
        target_w = max(0.0, baseline_w - shed_w)
        return self._one(payload, Becomes.SHED, span.starts_s, span.ends_s, target_w, shed_w=shed_w)

    def _one(
        self,
        payload: Payload,
        becomes: Becomes,
        starts_s: float,
        ends_s: float | None,
        amount: float = 0.0,
        *,
        text: str = "",
        shed_w: float = 0.0,
    ) -> Asked:
        priority = self._event.priority
        return Asked(
            self._id(payload, starts_s),
            self._event.id,
            self._program,
            becomes,
            payload.type,
            starts_s,
            ends_s,
            amount,
            shed_w,
            text,
            UNSTATED_PRIORITY if priority is None else priority,
            self._work,
            self._confirmed,
            self._named,
        )

    def _id(self, payload: Payload, starts_s: float) -> str:
        stem = f"{self._event.id}/{payload.type}@{starts_s:.0f}"
        name, turn = stem, 1
        while name in self._ids:
            turn += 1
            name = f"{stem}#{turn}"
        self._ids.add(name)
        return name

    def _scale(self, payload: Payload) -> Scale:
        told = self._descriptors.get(payload.type)
        units = told.units if told is not None else None
        currency = told.currency if told is not None else None
        if units is None and meaning(payload.type).becomes is not Becomes.PRICE:
            units = self._terms.units
        return Scale(units, currency, self._terms.nominal_w, self._terms.usd_per)

    def _note(self, text: str) -> None:
        note = f"event {self._label}: {text}"
        if note not in self._notes:
            self._notes.append(note)
