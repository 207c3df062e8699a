"""Power limits as an actuator: down at any time, up only as far as a lease covers.

A limit outlives its writer, so it is written with care: what was in force before the first write is
on disk before that write, the enforced limit is read back, and an exit of the agent writes nothing.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.gpu.found import FoundLimits
from wattshift_cluster.agent.gpu.library import FaultKind, GpuFault, Library
from wattshift_cluster.agent.gpu.sample import GpuSample
from wattshift_cluster.agent.gpu.setters import LimitSetter
from wattshift_cluster.bootclock import boot_s

T = TypeVar("T")

DEADLINE_S = 1.0
"""For one card's write. A driver needs some milliseconds; one that needs longer hangs."""

READ_BACK_S = 0.1
"""How long a written limit may take until it is enforced."""

READ_EVERY_S = 0.005
SAME_W = 1.0
"""Limits that differ by less are the same: firmware rounds."""

ROUNDING_W = 0.001
FOREIGN_AFTER_S = 1.5
"""From a write until a sample's limit must show it: it is read twice a second."""


@dataclass(frozen=True, slots=True)
class LimitResult:
    """What became of one write.

    Attributes:
        asked_w: limit asked for, W; None where there was nothing to restore.
        enforced_w: limit in force afterwards, read back, W; None is unknown.
        error: why `asked_w` is not what is enforced; None when it is.
        took_s: until the limit was read back, s.
    """

    asked_w: float | None
    enforced_w: float | None
    error: str | None
    took_s: float


