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
from collections.abc import Callable
from dataclasses import replace

import structlog

from wattshift_cluster.agent.asics import words
from wattshift_cluster.agent.asics.contact import (
    FAULTS,
    AnotherMachine,
    Connect,
    Contact,
    connect_by_probe,
    with_times,
)
from wattshift_cluster.agent.asics.gate import WakeGate
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.others import Others
from wattshift_cluster.agent.asics.supply import Draw, Supply, metered
from wattshift_cluster.agent.asics.wish import ASLEEP, Asked, goal, offered
from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Reading
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicDriver,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import Command, Goal, State
from wattshift_cluster.fleet.locks import Restraint
from wattshift_cluster.fleet.memory import Memory
from wattshift_cluster.fleet.safety import Heat

log = structlog.get_logger()

AS_FOUND = words.AS_FOUND
SHADOW = "this agent is in shadow mode: it only reads"
SURPRISE_SHARE = 0.15
"""Share by which watts must lie off the point before the machine is asked for all it has to say."""


class AsicDevice:
    """See `Device`. An `AsicSweep` must run beside it.

    Attributes:
        inventory_version: grows whenever `info` changes.
        identified: set once the machine has said what it is.
        memory: what outlives this process; `dirty` once it has changed.
        command: the last wish and what became of it.
        gate: when it may be woken.
        heat: how far it is held down for being hot.
        supply: its outlets; None where nothing is known of them.
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
        """
        self.asic = asic
        self.inventory_version = 0
        self.identified = asyncio.Event()
        self.memory = memory or Memory()
        self.dirty = False
        self.damage = damage
        self.lanes = lanes or Lanes()
        self.command = Command(pace=self.lanes.pace)
        self.heat = Heat()
        self.gate = WakeGate(asic, self.lanes)
        self.others = Others()
        self.supply: Supply | None = None
        self._refusal = "protected" if asic.protected else refusal
        self._shadow = shadow and self._refusal is None
        pinned = None if asic.emulated else self.memory.mac
        self.contact = Contact(asic, pinned, connect, self.lanes.rhythm)
        self._identity: AsicIdentity | None = None
        self._adopted: tuple[AsicIdentity, object] | None = None
        self._terms: tuple[int, Terms] | None = None
        self._asked: Asked | None = None
        self._held: str | None = None
        self._writing: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    @property
    def id(self) -> str:
        """See `Device`."""
        return self.asic.id

    @property
    def barred(self) -> str | None:
        """Why nothing may be written to it; None when it may."""
        return self._refusal or self.damage or (SHADOW if self._shadow else None)

    @property
    def why_asleep(self) -> str | None:
        """Why it may do nothing but sleep; None when it may."""
        kept = self.memory.restraint.why_asleep
        return kept or ("asleep since before us" if self.gate.found_asleep else None)

    # The agent's side

    def info(self) -> DeviceInfo | None:
        """See `Device`. A machine that must not or cannot be set has one point: its nameplate."""
        return words.info(self, self._offered()[:1] if self.why_asleep else self._offered())

    def terms(self) -> Terms | None:
        """See `Device`. Asked for with every lease, and made when what it offers has changed."""
        if self._terms is not None and self._terms[0] == self.inventory_version:
            return self._terms[1]
        info = self.info()
        if info is None:
            return None
        points = self._offered() or info.points
        modes = {point.mode: point.watts_w for point in points}
        most_w = info.nameplate_w * (1.0 + info.tolerance) * 1.001
        terms = Terms(modes, most_w, info.continuous, self.why_asleep)
        self._terms = self.inventory_version, terms
        return terms

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
        if self.barred is not None or self._identity is None:
            return
        self.safe()
        if self.command.goal is None:
            return
        try:
            await asyncio.wait_for(self._settled.wait(), self.lanes.rhythm.close_s)
        except TimeoutError:
            why = self.command.explain(boot_s())
            log.warning("asic.left_awake", device=self.id, reason=why)

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

    def forget_damage(self) -> None:
        """An operator's word that its unreadable memory held no lock that still matters."""
        self.damage, self.memory, self.dirty = None, Memory(), True
        self._changed()

    def remember(self, change: Callable[[Memory], Memory]) -> None:
        """Change its memory; the sweep writes it down soon. A damaged file is left as evidence."""
        self.memory, self.dirty = change(self.memory), self.damage is None

    async def settled(self) -> None:
        """Wait until the machine has taken the last command."""
        await self._settled.wait()

    # The sweep's side

    def end_grace(self) -> None:
        """What runs without a lease goes to its safe point, as at the end of one."""
        if self._asked is None:
            self.safe()

    async def look(self) -> None:
        """Take a sample, and draw the conclusions; a fault of the machine is kept, not raised."""
        asked_s = boot_s()
        try:
            seen = await self.contact.look(may_command=self.barred is None)
        except AnotherMachine as stranger:
            log.error("asic.another_machine", device=self.id, reason=stranger.reason)
            self._adopt(None)
        except FAULTS:
            if self.dark is not None:
                self.lost_power(boot_s())
            elif self.contact.misses >= self.lanes.rhythm.lost_polls:
                before = self.command
                self.command = before.lost(f"silent: {self.contact.error}", boot_s())
                self._log_change(before, boot_s())
        else:
            seen = metered(seen, self.supply, self.contact)
            self._first_sight(seen)  # before anything is commanded: it decides what may be
            self._adopt(self.contact.identity)
            self._saw(seen, min(asked_s, seen.at_boot_s))
        self.advance(boot_s())

    def advance(self, now_s: float) -> None:
        """Give the command if it is due and nothing stands against it."""
        before, self.command = self.command, self.command.tick(now_s)
        if self.command.state is State.FAILED and before.state is not State.FAILED:
            log.error("asic.failed", device=self.id, reason=self.command.explain(now_s))
        driver, wish = self.contact.driver, self.command.goal
        if self._writing is not None or driver is None or wish is None:
            return
        if not self.command.due(now_s) or not self.contact.sure or self.dark is not None:
            return
        if wish.mode != SLEEP and self._resting() and not self._may_wake(wish, now_s):
            return
        self.command = self.command.sent(now_s)
        order = self.command.order
        self._writing = asyncio.create_task(self._write(driver, wish))
        self._writing.add_done_callback(lambda task: self._wrote(task, wish, order))

    def wake_now(self) -> None:
        """Its turn to wake has come."""
        if self.command.proven:
            return
        self.gate.let(self.command.order)
        self.command = self.command.waits(None, boot_s())
        self.advance(boot_s())

    # Its outlets' side

    @property
    def dark(self) -> Draw | None:
        """The proof that it has no power; None where it may have some."""
        return None if self.supply is None else self.supply.dark(self.contact)

    def lost_power(self, now_s: float) -> None:
        """It has no power: when it comes back, nothing of ours is in force there any more."""
        before = self.command
        self._held = self.others.ours = None
        self.command = before.powerless(now_s)
        if self.command.proven:
            self._settled.set()
        self._log_change(before, now_s)

    def may_power_up(self, now_s: float) -> bool:
        """Whether its outlets may be switched on: that is a wake, and waits for the same."""
        wish = self.command.goal
        return wish is not None and wish.mode != SLEEP and self._may_wake(wish, now_s)

    @property
    def identity(self) -> AsicIdentity | None:
        """Who it is; None while unknown."""
        return self._identity

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
        if self._writing is not None and before.interrupted_by(wish):
            self._writing.cancel()
        self.advance(now_s)

    def _goal(self) -> Goal | None:
        """What the machine is to do; None while nothing may be commanded."""
        known, asked = self._identity, self._asked
        if known is None or self.barred is not None:
            return None
        if self.memory.restraint.why_asleep is not None:
            return goal(known, ASLEEP, None)
        if asked is None or self.gate.found_asleep:
            return None
        return goal(known, asked, self._cap_w())

    def _cap_w(self) -> float | None:
        caps_w = (self.memory.restraint.limit_w, self.heat.cap_w)
        return min((cap_w for cap_w in caps_w if cap_w is not None), default=None)

    def _offered(self) -> tuple[AsicPoint, ...]:
        """The points that may be leased; none while it must not or cannot be set."""
        if self._identity is None or (self.barred or SHADOW) != SHADOW:
            return ()
        return offered(self._identity, self.memory.restraint.limit_w)

    def _resting(self) -> bool:
        """Whether giving it work means waking it. What was never seen to work counts as asleep."""
        if self._held is not None:
            return self._held == SLEEP
        seen = self.contact.seen
        if seen is None:
            return True
        return self.contact.looks_asleep(metered(seen, self.supply, self.contact)) is not False

    def _may_wake(self, wish: Goal, now_s: float) -> bool:
        """Whether a sleeping machine may be woken now; if not, its command says why."""
        board_c, order = self.contact.temperature_c, self.command.order
        bar = self.gate.bars(wish, order, self.memory, board_c, wall_s=time.time(), now_s=now_s)
        if bar is not None:
            self.command = self.command.waits(bar.why, now_s + bar.wait_s)
        return bar is None

    async def _write(self, driver: AsicDriver, wish: Goal) -> None:
        lane = self.lanes.lowering if self._lowers(wish) else self.lanes.raising
        async with lane, asyncio.timeout(self.lanes.rhythm.write_s):
            if wish.mode == SLEEP:
                await driver.sleep()
            else:
                await driver.set_point(wish.mode, wish.ask_w)

    def _lowers(self, wish: Goal) -> bool:
        seen = self.contact.seen
        return wish.mode == SLEEP or (
            seen is not None and seen.watts_w is not None and wish.most_w < seen.watts_w
        )

    def _wrote(self, task: asyncio.Task[None], wish: Goal, order: int) -> None:
        """A command has ended, one way or the other."""
        self._writing, now_s = None, boot_s()
        if task.cancelled():
            self._held = None
            self.advance(now_s)
            return
        fault = task.exception()
        reason = str(fault) or "no answer in time"
        if fault is None:
            self.command = self.command.accepted(order, now_s)
            self._took(wish, now_s)
        elif isinstance(fault, AsicRefused):
            self.command = self.command.refused(order, reason, now_s)
        else:
            self.command = self.command.unreachable(order, reason, now_s)
            if not isinstance(fault, AsicUnreachable | TimeoutError):
                log.error("device.failed", device=self.id, exc_info=fault)
        if fault is not None:
            log.warning("asic.write_failed", device=self.id, mode=wish.mode, reason=reason)
        self.advance(now_s)

    def _took(self, wish: Goal, now_s: float) -> None:
        """The machine accepted a command of ours."""
        known = self._identity
        pause_s = wish.settle_s + self.lanes.rhythm.settle_s
        self.others.wrote(wish.mode, now_s + pause_s)
        woken = wish.mode != SLEEP and self._resting()
        slept = wish.mode == SLEEP and (self._held or self.memory.written) != SLEEP
        self._held = wish.mode
        if self.command.goal == wish and known is not None:
            self._settled.set()
        self.gate.forget()
        ours = self.memory.written if self.gate.found_asleep is not False else wish.mode
        at_s = time.time()
        self.remember(lambda memory: memory.took(ours, at_s, slept=slept, woken=woken))

    # From what is seen to what follows

    def _adopt(self, found: AsicIdentity | None) -> None:
        """Take note of who it is; None: not the one that is meant."""
        if found is not None and (found, self.memory.transitions_s) == self._adopted:
            return
        known = None if found is None else with_times(found, dict(self.memory.transitions_s))
        self._adopted = None if found is None else (found, self.memory.transitions_s)
        if known == self._identity:
            return
        self._identity = known
        if known is None and self._writing is not None:
            self._writing.cancel()
        if known is not None:
            self.identified.set()
            log.info("asic.identified", device=self.id, model=known.model)
            if known.mac is not None and known.mac != self.memory.mac:
                self.remember(lambda memory: replace(memory, mac=known.mac))
        self._changed()

    def _saw(self, seen: AsicReading, asked_s: float) -> None:
        """Draw the conclusions from a sample that was asked for at `asked_s`."""
        now_s, before = boot_s(), self.command
        self.command = before.sample(seen.watts_w, seen.hashrate_h_per_s, asked_s, now_s)
        self._log_change(before, now_s)
        self._look_for_others(seen, now_s)
        self._feel(seen, now_s)
        self._expect(seen)

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
        after = self.command
        if after.state is before.state:
            return
        if after.state is State.CONFIRMED:
            self.contact.surprised()
            if before.state is State.FAILED:
                log.info("asic.obeys", device=self.id, now=after.explain(now_s))
        if after.state in (State.DRIFTED, State.UNREACHABLE):
            log.warning(f"asic.{after.state}", device=self.id, reason=after.reason)

    def _look_for_others(self, seen: AsicReading, now_s: float) -> None:
        if self._writing is not None:
            return
        alarm_s = self.lanes.rhythm.alarm_s
        theirs = self.others.look(seen.mode, seen.at_boot_s, now_s, alarm_s)
        if self.others.polls == 1:
            self.contact.surprised()
        if theirs is None or self.others.ours is None:
            return
        if self.others.polls == 2:
            log.warning("asic.foreign_write", device=self.id, ours=self.others.ours, theirs=theirs)
        if self._watts_of(theirs) > self._watts_of(self.others.ours):
            self.command = self.command.overruled(f"somebody else set {theirs}", now_s)

    def _watts_of(self, mode: str) -> float:
        """Watts of a mode; one that the machine did not offer may be anything, so its nameplate."""
        assert self._identity is not None
        watts = (point.watts_w for point in self._identity.points if point.mode == mode)
        return next(watts, self._identity.nameplate_w)

    def _feel(self, seen: AsicReading, now_s: float) -> None:
        """Lower a machine that is too hot, and let it up again."""
        known, wish = self._identity, self.command.goal
        if known is None:
            return
        points_w = [point.watts_w for point in known.points]
        held_w = known.nameplate_w if wish is None else self._watts_of(wish.mode)
        limit_c = self.lanes.section.board_limit_c
        heat = self.heat.felt(seen.temperature_c, limit_c, points_w, held_w, now_s)
        if heat != self.heat:
            self.heat = heat
            log.warning("asic.heat", device=self.id, cap_w=heat.cap_w)
            self._aim()

    def _expect(self, seen: AsicReading) -> None:
        """Ask for everything when the watts are not those of the point that it should hold."""
        wish = self.command.goal
        if wish is None or self.command.state is not State.CONFIRMED or seen.watts_w is None:
            return
        point_w = self._watts_of(wish.mode)
        if abs(seen.watts_w - point_w) > max(SURPRISE_SHARE * point_w, 20.0):
            self.contact.surprised()
