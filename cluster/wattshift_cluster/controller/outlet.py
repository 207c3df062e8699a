"""The one way out: whatever the controller commands leaves here, and in shadow mode nothing does.

A site in shadow decides as always and commands nothing. Its core must hear an end of each command
all the same, or it would wait for ever: a lease counts as taken, anything else as done. What an
operator asks of a device is refused; what is only read still goes out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from wattshift_cluster.controller.agent_session import AgentSession
from wattshift_cluster.controller.bridge_session import BridgeSession
from wattshift_cluster.controller.inbox import Inbox
from wattshift_cluster.controller.unit_limits import UnitLimits
from wattshift_cluster.errors import Refused
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import Command, GrantLeases, LimitUnits

SHADOW_TEXT = "shadow mode: nothing is commanded here (site.toml: mode)"


class Outlet:
    """Between the controller's decisions and the sessions that carry them.

    Attributes:
        shadow: nothing is commanded.
    """

    def __init__(
        self,
        agents: Mapping[str, AgentSession],
        bridge: BridgeSession | None,
        inbox: Inbox,
        *,
        shadow: bool,
        limits: UnitLimits | None = None,
    ) -> None:
        """Prepare.

        Args:
            inbox: where the core hears of what was never sent.
            limits: carries power limits of services' replicas to the agents; None without compute.
        """
        self.shadow = shadow
        self._agents = agents
        self._bridge = bridge
        self._inbox = inbox
        self._limits = limits

    def send(self, command: Command) -> None:
        """Carry a command of the core out, or in shadow mode end it at once."""
        if self.shadow:
            self._inbox.put([_ended(command)])
        elif isinstance(command, GrantLeases):
            self._agents[command.agent].send(command)
        elif isinstance(command, LimitUnits):
            assert self._limits is not None, "a site without compute has no replicas to limit"
            self._limits.send(command)
        else:
            assert self._bridge is not None, "a site without compute has no nodes to command"
            self._bridge.send(command)

    async def ask(self, agent: str, op: str, *, reads: bool, **fields: Any) -> dict[str, Any]:
        """Ask an agent what an operator wants of it.

        Args:
            reads: the op changes nothing, whatever comes of it.

        Raises:
            Refused: shadow mode, and the op could change something.
            LinkError: no answer, or an error.
        """
        if self.shadow and not reads:
            self.commanding()
        return await self._agents[agent].ask(op, **fields)

    def commanding(self) -> None:
        """Raise Refused in shadow mode: for what cannot be done without a command."""
        if self.shadow:
            raise Refused(SHADOW_TEXT)


def _ended(command: Command) -> ev.Event:
    if not isinstance(command, GrantLeases):
        return ev.CommandEnded(command.id, True)
    n = len(command.devices)
    yes = np.ones(n, dtype=np.bool_)
    return ev.LeasesReplied(command.id, command.devices, command.sequence, yes, ("",) * n)
