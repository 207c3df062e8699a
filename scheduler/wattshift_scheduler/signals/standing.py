"""Which caps bind at all: the operator's overrides put in, mere forecasts set aside."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from wattshift_scheduler.signals.words import Cap, CapKind, Override, Signals

OPERATOR = "operator"
"""The one source whose overrides are taken."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the sources' caps come to.

    Attributes:
        caps: caps that bind; an overridden one is there twice, with its limit until the override
            ends and with its own from then on.
        advice: forecast caps that are not sure enough to bind.
        overrides: those that hold now and name a cap that may be overridden.
    """

    caps: tuple[Cap, ...]
    advice: tuple[Cap, ...] = ()
    overrides: tuple[Override, ...] = ()


def standing(signals: Signals, act_at_confidence: float, now_s: float) -> Standing:
    """Sort the caps of all sources.

    Args:
        signals: what all sources say.
        act_at_confidence: least confidence of a cap that binds (`Rules`).
        now_s: our clock, s.
    """
    named = _in_place_of(signals.overrides, now_s)
    caps: list[Cap] = []
    advice: list[Cap] = []
    used: list[Override] = []
    for source, cap in _each(signals.caps):
        if cap.confidence < act_at_confidence:
            advice.append(cap)
            continue
        override = named.get((source, cap.id))
        if override is None or cap.kind == CapKind.BREAKER:
            caps.append(cap)
            continue
        used.append(override)
        caps += _with(cap, override)
    return Standing(tuple(caps), tuple(advice), tuple(used))


def _each(caps: Mapping[str, tuple[Cap, ...]]) -> Iterator[tuple[str, Cap]]:
    return ((source, cap) for source, all_caps in caps.items() for cap in all_caps)


def _in_place_of(overrides: Iterable[Override], now_s: float) -> Mapping[tuple[str, str], Override]:
    """Overrides in force by source and cap; of several for one cap the lowest holds."""
    live = [one for one in overrides if now_s < one.ends_s]
    return {(one.source, one.cap): one for one in sorted(live, key=lambda o: -o.limit_w)}


def _with(cap: Cap, override: Override) -> Iterator[Cap]:
    """An overridden cap: the override's limit until it ends, the cap's own afterwards."""
    if cap.starts_s is None or cap.starts_s < override.ends_s:
        ends_s = override.ends_s if cap.ends_s is None else min(cap.ends_s, override.ends_s)
        yield replace(cap, limit_w=override.limit_w, ends_s=ends_s)
    if cap.ends_s is None or cap.ends_s > override.ends_s:
        starts_s = override.ends_s if cap.starts_s is None else max(cap.starts_s, override.ends_s)
        yield replace(cap, starts_s=starts_s)
