"""What people tell of signals: the operator's caps, overrides of named caps, injected events.

A cap only lowers, so an operator sets it. An override lets the site draw more than a source allows:
it names one cap, who lifts it and why, and it ends.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from wattshift_cluster.controller import signal_views
from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.errors import ConfigInvalid, Fault, NotFound, Refused, TryLater
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision, Input
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.in_force import shortfalls
from wattshift_scheduler.signals.arbitrate import NO_CAP
from wattshift_scheduler.signals.standing import OPERATOR
from wattshift_scheduler.signals.words import Cap, CapKind, Override

CAPS_MAX = 100
OVERRIDES_MAX = 100
INJECTED_MAX = 100
"""Sources that are no feed's and are remembered; an event of one more is refused."""

CONNECTION = ("connection", NO_CAP)
View = dict[str, Any]


class SignalDesk:
    """Orders of people about signals, for one controller."""

    def __init__(self, controller: Controller) -> None:
        """Serve a controller that runs in this event loop."""
        self._c = controller

    def caps(self) -> list[View]:
        """Caps of every source that are in force or still to come (api.site_views.CapView)."""
        now_s = self._c.clock.now_s()
        return [
            self._cap_view(source, cap)
            for source, caps in self._c.state.signals.caps.items()
            for cap in caps
            if cap.ends_s is None or cap.ends_s > now_s
        ]

    def signals(self) -> View:
        """All that sources say, and what of it holds (api.signal_views.SignalsView)."""
        return self._c.signals_view(self._c.clock.now_s())

    async def set_cap(
        self,
        limit_w: float,
        starts_s: float | None,
        ends_s: float | None,
        origin: str,
        strict: bool,
    ) -> View:
        """Set an operator cap. With `strict`, Refused where the site cannot shed that far."""
        floor_w = self._floor_w()
        if strict and limit_w < floor_w:
            raise Refused(
                f"the site cannot go below {floor_w:,.0f} W: short by {floor_w - limit_w:,.0f} W"
            )
        name = f"cap-{secrets.token_hex(4)}"
        try:
            cap = Cap(name, origin, limit_w, starts_s, ends_s, CapKind.OPERATOR)
        except SiteInvalid as fault:
            raise ConfigInvalid([Fault("cap", "limit", None, fault.reason)]) from None
        kept = self._operator_caps()
        if len(kept) >= CAPS_MAX:
            raise TryLater(f"{CAPS_MAX} operator caps are open; clear some")
        await self._say([*kept, cap], self._live())
        return self._cap_view(OPERATOR, cap)

    async def clear_cap(self, cap_id: str | None) -> None:
        """Lift one operator cap, or all. Raises NotFound."""
        kept = self._operator_caps()
        if cap_id is not None and cap_id not in {cap.id for cap in kept}:
            raise NotFound(f"no operator cap {cap_id}")
        await self._say([c for c in kept if cap_id is not None and c.id != cap_id], self._live())

    def overrides(self) -> list[View]:
        """Overrides that hold (api.signal_views.OverrideView)."""
        state, now_s = self._c.state, self._c.clock.now_s()
        return [signal_views.override(one, state, now_s) for one in self._live()]

    async def override_cap(
        self, source: str, cap: str, limit_w: float, ends_s: float, *, by: str, reason: str
    ) -> View:
        """Let another limit hold in place of one cap until a time; recorded with who and why.

        Raises:
            NotFound: the source has no such cap.
            Refused: it is a breaker's, or the connection itself.
            ConfigInvalid: the limit or the end is no such thing.
            TryLater: too many stand.
        """
        now_s = self._c.clock.now_s()
        self._may_lift(source, cap)
        try:
            one = Override(source, cap, limit_w, ends_s, by, reason)
        except SiteInvalid as fault:
            raise ConfigInvalid([Fault("override", "", None, fault.reason)]) from None
        if ends_s <= now_s:
            raise ConfigInvalid([Fault("override", "until", None, "it ends before now")])
        kept = [other for other in self._live() if (other.source, other.cap) != (source, cap)]
        if len(kept) >= OVERRIDES_MAX:
            raise TryLater(f"{OVERRIDES_MAX} overrides stand; clear some")
        words = f"cap {cap} of {source} is overridden to {limit_w:,.0f} W until {rfc3339(ends_s)}"
        inputs: dict[str, Input] = {
            "source": source,
            "cap": cap,
            "limit_w": limit_w,
            "ends_s": ends_s,
            "by": by,
        }
        self._c.tell(Decision(now_s, "site", "override", f"{words} by {by}: {reason}", inputs))
        await self._say(self._operator_caps(), [*kept, one])
        return signal_views.override(one, self._c.state, now_s)

    async def clear_override(self, source: str | None, cap: str | None, *, by: str) -> None:
        """End one override, or all: the caps themselves hold again. Raises NotFound."""
        live = self._live()
        ended = [one for one in live if source is None or (one.source, one.cap) == (source, cap)]
        if source is not None and not ended:
            raise NotFound(f"no override of cap {cap} of {source}")
        now_s = self._c.clock.now_s()
        for one in ended:
            words = f"the override of cap {one.cap} of {one.source} is ended by {by}"
            self._c.tell(Decision(now_s, "site", "override", words, {"by": by}))
        await self._say(self._operator_caps(), [one for one in live if one not in ended])

    async def inject(self, signal: Mapping[str, Any]) -> View:
        """Take a grid event as if a feed had sent it: {source, caps: [...], price_usd_per_mwh}.

        Raises:
            Refused: the source is the operator, or a feed that speaks for itself.
            TryLater: too many injected sources stand.
        """
        source = str(signal.get("source") or "event")
        if source == OPERATOR:
            raise Refused("the operator's caps are set with /v1/caps")
        if source in self._c.config.signal_sources:
            # What it said would be replaced: whoever lifts a cap of a feed says which, and why.
            raise Refused(f"{source} is a feed of the site file; override its cap instead")
        known = self._c.state.signals.caps
        if source not in known and len(known) >= INJECTED_MAX:
            raise TryLater(f"{INJECTED_MAX} sources of signals are known; use one of them")
        caps = tuple(_cap(source, i, row) for i, row in enumerate(signal.get("caps") or ()))
        price = signal.get("price_usd_per_mwh")
        sets_price = "price_usd_per_mwh" in signal
        event = ev.SignalChanged(source, caps, None if price is None else float(price), sets_price)
        return await self._taken(event)

    def _may_lift(self, source: str, cap: str) -> None:
        """Raise NotFound or Refused where a cap cannot be overridden."""
        if source in CONNECTION or cap == NO_CAP:
            raise Refused("the connection's own limit is never overridden")
        caps = self._c.state.signals.caps.get(source)
        if caps is None:
            known = ", ".join(sorted(self._c.state.signals.caps))
            raise NotFound(f"no source {source}; there are: {known or 'none'}")
        now_s = self._c.clock.now_s()
        # One that is over lifts nothing: its id may come again, for another cap.
        live = (one for one in caps if one.ends_s is None or one.ends_s > now_s)
        kinds = {one.kind for one in live if one.id == cap}
        if not kinds:
            raise NotFound(f"{source} has no cap {cap}; see wattshift cap show")
        if CapKind.BREAKER in kinds:
            raise Refused(f"cap {cap} of {source} is a breaker's: it is never overridden")

    def _live(self) -> list[Override]:
        now_s = self._c.clock.now_s()
        return [one for one in self._c.state.signals.overrides if one.ends_s > now_s]

    def _operator_caps(self) -> list[Cap]:
        now_s = self._c.clock.now_s()
        caps = self._c.state.signals.caps.get(OPERATOR, ())
        return [cap for cap in caps if cap.ends_s is None or cap.ends_s > now_s]

    async def _say(self, caps: Iterable[Cap], overrides: Iterable[Override]) -> None:
        await self._taken(
            ev.SignalChanged(OPERATOR, tuple(caps), overrides=tuple(overrides)),
        )

    async def _taken(self, event: ev.SignalChanged) -> View:
        """Act first, then write: a cap must bind even while the disk is slow."""
        self._c.inbox.put([event])
        self._c.turn(self._c.inbox.take())
        accepted = self.signals()
        await self._c.journal.signals_kept()
        return accepted

    def _cap_view(self, source: str, cap: Cap) -> View:
        now_s, state = self._c.clock.now_s(), self._c.state
        short = _above(self._floor_w(), cap)
        view = signal_views.cap(source, cap, now_s, short, state.signals.overrides)
        holds = view["in_force"] and view["overridden_w"] is None
        view["shortfall_counted_w"] = _above(state.outlook.counted_w, cap) if holds else None
        return view

    def _floor_w(self) -> float:
        """What the site can be asked down to, W (`shortfalls`)."""
        state = self._c.state
        return float(shortfalls.asked_w(state, state.outlook)[0])


def _above(least_w: float, cap: Cap) -> float | None:
    """By how much what is drawn at the least lies above a cap, W; None: it does not."""
    short_w = least_w - cap.limit_w
    return short_w if short_w > shortfalls.LEAST_W else None


def _cap(source: str, i: int, row: Mapping[str, Any]) -> Cap:
    try:
        return Cap(
            str(row.get("id") or f"{source}-{i}"),
            source,
            float(row["limit_w"]),
            None if row.get("starts_s") is None else float(row["starts_s"]),
            None if row.get("ends_s") is None else float(row["ends_s"]),
        )
    except (KeyError, TypeError, ValueError, SiteInvalid) as fault:
        raise ConfigInvalid([Fault("event", f"caps[{i}]", None, str(fault))]) from None
