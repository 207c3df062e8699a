"""Watts of a service's replicas, learnt from the sensors of the GPUs whose gates they mark.

Its owner gave the most (`watts_per_replica`) and let it be learnt (`learn_watts`). What is learnt
is a bound and no mean: a high quantile of what a replica drew while it had requests, and a
tolerance. It is lowered late and raised at once.

What replicas hold in Ray is fixed when they are deployed, so the core puts a figure to use when
none runs. Where replicas hold less than what is learnt since, the difference counts as draw that
nobody asked for, at their node and its feeders (I1).
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wattshift_cluster.controller import replica_samples
from wattshift_cluster.controller.replica_samples import Sample, Untaught
from wattshift_cluster.controller.roster import Roster
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.state import State

QUANTILE = 0.99
"""Of an hour's samples 36 lie above it: spikes of a second, which the tolerance covers."""

TOLERANCE = 0.10
"""On top of the quantile: 5 % that a card's sensor may be off, by its maker's word, and as much
again for what the window has not seen. The share of the host is not in it: no card's sensor has
that, so it belongs into the node's `idle`."""

WINDOW_S = 3600.0
"""An older sample says little of the load of today; a peak comes back within an hour or raises."""

SAMPLES_MAX = 3600
"""One a second for as long as the window."""

SAMPLES_MIN = 600
SPAN_MIN_S = 1800.0
"""Before anything is lowered: ten minutes' worth of samples with load, over half an hour, so that
neither one burst nor one quiet stretch decides."""

HELD_S = 6 * 3600.0
"""After a rise nothing is lowered for so long: a load that was forgotten once comes again."""

MOVES_SHARE = 0.02
"""A figure that would move by less stays: every change is a decision in the journal."""

WEIGH_S = 60.0
"""How often the window is weighed for lowering; a rise needs no weighing."""

LOOK_S = 1.0
SETTLED_S = 3.0
"""After replicas came, went or moved: cards are sampled twice a second, agents asked once a second,
and what a card shows is an average of its last second."""

LEAST_W = 1.0
"""Ray is asked for no less: a replica without watts would be work that asked for none."""

SERVICES_MAX = 256
"""Windows that are kept: a hundred kilobytes each. Services beyond that learn nothing."""

Row = Mapping[str, Any]


@dataclass(slots=True)
class Window:
    """What was seen of one service.

    Attributes:
        held_until_s: nothing is lowered before that.
        busy: samples with requests in progress: when and W.
        idle_w: the most that a replica drew without any, W.
        quality: the worst of the sensors' so far.
        layout: replicas by node and gates, and since when they are so.
        read_s: when the last sample of each node was read.
        weighed_s: when it was last weighed.
        note: why nothing is learnt now, or how far it is; empty if a figure is known.
    """

    held_until_s: float
    busy: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    idle_w: float = 0.0
    quality: str = "measured"
    layout: tuple[Any, float] = (None, 0.0)
    read_s: dict[str, float] = field(default_factory=dict)
    weighed_s: float = -np.inf
    note: str = ""

    def bound_w(self) -> float:
        """The most that a replica draws, by all samples of the window, W."""
        quantile_w = float(np.quantile([watts_w for _, watts_w in self.busy], QUANTILE))
        return max(quantile_w * (1.0 + TOLERANCE), self.idle_w, LEAST_W)

    def ripe(self) -> bool:
        """Whether there is enough in it to lower anything."""
        return len(self.busy) >= SAMPLES_MIN and self.span_s() >= SPAN_MIN_S

    def span_s(self) -> float:
        """Time between its first and last sample, s."""
        return self.busy[-1][0] - self.busy[0][0] if self.busy else 0.0


