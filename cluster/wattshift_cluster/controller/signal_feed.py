"""One source of grid signals as a feed of the controller: its words become events of the core.

Each word of a source is one urgent event. Whatever fails, what it said goes on to hold: a source
that stops is started again, and one that has not been heard since it lost its own memory adds to
what the journal knows of it and takes nothing back.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import structlog

from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.sources import value_at
from wattshift_cluster.grid.said import Alert, AlertSaid, Said, Source
from wattshift_scheduler import events as ev
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.signals.words import Cap

LOOK_S = 1.0
"""How often it is looked whether the price has changed, or an alarm is due."""

AGAIN_S = 1.0
AGAIN_MOST_S = 60.0
"""Between two starts of a source that stops."""

T = TypeVar("T")

log = structlog.get_logger()


class SourceFeed:
    """Follows one source for a controller."""

    def __init__(
        self, controller: Controller, source: Source, again: Callable[[], Source] | None = None
    ) -> None:
        """Follow `source`; nothing runs yet.

        Args:
            again: makes a fresh one where the source has stopped; None: the same is run again.
        """
        self._c = controller
        self._source = source
        self._again = again
        name = source.name
        signals = controller.state.signals
        self._before = ev.SignalChanged(
            name,
            signals.caps.get(name, ()),
            targets=signals.targets.get(name, ()),
            events=signals.events.get(name, ()),
        )
        self._told: ev.SignalChanged | None = None

    async def run(self) -> None:
        """Feed until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._speak())
            group.create_task(self._look())

    def take(self, said: Said) -> None:
        """Take a word of the source, in the event loop."""
        name, now_s = self._source.name, self._c.clock.now_s()
        notes: list[str] = []
        caps = (*said.caps, *_least(said.alerts, name, notes))
        word = ev.SignalChanged(name, caps, targets=said.targets, events=said.events)
        if said.heard_s > 0:
            self._before = word
        else:
            word = _added(self._before, word)
        told = self._c.sources.heard(name, replace(said, notes=(*said.notes, *notes)), now_s)
        if told:
            self._c.tell(*told)
        self._put(self._priced(word, said, now_s))

    def _priced(self, word: ev.SignalChanged, said: Said, now_s: float) -> ev.SignalChanged:
        """The word with the price that holds now, where the source has ever told one."""
        name, steps, sources = word.source, said.prices_usd_per_mwh, self._c.sources
        if steps is None and not sources.speaks_of_price(name):
            return word
        own = None if steps is None else value_at(steps, now_s)
        price = sources.priced(name, own)
        return replace(word, price_usd_per_mwh=price, sets_price=True)

    def _put(self, word: ev.SignalChanged) -> None:
        if word != self._told:
            self._told = word
            self._c.inbox.put([word], urgent=True)

    async def _speak(self) -> None:
        pause_s, stopped = AGAIN_S, False
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            try:
                if stopped and self._again is not None:
                    self._source = self._again()
                await self._source.run(self.take)
                why = "it has stopped by itself"
            except Exception as fault:  # one source that fails must not stop the site
                log.exception("source.failed", source=self._source.name)
                why = f"it has stopped: {_words(fault)}"
            self._c.sources.failed(self._source.name, why, self._c.clock.now_s())
            pause_s = AGAIN_S if loop.time() - begun_s > AGAIN_MOST_S else pause_s
            await asyncio.sleep(pause_s)
            pause_s, stopped = min(2.0 * pause_s, AGAIN_MOST_S), True

    def look(self) -> None:
        """Follow the clock: a price that changes, an alarm that is due."""
        now_s = self._c.clock.now_s()
        said = self._c.sources.said(self._source.name)
        if said is not None and self._told is not None:
            self._put(self._priced(self._told, said, now_s))
        told = self._c.sources.judge(now_s)
        if told:
            self._c.tell(*told)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()


def _least(alerts: Iterable[AlertSaid], source: str, notes: list[str]) -> Iterator[Cap]:
    """Caps of alerts that ask for the least: 0 W, so that the site sheds to its floor."""
    for alert in alerts:
        if alert.asks is not Alert.LEAST:
            continue
        try:
            span = (_time(alert.starts_s), alert.ends_s)
            yield Cap(f"alert/{alert.id}", source, 0.0, *span, name=alert.name)
        except SiteInvalid as fault:
            notes.append(f"alert {alert.name} is not taken: {fault.reason}")


def _time(at_s: float) -> float | None:
    return None if at_s == -math.inf else at_s


def _added(before: ev.SignalChanged, word: ev.SignalChanged) -> ev.SignalChanged:
    """What the journal knows of a source and what it says without having been heard, together."""
    return replace(
        word,
        caps=_both(before.caps, word.caps),
        targets=_both(before.targets, word.targets),
        events=_both(before.events, word.events),
    )


def _both(before: tuple[T, ...], more: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*before, *more)))


def _words(fault: BaseException) -> str:
    """The innermost fault of a group, for people."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return str(fault) or type(fault).__name__
