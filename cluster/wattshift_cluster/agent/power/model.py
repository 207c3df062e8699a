"""Watts of one device as a function of mining intensity, inference load and power limit, learnt.

Bayesian linear regression on the basis 1, m, m², i, m·i (m: share of time in launches, i: inference
load, both 0 to 1); the firmware cuts the sum off at the enforced limit. The prior comes from the
nameplate and stays, so where nothing was seen the error bars stay wide. Outliers count less
(P. J. Huber, Robust Estimation of a Location Parameter, 1964); the spread of readings around the
curve is estimated online, from innovations divided by what was expected of them.

The bars tell how well the curve is known, as the sensor reads it: NVML's own error comes on top.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from wattshift_cluster.agent.power.curve import STEPS, Curve, Estimate
from wattshift_cluster.agent.power.memory import Floats, Memory

MINING_SHARE = 0.8
"""Mining stays at or below this share of the enforced limit: a GPU that runs into its limit lowers
its clocks, and inference that starts then would find them low."""

SIGMA = 1.96
"""Standard deviations of a 95 % interval; its upper end is a one-sided bound of 97.5 %."""

INFERENCE_SHARE = 0.5
PRIOR_SHARES = (0.05, 0.3, 0.2, 0.4, 0.5)
"""Expected draw of full inference and prior deviations of the basis' factors, all as shares of
mining's own span of watts: idle is read on the device itself, the rest is a guess."""

NOISE_SHARE, LEAST_NOISE_SHARE = 0.03, 0.004
NOISE_GAIN = 0.02
MOST_SURPRISE = 9.0
"""No reading counts as more than three deviations for the noise."""

HUBER = 1.345
"""Deviations from which on a reading counts less; 95 % efficient on a normal distribution."""

IMPOSSIBLE = 1.5
AT_LIMIT = 0.97
"""Above this share of the limit the firmware, not the intensity, set the draw."""

MOVED_SHARE = 0.02
KNOWN_READINGS, KNOWN_LEVELS, KNOWN_SPREAD = 4.0, 3, 0.5
MOST_CURVES = 16
"""A curve is asked for several times between two readings, and drawn once."""

_MARKS = np.linspace(0.0, 1.0, 5)
_GRID = np.linspace(0.0, 1.0, STEPS + 1)
FORMAT = 1