class ReplicaWatts:
    """Looks at reports and readings once a second; speaks to the core through events."""

    def __init__(self, roster: Roster, report: Callable[[], Row]) -> None:
        """Args: roster: the agents' last readings. report: the bridge's last report."""
        self._roster, self._report = roster, report
        self._windows: dict[str, Window] = {}
        self._looked_s = -np.inf
        self._unasked_w: dict[str, float] = {}
        self._counted: set[str] = set()

    def note(self, job: str) -> str:
        """Why nothing is learnt of a service, or how far that is; empty if all is said."""
        window = self._windows.get(job)
        return "" if window is None else window.note

    def heard(self, events: Iterable[ev.Event], state: State, now_s: float) -> list[ev.Event]:
        """The events of a turn, with what replicas draw beyond what they hold counted at their
        nodes, and with what is learnt."""
        over = _over(state)
        told = [
            self._beyond(one, over.get(one.node, {})) if isinstance(one, ev.ComputeSeen) else one
            for one in events
        ]
        return [*told, *self._look(state, now_s)]

    def _beyond(self, seen: ev.ComputeSeen, over: Mapping[str, float]) -> ev.ComputeSeen:
        if seen.unasked_w is not None:
            self._unasked_w[seen.node] = seen.unasked_w
        # A silent meter leaves the core at what it was last told, and that is to go up and down.
        known_w = self._unasked_w.get(seen.node, 0.0)
        if not over:
            silent = seen.unasked_w is None and seen.node in self._counted
            self._counted.discard(seen.node)
            return replace(seen, unasked_w=known_w) if silent else seen
        self._counted.add(seen.node)
        words = tuple(
            f"{job}: replicas draw {watts_w:,.0f} W above what they hold"
            for job, watts_w in over.items()
        )
        unasked_w = known_w + sum(over.values())
        return replace(seen, unasked_w=unasked_w, unasked=(*words, *seen.unasked))

    def _look(self, state: State, now_s: float) -> list[ev.Event]:
        if now_s - self._looked_s < LOOK_S:
            return []
        self._looked_s = now_s
        jobs = [
            job
            for job in state.jobs.values()
            if job.kind is JobKind.SERVICE and job.spec.get("learn_watts") and not job.state.final
        ]
        windows = {job.id: self._window(job, now_s) for job in jobs[:SERVICES_MAX]}
        self._windows = windows
        rows = {str(row.get("name")): row for row in self._report().get("services", ())}
        found: list[ev.Event] = []
        for job in jobs[:SERVICES_MAX]:
            event = self._service(state, job, windows[job.id], rows, now_s)
            found += [] if event is None else [event]
        return found

    def _window(self, job: Job, now_s: float) -> Window:
        """Its window; a new one after a restart lowers no sooner than after a rise."""
        known = self._windows.get(job.id)
        return known or Window(now_s + HELD_S if job.learnt else -np.inf)

    def _service(
        self, state: State, job: Job, window: Window, rows: Mapping[str, Row], now_s: float
    ) -> ev.UnitsLearnt | None:
        try:
            samples = self._samples(state, job, window, rows, now_s)
        except Untaught as why:
            window.note = str(why)
        else:
            limited = any(job.id in node.limits for node in state.nodes.values())
            self._keep(window, samples, rows[job.id], limited, now_s)
            window.note = _progress(job, window, samples)
            event = _learnt(job, window, samples, now_s)
            if event is not None:
                return event
        waits = job.learnt is not None and job.unit_w != job.learnt.unit_w and not job.units
        return _again(job) if waits else None

    def _keep(
        self, window: Window, samples: Sequence[Sample], row: Row, limited: bool, now_s: float
    ) -> None:
        told = [row.get(key) for key in ("ongoing", "queued")]
        waiting = [float(count) for count in told if count is not None]
        for one in samples:
            if one.quality != "measured":
                window.quality = one.quality
            # Under a power limit a replica draws less than it could: that lowers nothing.
            if not limited and waiting and sum(waiting) > 0:
                window.busy.append((one.read_s, one.watts_w))
            elif waiting and not sum(waiting):
                window.idle_w = max(window.idle_w, one.watts_w)
        while window.busy and window.busy[0][0] < now_s - WINDOW_S:
            window.busy.popleft()

    def _samples(
        self, state: State, job: Job, window: Window, rows: Mapping[str, Row], now_s: float
    ) -> list[Sample]:
        """A sample of each node whose cards were read anew. Raises: Untaught."""
        row = rows.get(job.id, {})
        held = {str(node): int(units) for node, units in (row.get("by_node") or {}).items()}
        held = {node: units for node, units in held.items() if units > 0}
        if not held:
            raise Untaught("no replica runs")
        asks_w = row.get("unit_w")
        if isinstance(asks_w, int | float) and abs(asks_w - job.unit_w) > 0.5:
            raise Untaught("its application asks Ray for watts of its own")
        gates = frozenset(map(str, row.get("gates") or ()))
        layout = (held, gates)
        if window.layout[0] != layout:
            window.layout = (layout, now_s)
        cards = {node: replica_samples.cards(state, node, gates) for node in held}
        if any(not found for found in cards.values()):
            raise Untaught("no sensor covers its replicas")
        replica_samples.alone(gates, job.id, rows)
        if int(row.get("running") or 0) != sum(held.values()):
            raise Untaught("replicas come or go")
        found = [
            replica_samples.sample(state, self._roster, job, cards[node], units, now_s)
            for node, units in held.items()
        ]
        since_s = window.layout[1] + SETTLED_S
        new = []
        for node, one in zip(held, found, strict=True):
            if one.read_s > max(window.read_s.get(node, -np.inf), since_s):
                window.read_s[node] = one.read_s
                new.append(one)
        return new


