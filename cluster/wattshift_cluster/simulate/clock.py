"""Jump over time in which nothing happens.

A settled site only renews its leases: the same inputs give the same answer, a little later. Such a
stretch need not be stepped second by second. Every time that the controller remembers moves with
the jump, as if it had asked and renewed all the while, and the world's clocks move likewise. The
simulator jumps only while nothing moves, nothing is broken and no answer is owed, and never past
the next change of price, demand, cap or fault.
"""

from dataclasses import replace

from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.state import State

LEDGER_TIMES = ("held_until_s", "until_s", "acked_s", "changed_s", "issued_s")
"""The columns of the ledger that hold times."""


def jumped(state: State, by_s: float) -> State:
    """The state after `by_s` seconds in which nothing happened."""
    ledger = Ledger(
        **{
            name: getattr(state.ledger, name) + (by_s if name in LEDGER_TIMES else 0)
            if name.endswith("_s")
            else getattr(state.ledger, name)
            for name in Ledger.__slots__
        }
    )
    seen = Telemetry(
        **{
            name: getattr(state.seen, name) + by_s if name == "at_s" else getattr(state.seen, name)
            for name in Telemetry.__slots__
        }
    )
    agents = {
        name: replace(agent, seen_s=agent.seen_s + by_s) for name, agent in state.agents.items()
    }
    return replace(
        state,
        ledger=ledger,
        seen=seen,
        agents=agents,
        # A jump is no time between decisions, but what a device lost meanwhile it has lost.
        turns=state.turns.passed(by_s),
        meter_at_s=state.meter_at_s + by_s,
        decided_s=state.decided_s + by_s,
    )
