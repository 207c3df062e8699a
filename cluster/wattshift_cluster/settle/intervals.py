"""Metered energy of settlement intervals, from raw samples, with what is wrong with them.

Between two samples the draw is a straight line (trapezoid), or the earlier one held; a longer gap
than the meter's period allows is unknown time, never filled. An interval with too much of it has no
energy at all. Where the meter has a counter of its own that can be believed, that holds instead.
What looks like a meter at fault is flagged, interval by interval, and not mended.
"""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from wattshift_cluster.settle.counter import (
    APART_SHARE,
    BELIEVED_SHARE,
    Counted,
    Counter,
    counted,
)
from wattshift_scheduler.arrays import Bools, Floats, Ints

UNKNOWN_SHARE_MOST = 0.2
"""With more unknown time than this an interval has no mean; with less it is flagged."""

GAP_SHARE_LEAST = 0.01
"""Unknown time below this share (a late poll) is not worth a flag."""

FROZEN_S = 120.0
FROZEN_SAMPLES = 30
"""As many equal samples over so long a time do not come from a real load."""


QUALITIES = ("measured", "emulated", "modelled")


class Flag(StrEnum):
    """What a reader of an interval must know."""

    UNKNOWN = "unknown"
    GAPS = "gaps"
    FROZEN = "frozen"
    JUMP = "jump"
    SIGN = "sign"
    BEYOND = "beyond"
    CLOCK = "clock"
    COUNTER = "counter"
    """Its energy is that of the meter's own counter."""
    APART = "apart"
    """Counter and samples do not agree."""
    EMULATED = "emulated"
    MODELLED = "modelled"


@dataclass(frozen=True, slots=True)
class Samples:
    """Raw samples of one meter in the order in which they were logged; columns of one length.

    Attributes:
        at_s: unix times by our clock, s.
        watts_w: W; NaN: the meter did not know.
        offset_s: the meter's clock less ours, s; NaN unknown.
        quality: rows of QUALITIES.
        counter: readings of its energy counter, of a length of their own.
    """

    at_s: Floats
    watts_w: Floats
    offset_s: Floats
    quality: Ints
    counter: Counter = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Doubts:
    """When a sample is doubted, and how time between samples counts.

    Attributes:
        gap_most_s: longest time between two samples that is still known, s.
        hold: hold the earlier sample instead of a straight line between the two.
        most_w: more than this cannot be: such a sample is unknown and flagged.
        jump_w: a larger step between two samples is flagged.
        generates: negative watts are possible here, and no wrong sign.
    """

    gap_most_s: float = 60.0
    hold: bool = False
    most_w: float = math.inf
    jump_w: float = math.inf
    generates: bool = False


@dataclass(frozen=True, slots=True)
class Metered:
    """Intervals, columns of one length.

    Attributes:
        starts_s, ends_s: their spans, unix time, s.
        mean_w: mean draw, W; NaN: unknown.
        unknown_share: share of the time that no sample covers.
        apart: how far counter and samples are apart, as a share; NaN: one of them cannot tell.
        offset_s: the largest clock offset in it, s; NaN: unknown.
        flags: what is to be known of each.
        sha256: hash of each one's raw samples.
    """

    starts_s: Floats
    ends_s: Floats
    mean_w: Floats
    unknown_share: Floats
    apart: Floats
    offset_s: Floats
    flags: tuple[frozenset[Flag], ...]
    sha256: tuple[str, ...]

    @property
    def energy_wh(self) -> Floats:
        """Energy of each, Wh; NaN: unknown."""
        return self.mean_w * (self.ends_s - self.starts_s) / 3600.0


def edges(from_s: float, to_s: float, interval_s: float) -> tuple[Floats, Floats]:
    """Starts and ends of the intervals on the UTC clock between two times; both ends may be cut."""
    assert interval_s > 0, "an interval lasts"
    if not to_s > from_s:
        return np.empty(0), np.empty(0)
    first = math.floor(from_s / interval_s)
    last = math.ceil(to_s / interval_s)
    grid_s = np.arange(first, last + 1) * interval_s
    return np.maximum(grid_s[:-1], from_s), np.minimum(grid_s[1:], to_s)


def metered(samples: Samples, starts_s: Floats, ends_s: Floats, doubts: Doubts) -> Metered:
    """Integrate raw samples over intervals, which may overlap or lie apart.

    The hash of an interval is the SHA-256 of its samples (start included, end excluded), each one
    as `time,watts` in the shortest decimal form that reads back the same, `nan` for unknown, and a
    newline.
    """
    order = np.argsort(samples.at_s, kind="stable")
    at_s, raw_w = samples.at_s[order], samples.watts_w[order]
    marks = _marks(samples, order, doubts)
    watts_w = np.where(marks[Flag.SIGN] | marks[Flag.BEYOND], math.nan, raw_w)
    joules, known_s = _sums(at_s, watts_w, np.concatenate([starts_s, ends_s]), doubts)
    n = len(starts_s)
    energy_j, covered_s = joules[n:] - joules[:n], known_s[n:] - known_s[:n]
    length_s = ends_s - starts_s
    unknown = np.clip(1.0 - covered_s / length_s, 0.0, 1.0)
    enough = unknown <= UNKNOWN_SHARE_MOST
    sampled_w = np.where(enough, energy_j / np.maximum(covered_s, 1e-9), math.nan)
    by_counter = counted(
        # A counter of imports alone says nothing of a site that also exports.
        Counter() if doubts.generates else samples.counter,
        starts_s,
        ends_s,
        sampled_w,
        gap_most_s=doubts.gap_most_s,
        most_w=_most_w(watts_w, doubts),
    )
    mean_w = np.where(by_counter.believed, by_counter.mean_w, sampled_w)
    first = np.searchsorted(at_s, starts_s, "left")
    beyond = np.searchsorted(at_s, ends_s, "left")
    flags = _flags(marks, first, beyond, unknown, by_counter)
    offsets_s = samples.offset_s[order]
    spans = [slice(int(a), int(b)) for a, b in zip(first, beyond, strict=True)]
    offset_s = np.array([_widest(offsets_s[span]) for span in spans], dtype=np.float64)
    hashes = tuple(sample_hash(at_s[span], raw_w[span]) for span in spans)
    return Metered(starts_s, ends_s, mean_w, unknown, by_counter.apart, offset_s, flags, hashes)


