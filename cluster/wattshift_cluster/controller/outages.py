"""Whether the grid's power was lost at the site: told by the meter and the hosts together.

A meter that shows nothing may be at fault, and a host boots for many reasons. Both at one time are
an outage: the meter goes dark, hosts fall silent then or later, and come back with another boot
that began after it. An outage of this very host is no matter of this: whoever keeps what a utility
told keeps the boot id beside it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_scheduler.state import Agent

ZERO_SHARE = 1e-4
"""Of the connection: a meter without current shows nothing, or its own noise."""

DARK_S = 3.0
"""A shorter time without a reading is a lost sample or two."""

SLACK_S = 5.0
"""How much sooner than the meter's last sample a host's last answer may be: it is asked once a
second, and an exchange may take its deadline."""

BACK_WITHIN_S = 3600.0
"""A host that boots later after the power is back has reasons of its own."""


@dataclass(slots=True)
class _Dark:
    """A time without power at the meter: from its last sample that showed some until the next.

    `rebooted` are hosts that have booted since; `told`: the outage was told.
    """

    from_s: float
    until_s: float = math.inf
    rebooted: set[str] = field(default_factory=set)
    told: bool = False


class OutageWatch:
    """Holds the samples of the site meter and the boots of the agents' hosts against each other.

    A site without a meter or without agents never has an outage by this.
    """

    def __init__(self, connection_w: float) -> None:
        """Args: connection_w: what the connection carries, W."""
        self._zero_w = ZERO_SHARE * connection_w
        self._lit_s: float | None = None
        self._dark: _Dark | None = None
        self._known: dict[str, Agent] = {}

    def sampled(self, watts_w: float | None, at_s: float) -> None:
        """The meter was asked: W, None unknown, and when on our clock, s."""
        dark = self._dark
        if watts_w is not None and abs(watts_w) > self._zero_w:
            if dark is not None and math.isinf(dark.until_s):
                dark.until_s = at_s
            self._lit_s = at_s
            return
        lit_s = self._lit_s
        if lit_s is not None and at_s - lit_s >= DARK_S and (dark is None or dark.from_s != lit_s):
            self._dark = _Dark(lit_s)

    def judge(self, agents: Mapping[str, Agent]) -> str | None:
        """Look at the hosts' boots; why the power was lost, in words, once for each outage.

        Args:
            agents: as they are known now, by name.
        """
        dark, before = self._dark, self._known
        self._known = dict(agents)
        if dark is None or dark.told:
            return None
        for name, agent in agents.items():
            old = before.get(name)
            if old is not None and old.boot_id != agent.boot_id and _fits(dark, old, agent):
                dark.rebooted.add(name)
        # Those that were there when it became dark, come back or not; some may have run through.
        there = {name for name, one in agents.items() if one.seen_s >= dark.from_s - SLACK_S}
        if not dark.rebooted or 2 * len(dark.rebooted) < len(there | dark.rebooted):
            return None
        dark.told = True
        hosts = f"{len(dark.rebooted)} of {len(there | dark.rebooted)} hosts"
        return f"the meter showed nothing and {hosts} have booted since"


def _fits(dark: _Dark, old: Agent, new: Agent) -> bool:
    """Whether a host was up when it became dark, fell silent in the dark, and booted after that."""
    booted_s = new.seen_s - new.boot_s
    silent_in_it = dark.from_s - SLACK_S <= old.seen_s <= dark.until_s
    return silent_in_it and dark.from_s <= booted_s <= dark.until_s + BACK_WITHIN_S
