"""Devices behind the in-memory controller of `fakeport`: a card and an ASIC, as their agents do."""

from dataclasses import dataclass, field
from typing import Any

from wattshift_cluster.errors import Refused

GPU_LEAST_W, GPU_MOST_W = 200.0, 700.0
STEPS_PCT = (0, 10, 25, 50, 75, 100)


@dataclass
class FakeGpu:
    """A card behind its agent: a limit goes up only as far as its lease, and release restores."""

    enforced_w: float = GPU_MOST_W
    lease_w: float | None = None
    found_w: float | None = None
    gives_up: str | None = None
    state: str = "none"
    steps: int = 0

    def limit(self, asked_w: float) -> tuple[float, str | None]:
        """Returns what is enforced now, and why it is not what was asked for."""
        target_w = min(max(asked_w, GPU_LEAST_W), GPU_MOST_W)
        if target_w > self.enforced_w:
            if self.lease_w is None:
                return self.enforced_w, f"{target_w:.0f} W is a raise and no lease covers it"
            if target_w > self.lease_w:
                text = f"{target_w:.0f} W is a raise and the lease covers {self.lease_w:.0f} W"
                return self.enforced_w, text
        if self.found_w is None:
            self.found_w = self.enforced_w
        self.enforced_w = target_w
        span = f"{GPU_LEAST_W:.0f} to {GPU_MOST_W:.0f} W"
        outside = f"{asked_w:.0f} W is outside of {span}; {target_w:.0f} W is enforced"
        return target_w, None if target_w == asked_w else outside

    def release(self) -> float | None:
        """Returns the limit that it had at first; None when none was ever written."""
        self.lease_w = None
        first_w, self.found_w = self.found_w, None
        if first_w is not None:
            self.enforced_w = first_w
        return first_w

    def advance(self) -> None:
        """Measure one more step each time that somebody looks."""
        if self.state != "running":
            return
        if self.gives_up is not None and self.steps == 3:
            self.state = "aborted"
        elif self.steps == len(STEPS_PCT):
            self.state = "done"
        else:
            self.steps += 1

    def profile(self, device: str) -> dict[str, Any]:
        """Returns what is known of its curve; a fit needs two steps."""
        if self.state == "none":
            return {"device": device, "state": "none", "quality": "emulated"}
        taken = STEPS_PCT[: self.steps] if self.steps >= 2 else ()
        points = [
            {
                "intensity_pct": pct,
                "watts_w": 90.0 + 4.1 * pct,
                "error_w": 0.8,
                "hashrate_h_per_s": 3.1e7 * pct,
                "seconds": 5.2,
            }
            for pct in taken
        ]
        fitted = [
            {"mean_w": p["watts_w"], "low_w": p["watts_w"] - 6, "high_w": p["watts_w"] + 6}
            for p in points
        ]
        return {
            "device": device,
            "state": self.state,
            "reason": self.gives_up if self.state == "aborted" else None,
            "quality": "emulated",
            "points": points,
            "fitted": fitted,
            "residual_w": 0.4 if points else None,
        }


@dataclass
class FakeAsic:
    """A machine behind its agent: a sleep holds it, a lock too, and it may lie or be slow."""

    awake_w: float = 3_300.0
    watts_w: float | None = 3_300.0
    lock_by: str | None = None
    held: bool = False
    limit_w: float | None = None
    leased: bool = True
    obeys_after: int = 1
    error: str | None = None
    note: str | None = None
    away: bool = False
    looks: int = 0
    walks: str = "none"
    walked: int = 0
    stuck: bool = False
    how: dict[str, Any] = field(default_factory=dict)

    def walk(
        self, device: str, *, start: bool, stop: bool, dry_run: bool, how: dict[str, Any]
    ) -> dict[str, Any]:
        """Go down three points and back, one step each time that somebody looks."""
        if (start or dry_run) and self.lock_by is not None:
            raise Refused(f"{device} cannot be measured: locked by {self.lock_by}")
        if start:
            self.walks, self.walked, self.how = "running", 0, how
        elif stop:
            self.walks = "aborted" if self.walks == "running" else self.walks
        elif self.walks == "running" and not dry_run:
            self.walked += not self.stuck
            self.walks = "done" if self.walked == 4 else "running"
        state = "planned" if dry_run else self.walks
        head = {"device": device, "kind": "asic", "quality": "emulated", "state": state}
        if state == "none":
            return head
        modes = ["high", "middle", "low"]
        plan = [{"mode": m, "watts_w": 3000.0 - 900 * i} for i, m in enumerate(modes)]
        return head | {
            "reason": "stopped by an operator" if state == "aborted" else None,
            "at": None,
            "plan": [one | {"transition_s": 10.0} for one in plan],
            "expected_s": 90.0,
            "ends_at": "high",
            "points": [
                _walked(mode, 3000.0 - 900.0 * (at % 3), back=at == 3)
                for at, mode in enumerate([*modes, "high"][: self.walked])
            ],
        }

    def order(self, action: str, by: str, watts_w: float | None, override: bool) -> str | None:
        """Take an order; returns why not."""
        mine = self.lock_by in (None, by) or override
        if self.lock_by is not None and (action == "wake" or not mine):
            return f"locked by {self.lock_by}; only {self.lock_by} changes that"
        match action:
            case "sleep" | "wake":
                self.held = action == "sleep"
            case "lock" | "unlock":
                self.lock_by = by if action == "lock" else None
            case _:
                self.limit_w = watts_w
        self.looks = 0
        return None

    def look(self) -> None:
        """Somebody reads it once more."""
        self.looks += 1
        if self.looks > self.obeys_after and self.watts_w is not None:
            down = self.held or self.lock_by is not None or not self.leased
            self.watts_w = 25.0 if down else self.awake_w


def _walked(mode: str, watts_w: float, *, back: bool) -> dict[str, Any]:
    return {
        "mode": mode,
        "way": "back" if back else "down",
        "offered_w": watts_w,
        "watts_w": watts_w + 20.0,
        "error_w": 3.0,
        "source": "outlet",
        "own_w": watts_w - 100.0,
        "outlet_w": watts_w + 20.0,
        "hashrate_h_per_s": watts_w * 5e10,
        "j_per_th": 20.1,
        "temperature_c": None,
        "settle_s": 7.5 if back or mode != "high" else None,
        "seconds": 25.0,
        "settled": mode != "low",
        "income_usd_per_h": 0.25,
        "net_usd_per_h": None,
    }
