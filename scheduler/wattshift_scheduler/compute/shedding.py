"""What leaves when what runs no longer fits: batch, then power, then replicas; no more than must.

Mining has given way before any of this: the room to fit into counts none of it. Batch goes first,
at a checkpoint, what loses least first; jobs that have not had their minimum run time go only if
that is not enough. Then services keep their replicas at less power, the most flexible class first
and no class beyond the throughput that it lets be taken. Then replicas go: down to the minimum, the
most flexible and least valuable service first, and then below it.

A batch job of a stated value goes even before mining, where that is worth more (`giving_way`).

Power goes in whole steps of whole services. No service is limited that could have one step back if
every more flexible one gave all that its class allows. What the last step took beyond need goes
back where it is enough for a whole step: to the class that gave last, else to a more flexible one,
which therefore may stand above what its class allows while a less flexible one is limited.
"""

from collections.abc import Iterable, Sequence

from wattshift_scheduler import worth
from wattshift_scheduler.compute import ranking
from wattshift_scheduler.compute.board import Board, Short
from wattshift_scheduler.compute.giving_way import GivingWay
from wattshift_scheduler.compute.seats import Seat

Taken = list[tuple[int, int]]
"""Units taken, by the row of the node."""


def shed(board: Board, seats: Iterable[Seat]) -> None:
    """Take units and watts from what is placed until everything fits, and first batch that is worth
    less than the mining which it displaces."""
    held = [seat for seat in seats if seat.units]
    GivingWay(board, held).shed()
    if not board.short():
        return
    batch = sorted((seat for seat in held if not seat.kin.service), key=lambda s: loss_of(board, s))
    services = sorted((seat for seat in held if seat.kin.service), key=_flexible_first)
    gone = _drop(board, [seat for seat in batch if not seat.young], least=0)
    gone += _drop(board, [seat for seat in batch if seat.young], least=0)
    short = board.short()
    for seat in services:
        short = _slow(board, seat, short)
    _drop(board, services, least=None)
    _drop(board, services, least=0)
    relax(board, services)
    for seat, taken in reversed(gone):
        _put_back(board, seat, taken)


def relax(board: Board, seats: Iterable[Seat]) -> None:
    """Give services back the power that whole replicas have left over, the least flexible first."""
    limited = (seat for seat in seats if seat.limit_w is not None)
    for seat in sorted(limited, key=_flexible_first, reverse=True):
        _relax(board, seat)


def loss_of(board: Board, seat: Seat) -> tuple[float, ...]:
    """What preempting a batch job loses; see `ranking.loss`."""
    return ranking.loss(seat.job, seat.points, board.shares.above(seat.job.terms.tenant))


def take_one(board: Board, seat: Seat, rows: Sequence[int]) -> Taken:
    """Take one unit of a job off the first of some nodes, or all of a gang; what was taken."""
    taken = list(seat.at.items()) if seat.job.terms.gang else [(rows[0], 1)]
    for row, units in taken:
        board.pull(seat, row, units)
    return taken


def _flexible_first(seat: Seat) -> tuple[float, float, float, str]:
    job = seat.job
    return (-job.terms.flexibility, seat.points, worth.of_service(job).usd_per_mwh, job.id)


def _drop(board: Board, seats: Iterable[Seat], least: int | None) -> list[tuple[Seat, Taken]]:
    """Take units while it is too full where they are; `least` None is the job's own minimum.

    Returns:
        What was taken of whom, in order.
    """
    gone: list[tuple[Seat, Taken]] = []
    short = board.short()
    for seat in seats:
        floor = seat.job.min_units if least is None else least
        while short and seat.units > floor:
            rows = _helpful(board, seat, short)
            if not rows:
                break
            gone.append((seat, take_one(board, seat, rows)))
            short = board.short(short)
    return gone


def _put_back(board: Board, seat: Seat, taken: Taken) -> None:
    """Let stay what need not have gone, because a larger one has gone after it."""
    mark = board.mark()
    for row, units in taken:
        for _ in range(units):
            if not board.fits(seat, row):
                board.undo(mark)
                return
            board.put(seat, row)


def _helpful(board: Board, seat: Seat, short: Short) -> list[int]:
    """Nodes from which a unit should go, where most limits are broken first."""
    rows = [row for row in seat.at if board.relieves(row, short)]
    return sorted(rows, key=lambda row: (-_broken(board, row, short), board.names[row]))


def _broken(board: Board, row: int, short: Short) -> int:
    return (row in short.nodes) + len(short.feeders.intersection(board.path[row]))


def _slow(board: Board, seat: Seat, short: Short) -> Short:
    """Lower the power of a service's units as far as is needed and its class allows; what is short
    then."""
    for step in worth.allowed(seat.job):
        if not short.feeders or not _helpful(board, seat, Short(frozenset(), short.feeders)):
            break
        board.limit(seat, step.watts_w)
        short = board.short(short)
    return short


def _relax(board: Board, seat: Seat) -> None:
    """Give back the power that taking whole replicas has left over."""
    limit_w = seat.drawn_w
    higher = [step.watts_w for step in worth.allowed(seat.job) if step.watts_w > limit_w]
    before = board.short()
    for watts_w in (None, *higher):
        board.limit(seat, watts_w)
        if board.short() == before:
            return
    board.limit(seat, limit_w)
