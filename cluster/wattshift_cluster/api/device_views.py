"""The shape of what is told of devices, and of what became of orders to them.

Units end the names; None is unknown, never 0.
"""

from typing import NotRequired

from typing_extensions import TypedDict


class DeviceView(TypedDict):
    """One device; `state` is "confirmed", "settling", "unknown", "unreachable" or "shadow".

    `reported_mode`, `error` and `note` are its agent's words. `watts_source` says who tells an
    ASIC's watts: "sensor", "estimate", "outlet" or what was "learnt" of its point. `asleep` is
    judged by its draw, or by its hashrate where it reports no watts; None where neither is known.
    In a shadow site `mode` and `leased_w` are what it would be leased. `cycle_usd` is what one
    sleep and wake costs: its wear, and what it does not earn while it boots. `cycles` counts the
    wakes that its agent has ever caused; None where that is not known. `table_bytes` is what it
    mines from and keeps in its card's memory, 0 without such a table; `table_held_bytes` and
    `table_progress`, 0 to 1, say what of it is there now.
    """

    id: str
    kind: str
    model: str
    agent: str
    feeder: str
    mode: str | None
    leased_w: float | None
    ceiling_w: float
    watts_w: float | None
    quality: str
    age_s: float | None
    watts_source: NotRequired[str | None]
    hashrate_h_per_s: float | None
    state: str
    value_usd_per_h: float | None
    reason: str
    reported_mode: str | None
    asleep: bool | None
    error: str | None
    note: str | None
    wear_usd_per_cycle: NotRequired[float]
    cycle_usd: NotRequired[float]
    cycles: NotRequired[int | None]
    table_bytes: NotRequired[int]
    table_held_bytes: NotRequired[int | None]
    table_progress: NotRequired[float | None]


class UnseenView(TypedDict):
    """A machine of an agent's file that never answered and whose nameplate is not known.

    It is no device: it is in no sum, whatever it draws. `feeder` is where its agent's devices hang,
    `reason` why it is not known, `since` when that was first told.
    """

    id: str
    agent: str
    feeder: str
    reason: str
    since: str


class DeviceList(TypedDict):
    """Answer of /v1/devices."""

    devices: list[DeviceView]
    unseen: list[UnseenView]


class LimitView(TypedDict):
    """One power limit as it was asked for and as it is enforced now."""

    device: str
    asked_w: float
    enforced_w: float | None
    error: str | None
    took_s: float


class LimitList(TypedDict):
    """Answer of a POST to /v1/limits."""

    limits: list[LimitView]


class FleetRow(TypedDict):
    """How one ASIC took an order; `state` is its agent's word, `fault` why it was not ok.

    `fault` is None, "refused" or "unreachable"; `error` says it in words.
    """

    device: str
    ok: bool
    error: str | None
    state: str | None
    fault: str | None


class FleetRows(TypedDict):
    """Answer of a POST to /v1/fleet/{action}."""

    action: str
    dry_run: bool
    rows: list[FleetRow]


class ReleaseView(TypedDict):
    """A device at its safe point, and the first power limit that a GPU got back."""

    device: str
    limit: LimitView | None
