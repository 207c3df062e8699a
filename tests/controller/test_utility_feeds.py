"""`[utility]`, `[solar]`, `[[drills]]` and `[alarms]` in a running controller."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from tests.controller import feeds_rig as rig
from tests.ports import free_port

from wattshift_cluster.config.advice import advice
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import feeds
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.drills import source as drills
from wattshift_cluster.grid.serving import serve
from wattshift_cluster.grid.utility.registers import BY_NAME, decode
from wattshift_scheduler import events as ev
from wattshift_scheduler.signals.words import Cap, GridEvent

HOST = "127.63.251.2"
MODBUS = """
[utility.modbus]
listen = "{listen}"
peers = ["127.63.0.0/16", "127.0.0.1/32"]
fallback = "12kW"
"""
SOLAR = """
[solar]
min_off = 0
period = "200ms"
stale_after = "500ms"
"""
DRILL = """
[[drills]]
name = "weekly"
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
at = "{at}"
duration = "10m"
limit = "20kW"
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter is asked, and drills look for real events, more often than in a site."""
    monkeypatch.setattr(feeds, "METER_PERIOD_S", 0.05)
    monkeypatch.setattr(drills, "LOOK_S", 0.05)


async def register(client: AsyncModbusTcpClient, name: str) -> Any:
    row = BY_NAME[name]
    answer = await client.read_holding_registers(row.address, count=row.words)
    return decode(row, tuple(answer.registers))


def test_a_utility_s_master_caps_the_site_and_reads_how_it_stands(tmp_path: Path) -> None:
    port = free_port()

    async def scenario(play: Any) -> None:
        await play.until(lambda: play.front.site()["power_w"] == 9e3)
        await play.until(lambda: play.caps("utility"))
        assert play.front.site()["cap_w"] == 12e3, "until its heart beats the fallback holds"
        client = AsyncModbusTcpClient(HOST, port=port, timeout=rig.PATIENCE_S)
        assert await client.connect()
        try:
            for beat in (1, 2):
                await client.write_register(7, beat)
            await client.write_registers(0, [0, 15_000])
            await client.write_register(6, 1)
            await play.until(lambda: play.front.site()["cap_w"] == 15e3)
            assert await register(client, "effective_cap_w") == 15e3
            assert await register(client, "draw_w") == 9e3
            assert await register(client, "state") == 2, "a cap is in force and kept"
            assert await register(client, "connection_w") == 40e3
            assert await register(client, "shed_1s_w") == 0.0, "nothing is leased"
            play.watts_w = 16e3
            await play.until(lambda: play.front.site()["power_w"] == 16e3)
            assert await register(client, "state") == 3, "it draws more than its cap"
        finally:
            client.close()

    more = MODBUS.format(listen=f"{HOST}:{port}")
    rig.play(tmp_path, rig.METER + more, scenario)
    assert (tmp_path / "state" / "utility-modbus.json").exists()


def test_mining_follows_what_the_meter_would_export(tmp_path: Path) -> None:
    def target_w(play: Any) -> float:
        play.rig_draws(100.0)
        targets = play.source("solar").get("targets", [])
        return float(targets[0]["watts_w"]) if targets else -1.0

    async def scenario(play: Any) -> None:
        play.joins()
        await play.until(lambda: 2900.0 < target_w(play) < 3200.0)
        assert play.source("solar")["targets"][0]["work"] == "mining"
        await play.until(lambda: 2900.0 < (play.front.site()["mining_target_w"] or 0.0) < 3200.0)
        play.watts_w = None
        await play.until(lambda: target_w(play) == 0.0)
        await play.until(lambda: "stale" in str(play.source("solar")["fault"]))

    rig.play(tmp_path, rig.METER + rig.AGENT + SOLAR, scenario, -3000.0)


def drill_now() -> str:
    return DRILL.format(at=datetime.now(UTC).strftime("%H:%M"))


def test_a_drill_is_scored_and_gives_way_to_a_real_event(tmp_path: Path) -> None:
    async def scenario(play: Any) -> None:
        await play.until(lambda: play.caps("drills"))
        assert play.front.site()["cap_origin"] == "drill"
        (told,) = play.source("drills")["events"]
        assert (told["program"], told["commitment_w"]) == ("drill", None)
        await play.until(lambda: play.front.site()["power_w"] == 9e3)
        now_s = play.c.clock.now_s()
        event = GridEvent("e", "vtn", "peak", now_s, now_s + 60, now_s + 120)
        play.c.inbox.put([ev.SignalChanged("vtn", (), events=(event,))], urgent=True)
        await play.until(lambda: not play.caps("drills"))
        assert any("called off for event e of vtn" in one.reason for one in play.c.recent)

    rig.play(tmp_path, rig.METER + drill_now(), scenario)
    (result,) = json.loads((tmp_path / "state" / "drills.json").read_text())["results"]
    assert "called off for event e of vtn" in result["why"]
    assert result["deepest_w"] == 9e3, "it was told the meter's samples"


@pytest.mark.parametrize(("ends_in_s", "real"), [(600.0, True), (None, False)])
def test_a_dispatched_cap_is_an_event_and_an_everyday_limit_none(
    tmp_path: Path, ends_in_s: float | None, real: bool
) -> None:
    async def scenario(play: Any) -> None:
        await play.until(lambda: play.caps("drills"))
        ends_s = None if ends_in_s is None else play.c.clock.now_s() + ends_in_s
        cap = Cap("c", "openadr", 30e3, None, ends_s)
        play.c.inbox.put([ev.SignalChanged("vtn", (cap,))], urgent=True)
        await play.until(lambda: play.caps("vtn"))
        if real:
            await play.until(lambda: not play.caps("drills"))
        else:
            await asyncio.sleep(0.3)  # it has looked for real events a few times
            assert play.caps("drills")

    rig.play(tmp_path, rig.METER + drill_now(), scenario)


def test_alarms_are_told_outside_after_each_turn(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    async def hook(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        bodies.append(json.loads((await receive())["body"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    (tmp_path / "secret").write_text("the two of us know it")
    (tmp_path / "secret").chmod(0o600)
    port = free_port()

    async def scenario(play: Any) -> None:
        serving = await serve(hook, HOST, port, name="hook", certificate=None)
        await play.until(lambda: play.front.site()["power_w"] == 9e3)
        play.watts_w = -20e3
        await play.until(lambda: any(one["alarm"] == "meter-flaw:negative" for one in bodies))
        await serving.close()

    meter = rig.METER.replace("exports = true", 'stale_after = "300ms"')
    alarms = f'[alarms]\nurl = "http://{HOST}:{port}/a"\nsecret_file = "secret"\n'
    rig.play(tmp_path, meter + alarms, scenario)
    assert {one["site"] for one in bodies} == {"s"}


@pytest.mark.parametrize(
    ("more", "path", "told"),
    [
        (SOLAR, "solar", "with [meter]"),
        (rig.METER.replace("exports = true", "") + SOLAR, "meter.exports", "allowed: true"),
        (drill_now() + drill_now(), "drills", "weekly"),
        (drill_now() * 51, "drills", "at most 50"),
        (
            MODBUS.format(listen="127.0.0.1:502")
            + '[[openadr]]\nname = "utility"\nurl = "http://127.0.0.1:1/v"\nven_name = "s"\n',
            "openadr[0].name",
            "a source of [utility]",
        ),
        (
            rig.METER + SOLAR + '[[openadr2]]\nname = "solar"\nurl = "http://127.0.0.1:1/v"\n'
            'ven_name = "s"\n',
            "openadr2[0].name",
            "a source of [solar]",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, more: str, path: str, told: str) -> None:
    (tmp_path / "site.toml").write_text(rig.SITE + more.replace("{meter}", "127.0.0.1:1"))
    with pytest.raises(ConfigInvalid) as refused:
        load_site(tmp_path / "site.toml", environ={})
    assert path in str(refused.value)
    assert told in str(refused.value)


@pytest.mark.parametrize(("listen", "odd"), [("10.1.2.3:502", False), ("0.0.0.0:502", True)])
def test_an_open_modbus_port_is_advised_against(tmp_path: Path, listen: str, odd: bool) -> None:
    (tmp_path / "site.toml").write_text(rig.SITE + MODBUS.format(listen=listen))
    found = advice(load_site(tmp_path / "site.toml", environ={}))
    assert any("no login" in one for one in found) is odd
