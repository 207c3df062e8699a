"""The parts of one ASIC as its agent knows it, and what follows from them at a moment.

Nothing is commanded here: `machine` acts on these parts, `words` tells of them.
"""

from collections.abc import Callable
from dataclasses import replace

from wattshift_cluster.agent.asics.contact import Connect, Contact
from wattshift_cluster.agent.asics.gate import WakeGate
from wattshift_cluster.agent.asics.income import Income
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.lessons import Lessons
from wattshift_cluster.agent.asics.others import Others
from wattshift_cluster.agent.asics.profile import Walk
from wattshift_cluster.agent.asics.supply import Draw, Supply, metered
from wattshift_cluster.agent.asics.wish import offered
from wattshift_cluster.asic.driver import AsicIdentity, AsicPoint, AsicReading
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import Command
from wattshift_cluster.fleet.memory import Memory
from wattshift_cluster.fleet.safety import Heat

SHADOW = "this agent is in shadow mode: it only reads"


class Standing:
    """One ASIC.

    Attributes:
        asic: its section of agent.toml.
        inventory_version: grows whenever what is told of it changes.
        memory: what outlives this process; `dirty` once it has changed.
        damage: why that could not be read; it is not commanded then.
        lanes: shared with the agent's other machines.
        command: the last wish and what became of it.
        contact: who answers, and what it says.
        gate: when it may be woken.
        heat: how far it is held down for being hot.
        lessons: what is learnt of it.
        others: who watches for other masters.
        supply: its outlets; None where nothing is known of them.
        shadow: nothing is written, and yet its points are told.
        income: what its proxy says of its shares; None where it mines through none.
        unpaid: why nobody pays for what it hashes; None where somebody may.
        walk: the measurement of its points, or the last one; None before the first.
        rest: until when it sleeps whatever is asked of it; None while it may be woken in its turn.
    """

    def __init__(
        self,
        asic: Asic,
        lanes: Lanes,
        memory: Memory,
        damage: str | None,
        refusal: str | None,
        connect: Connect,
        lessons: Lessons,
    ) -> None:
        """Prepare; nothing is sent. `refusal`: why it must never be written; None when it may."""
        self.asic = asic
        self.inventory_version = 0
        self.memory = memory
        self.dirty = False
        self.damage = damage
        self.lanes = lanes
        self.command = Command(pace=lanes.pace)
        self.heat = Heat()
        self.lessons = lessons
        self.gate = WakeGate(asic, lanes)
        self.others = Others()
        self.supply: Supply | None = None
        self.shadow = False
        self.income: Income | None = None
        self.unpaid: str | None = None
        self.walk: Walk | None = None
        self.rest: str | None = None
        self._refusal = refusal
        pinned = None if asic.emulated else memory.mac
        self.contact = Contact(
            asic,
            pinned,
            connect,
            lanes.rhythm,
            lanes.whereabouts,
            memory.moved,
            memory.owners_choice,
        )

    @property
    def id(self) -> str:
        """Its name."""
        return self.asic.id

    @property
    def identity(self) -> AsicIdentity | None:
        """Who it is and what is told of it; None while unknown."""
        return self.lessons.identity

    @property
    def barred(self) -> str | None:
        """Why nothing may be written to it; None when it may."""
        return self._refusal or self.damage or (SHADOW if self.shadow else None)

    @property
    def why_asleep(self) -> str | None:
        """Why it may do nothing but sleep; None when it may."""
        kept = self.memory.restraint.why_asleep
        return kept or ("asleep since before us" if self.gate.found_asleep else None)

    @property
    def closed(self) -> str | None:
        """Why nothing but sleep may be leased now; None when all that it offers may."""
        return self.why_asleep or self.rest or self.unpaid

    @property
    def dark(self) -> Draw | None:
        """The proof that it has no power; None where it may have some."""
        return None if self.supply is None else self.supply.dark(self.contact)

    @property
    def cap_w(self) -> float | None:
        """The most watts that a point may have by an operator's limit and by heat; None: any."""
        caps_w = (self.memory.restraint.limit_w, self.heat.cap_w)
        return min((cap_w for cap_w in caps_w if cap_w is not None), default=None)

    def offered(self) -> tuple[AsicPoint, ...]:
        """The points that may be leased; none while it must not or cannot be set."""
        if self.identity is None or (self.barred or SHADOW) != SHADOW:
            return ()
        return offered(self.identity, self.memory.restraint.limit_w)

    def as_metered(self, seen: AsicReading) -> AsicReading:
        """A sample with the watts of a meter, or as near to a meter's as is known."""
        return metered(self.lessons.corrected(seen), self.supply, self.contact)

    def remember(self, change: Callable[[Memory], Memory]) -> None:
        """Change its memory; the sweep writes it down soon. A damaged file is left as evidence."""
        self.memory, self.dirty = change(self.memory), self.damage is None

    def keep_what_was_seen(self) -> None:
        """Remember where it was followed to, and how its owner ran it."""
        moved, choice = self.contact.trail.moved, self.contact.choice
        if (moved, choice) != (self.memory.moved, self.memory.owners_choice):
            self.remember(lambda memory: replace(memory, moved=moved, owners_choice=choice))
