"""What every device of an agent can do. All calls but `run` and `close` return at once."""

from typing import Protocol

from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Reading


class Device(Protocol):
    """One actuator with one owner: this agent."""

    @property
    def id(self) -> str:
        """Its name, unique in the site."""
        ...

    @property
    def inventory_version(self) -> int:
        """Grows whenever `info` changes."""
        ...

    def info(self) -> DeviceInfo | None:
        """What it is; None while not even its nameplate is known."""
        ...

    def terms(self) -> Terms | None:
        """What it can be leased now; None while unknown."""
        ...

    def reading(self) -> Reading:
        """The last sample."""
        ...

    def hold(self, lease: Lease) -> None:
        """Obey a lease from now on. What takes time goes on in `run`."""
        ...

    def safe(self) -> None:
        """Go to the safe point: the lease has ended."""
        ...

    async def run(self) -> None:
        """Carry out and sample until cancelled."""
        ...

    async def close(self) -> None:
        """Reach the safe point, within a deadline, and let go. `run` goes on meanwhile."""
        ...
