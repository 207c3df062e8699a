"""An ASIC behind its driver: leases become commands, which count as obeyed when watts show it.

A machine is not fenced unless its outlet has a watchdog: if this agent dies it stays as last
written. While the agent lives, the end of a lease writes sleep. Between a lease and the machine
stand the things that may only lower it: a person's lock or hold, a limit, heat, and the rest that a
machine needs between two wakes.

The parts: `contact` sees, `wish` says what to command, `gate` when to wake,
`fleet.curtail` keeps the command's life, `others` watches for other masters, `words`
tells it all, and `sweep` gives every machine its turn.
"""

import asyncio
import time
from dataclasses import replace

import structlog

from wattshift_cluster.agent.asics import standing, words
from wattshift_cluster.agent.asics.contact import (
    FAULTS,
    Connect,
    connect_by_probe,
)
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.lessons import Lessons, Sight
from wattshift_cluster.agent.asics.profile import Walk
from wattshift_cluster.agent.asics.profile_looks import look_at
from wattshift_cluster.agent.asics.standing import Standing
from wattshift_cluster.agent.asics.surprises import changed, felt, overruled, unexpected
from wattshift_cluster.agent.asics.trail import AnotherMachine
from wattshift_cluster.agent.asics.wish import ASLEEP, Asked, goal
from wattshift_cluster.agent.asics.writing import Writing
from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Reading
from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicReading, command_s
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import Command, Goal, State
from wattshift_cluster.fleet.learn import Learnt
from wattshift_cluster.fleet.learnt_file import Kept
from wattshift_cluster.fleet.locks import Restraint
from wattshift_cluster.fleet.memory import Memory
from wattshift_cluster.fleet.study import Tempo

log = structlog.get_logger()

AS_FOUND = words.AS_FOUND
SHADOW = standing.SHADOW


