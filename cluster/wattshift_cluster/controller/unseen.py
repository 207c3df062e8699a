"""Machines that an agent's file names, that were never identified, and have no nameplate there.

Such a machine is no device: with no watts to count it at it is in no sum, whatever it draws. So it
is named, by an alarm, until it answers or its owner says what it may draw. One that the controller
knows from before, or that another agent has, is counted there and is not named here.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from wattshift_cluster.config.site import AgentRef
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.state import Alarm

NAMED = 5
"""Machines named in one alarm; the rest are counted."""

WORDS_MOST = 120
"""Characters of an agent's reason: alarms of many machines are read by people."""

MEND = 'set nameplate (as "3500W") in its [[asics]] section of the agent\'s file'


@dataclass(frozen=True, slots=True)
class Missing:
    """A machine that counts nothing.

    Attributes:
        id: as the agent's file has it.
        agent, feeder: whose file that is, and where that agent's devices hang.
        reason: why it is not known, in the agent's words.
        since_s: when it was first told of, our clock, s.
    """

    id: str
    agent: str
    feeder: str
    reason: str
    since_s: float


class Unseen:
    """The machines of all agents that count nothing because nobody knows what they may draw.

    Attributes:
        machines: by agent, then by id: two agents may both name one.
        alarms: that hold now, by id: one for each agent with such a machine.
    """

    def __init__(
        self, tell: Callable[..., None], counted: Callable[[Iterable[str]], Set[str]]
    ) -> None:
        """Start with nothing.

        Args:
            tell: takes decisions, to be written down and told.
            counted: which of these ids are devices of the site, so that their watts count.
        """
        self.machines: Mapping[str, Mapping[str, Missing]] = {}
        self.alarms: Mapping[str, Alarm] = {}
        self._tell = tell
        self._counted = counted

    def heard(self, ref: AgentRef, silent: Mapping[str, str], now_s: float) -> None:
        """Take in what an agent reads and cannot announce; what it said before is forgotten.

        Args:
            ref: the agent.
            silent: why each such machine is not known, by id (agent_words.unannounced).
            now_s: our clock, s.
        """
        before = self.machines.get(ref.name, {})
        if not silent and not before:
            return
        counted = self._counted(silent)
        now = {
            name: Missing(
                name,
                ref.name,
                ref.feeder,
                why[:WORDS_MOST],
                before[name].since_s if name in before else now_s,
            )
            for name, why in sorted(silent.items())
            if name not in counted
        }
        if now == before:
            return
        self.machines = {**self.machines, ref.name: now}
        came = [name for name in now if name not in before]
        told = [Decision(now_s, name, "unseen", _told(now[name]), {}) for name in came]
        told += self._alarmed(ref.name, now, now_s, anew=bool(came))
        if told:
            self._tell(*told)

    def _alarmed(
        self, agent: str, now: Mapping[str, Missing], now_s: float, *, anew: bool
    ) -> list[Decision]:
        """The decision on the agent's alarm, if it came, went, or names another machine."""
        key = f"device-unseen:{agent}"
        before = self.alarms.get(key)
        kept = {name: alarm for name, alarm in self.alarms.items() if name != key}
        if not now:
            self.alarms = kept
            return [] if before is None else [Decision(now_s, key, "all clear", before.text, {})]
        rows = [f"{name} ({one.reason})" for name, one in now.items()]
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        text = (
            f"agent {agent}: never identified, and without a nameplate counts nothing, whatever it "
            f"draws: {', '.join(rows[:NAMED])}{more}; until it answers, {MEND}"
        )
        since_s = now_s if before is None else before.since_s
        self.alarms = {**kept, key: Alarm(key, "warning", text, since_s)}
        return [Decision(now_s, key, "alarm", text, {"severity": "warning"})] if anew else []


def _told(one: Missing) -> str:
    return (
        f"agent {one.agent} does not know what it is ({one.reason}): without a nameplate it counts "
        f"nothing, whatever it draws; until it answers, {MEND}"
    )
