"""Overrides and injected events: what lifts a cap, for how long, and what never does."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.signal_feed import SourceFeed
from wattshift_cluster.errors import ConfigInvalid, NotFound, Refused, TryLater, WattshiftError
from wattshift_cluster.grid.said import Said
from wattshift_scheduler.signals.words import Cap, CapKind

NOW_S: float = rig.NOW_S


def said(c: Controller) -> None:
    caps = (
        Cap("evt", "utility", 3e6),
        Cap("fuse", "utility", 8e6, kind=CapKind.BREAKER),
        Cap("over", "utility", 2e6, ends_s=NOW_S),
    )
    SourceFeed(c, rig.Quiet()).take(Said("utility", NOW_S, caps))
    rig.turned(c)


@pytest.fixture
def clock() -> Any:
    return rig.HandClock()


@pytest.fixture
def front(tmp_path: Path, clock: Any) -> Iterator[Front]:
    c = rig.controller(tmp_path, clock, rig.VTN)
    said(c)
    yield Front(c)
    c.journal.close()


def lift(front: Front, limit_w: float = 9e6, cap: str = "evt", **more: Any) -> dict[str, Any]:
    source, ends_s = more.get("source", "utility"), more.get("ends_s", NOW_S + 60)
    one = front.override_cap(source, cap, limit_w, ends_s, by="ann", reason="by phone")
    return asyncio.run(one)


def cap_w(front: Front) -> float:
    rig.turned(front._c)
    return float(front.site()["cap_w"])


def test_an_override_lifts_one_cap_and_ends(front: Front, clock: Any) -> None:
    view = lift(front)
    assert (view["stated_w"], view["by"]) == (3e6, "ann")
    assert cap_w(front) == 8e6, "the breaker's cap goes on to hold"
    assert front.metrics_snapshot()["cap_w"]["utility"] == 8e6
    told = [d for d in front.decisions("site", None, 50) if "by phone" in d["reason"]]
    assert {d["action"] for d in told} >= {"override", "cap"}, "who and why is on record"
    assert front._c._pause_s() <= 1.0
    clock.at_s += 60
    assert cap_w(front) == 3e6
    assert front.overrides() == []


def test_an_override_survives_a_restart_but_not_its_end(
    front: Front, clock: Any, tmp_path: Path
) -> None:
    lift(front, 7e6)
    front._c.journal.close()
    again = Front(rig.controller(tmp_path, clock, rig.VTN))
    assert cap_w(again) == 7e6
    clock.at_s += 60
    assert cap_w(again) == 3e6
    again._c.journal.close()


def test_an_override_is_ended_by_hand_and_by_the_next_one(front: Front) -> None:
    lift(front, 7e6)
    lift(front, 5e6)
    assert (cap_w(front), len(front.overrides())) == (5e6, 1)
    lift(front, 6e6)
    assert cap_w(front) == 6e6, "a second word replaces the first, whichever is lower"
    with pytest.raises(NotFound):
        asyncio.run(front.clear_override("utility", "nothing", by="bob"))
    asyncio.run(front.clear_override("utility", "evt", by="bob"))
    assert cap_w(front) == 3e6
    assert "ended by bob" in front.decisions("site", None, 50)[1]["reason"]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"cap": "fuse"}, Refused),
        ({"source": "connection"}, Refused),
        ({"cap": "root feeder"}, Refused),
        ({"cap": "nothing"}, NotFound),
        ({"cap": "over"}, NotFound),
        ({"source": "nobody"}, NotFound),
        ({"ends_s": float("inf")}, ConfigInvalid),
        ({"ends_s": float("nan")}, ConfigInvalid),
        ({"ends_s": NOW_S}, ConfigInvalid),
        ({"limit_w": float("nan")}, ConfigInvalid),
        ({"limit_w": -1.0}, ConfigInvalid),
    ],
    ids=str,
)
def test_what_is_never_overridden(
    front: Front, more: dict[str, Any], fault: type[WattshiftError]
) -> None:
    with pytest.raises(fault):
        lift(front, **more)
    assert (cap_w(front), front.overrides()) == (3e6, [])


def test_operator_caps_and_overrides_do_not_undo_each_other(front: Front) -> None:
    lift(front, 9e6)
    own = asyncio.run(front.set_cap(4e6, None, None, "operator", False))
    assert cap_w(front) == 4e6
    assert len(front.overrides()) == 1
    asyncio.run(front.clear_override(None, None, by="bob"))
    assert cap_w(front) == 3e6
    asyncio.run(front.clear_cap(own["id"]))
    assert {cap["source"] for cap in front.caps()} == {"utility"}


def test_nobody_speaks_for_a_feed_of_the_site_file(front: Front) -> None:
    for source in ("utility", "operator"):
        with pytest.raises(Refused):
            asyncio.run(front.inject_signal({"source": source, "caps": []}))
    assert cap_w(front) == 3e6


def test_injected_sources_are_bounded(front: Front) -> None:
    async def many() -> None:
        for n in range(200):
            await front.inject_signal({"source": f"drill-{n}", "caps": [{"limit_w": 1e6}]})

    with pytest.raises(TryLater):
        asyncio.run(many())


def test_the_next_cap_is_told_and_what_holds_in_place_of_one(front: Front) -> None:
    def next_cap() -> tuple[Any, ...]:
        site = front.site()
        return tuple(site[f"next_cap_{key}"] for key in ("w", "at", "origin", "name"))

    assert next_cap() == (None, None, None, None), "the cap in force has no end"
    (evt,) = [one for one in front.caps() if one["id"] == "evt"]
    assert evt["overridden_w"] is None
    lifted = front.override_cap("utility", "evt", 4e6, NOW_S + 30, by="ann", reason="a call")
    asyncio.run(lifted)
    assert next_cap() == (3e6, rfc3339(NOW_S + 30), "utility", "evt"), "the override ends"
    rows = {one["id"]: one for one in front.caps()}
    assert (rows["evt"]["limit_w"], rows["evt"]["overridden_w"]) == (3e6, 4e6)
    assert rows["fuse"]["overridden_w"] is None
    asyncio.run(front.set_cap(5e6, NOW_S + 5, NOW_S + 9, "operator", False))
    assert next_cap()[0] == 3e6, "a cap above the one in force changes nothing"
    asyncio.run(front.set_cap(2e6, NOW_S + 10, NOW_S + 20, "operator", False))
    assert next_cap()[:3] == (2e6, rfc3339(NOW_S + 10), "operator")
