"""Which compute runs where: the watts of all nodes divided between all jobs, under the feeder tree.

    jobs ─▶ sized ─▶ what they hold ─▶ shed what no longer fits ─▶ fill what is free ─▶ verdicts

What runs stays where it runs, because Ray cannot move it. The answer for each job is one of four
ordered verdicts with its reason: deny (it can never run here), defer (not now), after_shedding (as
soon as others have given up the watts), fit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wattshift_scheduler.compute import demand, ranking
from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.copies import changed
from wattshift_scheduler.compute.feasible import Feasible
from wattshift_scheduler.compute.filling import fill
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.seats import NOWHERE, Seat
from wattshift_scheduler.compute.shedding import shed
from wattshift_scheduler.compute.tenants import Shares
from wattshift_scheduler.compute.verdicts import Judge
from wattshift_scheduler.jobs import Admission, Job, JobState, Verdict


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
    rules, now_s = ground.site.rules, ground.now_s
    pairs = [(job, demand.sized(job, rules, now_s)) for job in jobs]
    wanted = [demand.units(job) for _, job in pairs]
    shares = Shares(
        ground.site.tenants,
        {job.terms.tenant for job, _ in pairs},
        {job.terms.tenant for (_, job), units in zip(pairs, wanted, strict=True) if units},
        _total_w(ground),
    )
    board, feasible = Board(ground, shares), Feasible(ground)
    seats = [
        _seated(board, feasible, before, job, units)
        for (before, job), units in zip(pairs, wanted, strict=True)
    ]
    shed(board, seats)
    fill(board, seats, now_s)
    seats.sort(key=_served)
    judge = Judge(board, seats)
    placed = tuple([_placed(board, judge, seat) for seat in seats])
    return Placement(placed, _targets(board, seats))


def _served(seat: Seat) -> tuple[bool, int, tuple[float, float, float, str]]:
    """In which order jobs are served, services first."""
    return (not seat.kin.service, -seat.points, seat.order)


def _total_w(ground: Ground) -> float:
    """Watts that compute can have, W: what the root lets through to the nodes that answer."""
    powers = ground.powers
    nodes_w = sum(node.max_w for node in ground.site.nodes if powers[node.name].up)
    return min(nodes_w, float(ground.room_w[0]))


def _seated(board: Board, feasible: Feasible, before: Job, job: Job, wanted: int) -> Seat:
    """A job with what it holds already, or with the reason why it can never run."""
    rules, now_s = board.ground.site.rules, board.ground.now_s
    unit_w = job.unit_w
    seat = Seat(
        job,
        board.kin(job),
        wanted,
        ranking.effective(job, rules, now_s),
        ranking.order(job, now_s),
        unit_w,
        unit_w,
        NOWHERE,
        job.began_s is not None and ranking.young(job, now_s),
    )
    if not before.units:
        if before.state is JobState.PENDING and not before.done:
            # What has run once is never given up: the node that it needs may come back.
            seat.refused = feasible.refusal(job)
    elif ranking.holds(job):
        for row, units in _held(board, before, wanted).items():
            board.put(seat, row, units)
        seat.kept = dict(seat.at)
    return seat


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


def _placed(board: Board, judge: Judge, seat: Seat) -> Placed:
    job, verdict = seat.job, judge.verdict(seat)
    if not seat.units:
        if seat.kept and not seat.kin.service:
            # It waits from now on: what it had waited before was paid for by its run.
            job = changed(job, not_before_s=board.ground.now_s)
        return Placed(job, 0, {}, None, verdict)
    nodes = {board.names[row]: seat.at[row] for row in sorted(seat.at)}
    return Placed(job, seat.units, nodes, seat.limit_w, verdict)


def _targets(board: Board, seats: Iterable[Seat]) -> dict[str, float]:
    target_w = dict.fromkeys(board.names, 0.0)
    for seat in seats:
        if seat.units:
            for row, units in seat.at.items():
                target_w[board.names[row]] += units * seat.unit_w
    return target_w
