"""The outlets of this agent's devices: cut what did not sleep, feed watchdogs, bring up in turn.

A machine whose firmware has no watchdog can only be fenced from outside. `must_be_off` is for those
who told a machine to sleep and did not see it happen; the watchdog of a contactor is fed only while
the agent is healthy, so that a dead agent's machines lose their power by themselves.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from wattshift_cluster.agent.protocol import Quality
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.outlets import Pdu as Section
from wattshift_cluster.outlets.build import build
from wattshift_cluster.outlets.driver import OutletReading, Pdu, PduRefused, PduUnreachable
from wattshift_cluster.outlets.sequence import Carrier, Key, Known, Place, Switching, decide

log = structlog.get_logger()

LOOK_S = 1.0
STALE_S = 10.0
FEEDS_PER_PERIOD = 3

Cut = Literal["off", "not allowed", "no outlet", "failed"]


@dataclass(frozen=True, slots=True)
class OutletWatts:
    """A device's draw as its outlet measures it; better than what its firmware says.

    Attributes:
        at_boot_s: boot clock of this host when it was asked for, s.
        watts_w: W.
        quality: measured, or emulated.
        source: always "pdu".
    """

    at_boot_s: float
    watts_w: float
    quality: Quality
    source: Literal["pdu"] = "pdu"


class Fences:
    """Every PDU of one agent.

    Args:
        sections: `[[pdus]]`.
        healthy: whether watchdogs may be fed and outlets switched on.
        locked: devices that nobody may switch on now.
        connect: makes the driver of a section.
        look_s: period of its readings, s.

    Raises:
        ConfigInvalid: see `outlets.build`.
    """

    def __init__(
        self,
        sections: Sequence[Section],
        *,
        healthy: Callable[[], bool],
        locked: Callable[[], Collection[str]] = frozenset,
        connect: Callable[[Section], Pdu] = build,
        look_s: float = LOOK_S,
    ) -> None:
        self._sections = {section.name: section for section in sections}
        self._healthy = healthy
        self._locked = locked
        self._look_s = look_s
        self._pdus = {section.name: connect(section) for section in sections}
        self._places = tuple(_places(sections))
        self._carriers = _carriers(sections)
        self._behind: dict[str, list[Place]] = {}
        self._beside: dict[str, list[Place]] = {}
        for place in self._places:
            self._behind.setdefault(place.device, []).append(place)
            self._beside.setdefault(place.feeder, []).append(place)
        # A contactor with a watchdog is meant to be closed: it opens by itself when we are gone.
        self._known = {
            place.key: Known(wanted=True if self._sections[place.key[0]].watchdog else None)
            for place in self._places
        }
        self._seen: dict[Key, OutletReading] = {}
        self._switching: set[Key] = set()
        self._fed_s: dict[str, float] = {}
        self._errors: dict[str, str | None] = {}

    async def run(self) -> None:
        """Read, feed and switch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for name, section in self._sections.items():
                    group.create_task(self._look(name))
                    if section.watchdog is not None:
                        every_s = section.watchdog.opens_after_s / FEEDS_PER_PERIOD
                        group.create_task(self._feed(name, every_s))
        finally:
            await asyncio.gather(*(pdu.close() for pdu in self._pdus.values()))

    async def must_be_off(self, device: str, reason: str) -> Cut:
        """Take the power of a device whose sleep was not confirmed, and see that it is gone.

        It stays off until `may_be_on`. A cut that failed is tried again on and on.

        Args:
            device: its id.
            reason: for the log.
        """
        places = self._of(device)
        if not places:
            return "no outlet"
        if not self.may_cut(device):
            log.warning("fence.cut_not_allowed", device=device, reason=reason)
            return "not allowed"
        log.warning("fence.cut", device=device, outlets=len(places), reason=reason)
        for place in places:
            self._want(place, wanted=False)
        done = [await self._switch(Switching(place, on=False)) for place in places]
        return "off" if all(done) else "failed"

    def may_cut(self, device: str) -> bool:
        """Whether the device has outlets and its owner allows to take its power."""
        places = self._of(device)
        # All cords or none: half a machine would draw its whole load through the other half.
        return bool(places) and all(place.cut for place in places)

    def stay_off(self, device: str) -> None:
        """It was cut before: its outlets stay off, and are switched off if they are not."""
        for place in self._of(device):
            self._want(place, wanted=False)

    def may_be_on(self, devices: Iterable[str]) -> None:
        """Bring these devices' outlets up again, one after the other."""
        for device in devices:
            for place in self._of(device):
                self._want(place, wanted=True)

    def fenced(self, device: str) -> bool:
        """Whether the device loses its power by itself should this agent die now."""
        places = self._of(device)
        return bool(places) and all(self._fed(place.key[0]) for place in places)

    def powered(self, device: str) -> bool | None:
        """Whether any of its outlets is on; None: it has none, or one is unknown."""
        states = [None if seen is None else seen.on for seen in self._fresh(device)]
        if True in states:
            return True
        return None if None in states or not states else False

    def watts(self, device: str) -> OutletWatts | None:
        """The device's draw by its outlets; None unless each of them is metered and fresh."""
        seen = self._fresh(device)
        known = [one.watts_w for one in seen if one is not None and one.watts_w is not None]
        if not seen or len(known) < len(seen):
            return None
        return OutletWatts(_oldest_s(seen), sum(known), self._quality(device))

    def nothing(self, device: str) -> OutletWatts | None:
        """0 W, proven by the state of all its outlets, metered or not; None unless all are off."""
        if self.powered(device) is not False:
            return None
        return OutletWatts(_oldest_s(self._fresh(device)), 0.0, self._quality(device))

    def devices(self) -> Collection[str]:
        """All that hang on an outlet."""
        return self._behind.keys()

    def errors(self) -> dict[str, str]:
        """What is wrong with which PDU now."""
        return {name: error for name, error in self._errors.items() if error is not None}

    async def _look(self, name: str) -> None:
        """Read one PDU's outlets and switch what is due."""
        mine = [place for place in self._places if place.key[0] == name]
        while _going():
            asked_s = boot_s()
            try:
                seen = await self._pdus[name].read([place.key[1] for place in mine])
            except (PduUnreachable, PduRefused) as fault:
                self._complain(name, str(fault))
                for place in mine:
                    self._known[place.key] = replace(self._known[place.key], on=None, watts_w=None)
            else:
                self._complain(name, None)
                for place in mine:
                    # What was read before a command that is still under way says nothing any more.
                    if place.key not in self._switching:
                        self._take(place, seen[place.key[1]], asked_s)
                await self._switch_due(name)
            await asyncio.sleep(self._look_s)

    async def _switch_due(self, name: str) -> None:
        """Give the commands that fall to one PDU; its feeder is judged over all that hangs there.

        Each one is decided afresh: while the last was under way the others may have moved.
        """
        feeder = self._sections[name].feeder
        carriers = {feeder: self._carriers[feeder]}
        for _ in self._sections[name].outlets:
            found = decide(self._beside[feeder], self._known, carriers, self._locked(), boot_s())
            mine = (one for one in found if one.place.key[0] == name)
            due = next((one for one in mine if not one.on or self._healthy()), None)
            if due is None:
                return
            await self._switch(due)

    async def _switch(self, switching: Switching) -> bool:
        """One command with its read-back; False where it was not seen to be done."""
        place, before = switching.place, self._known[switching.place.key]
        pdu, outlet = place.key
        # Noted before the first await: from now on every other decision counts with it.
        now_s = boot_s()
        self._known[place.key] = replace(before, on=None, tried_s=now_s, switched_s=now_s)
        # "off" as it was read before we switch on would be a false proof.
        self._seen.pop(place.key, None)
        self._switching.add(place.key)
        try:
            seen = await self._pdus[pdu].switch(outlet, on=switching.on)
        except (PduUnreachable, PduRefused) as fault:
            self._complain(pdu, str(fault))
            log.error("fence.not_switched", device=place.device, on=switching.on, reason=str(fault))
            return False
        finally:
            self._switching.discard(place.key)
            self._known[place.key] = replace(self._known[place.key], tried_s=boot_s())
        self._take(place, seen, now_s)
        log.info("fence.switched", device=place.device, on=switching.on, before=before.on)
        return True

    async def _feed(self, name: str, every_s: float) -> None:
        """Feed one watchdog for as long as this agent is healthy."""
        while _going():
            if self._healthy():
                at_s = boot_s()
                try:
                    await self._pdus[name].feed()
                    self._fed_s[name] = at_s
                except (PduUnreachable, PduRefused) as fault:
                    self._complain(name, str(fault))
            await asyncio.sleep(every_s)

    def _take(self, place: Place, seen: OutletReading, asked_s: float) -> None:
        before = self._known[place.key]
        by_itself = before.on is not None and seen.on is not None and before.on is not seen.on
        # It counts from when it was asked for: the answer may be older than its arrival.
        self._seen[place.key] = replace(seen, at_boot_s=asked_s)
        self._known[place.key] = replace(
            before,
            on=seen.on,
            watts_w=seen.watts_w,
            switched_s=boot_s() if by_itself else before.switched_s,
        )

    def _want(self, place: Place, *, wanted: bool) -> None:
        self._known[place.key] = replace(self._known[place.key], wanted=wanted)

    def _complain(self, name: str, error: str | None) -> None:
        if error is not None and self._errors.get(name) != error:
            log.warning("fence.pdu", pdu=name, reason=error)
        self._errors[name] = error

    def _fed(self, name: str) -> bool:
        watchdog, fed_s = self._sections[name].watchdog, self._fed_s.get(name)
        return (
            watchdog is not None and fed_s is not None and boot_s() < fed_s + watchdog.opens_after_s
        )

    def _quality(self, device: str) -> Quality:
        emulated = any(self._sections[place.key[0]].emulated for place in self._of(device))
        return "emulated" if emulated else "measured"

    def _of(self, device: str) -> list[Place]:
        return self._behind.get(device, [])

    def _fresh(self, device: str) -> list[OutletReading | None]:
        """What each of a device's outlets last said; None where that is too old."""
        found = [self._seen.get(place.key) for place in self._of(device)]
        since_s = boot_s() - STALE_S
        return [one if one is not None and one.at_boot_s > since_s else None for one in found]


def _going() -> bool:
    """Whether this task was not cancelled.

    A cancellation that meets an answer in the same moment is lost in `asyncio.wait_for` before
    Python 3.12, which the libraries use; an agent would then never end.
    """
    task = asyncio.current_task()
    return task is None or not task.cancelling()


def _oldest_s(seen: Iterable[OutletReading | None]) -> float:
    return min(one.at_boot_s for one in seen if one is not None)


def _places(sections: Sequence[Section]) -> Iterable[Place]:
    for section in sections:
        for outlet in section.outlets:
            yield Place(
                key=(section.name, outlet.id),
                device=outlet.device,
                feeder=section.feeder,
                power_on_w=outlet.power_on_w,
                cut=section.cut,
                rest_s=section.rest_s,
            )


def _carriers(sections: Sequence[Section]) -> dict[str, Carrier]:
    """One per feeder; where sections differ, the stricter figure holds."""
    found: dict[str, Carrier] = {}
    for section in sections:
        one = found.get(section.feeder, Carrier(section.feeder_limit_w, 0.0, 0.0))
        found[section.feeder] = Carrier(
            min(one.limit_w, section.feeder_limit_w),
            max(one.stagger_s, section.stagger_s),
            max(one.boot_s, section.boot_s),
        )
    return found
