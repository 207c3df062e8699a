"""Machines of an agent's file that never answered: named, alarmed, shown, and cleared.

The agent is a real one over machines that are emulated in processes of their own, of which some are
off: nothing listens at their addresses until they are switched on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.controller.wired_rig import turning, until
from tests.emulated import emulated
from tests.ports import own_net

from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.rhythm import Rhythm
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.build import Asics
from wattshift_cluster.agent.service import Agent
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.config.load import load_site
from wattshift_cluster.config.site import AgentRef, SiteConfig
from wattshift_cluster.controller import agent_words, views
from wattshift_cluster.controller.agent_words import AnswerInvalid
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.controller.unseen import WORDS_MOST, Unseen
from wattshift_cluster.wire import server
from wattshift_cluster.wire.epochs import EpochFile

TOKEN = b"0123456789abcdef0123456789abcdef"
NET = own_net()
KEY = "device-unseen:rack"
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
margin_pct = 0
[[feeders]]
name = "main"
limit = "20kW"
[grid]
default_price_usd_per_mwh = 20
[[agents]]
name = "rack"
address = "127.0.0.1:{port}"
token_file = "t"
feeder = "main"
devices = ["rig*"]
"""


def switched_on(folder: Path, name: str, at: int) -> AbstractContextManager[None]:
    """An emulated machine that has power."""
    row = {"id": name, "kind": "luxos", "address": f"{NET}.{at}", "seed": at, "start": "full"}
    return emulated(folder / f"{name}.json", [row], f"{NET}.{at}")


def rig(name: str, at: int, nameplate_w: float | None = None) -> Asic:
    return Asic(id=name, address=f"{NET}.{at}", emulated=True, nameplate_w=nameplate_w)


def fleet(folder: Path, asics: Iterable[Asic]) -> Agent:
    """An agent of these machines, that looks often for what does not answer."""
    lanes = Lanes(rhythm=Rhythm(poll_s=0.2, lookup_s=(0.2,), grace_s=1e6))
    devices = [AsicDevice(asic, None, lanes=lanes) for asic in asics]
    keeper = Keeper(None)
    parts = Asics(tuple(devices), AsicSweep(devices, lanes, keeper), keeper)
    return Agent("rack", devices, EpochFile(folder), asics=parts)


def config_of(folder: Path, port: int) -> SiteConfig:
    (folder / "site.toml").write_text(SITE.format(port=port))
    return load_site(folder / "site.toml", environ={})


def ref(folder: Path) -> AgentRef:
    return config_of(folder, 9).agents[0]


Play = Callable[[Controller], Awaitable[None]]


def played(folder: Path, asics: Iterable[Asic], play: Play) -> None:
    """Run this agent and a controller of it, and `play`."""
    agent = fleet(folder, asics)
    served(folder, agent.handle, play, agent.run)


