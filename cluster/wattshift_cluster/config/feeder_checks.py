"""What no single value of `[[feeders]]` can tell: the shape of the tree; limits above floors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wattshift_cluster.config import compute_checks
from wattshift_cluster.config.draft import Draft, Finding
from wattshift_cluster.config.quantities import format_watts
from wattshift_cluster.config.site import Feeder, SiteSection

Parents = Mapping[str, tuple[str, ...]]


def one_root(draft: Draft) -> Iterator[Finding]:
    """A site has one connection: exactly one feeder has no parent, and that has no second one."""
    rows = draft.raw.get("feeders")
    if not isinstance(rows, list):
        return
    if not rows:
        yield "feeders", None, "a site needs at least one feeder: its grid connection"
        return
    roots = [at for at, row in enumerate(rows) if isinstance(row, dict) and "parent" not in row]
    for at in roots[1:]:
        yield (
            f"feeders[{at}].parent",
            None,
            f"missing; feeders[{roots[0]}] is the root already, and a site has exactly one",
        )
    for at in roots[:1]:
        second = rows[at].get("second_parent")
        if second is not None:
            yield f"feeders[{at}].second_parent", second, "it has no parent beside this one"


def no_loop(draft: Draft) -> Iterator[Finding]:
    """No feeder hangs on itself, through either parent; each loop is one fault."""
    parents = _parents(draft)
    reported: set[str] = set()
    for path, feeder in draft.all(Feeder):
        loop = [] if feeder.name in reported else _loop(feeder.name, parents)
        if not loop:
            continue
        reported.update(loop)
        key = "parent" if feeder.parent == loop[1] else "second_parent"
        told = f"the feeders form a loop: {' > '.join(loop)}"
        yield f"{path}.{key}", loop[1], told


def two_ways(draft: Draft) -> Iterator[Finding]:
    """A second parent is a second way to the root: not the first, and on no way of the first."""
    parents = _parents(draft)
    for path, feeder in draft.all(Feeder):
        first, second = feeder.parent, feeder.second_parent
        if first is None or second is None or _loop(feeder.name, parents):
            continue
        where = f"{path}.second_parent"
        if second == first:
            yield where, second, "the same as its parent: that is one way, not two"
        elif second in upward(first, parents) or first in upward(second, parents):
            yield where, second, f"lies on one path with its parent {first}: losing one loses both"


def limit_stated_once(draft: Draft) -> Iterator[Finding]:
    """A limit is watts, or a breaker, and not both."""
    for path, feeder in draft.all(Feeder):
        breaker = {
            "amps": feeder.amps_a,
            "phases": feeder.phases,
            "min_voltage": feeder.min_voltage_v,
            "power_factor": feeder.power_factor,
        }
        given = [key for key, value in breaker.items() if value is not None]
        if feeder.stated_limit_w is None and feeder.amps_a is None:
            yield path, None, "has no limit; give limit (watts) or amps, phases and min_voltage"
        elif feeder.stated_limit_w is not None and given:
            yield path, None, f"has both limit and {', '.join(given)}; give one of the two"


def limits_above_floors(draft: Draft) -> Iterator[Finding]:
    """No feeder, less its margin, lies below what its subtree draws with everything at rest."""
    site = next((one for _, one in draft.all(SiteSection)), None)
    site_pct = 0.0 if site is None else site.margin_pct
    parents = _parents(draft)
    at_rest_w = [
        (upward(node.feeder, parents), node.idle_w) for _, node in compute_checks.places(draft)
    ]
    for path, feeder in draft.all(Feeder):
        if feeder.stated_limit_w is None and feeder.amps_a is None:
            continue
        margin_pct = site_pct if feeder.own_margin_pct is None else feeder.own_margin_pct
        floor_w = sum(w for above, w in at_rest_w if feeder.name in above)
        if feeder.parent is None and site is not None:
            floor_w += site.other_load_w
            floor_w = max(floor_w, site.floor_w or 0.0)
        usable_w = feeder.limit_w * (1 - margin_pct / 100)
        if usable_w < floor_w:
            least = format_watts(floor_w / (1 - margin_pct / 100))
            key = "amps" if feeder.stated_limit_w is None else "limit"
            yield (
                f"{path}.{key}",
                format_watts(feeder.limit_w),
                f"below what it draws with everything at rest ({format_watts(floor_w)} and "
                f"{margin_pct:g}% margin); allowed: at least {least}",
            )


def upward(name: str, parents: Parents) -> set[str]:
    """A feeder and everything above it by either parent, up to the root; loops end it."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        at = ahead.pop()
        if at not in found:
            found.add(at)
            ahead.extend(parents.get(at, ()))
    return found


def _parents(draft: Draft) -> Parents:
    return {
        feeder.name: tuple(
            name for name in (feeder.parent, feeder.second_parent) if name is not None
        )
        for _, feeder in draft.all(Feeder)
    }


def _loop(name: str, parents: Parents) -> list[str]:
    """The shortest way from a feeder up and back to itself, both ends named; empty: none."""
    came: dict[str, str] = {}
    ahead = [name]
    for at in ahead:
        for parent in parents.get(at, ()):
            if parent == name:
                way = [at]
                while way[-1] != name:
                    way.append(came[way[-1]])
                return [*way[::-1], name]
            if parent not in came:
                came[parent] = at
                ahead.append(parent)
    return []


CHECKS = (one_root, no_loop, two_ways, limit_stated_once, limits_above_floors)
