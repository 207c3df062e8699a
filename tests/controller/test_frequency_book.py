"""Agents that assist when the frequency falls: shown with age, and each event written down once."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.controller import controller_rig as rig
from tests.controller import feeds_rig as feeds

from wattshift_cluster.api.site_views import FrequencyView
from wattshift_cluster.cli.status import site_text
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.wire.server import serve

NOW_S: float = rig.NOW_S


def told(*events: tuple[int, str, float], boot_s: float = 1000.0, **more: Any) -> dict[str, Any]:
    """An agent's answer at a boot time of its machine; events are number, what, boot time."""
    rows = [
        {"number": n, "what": what, "at_boot_s": at_s, "share": 0.5, "hz": 59.8, "v_pu": None}
        | {"reason": f"{what} for the grid"}
        for n, what, at_s in events
    ]
    said = {"programme": "P", "phase": "shed", "share": 0.5, "cut_w": 700.0, "reason": "low"}
    said |= {"hz": 59.8, "v_pu": 1.01, "at_boot_s": boot_s - 0.25, "latched": False, "sheds": 1}
    said |= {"fault": None, "quality": "measured", "decides_within_s": 0.3, "claims": ["slow"]}
    return {"boot_id": "b", "boot_s": boot_s, "frequency": {**said, "events": rows, **more}}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Controller]]:
    """Starts a controller in the same folder again and again, the one before closed."""
    made: list[Controller] = []

    def again() -> Controller:
        for one in made:
            one.journal.close()
        made.append(rig.controller(tmp_path, rig.HandClock()))
        return made[-1]

    yield again
    made[-1].journal.close()


def written(c: Controller) -> list[tuple[float, str, str]]:
    rows = Front(c).decisions("frequency:rack", None, 100)
    return [(one["inputs"]["at_boot_s"], one["action"], one["reason"]) for one in rows]


def told_of(c: Controller) -> list[tuple[float, str]]:
    return [(one.at_s, one.action) for one in c.recent if one.subject == "frequency:rack"]


async def flushed(c: Controller, count: int) -> None:
    async with asyncio.timeout(20.0):
        while len(written(c)) < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def test_each_event_is_written_once(start: Callable[[], Controller]) -> None:
    begins, returns = (1, "begins", 990.0), (2, "returns", 995.0)
    c = start()
    c._answered("rack", told(begins), NOW_S)
    c._answered("rack", told(begins, returns, boot_s=1001.0), NOW_S + 1)
    c._answered("rack", told(begins, returns, boot_s=1002.0), NOW_S + 2)
    asyncio.run(flushed(c, 2))
    assert [what for _, what, _ in written(c)] == ["returns", "begins"]
    assert told_of(c) == [(NOW_S - 10.0, "begins"), (NOW_S + 1 - 6.0, "returns")]
    c = start()
    c._answered("rack", told(begins, returns), NOW_S)
    assert not told_of(c), "a controller's restart writes none twice"
    c._answered("rack", told((1, "begins", 1040.0), boot_s=1050.0), NOW_S + 50)
    assert told_of(c) == [(NOW_S + 40.0, "begins")], "the agent has started anew"


def test_every_answer_of_an_agent_is_heard(tmp_path: Path) -> None:
    asked: list[str] = []

    async def agent(op: str, _: dict[str, Any]) -> dict[str, Any]:
        asked.append(op)
        number = len(set(asked))  # one event with hello, another with the first exchange
        events = [(n, "begins", 900.0 + n) for n in range(1, number + 1)]
        more = {"devices": [], "readings": [], "results": [], "inventory_version": 1}
        return {**told(*events), **more}

    with socket.socket() as one:
        one.bind(("127.63.251.3", 0))
        port = one.getsockname()[1]

    async def scenario(play: Any) -> None:
        serving = await serve("127.63.251.3", port, name="rack", token=b"t" * 32, handler=agent)
        await play.until(lambda: len(told_of(play.c)) == 2)
        await play.until(lambda: len(asked) > 3)
        assert play.front.site()["frequency"][0]["agent"] == "rack"
        assert len(told_of(play.c)) == 2
        serving.close()

    feeds.play(tmp_path, feeds.AGENT.replace("127.0.0.1:9", f"127.63.251.3:{port}"), scenario)


def test_the_site_shows_what_an_agent_does_by_itself(start: Callable[[], Controller]) -> None:
    c = start()
    assert "frequency" not in Front(c).site()
    c._answered("rack", told(), NOW_S - 2.0)
    (view,) = Front(c).site()["frequency"]
    assert set(view) == set(FrequencyView.__annotations__)
    assert (view["agent"], view["cut_w"], view["told_age_s"]) == ("rack", 700.0, 2.0)
    assert view["age_s"] == pytest.approx(2.25)
    text = site_text(Front(c).site())
    assert "59.800" in text
    assert "700 W" in text
    c._answered("rack", {"boot_id": "b", "boot_s": 1003.0}, NOW_S)
    assert "frequency" not in Front(c).site(), "it is not enrolled any more"


@pytest.mark.parametrize(
    "odd",
    [
        {"events": "none"},
        {"events": [None, {"number": "x", "at_boot_s": 1.0}, {"number": 1}]},
        {"hz": "fast", "share": True, "claims": 4, "at_boot_s": None, "sheds": float("inf")},
    ],
)
def test_what_is_no_figure_is_unknown_and_nothing_stops(
    start: Callable[[], Controller], odd: dict[str, Any]
) -> None:
    c = start()
    c._answered("rack", told(**odd), NOW_S)
    (view,) = Front(c).site()["frequency"]
    assert not told_of(c)
    if "hz" in odd:
        keys = ("hz", "share", "age_s", "sheds")
        assert [view[key] for key in keys] == [None] * 4
    assert site_text(Front(c).site())
