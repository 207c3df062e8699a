"""How each job stands after a division, by which rule, and when it would run.

Verdicts are made from the finished board: what binds a job that waits is what is full now that
everybody before it has been served.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.expected import Binding, Expected
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.tenants import EPS_W
from wattshift_scheduler.decisions import span_text
from wattshift_scheduler.jobs import Admission, Job, JobState, Rule, Verdict

STEADY_SHARE = 0.05
"""Of a unit's watts: by so much may what a limit has left move without another verdict."""

WAITS_TOLD = 4
"""News of one wait at most: what others still have to give up changes every second, and is told in
so many parts of what a job asks for."""

_OF_A_LIMIT = (Rule.NODE, Rule.FEEDER, Rule.CAP, Rule.GANG)
"""Rules whose verdicts tell what a node, a feeder or the cap has left."""


class Judge:
    """Gives the verdicts of one division; ask in the order in which jobs were served."""

    def __init__(self, board: Board, seats: Sequence[Seat]) -> None:
        """Look at what was kept, what leaves, and what is new."""
        self._board, self._ground = board, board.ground
        self._seats = seats
        self._told_w: dict[str, float] | None = None
        self._bindings: dict[int, tuple[Binding, str]] = {}
        self._quotas: dict[tuple[Rule, str], tuple[str, float]] = {}
        self._fair: dict[str, tuple[str, float] | None] = {}
        self._likes: dict[tuple[object, ...], Verdict] = {}
        powers = [self._ground.powers[name] for name in board.names]
        self._held_w = [power.most_w for power in powers]
        self._leaving_w = [0.0] * len(powers)
        self._free_w = [float(watts_w) for watts_w in self._ground.free_w]
        self._placed_w = [0.0] * len(powers)
        for seat in seats:
            if seat.kept or seat.job.by_node:
                self._count(seat)
        self._expected = Expected(board, seats)
        waiting = {seat.kin.tenant for seat in seats if seat.units < seat.wanted}
        self._others_first = any(not board.shares.above(tenant) for tenant in waiting)
        self._down = not any(board.up)

    def _count(self, seat: Seat) -> None:
        """Count what stays of a job on each node, and what of it is still to leave."""
        unit_w = seat.unit_w
        for row, units in seat.kept.items():
            self._placed_w[row] += min(units, seat.at.get(row, 0)) * unit_w
        for name, units in (seat.job.by_node or {}).items():
            if name in self._board.row:
                row = self._board.row[name]
                self._leaving_w[row] += max(units - seat.at.get(row, 0), 0) * unit_w

    def verdict(self, seat: Seat) -> Verdict:
        """The verdict of one job."""
        job = seat.job
        if seat.refused is not None:
            return seat.refused
        if job.held or job.state is JobState.CANCELLING:
            words = "paused by a person" if job.held else "it is being cancelled"
            return self._like(seat, Admission.DEFER, Rule.HELD, words)
        if seat.units >= seat.wanted:
            return self._fits(seat)
        need_w = (seat.wanted - seat.units) * seat.unit_w
        if seat.gave_way is not None and seat.units < sum(seat.kept.values()):
            return self._gave_way(seat, seat.gave_way, need_w)
        why = seat.why
        if why is None or why is Rule.GANG:
            return self._full(seat, need_w) if not self._down else self._nowhere(seat, need_w)
        if why is Rule.BACK_OFF:
            words = f"its last attempt failed ({job.reason}); the next one is at its time"
            until_s = job.not_before_s
            return self._like(seat, Admission.DEFER, why, words, "", need_w, expected_s=until_s)
        if why is Rule.PLAN:
            until_s = self._board.ground.waits_s[job.id]
            words = "the plan has cheaper hours for it, and its deadline leaves it the time"
            if math.isinf(job.due_s):
                words = "energy costs more now than it earns; it goes on when that is over"
            return self._like(seat, Admission.DEFER, why, words, "", need_w, expected_s=until_s)
        if why is Rule.CLUSTER_DOWN or self._down:
            return self._nowhere(seat, need_w)
        if why is Rule.WORTH:
            return self._worth(seat, need_w)
        return self._quota(seat, why, need_w)

    def _worth(self, seat: Seat, need_w: float) -> Verdict:
        """Mining is worth more: it gets what that leaves."""
        words = f"{_so_far(seat)}: {seat.job.usd_per_mwh:,.0f} USD/MWh is less than the mining "
        words += "that it would displace is worth; it waits for watts that such mining leaves"
        return self._like(seat, Admission.DEFER, Rule.WORTH, words, "mining", need_w)

    def _gave_way(self, seat: Seat, to: Job, need_w: float) -> Verdict:
        """A job that is due has taken units of it."""
        left = span_text(to.due_s - self._ground.now_s)
        words = f"it gives way to {to.id} ({to.name}), which is due in {left} and would be late; "
        if seat.job.late_s is None:
            words += "it has no deadline" if seat.job.deadline_s is None else "it has the time"
        return self._like(seat, Admission.DEFER, Rule.DEADLINE, words.rstrip("; "), to.id, need_w)

    def _nowhere(self, seat: Seat, need_w: float) -> Verdict:
        words = "no node that it may run on is up and open to new work"
        return self._like(seat, Admission.DEFER, Rule.CLUSTER_DOWN, words, "", need_w)

    def _like(
        self,
        seat: Seat,
        admission: Admission,
        rule: Rule,
        words: str,
        bound_by: str = "",
        need_w: float = 0.0,
        have_w: float = math.nan,
        expected_s: float | None = None,
    ) -> Verdict:
        """One verdict for all that are told the same; the last one if nothing has changed."""
        if seat.job.late_s is not None:
            words += "; it is late, and gives way to work that can still make a deadline"
        last = seat.job.verdict
        if (
            last is not None
            and last.words == words
            and last.need_w == need_w
            and last.rule is rule
            and last.bound_by == bound_by
            and last.expected_s == expected_s
            and last.admission is admission
            and (last.have_w == have_w or (have_w != have_w and last.have_w != last.have_w))
        ):
            return last
        key = (rule, words, bound_by, need_w, have_w, expected_s)
        found = self._likes.get(key)
        if found is None:
            found = Verdict(admission, rule, words, bound_by, need_w, have_w, expected_s)
            self._likes[key] = found
        return found

    def _steady_w(self, seat: Seat, bound: Binding) -> float:
        """What a limit has left, as it is told, W: as before while it has hardly changed.

        Measured load moves the room of a feeder by a little every second; that is no news to each
        of a thousand jobs that wait.
        """
        if self._told_w is None:
            lasts = [seat.job.verdict for seat in self._seats if seat.job.verdict is not None]
            self._told_w = {one.bound_by: one.have_w for one in lasts if one.rule in _OF_A_LIMIT}
        last_w = self._told_w.get(bound.name, math.nan)
        steady = abs(last_w - bound.watts_w) <= STEADY_SHARE * seat.unit_w
        return last_w if steady else bound.watts_w

    def _fits(self, seat: Seat) -> Verdict:
        """It has all that it wants: at once, or when others have given it up."""
        board, job = self._board, seat.job
        waits: Verdict | None = None
        for row, units in seat.at.items():
            new_w = (units - seat.kept.get(row, 0)) * job.unit_w
            if new_w > 0.0 and board.up[row]:
                waits = self._wait(seat, row, new_w) or waits
        if waits is not None:
            return waits
        where = ", ".join([board.names[row] for row in sorted(seat.at)]) or "no node"
        watts_w = seat.units * seat.drawn_w
        if seat.limit_w is not None:
            loss = f"flexibility class {job.terms.flexibility}"
            words = f"{seat.units} units at {seat.limit_w:,.0f} W instead of {job.unit_w:,.0f} W "
            words += f"each on {where}, as its {loss} allows"
            bound, _ = self._binding(seat)
            return self._like(seat, Admission.FIT, bound.rule, words, bound.name)
        return self._like(seat, Admission.FIT, Rule.FITS, f"{watts_w:,.0f} W on {where}")

    def _wait(self, seat: Seat, row: int, new_w: float) -> Verdict | None:
        """Count new units on a node; a verdict if their watts are not there at once."""
        board = self._board
        taken_w = self._placed_w[row] + self._leaving_w[row]
        rise_w = max(taken_w + new_w - max(self._held_w[row], taken_w), 0.0)
        self._placed_w[row] += new_w
        free_w, feeder = min([(self._free_w[feeder], feeder) for feeder in board.path[row]])
        full = [f for f in board.path[row] if self._free_w[f] < rise_w - EPS_W]
        for above in board.path[row]:
            self._free_w[above] -= rise_w
        over_w = taken_w + new_w - board.cap_w[row]
        if over_w > EPS_W and self._leaving_w[row] > EPS_W:
            return self._gives_way(seat, min(over_w, self._leaving_w[row]), board.names[row], new_w)
        if rise_w <= free_w + EPS_W:
            return None
        short_w, name = rise_w - max(free_w, 0.0), self._ground.site.tree.names[feeder]
        if any(
            leaving_w > EPS_W and not set(full).isdisjoint(board.path[r])
            for r, leaving_w in enumerate(self._leaving_w)
        ):
            return self._gives_way(seat, short_w, name, new_w)
        short_w = _in_parts(short_w, new_w)
        words, rule = f"it waits for mining to give up {short_w:,.0f} W", Rule.MINING_GIVES_WAY
        have_w = new_w - short_w
        return self._like(seat, Admission.AFTER_SHEDDING, rule, words, name, new_w, have_w)

    def _gives_way(self, seat: Seat, short_w: float, name: str, new_w: float) -> Verdict:
        short_w = _in_parts(short_w, new_w)
        words = f"it waits for {short_w:,.0f} W of work that leaves {name} at its checkpoint"
        rule, have_w = Rule.BATCH_GIVES_WAY, new_w - short_w
        return self._like(seat, Admission.AFTER_SHEDDING, rule, words, name, new_w, have_w)

    def _quota(self, seat: Seat, rule: Rule, need_w: float) -> Verdict:
        tenant = seat.kin.tenant
        found = self._quotas.get((rule, tenant))
        if found is None:
            shares, watts = self._board.shares, rule is Rule.QUOTA_WATTS
            used, quota = shares.used(tenant, rule), shares.quota(tenant, rule)
            words = f"tenant {tenant} holds {used:,.6g} of its {quota:,.6g} "
            words += "W" if watts else "GPUs"
            found = (words, max(quota - used, 0.0) if watts else math.nan)
            self._quotas[rule, tenant] = found
        words = f"{_so_far(seat)}: {found[0]}"
        return self._like(seat, Admission.DEFER, rule, words, tenant, need_w, found[1])

    def _full(self, seat: Seat, need_w: float) -> Verdict:
        """There is no room for what it still wants."""
        bound, left = self._binding(seat)
        rule, name, have_w, unit_w = bound.rule, bound.name, bound.watts_w, seat.unit_w
        more = seat.wanted - seat.units if seat.job.terms.gang else 1
        expected_s = self._expected.at_s(seat, bound, more * unit_w - have_w)
        others = self._share(seat.kin.tenant) if self._others_first else None
        if seat.job.terms.gang and seat.wanted > 1:
            # Whether its first unit alone would find room turns with the last watt: no news.
            rule = Rule.GANG
            words = f"it does not fit: a gang of {seat.wanted} needs {need_w:,.0f} W at once; "
            words += left
        elif others is not None:
            rule, name = Rule.FAIR_SHARE, seat.kin.tenant
            words, have_w = f"{_so_far(seat)}: {others[0]}", others[1]
        else:
            words = f"{_so_far(seat)}: a unit needs {unit_w:,.0f} W; {left}"
        return self._like(seat, Admission.DEFER, rule, words, name, need_w, have_w, expected_s)

    def _share(self, tenant: str) -> tuple[str, float] | None:
        """What a tenant that holds its fair share is told, and what it has left of it, W; None for
        one that holds less."""
        if tenant not in self._fair:
            shares = self._board.shares
            used_w, part = shares.used_w[tenant], shares.part_pct(tenant)
            words = (
                f"tenant {tenant} holds {used_w:,.0f} W, its fair share is {part:.0f} % of all, "
            )
            words += "and others go first"
            left_w = max(shares.share_w.get(tenant, 0.0) - used_w, 0.0)
            self._fair[tenant] = (words, left_w) if shares.above(tenant) else None
        return self._fair[tenant]

    def _left(self, bound: Binding) -> str:
        """In words what the binding limit still has."""
        if bound.gpus:
            return f"too few GPUs are free on {bound.name}"
        have_w = max(bound.watts_w, 0.0)
        if bound.rule is Rule.CAP:
            cap = self._ground.cap
            return f"the cap of {cap.cap_w:,.0f} W ({cap.origin}) leaves {have_w:,.0f} W"
        what = "feeder " if bound.rule is Rule.FEEDER else ""
        return f"{what}{bound.name} has {have_w:,.0f} W left"

    def _binding(self, seat: Seat) -> tuple[Binding, str]:
        """What binds on the node with most room for a job, and what it has left in words; the same
        for all that ask alike."""
        found = self._bindings.get(seat.kin.number)
        if found is None:
            bound = self._bound(seat)
            watts_w = self._steady_w(seat, bound)
            bound = replace(bound, watts_w=watts_w)
            found = self._bindings[seat.kin.number] = (bound, self._left(bound))
        return found

    def _bound(self, seat: Seat) -> Binding:
        board, tree, gpus = self._board, self._ground.site.tree, seat.job.terms.gpus
        rows = list(seat.kin.rows) or sorted(seat.at) or [0]
        able = [row for row in rows if board.cards[row].fits(gpus)]

        def left_w(row: int) -> float:
            return min(board.cap_w[row] - board.used_w[row], board.tightest_w(row))

        row = max(able or rows, key=lambda r: (left_w(r), -r))
        feeder = min(board.path[row], key=lambda f: board.room_w[f])
        node_w = board.cap_w[row] - board.used_w[row]
        if not able or node_w <= board.room_w[feeder]:
            return Binding(Rule.NODE, board.names[row], node_w, row, gpus=not able)
        if feeder == 0 and self._ground.cap.bound:
            return Binding(Rule.CAP, "cap", board.room_w[0], row)
        return Binding(Rule.FEEDER, tree.names[feeder], board.room_w[feeder], row)


def _in_parts(short_w: float, new_w: float) -> float:
    """Watts that lack, in whole parts of the watts that are asked for, rounded up, W."""
    part_w = new_w / WAITS_TOLD
    return min(math.ceil(short_w / part_w - 1e-6) * part_w, new_w)


def _so_far(seat: Seat) -> str:
    if not seat.units:
        return "it does not fit"
    return f"{seat.units} of {seat.wanted} units fit"