def _over(state: State) -> dict[str, dict[str, float]]:
    """What replicas may draw beyond what they hold in Ray, by node and service, W."""
    found: dict[str, dict[str, float]] = {}
    for job in state.jobs.values():
        if job.learnt is None or job.learnt.unit_w <= job.unit_w:
            continue
        for node, units in (job.by_node or {}).items():
            if units > 0:
                found.setdefault(node, {})[job.id] = units * (job.learnt.unit_w - job.unit_w)
    return found


def _learnt(
    job: Job, window: Window, samples: Sequence[Sample], now_s: float
) -> ev.UnitsLearnt | None:
    """The figure as of now, where it moves."""
    given_w = job.unit_w if job.learnt is None else job.learnt.given_w
    before_w = given_w if job.learnt is None else job.learnt.unit_w
    hottest_w = max((one.watts_w for one in samples), default=0.0)
    if job.learnt is not None and hottest_w > before_w and before_w < given_w:
        window.held_until_s = now_s + HELD_S
        return _event(job, window, min(hottest_w * (1.0 + TOLERANCE), given_w), now_s)
    if now_s < window.held_until_s or now_s - window.weighed_s < WEIGH_S or not window.ripe():
        return None
    window.weighed_s = now_s
    unit_w = min(window.bound_w(), given_w)
    moves = abs(unit_w - before_w) > MOVES_SHARE * before_w
    return _event(job, window, unit_w, now_s) if moves else None


def _event(job: Job, window: Window, unit_w: float, now_s: float) -> ev.UnitsLearnt:
    since_s = window.busy[0][0] if window.busy else now_s
    # Ray keeps resources to four decimals: a tenth of a watt, upwards, is the same on both sides.
    unit_w = math.ceil(unit_w * 10.0 - 1e-6) / 10.0
    return ev.UnitsLearnt(job.id, unit_w, window.quality, max(len(window.busy), 1), since_s)


def _again(job: Job) -> ev.UnitsLearnt:
    """What is learnt and waits to be put to use, said again."""
    known = job.learnt
    assert known is not None, "asked only where something is learnt"
    return ev.UnitsLearnt(job.id, known.unit_w, known.quality, known.samples, known.since_s)


def _progress(job: Job, window: Window, samples: Sequence[Sample]) -> str:
    given_w = job.unit_w if job.learnt is None else job.learnt.given_w
    hottest_w = max((one.watts_w for one in samples), default=0.0)
    if hottest_w > given_w:
        return f"a replica draws {hottest_w:,.0f} W, more than was given: submit it with more"
    if job.learnt is not None or window.ripe():
        return ""
    minutes = window.span_s() / 60.0
    return (
        f"{len(window.busy)} samples under load over {minutes:.0f} min;"
        f" {SAMPLES_MIN} over {SPAN_MIN_S / 60.0:.0f} min are needed"
    )
