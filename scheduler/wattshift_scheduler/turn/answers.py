"""What agents say by the hundred, readings and answers to grants: a run of them is folded at once.

In a run no device is read twice, nor answered for after it was read, so that all answers can be
folded together and then all readings: each column is written once. Whatever else comes ends a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wattshift_scheduler import events as ev
from wattshift_scheduler import leases
from wattshift_scheduler.arrays import Bools, Floats, Ints, Rows, rows_of
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.state import Agent, State
from wattshift_scheduler.tables import EMPTY, Tables


def read(state: State, event: ev.Readings, now_s: float) -> State:
    """Fold the readings of one event; the columns are copied."""
    columns = state.fleet.columns_of(event.devices)
    state, _ = _read(state, [event], columns, now_s, ours=False)
    return _with_tables(state, [(event, columns)])


def replied(state: State, event: ev.LeasesReplied, now_s: float) -> State:
    """Fold one answer; the columns are copied."""
    columns = state.fleet.columns_of(event.devices)
    state, _ = _answered(state, [event], columns, now_s, ours=False)
    return state.ended(event.command)


def refused(event: ev.LeasesReplied, now_s: float) -> tuple[Decision, ...]:
    """The leases that an agent has refused."""
    if event.accepted.all():
        return ()
    return tuple(
        Decision(now_s, device, "refused", f"its agent refused a lease: {reason}", {})
        for device, ok, reason in zip(event.devices, event.accepted, event.reasons, strict=True)
        if not ok
    )


def rebooted(before: Agent | None, event: ev.AgentSeen) -> bool:
    """Whether all that an agent held is gone."""
    return before is not None and before.boot_id != event.boot_id


def back(before: Agent | None, event: ev.AgentSeen, now_s: float) -> tuple[Decision, ...]:
    """That an agent which was lost answers again."""
    if before is None or not before.lost:
        return ()
    return (Decision(now_s, event.agent, "back", "it answers again", {}),)


@dataclass(slots=True)
class Run:
    """Events that can be folded at once. It is used once.

    Attributes:
        fleet: whose devices they are of.
        read, answered: events, and the columns of their devices; -1 for one that is not there.
        is_read: devices that are read, and last, never set, what is not there; shape (n + 1,).
        agents: what agents have said of their boots.
    """

    fleet: Fleet
    read: list[tuple[ev.Readings, Ints]] = field(default_factory=list)
    answered: list[tuple[ev.LeasesReplied, Ints]] = field(default_factory=list)
    is_read: Bools = field(init=False)
    agents: dict[str, Agent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.is_read = np.zeros(len(self.fleet) + 1, dtype=np.bool_)

    def takes(self, event: ev.Readings | ev.LeasesReplied) -> bool:
        """Add an event, unless the run has to be folded before it."""
        columns = self.fleet.columns_of(event.devices)
        if self.is_read[columns].any():
            return False
        if isinstance(event, ev.LeasesReplied):
            # Of two answers for one device the one to its newest lease counts, wherever it stands.
            assert len(event.sequence) == len(event.accepted) == len(columns)
            self.answered.append((event, columns))
            return True
        assert len(event.at_s) == len(event.watts_w) == len(event.failed) == len(columns)
        self.read.append((event, columns))
        self.is_read[columns], self.is_read[-1] = True, False
        return True

    def folded(self, state: State, now_s: float) -> tuple[State, list[Ints]]:
        """Fold the run into the state, whose ledger and telemetry are the caller's alone; and the
        rows of these that may have changed."""
        rows: list[Ints] = []
        if self.agents:
            state = replace(state, agents={**state.agents, **self.agents})
        if self.answered:
            answers, columns = zip(*self.answered, strict=True)
            state, at = _answered(state, answers, np.concatenate(columns), now_s, ours=True)
            state = state.ended(*(one.command for one in answers))
            rows.append(at)
        if self.read:
            readings, columns = zip(*self.read, strict=True)
            state, at = _read(state, readings, np.concatenate(columns), now_s, ours=True)
            state = _with_tables(state, self.read)
            rows.append(at)
        return state, rows


def _joined(events: Sequence[Any], name: str, rows: Rows) -> Any:
    """Some rows of a column of all events."""
    columns = [getattr(one, name) for one in events]
    return (columns[0] if len(columns) == 1 else np.concatenate(columns))[rows]


def _placed(columns: Ints) -> tuple[Rows, Rows, Ints]:
    """Where events tell of devices that are in the fleet, and the columns of those: once for
    indexing, once as numbers."""
    at = rows_of(columns)
    if at is not None:
        return slice(None), at, columns
    rows = np.flatnonzero(columns >= 0)
    known = columns[rows]
    at = rows_of(known)
    return rows, known if at is None else at, known


def _answered(
    state: State,
    events: Sequence[ev.LeasesReplied],
    columns: Ints,
    now_s: float,
    *,
    ours: bool,
) -> tuple[State, Ints]:
    """The state after answers, and the columns of their devices.

    Args:
        columns: of the events' devices, -1 for one that is not in the fleet.
        ours: the ledger is private to the caller, who notes which rows have changed.
    """
    rows, at, known = _placed(columns)
    sequence, accepted = _joined(events, "sequence", rows), _joined(events, "accepted", rows)
    ledger = leases.answered(state.ledger, known, sequence, accepted, now_s, ours=ours)
    stale_s = state.site.rules.stale_after_s
    ledger = leases.confirm(state.fleet, ledger, state.seen, now_s, stale_s, at, ours=ours)
    return state if ours else state.touched(known, ledger=ledger), known


def _read(
    state: State, events: Sequence[ev.Readings], columns: Ints, now_s: float, *, ours: bool
) -> tuple[State, Ints]:
    """The state after readings; args as for `_answered`, but telemetry is private, too."""
    rows, at, known = _placed(columns)
    seen = state.seen if ours else leases.private_telemetry(state.seen)
    failed = _joined(events, "failed", rows)
    # A failed read keeps the time of the last good sample, so that its age is told truly.
    at_s, foreign = _joined(events, "at_s", rows), _joined(events, "foreign", rows)
    if failed.any():
        good = ~failed
        seen.at_s[known[good]] = at_s[good]
        # Nor does it clear what somebody else has written: nobody has looked.
        foreign = foreign | (seen.foreign[at] & failed)
    else:
        seen.at_s[at] = at_s
    seen.foreign[at], seen.failed[at] = foreign, failed
    for name in ("watts_w", "limit_w", "hashrate_h_per_s"):
        getattr(seen, name)[at] = _joined(events, name, rows)
    ledger = state.ledger
    if (ledger.point[at] < 0).any():
        modes = [mode for one in events for mode in one.held_mode]
        told = np.arange(len(columns))[rows].tolist()
        point = _held_points(state.fleet, known, [modes[i] for i in told])
        held_w = _joined(events, "held_w", rows)
        ledger = leases.adopted(ledger, known, point, held_w, now_s)
    stale_s = state.site.rules.stale_after_s
    ledger = leases.confirm(state.fleet, ledger, seen, now_s, stale_s, at, ours=ours)
    if ledger is not state.ledger or seen is not state.seen:
        state = state.touched(known, ledger=ledger, seen=seen)
    return state, known


def _held_points(fleet: Fleet, columns: Ints, modes: list[str]) -> Ints:
    """Operating points by name; -1 for a name that the device does not offer."""
    found = [
        0
        if mode == EMPTY
        else next((i for i, p in enumerate(fleet.devices[c].points) if p.mode == mode), -1)
        for c, mode in zip(columns.tolist(), modes, strict=True)
    ]
    return np.array(found, dtype=np.int64)


def _with_tables(state: State, told: Sequence[tuple[ev.Readings, Ints]]) -> State:
    """What is held of cards' memory; most events are of devices that have no table."""
    if not state.fleet.table_bytes.any():
        return state
    tables = state.tables
    for event, columns in told:
        rows, _, known = _placed(columns)
        if state.fleet.table_bytes[known].any():
            tables = _tables(tables, event, known, rows)
    return state if tables is state.tables else replace(state, tables=tables)


def _tables(tables: Tables, event: ev.Readings, known: Ints, rows: Rows) -> Tables:
    unknown: Floats = np.full(len(event.devices), np.nan)
    held = unknown if event.table_held_bytes is None else event.table_held_bytes
    clients = unknown if event.clients is None else event.clients
    return tables.read(known, event.at_s[rows], held[rows], clients[rows])
