"""The shape of what /v1/economics answers; names, units and times as in `port`."""

from typing import NotRequired

from typing_extensions import TypedDict

from wattshift_cluster.api.rung_views import RungView


class HashpriceView(TypedDict):
    """The hashprice in force, before the pool's fee; `held` says which figures are held back."""

    usd_per_ph_day: float | None
    source: str
    age_s: float | None
    note: str
    held: list[str]
    figures: dict[str, float]
    scheme: str
    pool_fee_pct: float


class PointMoneyView(TypedDict):
    """What a point adds over the device's lowest one; revenue is after the pool's fee.

    `carbon_usd_per_h` is what the operator's own price on carbon makes of its energy: nobody is
    billed for it, and the net counts it.
    """

    mode: str
    watts_w: float
    hashrate_h_per_s: float
    j_per_th: float | None
    gross_usd_per_h: float | None
    reserve_usd_per_h: float
    energy_usd_per_h: float | None
    carbon_usd_per_h: NotRequired[float]
    net_usd_per_h: float | None
    break_even_usd_per_mwh: float | None


class AccountView(TypedDict):
    """Sums since the controller started; `net_usd` is None where a part had no price.

    `revenue_usd` is by quality: "measured" or "emulated" from accepted shares, "modelled" from
    hashrate where nobody counts the shares.
    """

    seconds_s: float
    energy_j: float
    energy_usd: float
    revenue_usd: dict[str, float]
    net_usd: float | None
    unpriced_j: float
    unvalued_hashes: float


class LeaseMoneyView(AccountView):
    """What came of one lease; `ended_at` is None while it holds."""

    device: str
    mode: str
    watts_w: float | None
    began_at: str
    ended_at: str | None


class DeviceMoneyView(TypedDict):
    """One device; `verdict` is "earns", "reserve", "idles" or "unknown", `sentence` says why.

    `rung` is where it stands on the ladder.
    """

    device: str
    kind: str
    mode: str | None
    points: list[PointMoneyView]
    verdict: str
    sentence: str
    account: AccountView
    lease: LeaseMoneyView | None
    rung: NotRequired[RungView]


class EconomicsView(TypedDict):
    """What hashing earns and costs now, and the income so far; newest ended leases first.

    `carbon_usd_per_mwh` is what the operator's price on carbon puts on energy, None: it has none,
    or what energy emits is unknown. Sums of the income leave it out.
    """

    at: str
    hashprice: HashpriceView
    price_usd_per_mwh: float | None
    carbon_usd_per_mwh: NotRequired[float | None]
    reserve_usd_per_mwh: float
    devices: list[DeviceMoneyView]
    devices_left_out: int
    total: AccountView
    leases: list[LeaseMoneyView]


class ConfirmView(TypedDict):
    """Figures that were held and are in force now."""

    confirmed: list[str]
