"""How each job stands after a division, by which rule, and when it would run.

Verdicts are made from the finished board: what binds a job that waits is what is full now that
everybody before it has been served.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wattshift_scheduler.compute.board import Board
from wattshift_scheduler.compute.seats import Seat
from wattshift_scheduler.compute.tenants import EPS_W
from wattshift_scheduler.jobs import Admission, JobState, Rule, Verdict
from wattshift_scheduler.signals.arbitrate import arbitrate

STEADY_SHARE = 0.05
"""Of a unit's watts: by so much may what a limit has left move without another verdict."""

MOST_EDGES = 256
"""Beginnings and ends of caps that are looked at for when a job would fit: ten days of hours."""


_OF_A_LIMIT = (Rule.NODE, Rule.FEEDER, Rule.CAP, Rule.GANG)
"""Rules whose verdicts tell what a node, a feeder or the cap has left."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The limit that keeps a unit out where there is most room for it.

    Attributes:
        rule, name: which limit; "cap" for the site's own.
        watts_w: what is left there, W.
        row: the node.
        gpus: whether it is GPUs that lack.
    """

    rule: Rule
    name: str
    watts_w: float
    row: int
    gpus: bool = False


class Judge:
    """Gives the verdicts of one division; ask in the order in which jobs were served."""

    def __init__(self, board: Board, seats: Sequence[Seat]) -> None:
        """Look at what was kept, what leaves, and what is new."""
        self._board, self._ground = board, board.ground
        self._seats = seats
        self._told_w: dict[str, float] | None = None
        self._bindings: dict[int, tuple[Binding, str]] = {}
        self._quotas: dict[tuple[Rule, str], tuple[str, float]] = {}
        self._likes: dict[tuple[object, ...], Verdict] = {}
        self._edges: tuple[list[float], list[float]] | None = None
        powers = [self._ground.powers[name] for name in board.names]
        self._held_w = [power.most_w for power in powers]
        self._leaving_w = [0.0] * len(powers)
        self._free_w = [float(watts_w) for watts_w in self._ground.free_w]
        self._placed_w = [0.0] * len(powers)
        for seat in seats:
            if seat.kept or seat.job.by_node:
                self._count(seat)
        self._young = [seat for seat in seats if seat.young and seat.units]
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
        why = seat.why
        if why is None or why is Rule.GANG:
            return self._full(seat, need_w) if not self._down else self._nowhere(seat, need_w)
        if why is Rule.BACK_OFF:
            words = f"its last attempt failed ({job.reason}); the next one is at its time"
            until_s = job.not_before_s
            return self._like(seat, Admission.DEFER, why, words, need_w=need_w, expected_s=until_s)
        if why is Rule.CLUSTER_DOWN or self._down:
            return self._nowhere(seat, need_w)
        return self._quota(seat, why, need_w)

    def _nowhere(self, seat: Seat, need_w: float) -> Verdict:
        words = "no node that it may run on is up and open to new work"
        return self._like(seat, Admission.DEFER, Rule.CLUSTER_DOWN, words, need_w=need_w)

    def _like(
        self,
        seat: Seat,
        admission: Admission,
        rule: Rule,
        words: str,
        *,
        bound_by: str = "",
        need_w: float = 0.0,
        have_w: float = math.nan,
        expected_s: float | None = None,
    ) -> Verdict:
        """One verdict for all that are told the same; the last one if nothing has changed."""
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
        where = ", ".join(board.names[row] for row in sorted(seat.at)) or "no node"
        watts_w = seat.units * seat.drawn_w
        if seat.limit_w is not None:
            loss = f"flexibility class {job.terms.flexibility}"
            words = f"{seat.units} units at {seat.limit_w:,.0f} W instead of {job.unit_w:,.0f} W "
            words += f"each on {where}, as its {loss} allows"
            bound, _ = self._binding(seat)
            return self._like(seat, Admission.FIT, bound.rule, words, bound_by=bound.name)
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
        words = f"it waits for mining to give up {short_w:,.0f} W"
        rule, have_w = Rule.MINING_GIVES_WAY, max(free_w, 0.0)
        return Verdict(Admission.AFTER_SHEDDING, rule, words, name, new_w, have_w)

    def _gives_way(self, seat: Seat, short_w: float, name: str, new_w: float) -> Verdict:
        words = f"it waits for {short_w:,.0f} W of work that leaves {name} at its checkpoint"
        have_w = max(new_w - short_w, 0.0)
        return Verdict(Admission.AFTER_SHEDDING, Rule.BATCH_GIVES_WAY, words, name, new_w, have_w)

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
        return self._like(
            seat, Admission.DEFER, rule, words, bound_by=tenant, need_w=need_w, have_w=found[1]
        )

    def _full(self, seat: Seat, need_w: float) -> Verdict:
        """There is no room for what it still wants."""
        bound, left = self._binding(seat)
        shares, tenant, unit_w = self._board.shares, seat.kin.tenant, seat.unit_w
        rule, name, have_w = bound.rule, bound.name, bound.watts_w
        more = seat.wanted - seat.units if seat.job.terms.gang else 1
        expected_s = self._expected_s(seat, bound, more * unit_w - bound.watts_w)
        if seat.why is Rule.GANG:
            rule = Rule.GANG
            words = f"it does not fit: a gang of {seat.wanted} needs {need_w:,.0f} W at once; "
            words += left
        elif self._others_first and shares.above(tenant):
            rule, name = Rule.FAIR_SHARE, tenant
            share_w = shares.share_w.get(tenant, 0.0)
            have_w = max(share_w - shares.used_w[tenant], 0.0)
            words = f"{_so_far(seat)}: tenant {tenant} holds {shares.used_w[tenant]:,.0f} W, its "
            words += f"fair share is {shares.part_pct(tenant):.0f} % of all, and others go first"
        else:
            words = f"{_so_far(seat)}: a unit needs {unit_w:,.0f} W; {left}"
        return self._like(
            seat,
            Admission.DEFER,
            rule,
            words,
            bound_by=name,
            need_w=need_w,
            have_w=have_w,
            expected_s=expected_s,
        )

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

    def _expected_s(self, seat: Seat, bound: Binding, short_w: float) -> float | None:
        """The first moment that is known at which it would fit, s."""
        known: list[float] = []
        if bound.rule is Rule.CAP:
            at_s, gain_w = self._gains()
            found = bisect_left(gain_w, short_w)
            known += at_s[found : found + 1]
        if not self._young:
            return known[0] if known else None
        freed_w = 0.0
        for end_s, watts_w in self._ends(seat, bound):
            freed_w += watts_w
            if freed_w >= short_w - EPS_W:
                known.append(end_s)
                break
        return min(known, default=None)

    def _gains(self) -> tuple[list[float], list[float]]:
        """When caps change, and the most watts by which the site's limit has risen by then."""
        if self._edges is None:
            ground = self._ground
            caps, now_s = ground.caps, ground.now_s
            edges = {edge for cap in caps for edge in (cap.starts_s, cap.ends_s)}
            at_s = sorted(edge for edge in edges if edge is not None and edge > now_s)[:MOST_EDGES]
            kept = 1.0 - ground.site.rules.margin_share
            most_w, gain_w = -math.inf, []
            for edge in at_s:
                cap_w = arbitrate(caps, float(ground.site.tree.limit_w[0]), edge).cap_w
                most_w = max(most_w, (cap_w - ground.cap.cap_w) * kept)
                gain_w.append(most_w)
            self._edges = (at_s, gain_w)
        return self._edges

    def _ends(self, seat: Seat, bound: Binding) -> list[tuple[float, float]]:
        """When jobs that would give way have had their minimum run time, and their watts there."""
        found = []
        for other in self._young:
            if not (seat.kin.service or other.points < seat.job.terms.priority):
                continue
            below = (
                units
                for row, units in other.at.items()
                if row == bound.row or self._shares_limit(row, bound)
            )
            watts_w = sum(below) * other.job.unit_w
            began_s = other.job.began_s
            if watts_w and began_s is not None:
                found.append((began_s + other.job.terms.min_run_s, watts_w))
        return sorted(found)

    def _shares_limit(self, row: int, bound: Binding) -> bool:
        index = self._ground.site.tree.index
        if bound.rule is Rule.FEEDER:
            return index[bound.name] in self._board.path[row]
        return bound.rule is Rule.CAP


def _so_far(seat: Seat) -> str:
    if not seat.units:
        return "it does not fit"
    return f"{seat.units} of {seat.wanted} units fit"
