"""Which compute runs where: the watts of all nodes divided between all jobs, under the feeder tree.

    jobs ─▶ sized ─▶ what they hold ─▶ rest what is too dear ─▶ shed what no longer fits
         ─▶ fill what is free ─▶ verdicts

What runs stays where it runs, because Ray cannot move it. The answer for each job is one of four
ordered verdicts with its reason: deny (it can never run here), defer (not now), after_shedding (as
soon as others have given up the watts), fit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from wattshift_scheduler.compute import seating
from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.filling import fill
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.resting import rest
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.shedding import shed
from wattshift_scheduler.compute.tenants import Shares
from wattshift_scheduler.compute.verdicts import Judge
from wattshift_scheduler.jobs import Admission, Job, Verdict


@dataclass(frozen=True, slots=True)
class Placed:
    """What one job gets.

    Attributes:
        job: the job, sized as of now.
        units: how many units it should run.
        nodes: on which nodes; they add up to `units`.
        unit_limit_w: power limit of one unit, W; None for none.
        verdict: why.
    """

    job: Job
    units: int
    nodes: Mapping[str, int]
    unit_limit_w: float | None
    verdict: Verdict

    @property
    def admission(self) -> Admission:
        """The ordered result of the verdict."""
        return self.verdict.admission

    @property
    def reason(self) -> str:
        """The words of the verdict."""
        return self.verdict.words


@dataclass(frozen=True, slots=True)
class Placement:
    """What every node should run.

    Attributes:
        placed: one per job, services first, in the order in which they were served.
        target_w: watts that each node should hold for it in Ray, W.
    """

    placed: tuple[Placed, ...]
    target_w: Mapping[str, float]

    def load_w(self) -> dict[str, float]:
        """The most that the work may draw on each node once its power limits hold, W."""
        total = dict.fromkeys(self.target_w, 0.0)
        for one in self.placed:
            if not one.units:
                continue
            unit_w = one.job.unit_w if one.unit_limit_w is None else one.unit_limit_w
            for node, units in one.nodes.items():
                total[node] += units * unit_w
        return total


def place(ground: Ground, jobs: Iterable[Job]) -> Placement:
    """Divide the watts of every node between the jobs that want to run.

    Args:
        ground: nodes, feeders, tenants, caps and the time.
        jobs: services and batch jobs that are not final.
    """
    now_s = ground.now_s
    sized = seating.sized(jobs, ground.site.rules, now_s)
    shares = Shares(
        ground.site.tenants,
        {job.terms.tenant for _, job, _ in sized},
        {job.terms.tenant for _, job, wanted in sized if wanted},
        _total_w(ground),
    )
    board = Board(ground, shares)
    seats = seating.seated(board, sized)
    board.displacing.begin()
    rest(board, seats)
    shed(board, seats)
    fill(board, seats, now_s)
    seats.sort(key=attrgetter("order"))
    judge = Judge(board, seats)
    placed = tuple([_placed(board, judge, seat) for seat in seats])
    return Placement(placed, _targets(board, seats))


def _total_w(ground: Ground) -> float:
    """Watts that compute can have, W: what the root lets through to the nodes that answer."""
    powers = ground.powers
    nodes_w = sum(node.max_w for node in ground.site.nodes if powers[node.name].up)
    return min(nodes_w, float(ground.room_w[0]))


def _placed(board: Board, judge: Judge, seat: Seat) -> Placed:
    job, verdict = _gave_way(seat), judge.verdict(seat)
    if not seat.units:
        if seat.kept and not seat.kin.service:
            # It waits from now on: what it had waited before was paid for by its run.
            job = job.changed(not_before_s=board.ground.now_s)
        return Placed(job, 0, _NO_NODES, None, verdict)
    nodes = {board.names[row]: seat.at[row] for row in sorted(seat.at)}
    return Placed(job, seat.units, nodes, seat.limit_w, verdict)


_NO_NODES: Mapping[str, int] = {}


def _gave_way(seat: Seat) -> Job:
    """The job, with to whom it gave units for which it waits, until it holds all that it wants: to
    be given them is not enough, for it may wait for work that leaves."""
    job, to = seat.job, seat.job.gave_way_to
    if seat.gave_way is not None:
        to = seat.gave_way.id
    if seat.units >= seat.wanted and sum(seat.kept.values()) >= seat.wanted:
        to = ""
    return job if to == job.gave_way_to else job.changed(gave_way_to=to)


def _targets(board: Board, seats: Iterable[Seat]) -> dict[str, float]:
    target_w = dict.fromkeys(board.names, 0.0)
    for seat in seats:
        if seat.units:
            for row, units in seat.at.items():
                target_w[board.names[row]] += units * seat.unit_w
    return target_w
