"""What the source asks of its VTN in one round: to be known, programs, events, and to be told.

An answer is whole or it is none: a VTN of 3.1 shows events that have targets only to those whom it
has granted them, so a site that was not registered would see a part and take it for all.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr.failures import VtnRefused
from wattshift_cluster.grid.openadr.kept import Known
from wattshift_cluster.grid.openadr.words import (
    Event,
    Program,
    ResourceWish,
    SubscriptionWish,
    Vtn,
)

REGISTER_AGAIN_S = 300.0
"""How often it is asked which targets the VTN has granted."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the source wants of its VTN.

    Attributes:
        poll_s: poll period, s.
        programs: names or ids of the programs that it follows; none: all that it is shown.
        resources: what it registers beside itself; None: it does not even register itself.
        callback: where and with which bearer notices are to be told; None: by no webhook.
        each_program: whether a subscription must name a program (OpenADR 3.0).
        skew_alarm_s: how far the VTN's clock may be off before people are told aloud, s.
    """

    poll_s: float = 10.0
    programs: tuple[str, ...] = ()
    resources: tuple[ResourceWish, ...] | None = ()
    callback: SubscriptionWish | None = None
    each_program: bool = False
    skew_alarm_s: float = 30.0

    def follows(self, program: Program) -> bool:
        """Whether a program is one of those that are followed."""
        return not self.programs or bool({program.id, program.name} & set(self.programs))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: everything that the VTN shows of the programs followed, and our targets."""

    events: tuple[Event, ...]
    programs: tuple[Program, ...]
    groups: frozenset[str]


class Asking:
    """Asks one VTN, and remembers what it would not do.

    Attributes:
        refusals: what was refused lately, each by what was asked, as a note for people.
        ven_id: of this site at the VTN; None until it was told.
    """

    def __init__(
        self,
        client: Vtn,
        wishes: Wishes,
        ven_name: str,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: clock_s: monotonic seconds."""
        self._client, self._wishes, self._ven_name = client, wishes, ven_name
        self._clock_s = clock_s
        self._registered_s: float | None = None
        self._subscribed: set[str | None] = set()
        self.refusals: dict[str, str] = {}
        self.ven_id: str | None = None

    async def ask(self, known: Known) -> Answer:
        """One round. Raises: WattshiftError, where there was no whole answer."""
        try:
            groups = await self._register(known.groups)
            programs = await self._programs(known)
            events = await self._events(programs)
        except WattshiftError:
            # A VTN that comes back may have forgotten us.
            self._registered_s = None
            self._subscribed.clear()
            raise
        await self._subscribe(programs)
        return Answer(tuple(events), tuple(programs), groups)

    def register_again(self) -> None:
        """Ask for our targets in the next round: they may have changed."""
        self._registered_s = None

    async def _register(self, groups: frozenset[str]) -> frozenset[str]:
        """Our targets. Raises: also where the VTN refuses though it had given us targets before."""
        now_s, resources = self._clock_s(), self._wishes.resources
        fresh = self._registered_s is not None and now_s - self._registered_s < REGISTER_AGAIN_S
        if fresh or resources is None:
            return groups
        try:
            made = await self._client.register(self._ven_name, resources)
        except VtnRefused as no:
            if groups:
                raise
            self.refusals["register"] = f"the VTN does not register this site: {no}"
            self._registered_s = now_s
            return groups
        self.refusals.pop("register", None)
        self._registered_s = now_s
        self.ven_id = made.ven.id
        return frozenset({*made.ven.targets}.union(*(one.targets for one in made.resources)))

    async def _programs(self, known: Known) -> list[Program]:
        try:
            programs = await self._client.programs()
        except VtnRefused as no:
            if self._wishes.programs:
                raise
            self.refusals["programs"] = f"the VTN shows no programs: {no}"
            return list(known.programs.values())
        self.refusals.pop("programs", None)
        return [one for one in programs if self._wishes.follows(one)]

    async def _events(self, programs: Sequence[Program]) -> list[Event]:
        self.refusals.pop("missing", None)
        if not self._wishes.programs:
            return await self._client.events()
        shown = {key for program in programs for key in (program.id, program.name)}
        missing = [name for name in self._wishes.programs if name not in shown]
        if missing:
            self.refusals["missing"] = f"the VTN shows no program {', '.join(missing)}"
        return [one for program in programs for one in await self._client.events(program.id)]

    async def _subscribe(self, programs: Sequence[Program]) -> None:
        """Ask for notices wherever that has not been done since the VTN was last lost."""
        wish = self._wishes.callback
        if wish is None:
            return
        named = self._wishes.each_program or bool(self._wishes.programs)
        wanted: list[str | None] = [one.id for one in programs] if named else [None]
        for program_id in wanted:
            if program_id in self._subscribed:
                continue
            try:
                await self._client.subscribe(wish.model_copy(update={"program_id": program_id}))
            except WattshiftError as fault:
                self.refusals["subscribe"] = f"no notices by webhook: {fault}"
                return
            self._subscribed.add(program_id)
        self.refusals.pop("subscribe", None)
