"""What happens during a demo, as shares of its length, and in the words of the feeds.

The grid speaks as at a real site: the utility through its OpenADR server, the market through a
price series. Nothing in the demo calls the controller to make its watts fall.
"""

from dataclasses import dataclass

from wattshift_cluster.controller.clock import rfc3339

SHORTEST_S = 45.0
"""Shorter runs cannot hold 200 requests per phase and a firmware's transition times."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. Shares are of the whole length, counted from ready.

    Attributes:
        seconds: whole length, s.
        cap_share: the cap during the cut, as a share of the power measured before it.
        cut_at, restore_at: when the cut begins and ends.
        burst_at, burst_until: when inference load is multiplied, before the cut.
        burst_factor: by how much.
        spike_at, spike_until: when energy costs `spike_usd_per_mwh`, inside the cut.
        price_usd_per_mwh, spike_usd_per_mwh: energy price otherwise and in the spike.
        rate_per_s: mean inference requests per second outside the burst, at most.
        batch_items: of the batch job, at most.
    """

    seconds: float
    cap_share: float = 0.7
    cut_at: float = 1 / 3
    restore_at: float = 2 / 3
    burst_at: float = 0.12
    burst_until: float = 0.25
    burst_factor: float = 2.0
    spike_at: float = 0.5
    spike_until: float = 0.58
    price_usd_per_mwh: float = 45.0
    spike_usd_per_mwh: float = 400.0
    rate_per_s: float = 18.0
    batch_items: int = 12_000

    def __post_init__(self) -> None:
        order: tuple[float, ...] = (0, self.burst_at, self.burst_until, self.cut_at, self.spike_at)
        order = (*order, self.spike_until, self.restore_at, 1)
        assert list(order) == sorted(order), "a scenario's moments must be in order"
        assert 0 < self.cap_share < 1, "a cut lowers the cap"

    def moment_s(self, ready_s: float, share: float) -> float:
        """Unix time of a share of the scenario, s."""
        return ready_s + share * self.seconds

    def prices_csv(self, ready_s: float) -> str:
        """The price feed: a step series with one spike."""
        steps = (
            (ready_s - 3600.0, self.price_usd_per_mwh),
            (self.moment_s(ready_s, self.spike_at), self.spike_usd_per_mwh),
            (self.moment_s(ready_s, self.spike_until), self.price_usd_per_mwh),
            (ready_s + 86400.0, self.price_usd_per_mwh),
        )
        rows = "".join(f"{rfc3339(at_s)},{usd}\n" for at_s, usd in steps)
        return f"time,usd_per_mwh\n{rows}"
