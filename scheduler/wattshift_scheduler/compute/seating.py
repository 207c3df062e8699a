"""Every job takes its seat in a division: sized, with its place in line and with what it holds.

A long queue is seated anew in each pass, so what jobs have in common is looked up once for all of
their kin.
"""

from collections.abc import Iterable, Sequence

from wattshift_scheduler.compute import demand, ranking
from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.feasible import Feasible
from wattshift_scheduler.compute.seats import NOWHERE, Seat
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.site import Rules

Sized = tuple[Job, Job, int]
"""A job as it was, sized as of now, and the units that it could use."""


def sized(jobs: Iterable[Job], rules: Rules, now_s: float) -> list[Sized]:
    """Every job sized: a service by its load, batch as it is."""
    found: list[Sized] = []
    for before in jobs:
        job = demand.sized(before, rules, now_s) if before.kind is JobKind.SERVICE else before
        found.append((before, job, demand.units(job)))
    return found


def seated(board: Board, jobs: Sequence[Sized]) -> list[Seat]:
    """Seats of all jobs, in their order, with what they hold on the board already."""
    feasible, rules, now_s = Feasible(board.ground), board.ground.site.rules, board.ground.now_s
    seats = []
    for before, job, wanted in jobs:
        kin, unit_w = board.kin(job), job.unit_w
        points = ranking.effective(job, rules, now_s)
        order = ranking.order(job, points, now_s)
        seat = Seat(job, kin, wanted, points, order, unit_w, unit_w, NOWHERE)
        seats.append(seat)
        if job.began_s is not None:
            seat.young = ranking.young(job, now_s)
        if before.units:
            if ranking.holds(job):
                for row, units in _held(board, before, wanted).items():
                    board.put(seat, row, units)
                seat.kept = dict(seat.at)
        elif (
            (unit_w > kin.feasible_w or job.terms.gang)
            and before.state is JobState.PENDING
            and not before.done
        ):
            # What has run once is never given up: the node that it needs may come back.
            seat.refused = feasible.refusal(job)
            if seat.refused is None:
                kin.feasible_w = max(unit_w, kin.feasible_w)
    return seats


def _held(board: Board, job: Job, wanted: int) -> dict[int, int]:
    """Where a job's units are: where they hold watts and were asked for, then where else they hold
    watts, then where they were asked for and are still to come.

    No more than were asked for: what is beyond that is on its way out.
    """
    left = min(job.units, wanted)
    seen, plan = job.by_node or {}, job.nodes
    if not seen and not plan and len(board.names) == 1:
        return {0: left} if left else {}
    if seen == plan and sum(seen.values()) == left and board.row.keys() >= seen.keys():
        return {board.row[name]: units for name, units in sorted(seen.items()) if units > 0}
    up = board.up if any(board.up) else [True] * len(board.names)
    claims = [(name, min(units, plan.get(name, 0))) for name, units in sorted(seen.items())]
    claims += [(name, units - plan.get(name, 0)) for name, units in sorted(seen.items())]
    claims += [
        (name, units - seen.get(name, 0))
        for name, units in sorted(plan.items())
        if name in board.row and up[board.row[name]]
    ]
    held: dict[int, int] = {}
    for name, units in claims:
        count = min(units, left)
        if count > 0 and name in board.row:
            held[board.row[name]] = held.get(board.row[name], 0) + count
            left -= count
    return held
