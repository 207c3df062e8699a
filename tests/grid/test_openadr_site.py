"""A real controller and a real VTN on loopback: an override of the subscription, and an outage."""

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

from tests.ports import free_port

from wattshift_cluster.controller import kept_signals
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.openadr.words import ObjectType
from wattshift_cluster.settle.bodies import event_body, event_of
from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import Cap, GridEvent, Target

RIG = Path(__file__).parents[1] / "controller" / "vtn_site_rig.py"
rig: Any = SimpleNamespace(**run_path(str(RIG)))
wire: Any = rig.wire
holds, comes_back = rig.holds, rig.comes_back
SITE = rig.UTILITY + 'commitments = {{ curtailment = "50kW" }}' + rig.HOOK


def limit(program: str, limit_kw: float) -> Any:
    """A limit that began a second ago."""
    return wire.now_event(program, limit_kw, eventName="cut")


def site(folder: Path, url: str) -> AbstractAsyncContextManager[Controller]:
    at = f"{wire.HOST}:{free_port()}"
    text = SITE.format(url=url, poll="1s", at=at)
    running: AbstractAsyncContextManager[Controller] = rig.running(folder, text)
    return running


def test_an_override_of_the_subscription_outlives_what_is_told_next_and_a_reconnect(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with wire.vtn() as vtn:
            program = await wire.program(vtn)
            row = await vtn.post(ObjectType.EVENT, limit(program, 300))
            async with site(tmp_path, vtn.url) as made:
                await holds(made, 300e3)
                front = Front(made)
                ends_s = made.clock.now_s() + 600
                # What is overridden is still to come: the event displaces it.
                await front.override_cap(
                    "utility", "subscription", 700e3, ends_s, by="ann", reason="by phone"
                )
                assert made.state.outlook.cap_w == 300e3
                vtn.delete(ObjectType.EVENT, row["id"])
                await holds(made, 700e3)
                row = await vtn.post(ObjectType.EVENT, limit(program, 200))
                await holds(made, 200e3)
                await vtn.stop()
                await wire.until(lambda: made.sources.fault("utility") is not None, "the loss")
                vtn.delete(ObjectType.EVENT, row["id"])
                await comes_back(made, vtn)
                await holds(made, 700e3)
            async with site(tmp_path, vtn.url) as made:
                await wire.until(lambda: made.sources.fault("utility") is None, "an answer")
                assert made.state.outlook.cap_w == 700e3, "a restart too"
                await Front(made).clear_override("utility", "subscription", by="ann")
                await holds(made, 600e3)

    wire.run(scene())


def test_an_outage_that_the_meter_and_the_hosts_tell_drops_limits_until_the_vtn_answers(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with wire.vtn() as vtn:
            program = await wire.program(vtn)
            await vtn.post(ObjectType.EVENT, limit(program, 900))
            async with site(tmp_path, vtn.url) as made:
                await holds(made, 900e3)
                await vtn.stop()
                await wire.until(lambda: made.sources.fault("utility") is not None, "the loss")
                now_s = made.clock.now_s()

                def sampled(watts_w: float | None, ago_s: float) -> None:
                    for take in made.samplers:
                        take(watts_w, now_s - ago_s)

                def seen(boot: str, boot_s: float, ago_s: float) -> None:
                    word = ev.AgentSeen("host", boot, boot_s, now_s - ago_s)
                    made.inbox.put([word], urgent=True)
                    made.turn(made.inbox.take())

                seen("boot-1", 1e6, 60.0)
                sampled(800e3, 60.0)
                sampled(0.0, 50.0)
                assert made.state.outlook.cap_w == 900e3
                seen("boot-2", 20.0, 0.0)
                await holds(made, 600e3)
                told = [one.reason for one in made.recent if one.action == "outage"]
                assert len(told) == 1
                assert "1 of 1 hosts" in told[0]
                notes = Front(made).signals()["sources"]["utility"]["notes"]
                assert any("power outage" in note for note in notes)
                await comes_back(made, vtn)
                await holds(made, 900e3)

    wire.run(scene())


def test_limits_of_a_boot_before_this_one_are_dropped(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wire.vtn() as vtn:
            program = await wire.program(vtn)
            await vtn.post(ObjectType.EVENT, limit(program, 900))
            kept = tmp_path / "state" / "openadr-utility.json"
            async with site(tmp_path, vtn.url) as made:
                await holds(made, 900e3)
                await wire.until(kept.exists, "its memory")
            await vtn.stop()
            told = json.loads(kept.read_text())
            kept.write_text(json.dumps({**told, "boot": "of before the outage"}))
            async with site(tmp_path, vtn.url) as made:
                assert made.state.outlook.cap_w == 900e3, "of the journal, until the source speaks"
                await holds(made, 600e3)

    wire.run(scene())


def test_what_was_kept_before_there_were_names_is_read_and_names_are_kept() -> None:
    event = GridEvent("e", "utility", "p", 1.0, 2.0, None, 4e3, name="p: cut")
    cap = Cap("c", "utility", 9e3, name="p: cut")
    word = ev.SignalChanged("utility", (cap,), events=(event,), targets=(Target("t", "u", 1.0),))
    assert kept_signals.read("utility", kept_signals.body(word)) == word
    old = json.loads(kept_signals.body(word))
    for rows in (old["caps"], old["targets"], old["events"]):
        for row in rows:
            del row["name"]
    bare = kept_signals.read("utility", json.dumps(old))
    assert bare.caps == (replace(cap, name=""),)
    assert bare.events == (replace(event, name=""),)
    line = event_body(event)
    assert event_of(line) == event
    del line["name"]
    assert event_of(line) == replace(event, name="")


def test_people_are_told_names_and_machines_ids(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wire.vtn() as vtn:
            program = await wire.program(vtn)
            row = await vtn.post(ObjectType.EVENT, limit(program, 300))
            async with site(tmp_path, vtn.url) as made:
                await holds(made, 300e3)
                view = Front(made).signals()["sources"]["utility"]
                named = {(one["id"], one["name"]) for one in view["events"]}
                assert named == {(row["id"], "curtailment: cut")}
                assert "curtailment: cut" in {one["name"] for one in view["caps"]}
                assert Front(made).site()["cap_name"] == "curtailment: cut"
                assert row["id"] in str(Front(made).site()["cap_id"])

    wire.run(scene())
