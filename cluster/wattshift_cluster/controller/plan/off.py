"""What is told of the plan where there is none (api.plan_views.PlanView)."""

from typing import Any

View = dict[str, Any]

SWITCHED_OFF = "the plan is switched off in the site file ([plan] enabled = false)"
NO_USE = (
    "this site makes no plan: nothing that one could use is known beforehand, no prices, events, "
    "peaks or deadlines ([plan] enabled = true asks for one)"
)


def view(enabled: bool | None) -> View:
    """What is told where no plan is made; `enabled` is the site file's word."""
    return blank("off", SWITCHED_OFF if enabled is False else NO_USE)


def blank(state: str, reason: str) -> View:
    """A plan without rows, and why."""
    keys = ("made_at", "status", "gap", "solve_s", "usd", "age_s", "expires_at", "start_at")
    lists = ("unmet", "notes", "events", "kinds", "batches", "rows", "made")
    found: View = {"state": state, "reason": reason}
    found |= dict.fromkeys((*keys, "step_s", "horizon_s"))
    return found | {name: [] for name in lists}
