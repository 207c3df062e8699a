"""A device's place on the ladder for people: its rung, the next, and what keeps it between them."""

from typing import Any

from wattshift_cluster.cli.output import age, number, pairs, watts


def rung_text(one: dict[str, Any]) -> str:
    """Return where a device stands on the ladder and why (api.rung_views.RungView)."""
    rows = [
        ("rule", f"{one['rule']}: {one['why']}"),
        ("rung", _step(one["now"], "none: it is at its lowest point")),
        ("next rung", _step(one["next"], "none: it is at its top")),
        ("marginal", _marginal(one["marginal_usd_per_mwh"])),
        ("energy", number(one["price_usd_per_mwh"], "USD/MWh") + _carbon(one) + _planned(one)),
        ("binds", _binds(one)),
    ]
    if one["cycle_usd"] is not None:
        pays = "" if one["payback_s"] is None else f", paid back in {age(round(one['payback_s']))}"
        digits = 2 if one["cycle_usd"] >= 0.01 else 4
        rows.append(("cycle", f"{number(one['cycle_usd'], 'USD', digits)} keeps it{pays}"))
    return pairs(rows)


def _step(step: dict[str, Any] | None, none: str) -> str:
    if step is None:
        return none
    worth = number(step["usd_per_mwh"], "USD/MWh")
    return f"{step['mode']}, {watts(step['watts_w'])}: worth {worth}"


def _marginal(usd: float | None) -> str:
    """The least valuable rung that runs anywhere."""
    return "none: no rung is running" if usd is None else number(usd, "USD/MWh")


def _carbon(one: dict[str, Any]) -> str:
    usd = one.get("carbon_usd_per_mwh")
    return "" if usd is None else f", its carbon {number(usd, 'USD/MWh')}"


def _planned(one: dict[str, Any]) -> str:
    shadow = one["shadow_usd_per_mwh"]
    return "" if shadow is None else f"; the plan values a watt at {number(shadow, 'USD/MWh')}"


def _binds(one: dict[str, Any]) -> str:
    """The feeder that binds on its way, and what a watt there would earn."""
    if one["binding"] is None:
        return "no feeder on its way"
    usd = one["binding_usd_per_mwh"]
    worth = "" if usd is None else f": {number(usd, 'USD/MWh')} with a watt more"
    return f"{one['binding']}{worth}"