def served(
    folder: Path,
    handle: server.Handler,
    play: Play,
    run: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run a controller of an agent that answers so over a real socket, and `play`."""

    async def scenario() -> None:
        running = [] if run is None else [asyncio.create_task(run())]
        listener = await server.serve("127.0.0.1", 0, name="rack", token=TOKEN, handler=handle)
        config = config_of(folder, listener.sockets[0].getsockname()[1])
        try:
            async with turning(config, folder, {"rack": TOKEN}) as controller:
                await play(controller)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            listener.close()

    asyncio.run(scenario())


def counted(controller: Controller) -> list[str]:
    return sorted(device.id for device in controller.state.fleet.devices)


def test_a_machine_that_is_off_is_named_until_it_is_on_and_one_with_a_nameplate_never(
    tmp_path: Path,
) -> None:
    asics = [rig("rig-on", 1), rig("rig-off", 2), rig("rig-rated", 3, 3000.0)]

    async def play(controller: Controller) -> None:
        front = Front(controller)
        await until(lambda: KEY in controller.alarms and "rig-on" in counted(controller))
        assert counted(controller) == ["rig-on", "rig-rated"]
        alarm = controller.alarms[KEY]
        assert alarm.severity == "warning"
        assert "rig-off" in alarm.text
        assert f"{NET}.2" in alarm.text, "why it is not known, in its agent's words"
        assert "counts nothing" in alarm.text
        assert 'nameplate (as "3500W")' in alarm.text
        assert "rig-rated" not in alarm.text
        (shown,) = front.unseen()
        assert (shown["id"], shown["agent"], shown["feeder"]) == ("rig-off", "rack", "main")
        assert KEY in {one["id"] for one in front.site()["alarms"]}
        assert [one["action"] for one in front.decisions("rig-off", None, 9)] == ["unseen"]
        await asyncio.sleep(0.5)
        told = [one.action for one in controller.recent if one.subject == KEY]
        assert told == ["alarm"], "what stands is told once"
        with switched_on(tmp_path, "rig-off", 2):
            await until(lambda: "rig-off" in counted(controller))
            await until(lambda: KEY not in controller.alarms)
            assert front.unseen() == []
        told = [one.action for one in controller.recent if one.subject == KEY]
        assert told == ["alarm", "all clear"]
        await asyncio.sleep(1.0)
        assert KEY not in controller.alarms, "one that has answered is counted though it is off"

    with switched_on(tmp_path, "rig-on", 1):
        played(tmp_path, asics, play)


def test_a_machine_that_the_journal_knows_is_counted_and_not_named(tmp_path: Path) -> None:
    async def first(controller: Controller) -> None:
        await until(lambda: counted(controller) == ["rig-a"])

    async def again(controller: Controller) -> None:
        await until(lambda: KEY in controller.alarms)
        assert "rig-b" in controller.alarms[KEY].text
        assert counted(controller) == ["rig-a"], "it is off, and its agent began anew"
        assert "rig-a" not in controller.alarms[KEY].text

    with switched_on(tmp_path, "rig-a", 4):
        played(tmp_path, [rig("rig-a", 4)], first)
    played(tmp_path, [rig("rig-a", 4), rig("rig-b", 5)], again)


def test_a_machine_that_answers_between_two_hellos_was_not_unseen(tmp_path: Path) -> None:
    """Its first reading may come before the inventory in which it is."""
    version = 1
    rated = {"nameplate_w": 3000.0, "tolerance": 0.0, "safe_w": 0.0, "power_on_w": 0.0}
    point = {"mode": "full", "watts_w": 3000.0, "hashrate_h_per_s": 1e14, "transition_s": 1.0}
    info = {"id": "rig", "kind": "asic", "continuous": False, "fenced": False, "points": [point]}
    row = {"device": "rig", "at_boot_s": 5.0, "watts_w": 3000.0, "error": None}

    async def answer(op: str, fields: dict[str, Any]) -> dict[str, Any]:
        nonlocal version
        if op == "hello":
            devices = [{**info, **rated}] if version > 1 else []
            return {"boot_id": "b", "boot_s": 5.0, "inventory_version": version, "devices": devices}
        version = 2
        results = [
            {"device": one["device"], "sequence": one["sequence"], "accepted": True}
            for one in fields["leases"]
        ]
        said = {"boot_id": "b", "boot_s": 5.0, "inventory_version": version}
        return {**said, "readings": [row], "results": results}

    async def play(controller: Controller) -> None:
        await until(lambda: counted(controller) == ["rig"])
        await asyncio.sleep(0.3)
        assert "unseen" not in {one.action for one in controller.recent}

    served(tmp_path, answer, play)


class Heard:
    """The record of unseen machines alone, and what it told."""

    def __init__(self, *counted: str) -> None:
        self.counted = set(counted)
        self.told: list[tuple[str, str]] = []
        self.unseen = Unseen(
            lambda *found: self.told.extend((one.subject, one.action) for one in found),
            lambda ids: self.counted & set(ids),
        )


def test_of_many_five_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    heard, agent = Heard(), ref(tmp_path)
    many = {f"rig-{i}": "silence" for i in range(8)}
    heard.unseen.heard(agent, many, 10.0)
    text = heard.unseen.alarms[KEY].text
    assert "rig-4 (silence) and 3 more; until it answers" in text
    assert "rig-5" not in text
    assert len(heard.unseen.machines["rack"]) == 8
    assert heard.told.count((KEY, "alarm")) == 1
    heard.unseen.heard(agent, dict(list(many.items())[:5]), 11.0)
    alarm = heard.unseen.alarms[KEY]
    assert "more" not in alarm.text, "it says what is so now"
    assert alarm.since_s == 10.0
    assert heard.told.count((KEY, "alarm")) == 1, "fewer are no news"
    heard.unseen.heard(agent, {**many, "rig-9": "silence"}, 12.0)
    assert heard.told.count((KEY, "alarm")) == 2, "another one is"


def test_a_word_of_the_agent_without_end_is_cut(tmp_path: Path) -> None:
    heard = Heard()
    heard.unseen.heard(ref(tmp_path), {"rig": "x" * 10_000}, 1.0)
    assert len(heard.unseen.alarms[KEY].text) < WORDS_MOST + 400


def test_what_another_agent_has_is_counted_and_what_one_says_clears_no_other(
    tmp_path: Path,
) -> None:
    heard, rack = Heard("rig-theirs"), ref(tmp_path)
    east = rack.model_copy(update={"name": "east"})
    heard.unseen.heard(rack, {"rig-a": "silence", "rig-theirs": "silence"}, 1.0)
    assert set(heard.unseen.machines["rack"]) == {"rig-a"}
    heard.unseen.heard(east, {"rig-b": "silence"}, 1.0)
    heard.unseen.heard(east, {}, 2.0)
    assert set(heard.unseen.machines["rack"]) == {"rig-a"}
    assert set(heard.unseen.alarms) == {KEY}
    heard.unseen.heard(rack, {}, 3.0)
    assert not heard.unseen.alarms
    assert heard.told[-1] == (KEY, "all clear")


def test_one_that_two_agents_name_is_told_of_each_once(tmp_path: Path) -> None:
    heard, rack = Heard(), ref(tmp_path)
    east = rack.model_copy(update={"name": "east"})
    for at_s in range(5):
        for agent in (rack, east):
            heard.unseen.heard(agent, {"rig": "silence"}, float(at_s))
    assert sorted(heard.told) == [
        ("device-unseen:east", "alarm"),
        (KEY, "alarm"),
        ("rig", "unseen"),
        ("rig", "unseen"),
    ]
    assert [one["agent"] for one in views.unseen(heard.unseen.machines)] == ["east", "rack"]


def test_only_ours_that_was_not_announced_is_unannounced(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"device": "rig-a", "error": "10.0.0.9: read: silence"},
        {"device": "rig-b", "error": "silence"},
        {"device": "rig-c"},
        {"device": "elsewhere", "error": "silence"},
    ]
    agent = ref(tmp_path)
    found = agent_words.unannounced(agent, {"rig-b"}, {"readings": rows})
    assert found == {"rig-a": "10.0.0.9: read: silence", "rig-c": "its agent gives no reason"}
    assert agent_words.unannounced(agent, frozenset(), {}) == {}, "an agent that reads nothing"


@pytest.mark.parametrize("rows", [[{"error": "no name"}], ["rig"], [None], 7])
def test_readings_that_are_none_are_an_invalid_answer(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(AnswerInvalid):
        agent_words.unannounced(ref(tmp_path), frozenset(), {"readings": rows})
