"""When an ASIC loses its power at the outlet, and when it gets it back.

A sleep that failed, or that cannot be confirmed because the machine is silent, ends at the outlet,
where the owner allowed that. Power comes back for nothing but a lease above sleep, after the same
rest and in the same queue as any wake: a machine that boots draws what it likes for a while.

A cut is on disk before the outlet obeys, with what the machine was, for nobody can ask one that has
no power. So it is still ours after a restart, and ends as it would have. An outlet that somebody
else has switched off is left as it is.
"""

import asyncio
import time
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, replace

import structlog

from wattshift_cluster.agent.asics.fences import LOOK_S, Fences
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.supply import Supply
from wattshift_cluster.asic.driver import SLEEP
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.outlets import Pdu
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.kept import KeptCut

log = structlog.get_logger()

CUT_GRACE_S = 30.0
"""How long a silent machine's sleep may stay unconfirmed on top of its settling time: a switch that
restarts is back by then."""

KEEP_S = 2.0
"""How long a cut waits for the disk: power safety does not hang on one that is slow or full."""


@dataclass(slots=True)
class _Cut:
    """What was decided for one machine.

    Attributes:
        reason: why.
        allowed: whether its owner allows it.
        rising: whether it is to have power again.
        resumed: of an earlier life of this agent, and its outlet not seen since.
        busy: whether its outlet is being commanded.
    """

    reason: str
    allowed: bool = True
    rising: bool = False
    resumed: bool = False
    busy: bool = False