def _most_w(watts_w: Floats, doubts: Doubts) -> float:
    """The most that a counter may say where no sample of the interval can tell, W."""
    known_w = watts_w[np.isfinite(watts_w)]
    if not len(known_w):
        return doubts.most_w
    return min(doubts.most_w, (1.0 + BELIEVED_SHARE) * float(known_w.max()))


def sample_hash(at_s: Floats, watts_w: Floats) -> str:
    """SHA-256 of raw samples, hexadecimal."""
    rows = (
        f"{at!r},{watts!r}\n" for at, watts in zip(at_s.tolist(), watts_w.tolist(), strict=True)
    )
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def _sums(at_s: Floats, watts_w: Floats, edges_s: Floats, doubts: Doubts) -> tuple[Floats, Floats]:
    """Joules and known seconds from the first sample up to each edge."""
    if len(at_s) < 2:
        return np.zeros(len(edges_s)), np.zeros(len(edges_s))
    step_s, before_w, after_w = np.diff(at_s), watts_w[:-1], watts_w[1:]
    if doubts.hold:
        after_w = before_w
    known = (step_s <= doubts.gap_most_s) & np.isfinite(before_w) & np.isfinite(after_w)
    before_w, after_w = np.where(known, before_w, 0.0), np.where(known, after_w, 0.0)
    joules = np.concatenate([[0.0], np.cumsum((before_w + after_w) / 2.0 * step_s)])
    seconds_s = np.concatenate([[0.0], np.cumsum(np.where(known, step_s, 0.0))])
    within_s = np.clip(edges_s, at_s[0], at_s[-1])
    i = np.clip(np.searchsorted(at_s, within_s, "right") - 1, 0, len(step_s) - 1)
    into_s = within_s - at_s[i]
    slope = (after_w[i] - before_w[i]) / np.maximum(step_s[i], 1e-9)
    part_j = before_w[i] * into_s + slope * into_s**2 / 2.0
    return joules[i] + part_j, seconds_s[i] + np.where(known[i], into_s, 0.0)


def _marks(samples: Samples, order: Ints, doubts: Doubts) -> dict[Flag, Bools]:
    """Which samples are to be doubted, by why."""
    at_s, watts_w = samples.at_s[order], samples.watts_w[order]
    quality = samples.quality[order]
    step_w = np.abs(np.diff(watts_w, prepend=watts_w[:1]))
    late = np.zeros(len(order), dtype=np.bool_)
    late[1:] = np.diff(samples.at_s) <= 0
    with np.errstate(invalid="ignore"):
        return {
            Flag.SIGN: (watts_w < 0) & (not doubts.generates),
            Flag.BEYOND: np.abs(watts_w) > doubts.most_w,
            Flag.JUMP: step_w > doubts.jump_w,
            Flag.FROZEN: _frozen(at_s, watts_w),
            Flag.CLOCK: late[order],
            Flag.EMULATED: quality == QUALITIES.index("emulated"),
            Flag.MODELLED: quality == QUALITIES.index("modelled"),
        }


def _frozen(at_s: Floats, watts_w: Floats) -> Bools:
    """Samples that belong to a run of equal ones too long to be true."""
    if not len(at_s):
        return np.zeros(0, dtype=np.bool_)
    begins = np.flatnonzero(np.diff(watts_w, prepend=math.nan) != 0)
    ends = np.append(begins[1:], len(at_s))
    long = (ends - begins >= FROZEN_SAMPLES) & (at_s[ends - 1] - at_s[begins] >= FROZEN_S)
    return np.repeat(long, ends - begins)


def _flags(
    marks: dict[Flag, Bools], first: Ints, beyond: Ints, unknown: Floats, by_counter: Counted
) -> tuple[frozenset[Flag], ...]:
    counts = {flag: np.concatenate([[0], np.cumsum(marked)]) for flag, marked in marks.items()}
    found: list[frozenset[Flag]] = []
    for i in range(len(first)):
        flags = {f for f, count in counts.items() if count[beyond[i]] > count[first[i]]}
        if by_counter.believed[i]:
            flags.add(Flag.COUNTER)
        if by_counter.apart[i] > APART_SHARE:
            flags.add(Flag.APART)
        if unknown[i] > UNKNOWN_SHARE_MOST and not by_counter.believed[i]:
            flags.add(Flag.UNKNOWN)
        elif unknown[i] > GAP_SHARE_LEAST:
            flags.add(Flag.GAPS)
        found.append(frozenset(flags))
    return tuple(found)


def _widest(offset_s: Floats) -> float:
    known = offset_s[np.isfinite(offset_s)]
    return float(known[np.argmax(np.abs(known))]) if len(known) else math.nan
