"""One load on a user's own service, from what was asked for to its figures."""

import asyncio
import itertools
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.inference.arrivals import (
    BURST_RATIO,
    Arrival,
    bursts,
    from_trace,
    ramped,
    steady,
)
from wattshift_cluster.inference.asking import Model, ModelAsk, PlainAsk
from wattshift_cluster.inference.httplink import HttpLink, web_url
from wattshift_cluster.inference.load_report import OUTCOMES_MAX, Objectives, Tally, figures
from wattshift_cluster.inference.open_loop import Ask, Limits, OpenLoop
from wattshift_cluster.process import stop_event

ARRIVALS = ("poisson", "constant", "burst", "trace")
PROGRESS_S = 5.0
DATA_VARIABLE = "WATTSHIFT_DATA"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When requests are due.

    Attributes:
        kind: one of ARRIVALS.
        rate_per_s: mean rate; None only with a trace, which then keeps its own.
        ramp_per_s: rates at the start and the end in place of one; None without.
        seconds: how long is measured.
        warmup_s: how long is sent before that.
        burst_ratio: rate in a burst over the mean.
        trace, trace_model, speed: a file, which of its models, and how many times faster.
        words: mean length of a text, where no trace tells it.
        words_max: longer prompts of a trace are cut to this.
        seed: of all that is random.
    """

    kind: str = "poisson"
    rate_per_s: float | None = 10.0
    ramp_per_s: tuple[float, float] | None = None
    seconds: float = 30.0
    warmup_s: float = 0.0
    burst_ratio: float = BURST_RATIO
    trace: Path | None = None
    trace_model: str | None = None
    speed: float = 1.0
    words: int = 12
    words_max: int = 4096
    seed: int = 7

    def arrivals(self) -> Iterator[Arrival]:
        """What is due when. Raises ConfigInvalid for a trace that is none."""
        return itertools.islice(self._endless(), OUTCOMES_MAX)

    def _endless(self) -> Iterator[Arrival]:
        rate = self.rate_per_s
        if self.ramp_per_s is not None:
            rate = sum(self.ramp_per_s) / 2
        if self.kind == "trace":
            assert self.trace is not None
            kind = from_trace(
                self.trace,
                rate,
                words_max=self.words_max,
                words=self.words,
                seed=self.seed,
                speed=self.speed,
                model=self.trace_model,
            )
        elif self.kind == "constant":
            assert rate is not None
            kind = steady(rate, words=self.words)
        else:
            assert rate is not None
            ratio = self.burst_ratio if self.kind == "burst" else 1.0
            kind = bursts(rate, self.seed, words=self.words, burst_ratio=ratio)
        if self.ramp_per_s is None:
            return kind
        return ramped(kind, *self.ramp_per_s, self.seconds)


@dataclass(frozen=True, slots=True)
class UserLoad:
    """A load on one URL.

    Attributes:
        url, method, headers: of every request.
        bodies: templates; one may be empty.
        rhythm: when requests are due.
        limits: of the open loop; its time is the rhythm's.
        objectives: what to judge.
        model: how to ask, when the service is an LLM; None for any other.
        certificates: file of the authorities that an https server is verified by.
    """

    url: str = field(repr=False)
    method: str
    bodies: Sequence[bytes] = field(repr=False)
    rhythm: Rhythm
    limits: Limits
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    objectives: Objectives = field(default_factory=Objectives)
    model: Model | None = None
    certificates: Path | None = None

    def told(self) -> dict[str, Any]:
        """What was asked for, for the report. Without a query, which may hold a key."""
        parts = web_url(self.url)
        rhythm = self.rhythm
        return {
            "url": f"{parts.scheme}://{parts.netloc}{parts.path}",
            "method": self.method,
            "model": self.model.name if self.model else None,
            "arrivals": rhythm.kind,
            "trace": None if rhythm.trace is None else rhythm.trace.name,
            "rate_per_s": rhythm.rate_per_s,
            "ramp_per_s": None if rhythm.ramp_per_s is None else list(rhythm.ramp_per_s),
            "warmup_s": rhythm.warmup_s,
            "seed": rhythm.seed,
            "deadline_s": self.limits.deadline_s,
            "in_flight_max": self.limits.in_flight_max,
        }


def located(name: str) -> tuple[Path, str | None]:
    """The file of `FILE` or `FILE#MODEL` and the model; also by name below WATTSHIFT_DATA.

    Raises:
        ConfigInvalid: there is no such file.
    """
    file, _, model = name.partition("#")
    folder = os.environ.get(DATA_VARIABLE)
    places = [Path(file)]
    if folder:
        places += [Path(folder) / file, Path(folder) / "workload" / file]
    for place in places:
        if place.is_file():
            return place, model or None
    hint = "" if folder else f"; {DATA_VARIABLE} names no folder of traces"
    raise ConfigInvalid([Fault(file, "", None, f"no such file{hint}")])


def run(load: UserLoad, told: Callable[[str], None]) -> tuple[dict[str, Any], bool]:
    """Send the load and return its figures, and whether somebody ended it before its time.

    Args:
        load: what to send.
        told: gets a line of progress now and then.

    Raises:
        ConfigInvalid: the trace or the certificates cannot be read.
    """
    tls = None
    if load.certificates is not None:
        try:
            tls = ssl.create_default_context(cafile=load.certificates)
        except OSError as fault:
            place = str(load.certificates)
            raise ConfigInvalid([Fault(place, "", None, f"no certificates: {fault}")]) from fault
    return asyncio.run(_run(load, tls, told))


async def _run(
    load: UserLoad, tls: ssl.SSLContext | None, told: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    stop = stop_event()
    link = HttpLink(load.url, method=load.method, headers=load.headers, tls=tls)
    ask: Ask
    if load.model is not None:
        ask = ModelAsk(link, load.model, load.bodies)
    else:
        ask = PlainAsk(link, load.bodies or (b"",), load.rhythm.seed)
    tally = Tally(load.rhythm.warmup_s)
    loop = OpenLoop(load.rhythm.arrivals(), ask, tally.note, load.limits)
    progress = asyncio.create_task(_progress(tally, loop, told))
    try:
        sent_for_s = await loop.run(stop)
    finally:
        progress.cancel()
        await link.close()
    found: Mapping[str, Any] = figures(tally, sent_for_s, load.objectives, load.told())
    ended = "interrupted" if stop.is_set() else "done"
    return {**found, "in_flight_peak": loop.in_flight_peak, "ended": ended}, stop.is_set()


async def _progress(tally: Tally, loop: OpenLoop, told: Callable[[str], None]) -> None:
    for turn in itertools.count(1):
        await asyncio.sleep(PROGRESS_S)
        p95_ms = tally.recent_p95_ms()
        recent = "" if p95_ms is None else f", recent p95 {p95_ms:.0f} ms"
        warming = " (warming up)" if tally.due == 0 and tally.warmed_up else ""
        told(
            f"{turn * PROGRESS_S:.0f} s{warming}: {tally.due} due, {tally.answered} answered, "
            f"{tally.failed} failed, {loop.in_flight} under way{recent}"
        )
