"""Signals as people read them: where the effective cap comes from, and what each source says."""

from typing import Any

from wattshift_cluster.cli.cap import overrides_text
from wattshift_cluster.cli.feeder_text import short_text
from wattshift_cluster.cli.output import age, grid, moment, number, pairs, watts

ROWS = 20
"""Of each list in a terminal; `-o json` has what the controller tells."""


def cap_rows(site: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what stands beside the effective cap: its source's, waits, targets, what is next."""
    rows: list[tuple[str, str]] = []
    stated_w = site.get("cap_stated_w")
    if stated_w is not None and (site["cap_waits"] or stated_w != site["cap_w"]):
        rows.append(("cap stated", f"{watts(stated_w)} ({cap_name(site)}, {site['cap_kind']})"))
    if short := short_text(site):
        rows.append(("shortfall", short))
    if site.get("cap_waits"):
        rows.append(("cap waits", site["cap_waits"]))
    if site.get("target_w") is not None:
        name = site.get("target_name") or site["target_id"] or "on its way"
        held = _held(site["power_w"], site["target_w"])
        rows.append(("target", f"{watts(site['target_w'])} ({name}), {held}"))
    if site.get("mining_target_w") is not None:
        event = site.get("notice_name") or site["notice"]
        why = f"notice of {event}" if event else "a target"
        told = f"at most {watts(site['mining_target_w'])} ({why}), draws {watts(site['mining_w'])}"
        rows.append(("mining target", told))
    if site.get("cap_advice") is not None:
        told = site["cap_advice"]
        sure = number(100.0 * told["confidence"], "%", 0)
        rows.append(("advice", f"{watts(told['limit_w'])} ({told['source']}, {sure} sure)"))
    return [*rows, *_next_rows(site)]


def _held(drawn_w: float | None, target_w: float) -> str:
    """How near the meter is to a target."""
    if drawn_w is None or target_w <= 0:
        return f"draws {watts(drawn_w)}"
    return f"draws {watts(drawn_w)}, {100.0 * (drawn_w / target_w - 1.0):+.1f} %"


def _next_rows(site: dict[str, Any]) -> list[tuple[str, str]]:
    """What the cap will be next, and what else changes before that."""
    rows = []
    if site.get("next_cap_w") is not None:
        whose = f"{site['next_cap_origin']} {site['next_cap_name'] or ''}".strip()
        told = f"{watts(site['next_cap_w'])} from {moment(site['next_cap_at'])} ({whose})"
        rows.append(("next cap", told))
    if site.get("next_change_at") not in (None, site.get("next_cap_at")):
        rows.append(("next change", moment(site["next_change_at"])))
    return rows


def cap_text(site: dict[str, Any]) -> str:
    """Return the effective cap with its origin and its name."""
    origin = f"{site['cap_origin'] or ''} {cap_name(site)}".strip()
    return f"{watts(site['cap_w'])} ({origin})" if origin else watts(site["cap_w"])


def cap_name(site: dict[str, Any]) -> str:
    """Return what people call the cap that holds: its name, or else its id."""
    return str(site.get("cap_name") or site["cap_id"] or "")


def binding_text(site: dict[str, Any]) -> str:
    """Return why the site's cap is what it is, for `explain site`."""
    rows = cap_rows(site)
    if site.get("next_change_at") is None:
        rows.append(("next change", "none is known"))
    margin = f"{watts(site['margin_w'])}, budget {watts(site['budget_w'])}"
    return pairs([("cap", cap_text(site)), ("margin", margin), *rows])


def carbon_rows(view: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the carbon of energy now, where a source tells it."""
    carbon = view.get("carbon_g_per_kwh")
    return [] if carbon is None else [("carbon", number(carbon, "g/kWh", 0))]


def signals_text(view: dict[str, Any]) -> str:
    """Return the price and what each source says."""
    rows = [("price", number(view.get("price_usd_per_mwh"), "USD/MWh")), *carbon_rows(view)]
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
            grid(("  ASKS", "NAME", "ID", "WATTS", "STARTS", "ENDS", "IN FORCE"), found, ("WATTS",))
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
        *(("alert", row, None) for row in one["alerts"]),
    ]
    return [
        (
            f"  {what}",
            row.get("name") or "-",
            row["id"],
            "-" if told_w is None else watts(told_w),
            moment(row["starts_at"], "now"),
            moment(row["ends_at"]),
            "yes" if row["in_force"] else "no",
        )
        for what, row, told_w in rows[:ROWS]
    ]
