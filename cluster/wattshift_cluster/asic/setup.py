"""What a driver is made of: the machine that was found, and what its owner allows."""

from dataclasses import dataclass

from wattshift_cluster.asic.driver import Credentials
from wattshift_cluster.asic.models import Ability
from wattshift_cluster.asic.probe import Found


@dataclass(frozen=True, slots=True)
class Setup:
    """What a driver is made of.

    Attributes:
        address: IPv4 address of the machine.
        found: what the probe saw.
        ability: what this firmware can do.
        credentials: the owner's; None: it is read, and commands that need a password are refused.
        deadline_s: for each exchange.
        prefer: the library that shall drive it instead of the first choice; see `connect`.
        nameplate_w: the most it draws, W, by its owner's word; None leaves it to our table.
    """

    address: str
    found: Found
    ability: Ability
    credentials: Credentials | None
    deadline_s: float
    prefer: str | None = None
    nameplate_w: float | None = None

    @property
    def may_command(self) -> bool:
        """Whether commands can be given with what the owner configured."""
        return self.credentials is not None or not self.ability.needs_password