class PowerLimits:
    """The limits of a host's cards. One per host: each limit has one owner."""

    def __init__(
        self,
        library: Library,
        cards: Sequence[Card],
        state_dir: Path,
        setter: LimitSetter,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Nothing is written yet.

        Args:
            library: NVML, open; limits are read through it.
            state_dir: where the limits that were found are kept.
            setter: what writes.
            deadline_s: see `DEADLINE_S`.
        """
        self._library = library
        self._cards = {card.uuid: card for card in cards}
        self._setter = setter
        self._deadline_s = deadline_s
        self._found = FoundLimits(state_dir)
        self._written_w: dict[str, float] = {}
        self._confirmed: dict[str, tuple[float, float]] = {}
        self._aloft: set[str] = set()
        self._unkept: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why no limit can be set; None when it seems that it can. Changes nothing.

        Asks the setter: a daemon may take a second to answer.
        """
        return self._setter.refusal()

    @property
    def privileged(self) -> bool:
        """Whether limits can be set, as far as is known without setting one."""
        return self.refusal is None

    async def set(
        self, wanted: Mapping[str, float], covered_w: Mapping[str, float] | None = None
    ) -> dict[str, LimitResult]:
        """Set limits, all cards at once; takes two deadlines at most.

        Args:
            wanted: limit by card, W.
            covered_w: what the lease in force covers, by card, W. A limit above both what we last
                wrote and what is enforced needs it; a lower one never does.
        """
        assert all(math.isfinite(limit_w) and limit_w > 0 for limit_w in wanted.values()), wanted
        covered_w = covered_w or {}
        refusal = await asyncio.to_thread(self._setter.refusal)
        if refusal is None:
            await self._remember([uuid for uuid in wanted if uuid in self._cards])
        writes = []
        for uuid, asked_w in wanted.items():
            card, cover_w = self._cards.get(uuid), covered_w.get(uuid)
            if refusal is not None or card is None:
                writes.append(_refuse(asked_w, refusal or "there is no such card"))
            else:
                writes.append(
                    self._bounded(card, asked_w, partial(self._write, card, asked_w, cover_w))
                )
        return dict(zip(wanted, await asyncio.gather(*writes), strict=True))

    async def release(self, uuid: str, covered_w: float | None = None) -> LimitResult:
        """Restore the limit that was in force before our first write, and forget it.

        Args:
            covered_w: what the lease in force covers, W; None where the owner explicitly wants it
                restored, lease or not.
        """
        card, found_w = self._cards.get(uuid), self._found.get(uuid)
        if card is None or found_w is None:
            return LimitResult(None, None, "no limit of this card was written by us", 0.0)
        if covered_w is not None and found_w > covered_w + ROUNDING_W:
            text = f"{found_w:.0f} W was found and the lease covers {covered_w:.0f} W"
            return LimitResult(found_w, None, text, 0.0)
        result = await self._bounded(card, found_w, partial(self._apply, card, found_w))
        if result.error is None:
            self._written_w.pop(uuid, None)
            self._confirmed.pop(uuid, None)
            try:
                await asyncio.to_thread(self._found.drop, uuid)
            except OSError as fault:
                return replace(result, error=f"restored, but that is not kept on disk: {fault}")
        return result

    def foreign(self, uuid: str, sample: GpuSample) -> bool:
        """Whether somebody else changed the limit since we wrote and read it back."""
        confirmed = self._confirmed.get(uuid)
        if confirmed is None or sample.enforced_limit_w is None:
            return False
        enforced_w, at_s = confirmed
        if sample.at_boot_s < at_s + FOREIGN_AFTER_S:
            return False
        return abs(sample.enforced_limit_w - enforced_w) > SAME_W

    async def _remember(self, uuids: list[str]) -> None:
        """Put the limits of cards that were never written on disk; a card that is left out is not
        written either."""
        new = [self._cards[uuid] for uuid in uuids if self._found.get(uuid) is None]
        if not new:
            return
        reads = (self._in_thread(card.uuid, partial(self._enforced_w, card)) for card in new)
        answers = await asyncio.gather(*reads, return_exceptions=True)
        found_w = {
            card.uuid: limit_w
            for card, limit_w in zip(new, answers, strict=True)
            if isinstance(limit_w, float)
        }
        self._unkept = None
        try:
            await asyncio.to_thread(self._found.add, found_w)
        except OSError as fault:
            self._unkept = str(fault)

    def _write(self, card: Card, asked_w: float, cover_w: float | None) -> LimitResult:
        """In a thread of its own: whether it may be written, then `_apply`."""
        before_w = self._enforced_or_none(card)
        known = [one for one in (self._written_w.get(card.uuid), before_w) if one is not None]
        target_w = _clamp(card, asked_w)
        if self._found.get(card.uuid) is None:
            text = f"its limit could not be restored: {self._unkept or 'it cannot be read'}"
            return LimitResult(asked_w, before_w, text, 0.0)
        raises = not known or target_w > min(known) + ROUNDING_W
        if raises and (cover_w is None or target_w > cover_w + ROUNDING_W):
            says = "no lease covers it" if cover_w is None else f"the lease covers {cover_w:.0f} W"
            return LimitResult(asked_w, before_w, f"{target_w:.0f} W is a raise and {says}", 0.0)
        # Until it is confirmed either may be in force: the lower one bounds what is no raise.
        self._written_w[card.uuid] = min([target_w, *known])
        return self._apply(card, asked_w)

    def _apply(self, card: Card, asked_w: float) -> LimitResult:
        """Write and read back."""
        began_s = time.monotonic()
        target_w = _clamp(card, asked_w)
        error = None
        try:
            self._setter.set_limit(card, target_w, self._deadline_s)
            self._written_w[card.uuid] = target_w
        except GpuFault as fault:
            error = str(fault)
        enforced_w = self._read_back(card, target_w, began_s)
        if error is None and enforced_w is not None:
            self._confirmed[card.uuid] = (enforced_w, boot_s())
        error = error or _difference(card, asked_w, enforced_w)
        return LimitResult(asked_w, enforced_w, error, time.monotonic() - began_s)

    def _read_back(self, card: Card, target_w: float, began_s: float) -> float | None:
        until_s = began_s + READ_BACK_S
        while True:
            enforced_w = self._enforced_or_none(card)
            settled = enforced_w is not None and abs(enforced_w - target_w) <= SAME_W
            if settled or time.monotonic() >= until_s:
                return enforced_w
            time.sleep(READ_EVERY_S)

    def _enforced_w(self, card: Card) -> float:
        handle = self._library.handle(card.uuid)
        return float(self._library.ask("nvmlDeviceGetEnforcedPowerLimit", handle)) / 1000

    def _enforced_or_none(self, card: Card) -> float | None:
        try:
            return self._enforced_w(card)
        except GpuFault:
            return None

    async def _bounded(
        self, card: Card, asked_w: float, write: Callable[[], LimitResult]
    ) -> LimitResult:
        try:
            return await self._in_thread(card.uuid, write)
        except GpuFault as fault:
            return LimitResult(asked_w, None, str(fault), 0.0)
        except TimeoutError:
            text = f"no answer within {self._deadline_s:g} s: the write may still take hold"
            return LimitResult(asked_w, None, text, self._deadline_s)

    async def _in_thread(self, uuid: str, work: Callable[[], T]) -> T:
        """Run in a thread that nobody waits for longer than the deadline.

        Raises:
            GpuFault: an earlier call on this card still hangs, or `work` raised it.
            TimeoutError: it hangs.
        """
        if uuid in self._aloft:
            raise GpuFault(FaultKind.UNKNOWN, "an earlier call on this card still hangs")
        self._aloft.add(uuid)
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # who stops waiting does not stop it

        def run() -> None:
            try:
                value = work()
            except BaseException as fault:  # whoever waits has to see it, whatever it is
                self._aloft.discard(uuid)
                done.set_exception(fault)
            else:
                self._aloft.discard(uuid)
                done.set_result(value)

        # No pool: a pool's threads are waited for at exit, and one may hang in the driver.
        threading.Thread(target=run, name=f"limit {uuid}", daemon=True).start()
        return await asyncio.wait_for(asyncio.wrap_future(done), self._deadline_s)


async def _refuse(asked_w: float, error: str) -> LimitResult:
    return LimitResult(asked_w, None, error, 0.0)


def _clamp(card: Card, asked_w: float) -> float:
    least_w = 0.0 if card.limit_least_w is None else card.limit_least_w
    most_w = math.inf if card.limit_most_w is None else card.limit_most_w
    return min(max(asked_w, least_w), most_w)


def _difference(card: Card, asked_w: float, enforced_w: float | None) -> str | None:
    """Why not what was asked for is enforced; None when it is."""
    if enforced_w is None:
        return "written, and it cannot be read back"
    if abs(enforced_w - asked_w) <= SAME_W:
        return None
    target_w = _clamp(card, asked_w)
    if abs(enforced_w - target_w) <= SAME_W:
        span = f"{card.limit_least_w or 0:.0f} to {card.limit_most_w or math.inf:.0f} W"
        return f"{asked_w:.0f} W is outside of {span}; {enforced_w:.0f} W is enforced"
    return f"{target_w:.0f} W was written and {enforced_w:.0f} W is enforced"
