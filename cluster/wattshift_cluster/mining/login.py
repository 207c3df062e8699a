"""How to greet a pool: who we are, what we can do, what to go on with, and how long to wait."""

from dataclasses import dataclass, field
from typing import Any

from wattshift_cluster.mining.feed import WANTED_MASK
from wattshift_cluster.mining.job import Extranonce


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Longest waits, s. `idle_s`: nothing at all from the pool; pools renew jobs every minute."""

    connect_s: float = 5.0
    configure_s: float = 2.0
    answer_s: float = 10.0
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Resume:
    """An earlier session: the pool's name for it, and the extranonce that it had."""

    session_id: str
    extranonce: Extranonce


@dataclass(frozen=True, slots=True)
class Login:
    """What to say in the handshake.

    Attributes:
        suggest_difficulty: share difficulty to ask for.
        minimum_difficulty: the least that we accept (BIP 310); only where the pool knows it.
        roll_versions: offer version rolling.
        extranonce_changes: say that set_extranonce is understood.
        resume: an earlier session to go on with.
    """

    user: str
    password: str = field(default="x", repr=False)
    agent: str = "wattshift"
    suggest_difficulty: float | None = None
    roll_versions: bool = True
    minimum_difficulty: float | None = None
    extranonce_changes: bool = True
    resume: Resume | None = None

    def configure(self) -> list[Any] | None:
        """The parameters of mining.configure (BIP 310); None where nothing is asked for."""
        names: list[str] = []
        options: dict[str, Any] = {}
        if self.roll_versions:
            names.append("version-rolling")
            options["version-rolling.mask"] = f"{WANTED_MASK:08x}"
            options["version-rolling.min-bit-count"] = 2
        if self.minimum_difficulty is not None:
            names.append("minimum-difficulty")
            options["minimum-difficulty.value"] = self.minimum_difficulty
        if names and self.extranonce_changes:
            names.append("subscribe-extranonce")
        return [names, options] if names else None