class PowerModel:
    """What a device draws; it starts from its nameplate and learns.

    Attributes:
        idle_w, top_w: expected before anything was seen, without and with full mining, W.
        limit_w: power limit where a call names none, W; None for a device that has none.
        version: grows when the curve moved by more than 2 % or its bars by a factor of two.
        lessons: readings that it took.
    """

    def __init__(self, idle_w: float, top_w: float, limit_w: float | None) -> None:
        """See `prior`."""
        self.idle_w, self.top_w, self.limit_w = idle_w, top_w, limit_w
        self.version = 0
        self.lessons = 0
        span_w = self._span_w = top_w - idle_w
        self._prior = np.array([idle_w, span_w, 0.0, INFERENCE_SHARE * span_w, 0.0])
        self._prior_precision = np.diag((span_w * np.array(PRIOR_SHARES)) ** -2.0)
        self._noise_w2 = (NOISE_SHARE * span_w) ** 2
        self._memory = Memory()
        self._curves: dict[tuple[float, float | None], Curve] = {}
        self._fit()
        self._told = self._marks()

    @classmethod
    def prior(cls, idle_w: float, top_w: float, limit_w: float | None) -> "PowerModel":
        """A device of which only the nameplate is known.

        Args:
            idle_w: draw without work, W.
            top_w: expected draw at full mining intensity, W; for a GPU 0.8 of its limit.
            limit_w: its enforced power limit, W; None where there is none (a CPU).

        Raises:
            ValueError: the figures contradict each other.
        """
        limits = () if limit_w is None else (limit_w,)
        if not all(math.isfinite(x) for x in (idle_w, top_w, *limits)):
            raise ValueError("a nameplate is finite")
        if not 0 <= idle_w < top_w or any(not idle_w < x for x in limits):
            raise ValueError(f"idle {idle_w:g} W, top {top_w:g} W, limit {limit_w}: not a device's")
        return cls(idle_w, top_w, limit_w)

    @property
    def known(self) -> bool:
        """Whether enough was seen, at intensities far enough apart, to trust the mean."""
        weight, intensity, _, _ = self._memory.seen()
        levels = np.unique(np.round(intensity[weight >= KNOWN_READINGS], 1))
        return bool(len(levels) >= KNOWN_LEVELS and np.ptp(levels) >= KNOWN_SPREAD)

    def observe(
        self,
        intensity: float,
        inference: float,
        watts_w: float,
        limit_w: float | None = None,
        at_s: float = 0.0,
    ) -> None:
        """Learn from one reading; one that is unknown or impossible is ignored.

        Args:
            intensity: share of time in launches as measured, 0 to 1, over the same second or so
                that `watts_w` is the mean of.
            inference: share of that time in which inference was busy, 0 to 1.
            watts_w: measured draw, W.
            limit_w: enforced limit then, W; None: the model's own.
            at_s: when, on a clock that goes on over restarts, s.
        """
        enforced_w = self._limit(limit_w)
        if not all(math.isfinite(x) for x in (intensity, inference, watts_w, at_s)):
            return
        if not 0 <= watts_w <= IMPOSSIBLE * min(enforced_w, 2 * self.top_w):
            return
        intensity, inference = min(1.0, max(0.0, intensity)), min(1.0, max(0.0, inference))
        basis = _basis(np.array([intensity]), inference)
        expected_w = float((basis @ self._factors)[0])
        if watts_w >= AT_LIMIT * enforced_w and expected_w >= watts_w:
            return  # says only that the device would have drawn more
        variance_w2 = self._noise_w2 + float(_variance(basis, self._covariance)[0])
        surprise = (watts_w - expected_w) ** 2 / variance_w2
        weight = 1.0 if surprise <= HUBER**2 else HUBER / math.sqrt(surprise)
        self._noise_w2 *= 1 + NOISE_GAIN * (min(surprise, MOST_SURPRISE) - 1)
        self._noise_w2 = max(self._noise_w2, (LEAST_NOISE_SHARE * self._span_w) ** 2)
        self._memory.add(intensity, inference, watts_w, weight, at_s)
        self.lessons += 1
        self._fit()
        self._tell()

    def curve(self, inference: float = 0.0, limit_w: float | None = None) -> Curve:
        """Watts against intensity beside an inference load of 0 to 1."""
        known = self._curves.get((inference, limit_w))
        if known is None:
            if len(self._curves) >= MOST_CURVES:
                self._curves.clear()
            known = self._curves[inference, limit_w] = self._drawn(inference, limit_w)
        return known

    def estimate(
        self, intensity: float, inference: float = 0.0, limit_w: float | None = None
    ) -> Estimate:
        """Watts at one intensity, 0 to 1."""
        return self.curve(inference, limit_w).at(intensity)

    def intensity_for(
        self, watts_w: float, inference: float = 0.0, limit_w: float | None = None
    ) -> float:
        """The most intensity that a lease of `watts_w` allows before the meter answers, 0 to 1.

        Its upper bound exceeds neither the watts nor mining's share of the enforced limit.
        """
        allowed_w = min(watts_w, MINING_SHARE * self._limit(limit_w))
        return self.curve(inference, limit_w).intensity_below(allowed_w)

    def top(self, limit_w: float | None = None) -> Estimate:
        """Watts at full intensity, which mining's share of the enforced limit may cut short."""
        estimate = self.estimate(1.0, 0.0, limit_w)
        return estimate.at_most(MINING_SHARE * self._limit(limit_w))

    def as_dict(self) -> dict[str, Any]:
        """For a file; see `from_dict`."""
        return {
            "format": FORMAT,
            "idle_w": self.idle_w,
            "top_w": self.top_w,
            "limit_w": self.limit_w,
            "version": self.version,
            "noise_w": math.sqrt(self._noise_w2),
            "cells": self._memory.rows(),
        }

    @classmethod
    def from_dict(cls, fields: object) -> "PowerModel":
        """What `as_dict` gave. Raises: ValueError for anything else."""
        if not isinstance(fields, Mapping) or fields.get("format") != FORMAT:
            raise ValueError(f"no power model of format {FORMAT}")
        limit_w = None if fields.get("limit_w") is None else _number(fields, "limit_w")
        model = cls.prior(_number(fields, "idle_w"), _number(fields, "top_w"), limit_w)
        noise_w, version = _number(fields, "noise_w"), fields.get("version")
        if not LEAST_NOISE_SHARE * 0.99 <= noise_w / model._span_w <= 1e3:
            raise ValueError(f"noise of {noise_w:g} W is none")
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise ValueError("a version is a count")
        model._noise_w2 = noise_w**2
        model._memory = Memory.from_rows(fields.get("cells"))
        model._fit()
        model.version, model._told = version, model._marks()
        return model

    def _limit(self, limit_w: float | None) -> float:
        known_w = self.limit_w if limit_w is None else limit_w
        return math.inf if known_w is None else known_w

    def _fit(self) -> None:
        self._curves.clear()
        weight, intensity, inference, watts_w = self._memory.seen()
        basis = _basis(intensity, inference)
        weighted = basis.T * (weight / self._noise_w2)
        precision: Floats = self._prior_precision + weighted @ basis
        self._covariance: Floats = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        known = self._prior_precision @ self._prior + weighted @ watts_w
        self._factors: Floats = self._covariance @ known

    def _drawn(self, inference: float, limit_w: float | None) -> Curve:
        mean_w, width_w = self._predict(_GRID, inference)
        enforced_w = self._limit(limit_w)

        def bounded(levels_w: Floats) -> tuple[float, ...]:
            return tuple(np.clip(levels_w, 0.0, enforced_w).tolist())

        # More mining never draws less: a dip comes from the fit, so the cautious side of it counts.
        return Curve(
            mean_w=bounded(np.maximum.accumulate(mean_w)),
            low_w=bounded(np.minimum.accumulate((mean_w - width_w)[::-1])[::-1]),
            high_w=bounded(np.maximum.accumulate(mean_w + width_w)),
        )

    def _predict(self, intensity: Floats, inference: float) -> tuple[Floats, Floats]:
        """Means and half-widths of the intervals, W."""
        basis = _basis(intensity, inference)
        width_w = SIGMA * np.sqrt(self._noise_w2 + _variance(basis, self._covariance))
        return basis @ self._factors, width_w

    def _marks(self) -> tuple[Floats, float]:
        mean_w, width_w = self._predict(_MARKS, 0.0)
        return mean_w, float(np.max(width_w))

    def _tell(self) -> None:
        """Each version makes the controller renew its grants: only a real change is one."""
        (mean_w, width_w), (told_w, told_width_w) = self._marks(), self._told
        moved = np.max(np.abs(mean_w - told_w)) > MOVED_SHARE * self.top_w
        if moved or not told_width_w / 2 < width_w < told_width_w * 2:
            self.version += 1
            self._told = mean_w, width_w


def _basis(intensity: Floats, inference: Floats | float) -> Floats:
    ones = np.ones_like(intensity)
    return np.stack(
        (ones, intensity, intensity**2, inference * ones, inference * intensity), axis=1
    )


def _variance(basis: Floats, covariance: Floats) -> Floats:
    variance: Floats = np.sum((basis @ covariance) * basis, axis=1)
    return variance


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is no number")
    return float(value)