class Fencing:
    """The outlets of an agent's ASICs, and who among those is to have power."""

    def __init__(
        self,
        sections: Sequence[Pdu],
        devices: Sequence[AsicDevice],
        keeper: Keeper | None = None,
        *,
        shadow: bool = False,
        grace_s: float = CUT_GRACE_S,
        look_s: float = LOOK_S,
    ) -> None:
        """Give those devices their supply; nothing is sent before `run`.

        Args:
            sections: `[[pdus]]`.
            devices: all ASICs of the agent.
            keeper: writes cuts to disk before they are done; None: within a second or so.
            shadow: outlets are only read.
            grace_s: see CUT_GRACE_S.
            look_s: period of readings and decisions, s.

        Raises:
            ConfigInvalid: see `outlets.build`.
        """
        self._live = not shadow
        self._shadow = shadow
        self._grace_s = grace_s
        self._look_s = look_s
        self._all = tuple(devices)
        self._fences = Fences(
            sections, healthy=lambda: self._live, locked=self._locked, look_s=look_s
        )
        hanging = self._fences.devices()
        self._mine = [(one, Supply(one.id, self._fences)) for one in devices if one.id in hanging]
        for device, supply in self._mine:
            device.supply = supply
        self._keeper = keeper
        self._cuts: dict[str, _Cut] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if not shadow:
            for device in devices:
                self._resume(device)

    async def run(self) -> None:
        """Read, feed, decide and switch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fences.run())
                group.create_task(self._watch())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def end(self) -> None:
        """The agent ends: no watchdog is fed any more, and nothing is switched on."""
        self._live = False

    async def _watch(self) -> None:
        while True:
            for device, supply in self._mine:
                try:
                    self._turn(device, supply, boot_s())
                except Exception:  # a fault of ours in one device must not stop the others
                    log.exception("device.failed", device=device.id)
            await asyncio.sleep(self._look_s)

    def _turn(self, device: AsicDevice, supply: Supply, now_s: float) -> None:
        supply.look(now_s)
        fenced = self._fences.fenced(device.id)
        if fenced is not supply.fenced:
            supply.fenced = fenced
            device.inventory_version += 1
        if device.dark is not None and not (device.command.proven or _above_sleep(device)):
            device.lost_power(now_s)
        cut = self._cuts.get(device.id)
        if cut is None:
            reason = self._hopeless(device, supply, now_s)
            if reason is not None:
                self._cut(device, reason)
        elif cut.busy:
            pass
        elif not cut.allowed:
            if device.command.proven or _above_sleep(device):
                del self._cuts[device.id]
        elif cut.rising:
            self._rising(device, cut)
        elif cut.resumed and not self._fences.may_cut(device.id) and self._on(device):
            self._over(device)  # its owner allows no cuts any more, and somebody switched it on
        elif _above_sleep(device) and device.may_power_up(now_s):
            self._begin(cut, self._raise(device, cut))
        supply.remark = self._remark(device.id)

    def _hopeless(self, device: AsicDevice, supply: Supply, now_s: float) -> str | None:
        """Why a machine must lose its power to be curtailed; None while it need not."""
        command, wish = device.command, device.command.goal
        if self._shadow or wish is None or wish.mode != SLEEP or command.proven:
            return None
        if supply.elsewhere(device.contact) is not None:
            return None  # it would be another machine's power
        silent = command.state is State.UNREACHABLE or command.silent_s is not None
        late = now_s > command.unproven_s + wish.settle_s + self._grace_s
        if command.state is State.FAILED or (silent and late):
            return command.explain(now_s)
        return None

    def _resume(self, device: AsicDevice) -> None:
        """A cut of an earlier life goes on: the outlet stays off, or is on its way up."""
        kept = device.memory.cut
        if kept is None:
            return
        if device.supply is None:  # it hangs on no outlet of ours any more
            device.remember(lambda memory: replace(memory, cut=None))
            return
        log.info("fencing.resumed", device=device.id, reason=kept.reason, rising=kept.rising)
        self._cuts[device.id] = _Cut(kept.reason, rising=kept.rising, resumed=True)
        if not kept.rising:
            self._fences.stay_off(device.id)

    def _cut(self, device: AsicDevice, reason: str) -> None:
        cut = self._cuts[device.id] = _Cut(reason)
        self._begin(cut, self._carry_out(device, cut))

    def _begin(self, cut: _Cut, doing: Coroutine[None, None, None]) -> None:
        cut.busy = True
        task = asyncio.create_task(doing)
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            cut.busy = False

        task.add_done_callback(over)

    async def _carry_out(self, device: AsicDevice, cut: _Cut) -> None:
        """Take the power; what fails at first is tried again by the fences themselves."""
        if self._fences.may_cut(device.id):
            known = device.contact.identity or device.lessons.own
            await self._keep(device, KeptCut(cut.reason, time.time(), known))
            if _above_sleep(device):
                self._over(device)
                return
        outcome = await self._fences.must_be_off(device.id, cut.reason)
        cut.allowed = outcome in ("off", "failed")
        if cut.allowed:
            at_s = time.time()
            device.remember(lambda memory: replace(memory, slept_s=at_s))

    async def _raise(self, device: AsicDevice, cut: _Cut) -> None:
        """Let its outlet be switched on in its turn."""
        log.info("fencing.power_up", device=device.id)
        if (kept := device.memory.cut) is not None:
            await self._keep(device, replace(kept, rising=True))
        cut.rising = True
        self._fences.may_be_on([device.id])

    def _rising(self, device: AsicDevice, cut: _Cut) -> None:
        """It is to have power again: until it has, a lease may still change its mind."""
        powered = self._fences.powered(device.id)
        if powered:
            self._over(device)
        elif cut.resumed:
            if powered is False:  # it did not come to that: it is cut as before
                self._fences.stay_off(device.id)
                self._cuts[device.id] = _Cut(cut.reason)
        elif not _above_sleep(device) and device.command.goal is not None:
            self._cut(device, cut.reason)

    def _on(self, device: AsicDevice) -> bool:
        return self._fences.powered(device.id) is True

    def _over(self, device: AsicDevice) -> None:
        del self._cuts[device.id]
        device.remember(lambda memory: replace(memory, cut=None))

    async def _keep(self, device: AsicDevice, kept: KeptCut) -> None:
        """Have it on disk before the outlet obeys, if the disk is quick enough."""
        device.remember(lambda memory: replace(memory, cut=kept))
        if not kept.rising:  # it rests as after any sleep
            device.remember(lambda memory: replace(memory, slept_s=kept.since_s))
        if self._keeper is None:
            return
        saving = asyncio.create_task(self._keeper.save({device: device.memory}))
        done, _ = await asyncio.wait({saving}, timeout=KEEP_S)
        fault = saving.result().get(device.id) if done else "the disk does not answer"
        if fault is not None:
            log.error("fencing.not_kept", device=device.id, reason=fault)

    def _remark(self, device: str) -> str | None:
        cut = self._cuts.get(device)
        if cut is None or not cut.allowed:
            return None
        if cut.rising:
            return "its outlet is switched on again in its turn"
        done = self._fences.powered(device) is False
        return f"{'cut' if done else 'to be cut'} at its outlet: {cut.reason}"

    def _locked(self) -> Collection[str]:
        return {one.id for one in self._all if one.memory.restraint.lock is not None}


def _above_sleep(device: AsicDevice) -> bool:
    wish = device.command.goal
    return wish is not None and wish.mode != SLEEP
