"""The bridge forgets a node that is gone: it gets no watts when it comes back. No Ray is needed."""

import asyncio
import time
from pathlib import Path

import pytest

from wattshift_cluster.wire import server
from wattshift_cluster.wire.link import Link, OpFailed
from wattshift_cluster.workload.answers import Bridge
from wattshift_cluster.workload.cluster.node_power import NodePower, Remembered
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.engine import Engine, EngineSettings
from wattshift_cluster.workload.fence import Fence

TOKEN = b"a token of the test"


class Totals:
    """An actuator that holds what it is told."""

    def __init__(self) -> None:
        self.told_w: list[float] = []

    def set(self, watts_w: float) -> float:
        self.told_w.append(watts_w)
        return watts_w


def node(*, alive: bool, id_: str = "aa") -> Node:
    return Node(id_, "gpu-2", alive, False, {}, 0.0, 700.0 if alive else None, None)


def forget(one: Engine, folder: Path, name: str) -> None:
    async def talk() -> None:
        handler = Bridge(one, Fence(folder, one.nodes.told_w, one.services.target)).handle
        listening = await server.serve("127.0.0.1", 0, name="host", token=TOKEN, handler=handler)
        link = Link("127.0.0.1", listening.sockets[0].getsockname()[1], TOKEN)
        try:
            await link.call("forget", node=name)
        finally:
            await link.close()
            listening.close()

    asyncio.run(talk())


@pytest.fixture
def one(tmp_path: Path) -> Engine:
    settings = EngineSettings("host", tmp_path, "127.0.0.1", 8000, None, "127.0.0.1:1")
    return Engine(settings, None, lambda reason: None)


def test_a_node_that_is_gone_comes_back_without_watts(one: Engine, tmp_path: Path) -> None:
    one.nodes.set_power({"gpu-1": 300.0, "gpu-2": 700.0})
    one.nodes.nodes = {"gpu-2": node(alive=False)}
    forget(one, tmp_path, "gpu-2")
    told = Remembered(tmp_path)
    assert (told.get("gpu-1"), told.get("gpu-2")) == (300.0, 0.0), "on disk"
    totals = Totals()
    power = NodePower(told, lambda _: totals)
    power.follow({"gpu-2": node(alive=True, id_="bb")})
    ends_s = time.monotonic() + 10.0
    while not totals.told_w and time.monotonic() < ends_s:
        time.sleep(0.01)
    power.stop()
    assert set(totals.told_w) == {0.0}, "though it brought 700 W of its own"


def test_a_node_that_is_alive_is_not_forgotten(one: Engine, tmp_path: Path) -> None:
    one.nodes.set_power({"gpu-2": 700.0})
    one.nodes.nodes = {"gpu-2": node(alive=True)}
    with pytest.raises(OpFailed, match="alive in Ray"):
        forget(one, tmp_path, "gpu-2")
    assert Remembered(tmp_path).get("gpu-2") == 700.0
    one.nodes.seen_s -= 60.0  # so long ago that it says nothing of now
    forget(one, tmp_path, "gpu-2")
    assert Remembered(tmp_path).get("gpu-2") == 0.0
