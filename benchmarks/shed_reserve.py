"""How much of a site must stand behind gates for a shed to be in time, by how slow its ASICs are.

Modelled: the simulator's world with the real `step`. A site whose ASICs ramp in T seconds sheds
30 % on a cap that comes without warning. The smallest share of the site's load that must be gated
mining for the site to be under the cap by the deadline is found by halving, to half a percent.
Faster than the deadline, ASICs need no help; slower, the gates must carry nearly all of it.
"""

from wattshift_cluster.simulate.feeds import Feeds, Series
from wattshift_cluster.simulate.run import simulate
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.values import Values

SITE_W = 100_000.0
OTHER_SHARE = 0.4
"""Of the site's load, what nobody leases: the inference that must not notice."""

ASICS, GATES = 20, 4
SHED_SHARE = 0.3
SEED = 7
TO_PCT = 0.5
MOST_PCT = 40.0
WARM_FACTOR = 4.0
"""The cut comes after so many transition times: by then every machine hashes at its top."""

ASIC_USD_PER_MWH, GATE_USD_PER_MWH, PRICE_USD_PER_MWH = 80.0, 60.0, 45.0
"""A gated watt is the cheapest one here, so that it goes first and comes back last."""

HASHPRICE_USD_PER_PH_DAY = 42.3


def reserve_pct_needed(transition_s: float, deadline_s: float) -> float | None:
    """Least share of the site's load behind gates, %; None if even the most is not enough."""
    if not _in_time(MOST_PCT, transition_s, deadline_s):
        return None
    if _in_time(0.0, transition_s, deadline_s):
        return 0.0
    low_pct, high_pct = 0.0, MOST_PCT
    while high_pct - low_pct > TO_PCT:
        middle_pct = (low_pct + high_pct) / 2
        if _in_time(middle_pct, transition_s, deadline_s):
            high_pct = middle_pct
        else:
            low_pct = middle_pct
    return round(high_pct, 1)


def _in_time(gated_pct: float, transition_s: float, deadline_s: float) -> bool:
    took_s = _seconds_to_cap(gated_pct / 100.0, transition_s)
    return took_s is not None and took_s <= deadline_s


def _seconds_to_cap(gated_share: float, transition_s: float) -> float | None:
    """From the cut to the cap, s; None if the site never got there."""
    cut_s = 60.0 + WARM_FACTOR * transition_s
    end_s = cut_s + 60.0 + 2.0 * transition_s
    cap = Cap("cut", "grid", (1.0 - SHED_SHARE) * SITE_W, cut_s, None)
    flat = Series((0.0,), (PRICE_USD_PER_MWH,), "constant")
    driven = Feeds(flat, Series((0.0,), (0.0,), "none"), (cap,), "one cut")
    mining = Job("mining", JobKind.MINING, "standing", {"devices": ["*"]}, 0.0)
    result = simulate(
        _site(), _values(), _devices(gated_share, transition_s), [mining], driven,
        days=end_s / 86400.0, seed=SEED,
    )  # fmt: skip
    sheds = [shed for shed in result.sheds if shed["to_w"] == cap.limit_w]
    return sheds[-1]["seconds_to_cap"] if sheds else None


def _site() -> Site:
    tree = FeederTree.of([Feeder("main", None, 1.2 * SITE_W)])
    other_w = OTHER_SHARE * SITE_W / 0.9  # the world draws nine tenths of the bound
    return Site("shed", tree, rules=Rules(margin_share=0.015, other_load_w=other_w))


def _values() -> Values:
    return Values(
        hashprice_usd_per_ph_day=HASHPRICE_USD_PER_PH_DAY, reserve_usd_per_mwh=GATE_USD_PER_MWH
    )


def _devices(gated_share: float, transition_s: float) -> list[Device]:
    """ASICs and gates that fill the site up together; a share of zero leaves no gate at all."""
    asic_w = (1.0 - OTHER_SHARE - gated_share) * SITE_W / ASICS
    rate = asic_w * ASIC_USD_PER_MWH / 1e6 * 24.0 / HASHPRICE_USD_PER_PH_DAY * 1e15
    points = (
        OperatingPoint("sleep", 0.01 * asic_w, 0.0, transition_s),
        OperatingPoint("mine", asic_w, rate, transition_s),
    )
    asics = [
        Device(f"asic-{i:02d}", "asic", "farm", "main", points, asic_w, safe_w=0.01 * asic_w)
        for i in range(ASICS)
    ]
    if gated_share <= 0.0:
        return asics
    gate_w = gated_share * SITE_W / GATES
    gated = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", gate_w, 1e-5, 0.01))
    return asics + [
        Device(f"gate-{i}", "gpu", "host", "main", gated, gate_w, continuous=True, fenced=True)
        for i in range(GATES)
    ]
