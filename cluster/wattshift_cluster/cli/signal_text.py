"""Signals as people read them: where the effective cap comes from, and what each source says."""

from typing import Any

from wattshift_cluster.cli.cap import overrides_text
from wattshift_cluster.cli.output import age, grid, number, pairs, watts

ROWS = 20
"""Of each list in a terminal; `-o json` has what the controller tells."""


def cap_rows(site: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what stands beside the effective cap: the cap it comes from, waits, targets."""
    rows: list[tuple[str, str]] = []
    stated_w = site.get("cap_stated_w")
    if stated_w is not None and (site["cap_waits"] or stated_w != site["cap_w"]):
        rows.append(("cap stated", f"{watts(stated_w)} ({site['cap_id']}, {site['cap_kind']})"))
    if site.get("cap_waits"):
        rows.append(("cap waits", site["cap_waits"]))
    if site.get("target_w") is not None:
        rows.append(("target", f"{watts(site['target_w'])} ({site['target_id'] or 'on its way'})"))
    if site.get("mining_target_w") is not None:
        why = f"notice of {site['notice']}" if site["notice"] else "a target"
        rows.append(("mining target", f"at most {watts(site['mining_target_w'])} ({why})"))
    if site.get("cap_advice") is not None:
        told = site["cap_advice"]
        sure = number(100.0 * told["confidence"], "%", 0)
        rows.append(("advice", f"{watts(told['limit_w'])} ({told['source']}, {sure} sure)"))
    return rows


def binding_text(site: dict[str, Any]) -> str:
    """Return why the site's cap is what it is, for `explain site`."""
    origin = site["cap_origin"] or "connection"
    return pairs(
        [
            ("cap", f"{watts(site['cap_w'])} ({origin} {site['cap_id'] or ''})".replace(" )", ")")),
            *cap_rows(site),
            ("margin", f"{watts(site['margin_w'])}, budget {watts(site['budget_w'])}"),
            ("next change", site.get("next_change_at") or "none is known"),
        ]
    )


def signals_text(view: dict[str, Any]) -> str:
    """Return the price and what each source says."""
    rows = [("price", number(view.get("price_usd_per_mwh"), "USD/MWh"))]
    if view.get("carbon_g_per_kwh") is not None:
        rows.append(("carbon", number(view["carbon_g_per_kwh"], "g/kWh")))
    told = [source_text(name, one) for name, one in view["sources"].items() if not _silent(one)]
    parts = [pairs(rows), *told]
    if view.get("overrides"):
        parts.append(overrides_text(view["overrides"]))
    return "\n\n".join(parts)


def _silent(one: dict[str, Any]) -> bool:
    """Whether it is a person's, who has taken back all that was said."""
    kept = ("caps", "targets", "events", "alerts")
    return one["kind"] == "operator" and not any(one[key] for key in kept)


def source_text(name: str, one: dict[str, Any]) -> str:
    """Return what one source says."""
    heard = "" if one["heard_age_s"] is None else f", heard {age(one['heard_age_s'])} ago"
    lines = [f"{name} ({one['kind']}{heard})"]
    if one["fault"] is not None:
        lines.append(f"  fault: {one['fault']}")
    found = [*_asked(one)]
    if found:
        lines.append(
            grid(("  ASKS", "ID", "WATTS", "STARTS", "ENDS", "IN FORCE"), found, ("WATTS",))
        )
    if one["left_out"] or len(found) == ROWS:
        lines.append("  more is told than is shown here")
    prices = one["prices"]
    if prices is not None:
        lines.append(f"  price {number(prices['now'], 'USD/MWh')} until {prices['ends_at']}")
    lines += [f"  not taken: {note}" for note in one["notes"][:ROWS]]
    return "\n".join(lines)


def _asked(one: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [
        *(("cap", row, row["limit_w"]) for row in one["caps"]),
        *(("target", row, row["watts_w"]) for row in one["targets"]),
        *(("event", row, row["commitment_w"]) for row in one["events"]),
        *((f"alert {row['name']}", row, None) for row in one["alerts"]),
    ]
    return [
        (
            f"  {what}",
            row["id"],
            "-" if told_w is None else watts(told_w),
            row["starts_at"] or "now",
            row["ends_at"] or "open",
            "yes" if row["in_force"] else "no",
        )
        for what, row, told_w in rows[:ROWS]
    ]
