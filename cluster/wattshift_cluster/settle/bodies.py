"""What the lines of each kind hold: made here by whoever logs, and read here by whoever settles.

JSON knows no NaN: an unknown figure is null in the log.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wattshift_cluster.settle.intervals import QUALITIES
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.signals.words import GridEvent

SITE = "site"
"""Source of the site meter's samples; a feeder's meter logs under the feeder's name."""


@dataclass(frozen=True, slots=True)
class MeterBatch:
    """Samples of one meter, a few at a time.

    Attributes:
        source: SITE, or the feeder's name.
        quality: "measured", "emulated" or "modelled".
        offset_s: the meter's clock less ours, s; NaN: unknown.
        samples: (unix time by our clock, s; W, NaN: the meter did not know).
        counter: (unix time by our clock, s; its counter of imported energy, Wh); empty: it told of
            none.
    """

    source: str
    quality: str
    offset_s: float
    samples: Sequence[tuple[float, float]]
    counter: Sequence[tuple[float, float]] = ()

    def body(self) -> dict[str, Any]:
        """The body of a line of kind METER."""
        told = [[at_s, energy_wh] for at_s, energy_wh in self.counter]
        return {
            "source": self.source,
            "quality": self.quality,
            "offset_s": _told(self.offset_s),
            "samples": [[at_s, _told(watts_w)] for at_s, watts_w in self.samples],
            **({"counter": told} if told else {}),
        }

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "MeterBatch":
        """Raises: ValueError, KeyError, TypeError: not such a body."""
        if body["quality"] not in QUALITIES:
            raise ValueError(f"quality is not one of {', '.join(QUALITIES)}")
        samples = [(float(at_s), _known(watts_w)) for at_s, watts_w in body["samples"]]
        counter = [(float(at_s), float(energy_wh)) for at_s, energy_wh in body.get("counter", ())]
        offset_s = _known(body["offset_s"])
        return cls(str(body["source"]), body["quality"], offset_s, samples, counter)


@dataclass(frozen=True, slots=True)
class Held:
    """What held from this moment on: the effective cap with its origin, and the plan.

    Attributes:
        cap_w, origin: the effective cap and where it comes from; NaN: none.
        site_w: what the site was planned to draw, all leases and the rest; NaN: not known.
    """

    cap_w: float
    origin: str
    site_w: float

    def cap_body(self) -> dict[str, Any]:
        """The body of a line of kind CAP."""
        return {"cap_w": _told(self.cap_w), "origin": self.origin}

    def plan_body(self) -> dict[str, Any]:
        """The body of a line of kind PLAN."""
        return {"site_w": _told(self.site_w)}


@dataclass(frozen=True, slots=True)
class Used:
    """What one device or tenant used in a span: J, NaN unknown; what mining came to, USD."""

    energy_j: float
    mining_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class EnergyOf:
    """Energy by device (kind DEVICES), or of compute by tenant (kind TENANTS), over a span.

    Attributes:
        from_s, to_s: unix times, s; spans of one kind follow each other.
        rows: by device or tenant.
    """

    from_s: float
    to_s: float
    rows: Mapping[str, Used]

    def body(self) -> dict[str, Any]:
        """The body of a line."""
        rows = {name: [_told(one.energy_j), one.mining_usd] for name, one in self.rows.items()}
        return {"from_s": self.from_s, "to_s": self.to_s, "rows": rows}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "EnergyOf":
        """Raises: ValueError, KeyError, TypeError: not such a body."""
        rows = {
            str(name): Used(_known(energy_j), float(usd))
            for name, (energy_j, usd) in body["rows"].items()
        }
        return cls(float(body["from_s"]), float(body["to_s"]), rows)


def event_body(event: GridEvent) -> dict[str, Any]:
    """The body of a line of kind EVENT."""
    return {**asdict(event), "commitment_w": _told(event.commitment_w)}


def event_of(body: Mapping[str, Any]) -> GridEvent:
    """The event of a body. Raises: ValueError, KeyError, TypeError, SiteInvalid."""
    return GridEvent(**{**body, "commitment_w": _known(body["commitment_w"])})


def decision_body(one: Decision) -> dict[str, Any]:
    """The body of a line of kind DECISION."""
    inputs = {k: _told(v) if isinstance(v, float) else v for k, v in one.inputs.items()}
    return {"subject": one.subject, "action": one.action, "reason": one.reason, "inputs": inputs}


def _told(figure: float) -> float | None:
    return float(figure) if math.isfinite(figure) else None


def _known(figure: Any) -> float:
    return math.nan if figure is None else float(figure)
