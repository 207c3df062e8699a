"""An operator forgets a lost node: through the bridge, in the journal, until the node is back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.errors import NotFound, Refused, TryLater
from wattshift_cluster.wire.link import LinkError
from wattshift_cluster.wire.server import serve
from wattshift_scheduler import events as ev

rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("controller_rig.py"))))

SITE = (
    rig.HALL
    + """
limit = "2kW"
[[compute.nodes]]
name = "gpu-1"
feeder = "main"
max = "1.6kW"
[[compute.nodes]]
name = "gpu-2"
feeder = "main"
max = "1.2kW"
"""
)


@dataclass
class Site:
    """A controller on the files of a folder, with its bridge on a real socket."""

    folder: Path
    port: int
    clock: Any = field(default_factory=lambda: rig.HandClock(1000.0))
    asked: list[tuple[str, Any]] = field(default_factory=list)
    refuses: str = ""

    @contextlib.contextmanager
    def controller(self) -> Iterator[Front]:
        site = SITE.format(port=self.port)
        controller = rig.controller(self.folder, self.clock, site=site, bridge=rig.BRIDGE_TOKEN)
        yield Front(controller)
        controller.journal.close()

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((op, fields.get("node")))
        if self.refuses:
            raise TryLater(self.refuses)
        return {}


@contextlib.asynccontextmanager
async def bridged(folder: Path) -> AsyncIterator[Site]:
    site = Site(folder, 9)
    server = await serve("127.0.0.1", 0, name="bridge", token=rig.BRIDGE_TOKEN, handler=site.handle)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()


def hear(front: Front, *events: ev.Event) -> None:
    front._c.inbox.put(list(events))
    front._c.turn(front._c.inbox.take())


def seen(node: str, watts_w: float | None) -> ev.ComputeSeen:
    return ev.ComputeSeen(node, watts_w is not None, watts_w, "" if watts_w else "lost")


def shown(front: Front) -> dict[str, Any]:
    found: dict[str, Any] = front.site()["compute"][1]
    assert found["node"] == "gpu-2"
    return found


def test_a_lost_node_is_forgotten_over_restarts_until_it_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with bridged(tmp_path) as site:
            with site.controller() as front:
                hear(front, seen("gpu-1", 300.0), seen("gpu-2", 900.0))
                with pytest.raises(Refused, match="Ray answers there"):
                    await front.forget_node("gpu-2", by="ann")
                hear(front, seen("gpu-2", None))
                site.clock.at_s += 59.0
                with pytest.raises(Refused, match=r"silent for 59 s; allowed: after 60 s"):
                    await front.forget_node("gpu-2", by="ann")
                with pytest.raises(NotFound, match="there are: gpu-1, gpu-2"):
                    await front.forget_node("gpu-9", by="ann")
                assert site.asked == [], "the bridge hears of nothing that is refused"
                assert front.site()["committed_w"] >= 900.0, "it may still draw them"
                site.clock.at_s += 2.0
                view = await front.forget_node("gpu-2", by="ann")
                assert site.asked == [("forget", "gpu-2")]
                assert (view["forgotten"], view["power_w"], view["up"]) == (True, 0.0, False)
                assert front.site()["committed_w"] < 900.0
                assert "counts anew" in view["note"]
                with pytest.raises(Refused, match="already"):
                    await front.forget_node("gpu-2", by="ann")
                (told,) = [one for one in front._c.recent if one.action == "forget"]
                assert "by ann, who vouches" in told.reason
            with site.controller() as front:
                (row,) = [d for d in front.decisions("gpu-2", None, 9) if d["action"] == "forget"]
                assert row["inputs"] == {"freed_w": 900.0}
                assert shown(front)["forgotten"], "a controller that starts knows of it"
                assert front._c.state.nodes["gpu-2"].bound_w == 0.0
                hear(front, seen("gpu-2", 0.0))
                assert not shown(front)["forgotten"]
            with site.controller() as front:
                assert not shown(front)["forgotten"]
                assert front._c.state.nodes["gpu-2"].bound_w == 1200.0, "unknown, so its most"

    asyncio.run(story())


def test_that_it_is_back_is_on_disk_before_a_watt_goes_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with bridged(tmp_path) as site:
            with site.controller() as front:
                hear(front, seen("gpu-2", None))
                site.clock.at_s += 61.0
                await front.forget_node("gpu-2", by="ann")
                other = Journal.open(tmp_path / "state" / "journal.sqlite")
                known: list[frozenset[str]] = []
                front._c.outlet.send = lambda command: known.append(other.forgotten())  # type: ignore[method-assign]
                assert other.forgotten() == {"gpu-2"}
                hear(front, seen("gpu-2", 500.0))  # more than it should hold: it is told so
                assert known, "it was commanded"
                assert set(known) == {frozenset()}
                other.close()

    asyncio.run(story())


def test_without_the_bridge_nothing_is_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        async with bridged(tmp_path) as site:
            with site.controller() as front:
                hear(front, seen("gpu-2", None))
                site.clock.at_s += 61.0
                site.refuses = "node gpu-2 is alive in Ray"
                with pytest.raises(Refused, match=r"cannot be forgotten: .*alive in Ray"):
                    await front.forget_node("gpu-2", by="ann")
                assert not shown(front)["forgotten"]
        dark = Site(tmp_path, 9, site.clock)
        with dark.controller() as front:
            hear(front, seen("gpu-2", None))
            dark.clock.at_s += 61.0
            with pytest.raises(LinkError):
                await front.forget_node("gpu-2", by="ann")
            assert not shown(front)["forgotten"]
            assert front._c.state.nodes["gpu-2"].bound_w == 1200.0

    asyncio.run(story())
