"""The one sampler of a host: a thread that looks at every GPU some twenty times a second.

    each look     power, energy: one call
    in turns      utilisation 4 times a second, limit, throttling, temperature, clock twice

It costs some microseconds a look; a `GpuSample` is made when somebody asks. All looks are made in
turn by one thread: a card that answers slowly is looked at so seldom that the others keep their
pace, and a lost one every few seconds.
"""

import threading
import time
from collections.abc import Sequence

import structlog

from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.gpu.library import Library
from wattshift_cluster.agent.gpu.sample import GpuSample
from wattshift_cluster.agent.gpu.track import Row, Track, mean_of, sample_of
from wattshift_cluster.bootclock import boot_ns

log = structlog.get_logger()

PERIOD_S = 0.05
KEPT_S = 60.0
RETRY_S = 2.0
"""Between two tries to reach a lost card, or a driver that is gone."""

SLOW_NS = 10_000_000
BACK_OFF = 9
"""A card that took longer than `SLOW_NS` rests so many times as long as it took."""

SILENT_S = 2.0
"""A newest look older than this is no reading: the driver hangs, or the thread starves."""

CLOSE_S = 5.0
"""Longest wait for a call that hangs in the driver; its thread then ends with the process."""


class Sampler:
    """Looks at the cards of one host.

    Attributes:
        cpu_s: processor time that the thread took so far.
        late_s: by how much the last sweep began late.
    """

    def __init__(
        self,
        library: Library,
        cards: Sequence[Card],
        period_s: float = PERIOD_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """Nothing is read yet.

        Args:
            library: NVML, open.
            cards: as they were found.
            period_s: from look to look.
            retry_s: see `RETRY_S`.
        """
        assert 0.005 <= period_s <= 1.0, period_s
        self.cpu_s = 0.0
        self.late_s = 0.0
        self._library = library
        self._period_ns = round(period_s * 1e9)
        self._retry_ns = round(retry_s * 1e9)
        length = round(KEPT_S / period_s)
        self._tracks = {
            card.uuid: Track(card.uuid, length, turn) for turn, card in enumerate(cards)
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what was seen stays readable. The library is the caller's to close."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def latest(self, uuid: str) -> GpuSample | None:
        """The newest look at a card; None before the first, or for a card that is not sampled.

        A look that is too old shows its last time, and nothing else.
        """
        track = self._tracks.get(uuid)
        row = None if track is None else track.latest()
        if row is None:
            return None
        silent_s = (boot_ns() - row[0]) / 1e9
        if row[6] is None and silent_s > max(SILENT_S, 4 * self._period_ns / 1e9):
            return GpuSample(row[0] / 1e9, fault=f"no answer from its driver for {silent_s:.1f} s")
        return sample_of(row)

    def window(self, uuid: str, span_s: float) -> tuple[GpuSample, ...]:
        """The looks of the last `span_s`, at most `KEPT_S`, oldest first."""
        return tuple(sample_of(row) for row in self._rows(uuid, span_s))

    def mean_w(self, uuid: str, span_s: float) -> float | None:
        """Mean draw over the last `span_s`, W: by the energy counter where it is fine enough.

        None is unknown: a card that was not seen for long enough, or whose power is not believed.
        """
        rows = self._rows(uuid, span_s)
        if len(rows) < 2 or rows[-1][0] - rows[0][0] < span_s * 1e9 / 2:
            return None
        return mean_of(rows)

    def _rows(self, uuid: str, span_s: float) -> list[Row]:
        track = self._tracks.get(uuid)
        return [] if track is None else track.since(boot_ns() - round(span_s * 1e9))

    def _run(self) -> None:
        next_ns = now_ns = boot_ns()
        while not self._stop.is_set():
            self.late_s = (now_ns - next_ns) / 1e9
            now_ns = self._sweep(now_ns)
            self.cpu_s = time.thread_time()
            next_ns += self._period_ns
            now_ns = boot_ns()
            if now_ns >= next_ns:  # a sweep that was missed is not made up for
                next_ns = now_ns
            self._stop.wait((next_ns - now_ns) / 1e9)
            now_ns = boot_ns()

    def _sweep(self, now_ns: int) -> int:
        """Look at every card that is due; the time afterwards."""
        library = self._library
        for track in self._tracks.values():
            if now_ns < track.due_ns:
                continue
            if not track.bound:
                track.bind(library, now_ns)
            if track.bound:
                track.look(library, now_ns)
            ended_ns = boot_ns()
            if track.fault is not None:
                # Where somebody else opened the library anew only the handle is void: at once.
                again = track.generation != library.generation
                track.due_ns = ended_ns + (0 if again else self._retry_ns)
            elif ended_ns - now_ns > SLOW_NS:
                track.due_ns = ended_ns + BACK_OFF * (ended_ns - now_ns)
            now_ns = ended_ns
        return now_ns
