"""What an agent says of a card's table, as the core hears it and as people see it."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from wattshift_cluster.agent.protocol import DeviceInfo, Point, Reading
from wattshift_cluster.controller import agent_words, views
from wattshift_scheduler.events import DeviceJoined
from wattshift_scheduler.site import Feeder, FeederTree, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

REF: Any = SimpleNamespace(name="host", feeder="main", devices=["*"])
INFO = DeviceInfo(
    id="host-gpu0", kind="gpu", model="H200", firmware="580", algorithm="autolykos2",
    nameplate_w=700.0, tolerance=0.05, continuous=True, fenced=True, safe_w=75.0, power_on_w=75.0,
    host="host", quality="measured",
    points=(Point("idle", 75.0, 0.0, 0.01), Point("hash", 560.0, 0.0, 0.01, 0.1)),
    table_bytes=7_640_000_000, table_build_s=2.5,
)  # fmt: skip
READING = Reading(
    "host-gpu0", 9.0, "measured", watts_w=80.0,
    note="it builds its table: 42%", table_held_bytes=7_640_000_000, table_progress=0.42, clients=1,
)  # fmt: skip


def answer(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"boot_id": "b", "boot_s": 10.0, "readings": list(rows)}


def joined(info: dict[str, Any]) -> State:
    site = Site("s", FeederTree.of([Feeder("main", None, 1e4)]))
    (device,) = agent_words.offer(REF, [info]).devices
    return reduce(initial(site, Values(), 1), DeviceJoined((device,)), 0.0)[0]


def test_a_table_and_what_is_held_of_it_reach_the_core() -> None:
    state = joined(INFO.wire())
    assert state.fleet.table_bytes.tolist() == [7.64e9]
    assert state.fleet.table_build_s.tolist() == [2.5]
    told = agent_words.readings(answer(READING.wire(None)), 100.0)
    state, _ = reduce(state, told, 100.0)
    assert (state.tables.held_bytes[0], state.tables.clients[0]) == (7.64e9, 1.0)
    assert state.tables.read_s[0] == 99.0
    unknown = replace(READING, table_held_bytes=None)
    state, _ = reduce(state, agent_words.readings(answer(unknown.wire(None)), 101.0), 101.0)
    assert math.isnan(state.tables.held_bytes[0])


def test_an_agent_of_before_offers_no_table_and_is_never_asked_to_free_one() -> None:
    info, row = INFO.wire(), READING.wire(None)
    for name in ("table_bytes", "table_build_s"):
        del info[name]
    for name in ("table_held_bytes", "table_progress", "clients"):
        del row[name]
    state = joined(info)
    assert state.fleet.table_bytes.tolist() == [0.0]
    told = agent_words.readings(answer(row), 100.0)
    assert told.table_held_bytes is not None
    assert np.isnan(told.table_held_bytes).all()
    assert not reduce(state, told, 100.0)[0].tables.empty.any()


def test_people_see_the_table_and_how_far_it_is() -> None:
    state = joined(INFO.wire())
    state, _ = reduce(state, agent_words.readings(answer(READING.wire(None)), 100.0), 100.0)
    entry = SimpleNamespace(info=INFO.wire(), reading=READING.wire(None))
    roster: Any = SimpleNamespace(entries={"host-gpu0": entry})
    (row,) = views.devices(state, roster, 100.0)
    assert (row["table_bytes"], row["table_held_bytes"]) == (7_640_000_000, 7_640_000_000)
    assert row["table_progress"] == 0.42
    assert "it builds its table: 42%" in row["reason"]
    assert row["mode"] is None
    ledger = replace(state.ledger, point=np.zeros(1, dtype=np.int64))
    state = replace(state, ledger=ledger)
    assert views.devices(state, roster, 100.0)[0]["mode"] == "idle"
    emptied = replace(state.tables, empty=np.ones(1, dtype=np.bool_))
    (row,) = views.devices(replace(state, tables=emptied), roster, 110.0)
    assert row["mode"] == "empty"
    assert (row["table_held_bytes"], row["table_progress"]) == (None, None), "too old to be told"
