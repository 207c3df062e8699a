"""Keeps what sources say in the journal, and gives a new controller what they said last."""

from collections.abc import Iterable, Sequence

from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.kept_signals import Kept, sorted_out, told
from wattshift_scheduler import events as ev
from wattshift_scheduler.decisions import Decision


class SignalBook:
    """The signals of one site, on disk.

    Attributes:
        signals: what a controller starts with.
    """

    def __init__(self, journal: Journal, named: Sequence[str]) -> None:
        """Read the journal; sources that the site file does not name any more are left out."""
        self._journal = journal
        self._named = frozenset(named)
        kept = journal.signals()
        self.signals, self._gone = sorted_out(kept, named)
        self._told = {name: told(one.word) for name, one in kept.items() if name not in self._gone}

    def dropped(self, now_s: float) -> tuple[Decision, ...]:
        """Forget the sources that were left out; a decision for each."""
        if self._gone:
            empty = (Kept(ev.SignalChanged(name), fed=True) for name in self._gone)
            self._journal.keep_signals(empty)
        words = "the site file does not name {} any more: what it said is dropped"
        return tuple(Decision(now_s, "site", "dropped", words.format(n), {}) for n in self._gone)

    def turned(self, events: Iterable[ev.Event]) -> bool:
        """Write down what has changed, soon and in order; whether any source has spoken."""
        words = {one.source: one for one in events if isinstance(one, ev.SignalChanged)}
        nothing = told(ev.SignalChanged(""))
        new = [w for name, w in words.items() if told(w) != self._told.get(name, nothing)]
        if new:
            self._told.update({word.source: told(word) for word in new})
            self._journal.keep_signals(Kept(w, fed=w.source in self._named) for w in new)
        return bool(words)