class AsicDevice(Standing):
    """See `Device`. An `AsicSweep` must run beside it.

    Attributes:
        identified: set once the machine has said what it is.
    """

    def __init__(
        self,
        asic: Asic,
        refusal: str | None = None,
        connect: Connect = connect_by_probe,
        *,
        lanes: Lanes | None = None,
        memory: Memory | None = None,
        damage: str | None = None,
        shadow: bool = False,
        kept: Kept | None = None,
        tempo: Tempo | None = None,
    ) -> None:
        """Prepare; nothing is sent before its first look.

        Args:
            asic: its section of agent.toml.
            refusal: why it must not be written; None when it may.
            connect: finds the driver.
            lanes: shared with the agent's other machines.
            memory: of it, from an earlier life of this agent.
            damage: why that could not be read; it is not commanded then.
            shadow: nothing is written, and yet its points are told: somebody decides on them.
            kept: what was learnt of it in an earlier life of this agent.
            tempo: how much is looked at to learn.
        """
        refused = "protected" if asic.protected else refusal
        lessons = Lessons(asic, kept, tempo)
        super().__init__(
            asic, lanes or Lanes(), memory or Memory(), damage, refused, connect, lessons
        )
        self.shadow = shadow and refused is None
        self.identified = asyncio.Event()
        self._terms: tuple[int, Terms] | None = None
        self._asked: Asked | None = None
        self._held: str | None = None
        self._writing = Writing(asic.id, self.lanes)
        self._settled = asyncio.Event()
        if (cut := self.memory.cut) is not None:
            # Nobody can ask a machine that has no power, nor was it asleep before us.
            self.gate.found_asleep = False
            self._adopt(cut.known)

    # The agent's side

    def info(self) -> DeviceInfo | None:
        """See `Device`. A machine that must not or cannot be set has one point: its nameplate."""
        return words.info(self, self.offered()[:1] if self.closed else self.offered())

    def terms(self) -> Terms | None:
        """See `Device`. Asked for with every lease, and made when what it offers has changed."""
        if self._terms is None or self._terms[0] != self.inventory_version:
            terms = words.terms(self, self.offered())
            if terms is None:
                return None
            self._terms = self.inventory_version, terms
        return self._terms[1]

    def hold(self, lease: Lease) -> None:
        """See `Device`. A command under way that goes higher is broken off."""
        if lease.mode != AS_FOUND:
            self._ask(Asked(lease.mode, lease.watts_w))

    def safe(self) -> None:
        """See `Device`."""
        self._ask(ASLEEP)

    def reading(self) -> Reading:
        """See `Device`."""
        return words.reading(self)

    async def run(self) -> None:
        """See `Device`: its turn comes from the sweep."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """See `Device`: sleep, unless we may not write it or never reached it."""
        if self.barred is not None or self.identity is None:
            return
        self.safe()
        if self.command.goal is None:
            return
        try:
            await asyncio.wait_for(self._settled.wait(), self.lanes.rhythm.close_s)
        except TimeoutError:
            if self._writing.busy and self.contact.driver is not None:
                await self._writing.over(command_s(self.contact.driver, 0.0))
            if self._settled.is_set():
                return
            log.warning("asic.left_awake", device=self.id, reason=self.command.explain(boot_s()))

    # An operator's side

    def restrain(self, restraint: Restraint) -> None:
        """What keeps it down has changed."""
        self.remember(lambda memory: replace(memory, restraint=restraint))
        self._changed()

    def take_in(self) -> None:
        """An operator's word that a machine found asleep is ours to wake."""
        if self.gate.found_asleep is False:
            return
        self.gate.found_asleep = False
        self.remember(lambda memory: replace(memory, written=SLEEP))
        self._changed()

    def learn(self, learnt: Learnt) -> None:
        """Take in what a commissioning or a measurement of its points has shown, and tell it."""
        self.lessons.merge(learnt)
        self.retell()

    def retell(self) -> None:
        """Tell what was learnt since."""
        if self.lessons.retell():
            self._changed()

    def forget_damage(self) -> None:
        """An operator's word that its unreadable memory held no lock that still matters."""
        self.damage, self.memory, self.dirty = None, Memory(), True
        self._changed()

    async def settled(self) -> None:
        """Wait until the machine has taken the last command."""
        await self._settled.wait()

    @property
    def asked(self) -> Asked | None:
        """What its lease asks, or its end; None before the first one."""
        return self._asked

    def follow(self, walk: Walk) -> None:
        """Do as a measurement has it, within the lease; once it is done, as the lease has it."""
        self.walk = walk
        self._aim()

    # The sweep's side

    def end_grace(self) -> None:
        """What runs without a lease goes to its safe point, as at the end of one."""
        if self._asked is None:
            self.safe()

    async def look(self) -> None:
        """Take a sample, and draw the conclusions; a fault of the machine is kept, not raised."""
        asked_s = boot_s()
        try:
            seen = await self.contact.look(
                may_command=self.barred is None,
                may_follow=self.supply is None or self.supply.off_s is None,
            )
        except AnotherMachine as stranger:
            log.error("asic.another_machine", device=self.id, reason=stranger.reason)
            # Of one that we have cut off we know who it is, whoever has its address meanwhile.
            if self.dark is None and (self.memory.cut is None or self.memory.cut.rising):
                self._adopt(None)
            self._unheard()
        except FAULTS:
            self._unheard()
        else:
            raw, seen = seen, self.as_metered(seen)
            self._first_sight(seen)  # before anything is commanded: it decides what may be
            self._adopt(self.contact.identity)
            if self.lessons.disproved(self._sight(raw)):
                self.retell()
            self._saw(seen, min(asked_s, seen.at_boot_s))
            self.lessons.saw(self._sight(raw))
        self.keep_what_was_seen()
        self._tell_rest()
        self._tell_income()
        self.advance(boot_s())
        if self.walk is not None and not self.walk.done:
            self.contact.surprised()  # temperatures come with full reads alone
            visits = len(self.walk.visits)
            if self.walk.looked(look_at(self, boot_s())):
                self._aim()
            for visit in self.walk.visits[visits:]:
                self.lessons.visited(visit)

    def _unheard(self) -> None:
        """It did not answer: it has no power, or after a while nothing is known of it any more."""
        now_s, before = boot_s(), self.command
        if self.dark is not None:
            self.lost_power(now_s)
        elif self.contact.misses >= self.lanes.rhythm.lost_polls:
            self.command = before.lost(f"silent: {self.contact.error}", now_s)
            self._log_change(before, now_s)

    def advance(self, now_s: float) -> None:
        """Give the command if it is due and nothing stands against it."""
        before, self.command = self.command, self.command.tick(now_s)
        if self.command.state is State.FAILED and before.state is not State.FAILED:
            log.error("asic.failed", device=self.id, reason=self.command.explain(now_s))
        driver, wish = self.contact.driver, self.command.goal
        if self._writing.busy or driver is None or wish is None:
            return
        if not self.command.due(now_s) or not self.contact.sure or self.dark is not None:
            return
        if wish.mode != SLEEP and self._resting() and not self._may_wake(wish, now_s):
            return
        self.command = self.command.sent(now_s)
        order = self.command.order
        self._writing.start(
            driver, wish, self.contact.seen, lambda task: self._wrote(task, wish, order)
        )

    def wake_now(self) -> None:
        """Its turn to wake has come."""
        if self.command.proven:
            return
        self.gate.let(self.command.order)
        self.command = self.command.waits(None, boot_s())
        self.advance(boot_s())

    # Its outlets' side

    def lost_power(self, now_s: float) -> None:
        """It has no power: when it comes back, nothing of ours is in force there any more."""
        before = self.command
        self._held = self.others.ours = None
        self.lessons.lost()
        self.command = before.powerless(now_s)
        if self.command.proven:
            self._settled.set()
        self._log_change(before, now_s)

    def may_power_up(self, now_s: float) -> bool:
        """Whether its outlets may be switched on: that is a wake, and waits for the same."""
        wish = self.command.goal
        return wish is not None and wish.mode != SLEEP and self._may_wake(wish, now_s)

    # From what is asked to what is commanded

    def _ask(self, asked: Asked) -> None:
        self._asked = asked
        self._aim()

    def _changed(self) -> None:
        self.inventory_version += 1
        self._aim()

    def _aim(self) -> None:
        """Set the command by what is asked and what holds it down."""
        now_s, before = boot_s(), self.command
        wish = self._goal()
        self.command = before.drop() if wish is None else before.want(wish, now_s)
        if wish is None or wish.mode == SLEEP:
            self.gate.forget()
        if wish is None or self.command.order == before.order:
            return
        self._settled.clear()
        if before.interrupted_by(wish):
            self._writing.cancel()
        self.advance(now_s)

    def _goal(self) -> Goal | None:
        """What the machine is to do; None while nothing may be commanded."""
        known, asked = self.identity, self._asked
        if known is None or self.barred is not None:
            return None
        if self.memory.restraint.why_asleep is not None:
            return goal(known, ASLEEP, None)
        if asked is None or self.gate.found_asleep:
            return None
        if self.walk is not None and not self.walk.done:
            asked = self.walk.under(asked)
        return self.lessons.asking(goal(known, asked, self.cap_w))

    def _resting(self) -> bool:
        """Whether giving it work means waking it. What was never seen to work counts as asleep."""
        if self._held is not None:
            return self._held == SLEEP
        seen = self.contact.seen
        if seen is None:
            return True
        return self.contact.looks_asleep(self.as_metered(seen)) is not False

    def _may_wake(self, wish: Goal, now_s: float) -> bool:
        """Whether a sleeping machine may be woken now; if not, its command says why."""
        order, wall_s = self.command.order, time.time()
        board_c, inlet_c = self.contact.temperature_c, self.contact.inlet_c
        bar = self.gate.bars(wish, order, self.memory, board_c, inlet_c, wall_s=wall_s, now_s=now_s)
        if bar is not None:
            self.command = self.command.waits(bar.why, now_s + bar.wait_s)
        return bar is None

    def _wrote(self, task: asyncio.Task[None], wish: Goal, order: int) -> None:
        """A command has ended, one way or the other."""
        now_s = boot_s()
        if task.cancelled():
            self._held = None
        elif (fault := task.exception()) is not None:
            self.command = self._writing.failed(fault, self.command, wish.mode, order, now_s)
        else:
            self.command = self.command.accepted(order, now_s)
            self._took(wish, order, now_s)
        self.advance(now_s)

    def _took(self, wish: Goal, order: int, now_s: float) -> None:
        """The machine accepted a command of ours."""
        pause_s = wish.settle_s + self.lanes.rhythm.settle_s
        self.others.wrote(wish.mode, now_s + pause_s)
        woken = wish.mode != SLEEP and self._resting()
        slept = wish.mode == SLEEP and (self._held or self.memory.written) != SLEEP
        self._held = wish.mode
        self.lessons.took(wish, now_s, woke=woken)
        if self.command.order == order and self.identity is not None:
            self._settled.set()
        self.gate.forget()
        ours = self.memory.written if self.gate.found_asleep is not False else wish.mode
        at_s = time.time()
        self.remember(lambda memory: memory.took(ours, at_s, slept=slept, woken=woken))

    # From what is seen to what follows

    def _adopt(self, found: AsicIdentity | None) -> None:
        """Take note of who it is; None: not the one that is meant."""
        if not self.lessons.adopt(found):
            return
        known = self.identity
        if known is None:
            self._writing.cancel()
        if known is not None:
            self.identified.set()
            log.info("asic.identified", device=self.id, model=known.model)
            if known.mac is not None and known.mac != self.memory.mac:
                self.remember(lambda memory: replace(memory, mac=known.mac))
        self._changed()

    def _saw(self, seen: AsicReading, asked_s: float) -> None:
        """Draw the conclusions from a sample that was asked for at `asked_s`."""
        now_s, before, known = boot_s(), self.command, self.identity
        self.command = before.sample(seen.watts_w, seen.hashrate_h_per_s, asked_s, now_s)
        self._log_change(before, now_s)
        if known is None:
            return
        self._look_for_others(known, seen, now_s)
        limit_c, wish = self.lanes.section.board_limit_c, self.command.goal
        heat = felt(self.heat, known, wish, seen.temperature_c, limit_c, now_s)
        if heat != self.heat:
            self.heat = heat
            log.warning("asic.heat", device=self.id, cap_w=heat.cap_w)
            self._aim()
        if unexpected(known, self.command, seen):
            self.contact.surprised()

    def _sight(self, raw: AsicReading) -> Sight:
        draw = None if self.supply is None else self.supply.draw(self.contact)
        ours = self._held is not None and boot_s() >= self.others.until_s
        return Sight(raw, draw, self.command, ours)

    def _tell_rest(self) -> None:
        """While it rests its watts are for others: no lease above sleep is offered or taken."""
        measured = self.walk is not None and not self.walk.done
        sleeps = self.dark is not None or self._resting()
        rest = self.gate.rests(self.memory, time.time()) if sleeps and not measured else None
        self.inventory_version, self.rest = self.inventory_version + (rest != self.rest), rest

    def _tell_income(self) -> None:
        """While nobody pays for its work, nothing but sleep is offered or taken."""
        if self.income is None:
            return
        self.income.poll()
        unpaid = self.income.unpaid(self.id)
        self.inventory_version += (unpaid is None) != (self.unpaid is None)
        self.unpaid = unpaid

    def _first_sight(self, seen: AsicReading) -> None:
        """Whether it slept before us; and the end of that, once it is seen at work."""
        asleep = self.contact.looks_asleep(seen)
        if asleep and self.memory.slept_s is None:
            at_s = time.time()
            self.remember(lambda memory: replace(memory, slept_s=at_s))
        if self.gate.saw(asleep=asleep, ours=self.memory.written == SLEEP):
            log.info("asic.found_asleep", device=self.id, left=self.gate.found_asleep)
            self._changed()

    def _log_change(self, before: Command, now_s: float) -> None:
        if changed(self.id, before, self.command, now_s):
            self.contact.surprised()

    def _look_for_others(self, known: AsicIdentity, seen: AsicReading, now_s: float) -> None:
        if self._writing.busy:
            return
        theirs = self.others.look(seen.mode, seen.at_boot_s, now_s, self.lanes.rhythm.alarm_s)
        if self.others.polls == 1:
            self.contact.surprised()
        self.command = overruled(self.id, known, self.others, theirs, self.command, now_s)
