"""Money for people: the answer of `wattshift economics`, live and by formula."""

from collections import Counter
from typing import Any

from wattshift_cluster.cli.output import UNKNOWN, age, grid, hashrate, number, pairs, watts

POINTS = ("DEVICE", "POINT", "WATTS", "HASHRATE", "J/TH", "HASHES", "RESERVE", "ENERGY", "NET",
          "BREAK-EVEN")  # fmt: skip
LEASES_SHOWN = 10
VERDICTS = (
    ("earns", "earn more than their energy"),
    ("reserve", "cost more than they earn and run as reserve"),
    ("idles", "would cost more than they earn"),
    ("unknown", "unknown"),
)


def economics_text(view: dict[str, Any]) -> str:
    """Return the site's economics for people. Money per hour in USD, break-even in USD/MWh."""
    price = view["hashprice"]
    held = [("held back", one) for one in price["held"]]
    rows = [
        ("hashprice", f"{number(price['usd_per_ph_day'], 'USD/PH/day')} from {_from(price)}"),
        *(held or [("note", price["note"])] if price["note"] else held),
        ("pool", f"{price['scheme']}, fee {price['pool_fee_pct']:g} %"),
        ("energy", number(view["price_usd_per_mwh"], "USD/MWh")),
        *_carbon(view),
        ("reserve", number(view["reserve_usd_per_mwh"], "USD/MWh behind a gate")),
        ("verdict", _verdicts(view["devices"])),
        ("so far", _sums(view["total"])),
    ]
    parts = [pairs(rows)]
    points = [_point(one, point) for one in view["devices"] for point in one["points"]]
    if points:
        parts.append(grid(POINTS, points, right=POINTS[2:]))
    if view["devices"]:
        parts.append("\n".join(_verdict(one) for one in view["devices"]))
    if view["devices_left_out"]:
        parts.append(f"and {view['devices_left_out']} more devices; pick some with --device")
    if view["leases"]:
        head = ("ENDED LEASE", "MODE", "FROM", "TO", "CAME TO")
        parts.append(grid(head, [_lease(one) for one in view["leases"][:LEASES_SHOWN]]))
    return "\n\n".join(parts)


def _carbon(view: dict[str, Any]) -> list[tuple[str, str]]:
    """What the operator's price on carbon puts on energy, where it has one."""
    usd = view.get("carbon_usd_per_mwh")
    return [] if usd is None else [("carbon", f"{number(usd, 'USD/MWh')} of your own price")]


def _verdicts(devices: list[dict[str, Any]]) -> str:
    """How many devices hashing pays for, and how many it costs more than it earns."""
    counts = Counter(one["verdict"] for one in devices)
    told = [f"{counts[verdict]} {words}" for verdict, words in VERDICTS if counts[verdict]]
    return ", ".join(told) or "no device is known"


def _from(price: dict[str, Any]) -> str:
    seen = "" if price["age_s"] is None else f", {age(price['age_s'])} old"
    return f"{price['source']}{seen}"


def _point(device: dict[str, Any], point: dict[str, Any]) -> tuple[str, ...]:
    return (
        device["device"],
        point["mode"],
        watts(point["watts_w"]),
        hashrate(point["hashrate_h_per_s"]),
        number(point["j_per_th"], digits=1),
        small(point["gross_usd_per_h"]),
        small(point["reserve_usd_per_h"]),
        small(_spent(point)),
        small(point["net_usd_per_h"]),
        number(point["break_even_usd_per_mwh"]),
    )


def _spent(point: dict[str, Any]) -> float | None:
    """Energy with its carbon, USD/h: what NET takes off."""
    energy = point["energy_usd_per_h"]
    return None if energy is None else float(energy) + float(point.get("carbon_usd_per_h", 0.0))


def _verdict(one: dict[str, Any]) -> str:
    now = one["mode"] or UNKNOWN
    return f"{one['sentence']}. Now {now}; so far {_sums(one['account'])}"


def _sums(account: dict[str, Any]) -> str:
    earned = [f"{small(usd)} USD ({q})" for q, usd in sorted(account["revenue_usd"].items())]
    text = f"earned {' and '.join(earned) or 'nothing'}, energy {small(account['energy_usd'])} USD"
    if account["net_usd"] is None:
        return f"{text}; a part had no price and is not counted"
    return f"{text}, net {small(account['net_usd'])} USD"


def _lease(one: dict[str, Any]) -> tuple[str, ...]:
    return one["device"], one["mode"], one["began_at"], one["ended_at"] or "now", _sums(one)


def small(amount: float | None) -> str:
    """Return money so that a GPU's income is not rounded to nothing."""
    if amount is None:
        return UNKNOWN
    if amount == 0 or abs(amount) >= 0.1:
        return f"{amount:,.2f}"
    return f"{amount:.6f}" if abs(amount) >= 1e-4 else f"{amount:.2e}"


def worked_text(view: dict[str, Any]) -> str:
    """Return the worked table for people."""
    assumed = f"{view['height']:,}"
    if view["height_assumed"]:
        assumed = f"height {view['height']:,} is assumed, --height says another"
    head = [
        ("difficulty", f"{view['difficulty']:.4g}"),
        ("price", f"{view['usd_per_btc']:,.2f} USD/BTC"),
        ("subsidy", f"{view['subsidy_btc']:g} BTC ({assumed}; halves at {view['next_halving']:,})"),
        ("fees", f"{view['fees_btc']:g} BTC per block"),
        ("pool", f"{view['scheme']}, fee {view['pool_fee_pct']:g} %"),
        ("blocks", f"{view['blocks_per_ph_day']:.6g} per PH/s and day"),
        ("hashprice", f"{view['hashprice_usd_per_ph_day']:,.2f} USD/PH/day"),
    ]
    if view["pool_fee_pct"]:
        head.append(("after fee", f"{view['net_hashprice_usd_per_ph_day']:,.2f} USD/PH/day"))
    head.append(("share of 1", f"{view['share_of_difficulty_1_btc']:.4g} BTC"))
    priced = view["power_price_usd_per_mwh"] is not None
    names = ["J/TH", "BREAK-EVEN USD/MWh"]
    if priced:
        head.append(("energy", f"{view['power_price_usd_per_mwh']:,.2f} USD/MWh"))
        names += ["NET USD/PH/DAY", "CREDIT USD/MWh", "VERDICT"]
    rows = [_worked_row(row, priced) for row in view["rows"]]
    return "\n\n".join([pairs(head), grid(names, rows, right=names[:4])])


def _worked_row(row: dict[str, Any], priced: bool) -> list[str]:
    cells = [f"{row['j_per_th']:g}", f"{row['break_even_usd_per_mwh']:,.2f}"]
    if priced:
        cells.append(f"{row['net_usd_per_ph_day']:,.2f}")
        cells.append(f"{row['curtailment_credit_usd_per_mwh']:,.2f}")
        cells.append(row["verdict"])
    return cells
