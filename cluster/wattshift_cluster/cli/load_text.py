"""How the figures of a load are shown to people, and set beside those of an earlier one."""

from collections.abc import Mapping, Sequence
from typing import Any

from wattshift_cluster.cli.output import UNKNOWN, grid, number, pairs

BARS = "▁▂▃▄▅▆▇█"
COMPARED = (
    ("rate due", ("rate_due_per_s",), "/s"),
    ("rate answered", ("rate_answered_per_s",), "/s"),
    ("failed", ("failed",), ""),
    ("p50", ("latency_ms", "p50"), "ms"),
    ("p95", ("latency_ms", "p95"), "ms"),
    ("p99", ("latency_ms", "p99"), "ms"),
    ("TTFT p95", ("ttft_ms", "p95"), "ms"),
    ("ITL p95", ("itl_ms", "p95"), "ms"),
    ("tokens", ("tokens_per_s",), "/s"),
)
"""What is compared: name, where it stands in a report, unit."""

SAME = ("url", "arrivals", "rate_per_s", "ramp_per_s", "trace", "model")
"""Where two loads differ in these, their figures are of different things."""

FIGURE_MAX = 1e15
"""What an earlier report says beyond this is no figure."""


def result_text(view: Mapping[str, Any]) -> str:
    """A load for people."""
    rows = [
        ("asked", f"{view['method']} {view['url']}, {_rhythm(view)}, seed {view['seed']}"),
        ("measured", _measured(view)),
        (
            "requests",
            f"{view['due']} due, {view['sent']} sent, {view['answered']} answered, "
            f"{view['failed']} failed",
        ),
        *(("", _failure(view, cause, count)) for cause, count in view["failed_by"].items()),
        (
            "rate",
            f"{number(view['rate_due_per_s'], '/s')} due, "
            f"{number(view['rate_answered_per_s'], '/s')} answered, "
            f"at most {view['in_flight_peak']} under way",
        ),
        ("latency", f"{_spread(view['latency_ms'])}  from the moment due"),
        ("", _histogram(view["histogram"])),
    ]
    if view["queue_ms"]:
        rows.append(("queue", f"{_spread(view['queue_ms'])}  as the server tells it"))
    for name, key in (("TTFT", "ttft_ms"), ("ITL", "itl_ms"), ("per token", "tpot_ms")):
        if view[key]:
            rows.append((name, _spread(view[key])))
    if view["tokens"]:
        rows.append(("tokens", f"{view['tokens']}, {number(view['tokens_per_s'], '/s')}"))
    rows += [("objective", _objective(one)) for one in view["objectives"]]
    if (late := _late(view)) is not None:
        rows.append(("careful", late))
    tables = [pairs(rows)]
    if view["ramp_per_s"]:
        tables.append(_slices(view["slices"]))
    if view.get("compared"):
        tables.append(_compared(view["compared"]))
    return "\n\n".join(tables)


def compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Each figure of two reports, and in what the loads differed."""
    figures = []
    for name, path, unit in COMPARED:
        old, new = _at(before, path), _at(now, path)
        if old is None and new is None:
            continue
        change_pct = 0.0 if old == new else None
        if old and new is not None:
            change_pct = round(100 * (new / old - 1), 1)
        figures.append(
            {"name": name, "unit": unit, "before": old, "now": new, "change_pct": change_pct}
        )
    differ = [key for key in SAME if before.get(key) != now.get(key)]
    return {"differ": differ, "figures": figures}


def _at(view: Mapping[str, Any], path: Sequence[str]) -> float | None:
    found: Any = view
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    known = isinstance(found, int | float) and abs(found) < FIGURE_MAX
    return float(found) if known else None


def _failure(view: Mapping[str, Any], cause: str, count: int) -> str:
    words = " ".join(view["examples"].get(cause, cause).split())[:120]
    # A server wrote it: what steers a terminal is not for it to say.
    example = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in words)
    if example.startswith(cause):
        return f"{count} {example}"
    return f"{count} {cause}: {example}"


def _rhythm(view: Mapping[str, Any]) -> str:
    if view["ramp_per_s"]:
        first, last = view["ramp_per_s"]
        return f"{view['arrivals']}, {first:g}/s to {last:g}/s"
    rate = "its own rate" if view["rate_per_s"] is None else f"{view['rate_per_s']:g}/s"
    trace = f" {view['trace']}" if view["trace"] else ""
    return f"{view['arrivals']}{trace}, {rate}"


def _measured(view: Mapping[str, Any]) -> str:
    warm = f", after {view['warmup_requests']} to warm up" if view["warmup_requests"] else ""
    ended = " (interrupted)" if view["ended"] == "interrupted" else ""
    return f"{view['seconds']:g} s{warm}{ended}, at the client"


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return UNKNOWN
    told = [
        f"{name.replace('999', '99.9')} {milliseconds(found[name])}"
        for name in ("p50", "p90", "p95", "p99", "p999")
        if found[name] is not None
    ]
    return ", ".join([*told, f"max {milliseconds(found['max'])}"])


def milliseconds(value_ms: float | None) -> str:
    """Milliseconds for people."""
    if value_ms is None:
        return UNKNOWN
    return f"{value_ms / 1000:.3g} s" if value_ms >= 1000 else f"{value_ms:.3g} ms"


def _histogram(found: Mapping[str, Any]) -> str:
    counts, edges = found["answers"], found["up_to_ms"]
    seen = [at for at, count in enumerate(counts) if count]
    if not seen:
        return "no answers"
    first, last = seen[0], seen[-1]
    most = max(counts)
    # A bar is never left out: a single late answer is what one looks for.
    line = "".join(
        BARS[round(count / most * (len(BARS) - 1))] if count else " "
        for count in counts[first : last + 1]
    )
    low = "0" if first == 0 else milliseconds(edges[first - 1])
    high = milliseconds(edges[last]) if last < len(edges) else f"above {milliseconds(edges[-1])}"
    return f"{low} |{line}| {high}"


def _objective(one: Mapping[str, Any]) -> str:
    name = one["name"].replace("_", " ").replace("ttft", "TTFT").replace("itl", "ITL")
    word = "kept" if one["met"] else "MISSED"
    within = "" if one["within_pct"] is None else f"; {one['within_pct']:g} % within it"
    found, allowed = milliseconds(one["found_ms"]), milliseconds(one["allowed_ms"])
    return f"{name} {found} of {allowed} allowed: {word}{within}"


def _late(view: Mapping[str, Any]) -> str | None:
    late, latency = view["late_ms"], view["latency_ms"]
    if late is None or latency is None:
        return None
    worst_ms = late["p99"] if late["p99"] is not None else late["max"]
    if worst_ms < max(5.0, 0.1 * latency["p95"]):
        return None
    return (
        f"the load generator itself was up to {milliseconds(worst_ms)} late; that is in the latency"
    )


def _slices(slices: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{part['from_s']:.3g} s",
            number(part["rate_due_per_s"], "/s", 1),
            milliseconds(part["p50_ms"]),
            milliseconds(part["p95_ms"]),
            str(part["failed"]),
        ]
        for part in slices
    ]
    names = ("from", "due", "p50", "p95", "failed")
    return grid(names, rows, right=names)


def _compared(found: Mapping[str, Any]) -> str:
    rows = [
        [
            one["name"],
            number(one["before"], one["unit"]),
            number(one["now"], one["unit"]),
            UNKNOWN if one["change_pct"] is None else f"{one['change_pct']:+.1f} %",
        ]
        for one in found["figures"]
    ]
    table = grid(("figure", "before", "now", "change"), rows, right=("before", "now", "change"))
    if found["differ"]:
        table += f"\nThe two loads differ in: {', '.join(found['differ'])}."
    return table
