"""The utility's Modbus server, asked by an independent client over real sockets."""

import asyncio
import math
import random
import socket
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.grid.utility_rig import (
    CONNECTION_W,
    FALLBACK_W,
    HEARTBEAT_S,
    HOST,
    Rig,
    config,
    master,
    run,
    running,
    until,
)

from wattshift_cluster.grid.utility import port as port_module
from wattshift_cluster.grid.utility.frames import Code, RequestRefused
from wattshift_cluster.grid.utility.held import Held, HeldFile, Pulse
from wattshift_cluster.grid.utility.registers import (
    BY_NAME,
    TABLE,
    TABLE_VERSION,
    UNKNOWN_U16,
    UNKNOWN_U32,
    Kind,
    decode,
    encode,
)
from wattshift_cluster.grid.utility.status import (
    AlarmBit,
    SiteFigures,
    StateWord,
    alarm_bits,
    state_word,
)


def test_the_table_has_no_overlap_and_each_block_no_hole() -> None:
    by_address = sorted(TABLE, key=lambda one: one.address)
    for before, after in pairwise(by_address):
        assert after.address >= before.ends
        if before.writable == after.writable:
            assert after.address == before.ends, after.name
    assert len(BY_NAME) == len(TABLE)


@pytest.mark.parametrize("register", [one for one in TABLE if one.kind is not Kind.TEXT])
def test_values_survive_and_unknown_is_never_zero(register: Any) -> None:
    assert decode(register, encode(register, 12 * register.scale)) == pytest.approx(
        12 * register.scale
    )
    for unknown in (None, math.nan):
        back = decode(register, encode(register, unknown))
        assert back is None or math.isnan(back)
    if register.kind is not Kind.F32:
        # What is too large is the most that fits, and not "unknown".
        assert decode(register, encode(register, 1e12)) == pytest.approx(
            ((UNKNOWN_U16 if register.kind is Kind.U16 else UNKNOWN_U32) - 1) * register.scale
        )


def test_a_set_point_is_a_cap_before_the_master_gets_its_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as rig, master(rig) as utility:
            assert rig.caps_w == {"heartbeat-lost": FALLBACK_W}
            for value in (1, 2):
                assert await utility.put("heartbeat", value) == 0
            assert rig.caps_w == {}
            assert rig.said[-1].fault is None
            assert await utility.put("setpoint_w", 6e6) == 0
            assert rig.caps_w == {}, "not enabled yet"
            assert await utility.put("ramp_w_per_s", 5000) == 0
            assert await utility.put("priority", 3) == 0
            assert await utility.put("enable", 1) == 0
            (cap,) = rig.said[-1].caps
            assert (cap.limit_w, cap.priority, cap.ramp_w_per_s) == (6e6, 3, 5000.0)
            assert await utility.put("setpoint_float_w", 5.5e6) == 0
            assert rig.caps_w == {"setpoint": 5.5e6}
            assert await utility.get("setpoint_w") == 5.5e6
            assert await utility.get("own_cap_w") == 5.5e6

    run(test)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("setpoint_w", CONNECTION_W + 1, Code.VALUE),
        ("setpoint_w", math.nan, Code.VALUE),
        ("setpoint_float_w", math.nan, Code.VALUE),
        ("setpoint_float_w", math.inf, Code.VALUE),
        ("setpoint_float_w", -1.0, Code.VALUE),
        ("setpoint_float_w", 1.1e7, Code.VALUE),
        ("enable", 2, Code.VALUE),
        ("enable", math.nan, Code.VALUE),
        ("priority", 10, Code.VALUE),
        ("ramp_w_per_s", math.nan, Code.VALUE),
        ("draw_w", 1.0, Code.ADDRESS),
        ("software", "x", Code.ADDRESS),
    ],
)
def test_a_bad_write_is_refused_and_changes_nothing(
    tmp_path: Path, name: str, value: Any, code: Code
) -> None:
    HeldFile(tmp_path / "utility-modbus.json").write(Held(2e6, enabled=True))

    async def test() -> None:
        async with running(tmp_path) as rig, master(rig) as utility:
            before = rig.caps_w
            assert await utility.put(name, value) == code
            assert rig.caps_w == before
            assert await utility.get("setpoint_w") == 2e6

    run(test)


def test_a_write_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as rig, master(rig) as utility:
            client = utility.client
            words = [*encode(BY_NAME["setpoint_w"], 3e6), *encode(BY_NAME["setpoint_float_w"], 2e6)]
            two = await client.write_registers(0, words, device_id=1)
            assert two.exception_code == Code.VALUE, "two set points that differ"
            half = await client.write_register(0, 7, device_id=1)
            assert half.exception_code == Code.ADDRESS, "half of a set point"
            cut = await client.write_registers(4, [0, 10, 1, 2], device_id=1)
            assert cut.exception_code == Code.VALUE, "enabled before a set point was written"
            assert await utility.get("ramp_w_per_s") == 0, "the rest of that write"
            assert await utility.get("heartbeat") is None, "nor its heartbeat"
            beyond = await client.write_registers(8, [1, 1], device_id=1)
            assert beyond.exception_code == Code.ADDRESS
            words = [*encode(BY_NAME["setpoint_w"], 3e6), *encode(BY_NAME["setpoint_float_w"], 3e6)]
            whole = await client.write_registers(0, [*words, 0, 0, 1, 65535, 9], device_id=1)
            assert not whole.isError()
            assert rig.caps_w["setpoint"] == 3e6
            assert rig.said[-1].caps[0].priority == 9

    run(test)


def test_a_lost_heartbeat_adds_the_fallback_and_raises_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, heartbeat=1.0) as rig, master(rig) as utility:
            # A counter that wraps: all ones is a value of it, not "unknown".
            for count in (UNKNOWN_U16, 0):
                beat = await utility.client.write_register(7, count, device_id=1)
                assert not beat.isError()
            assert await utility.put("setpoint_w", 2e6) == 0
            assert await utility.put("enable", 1) == 0
            assert rig.caps_w == {"setpoint": 2e6}
            # The same value again is no life: the clock has gone on, and the source finds it out.
            rig.clock.now_s += 1.0
            assert await utility.put("heartbeat", 0) == 0
            assert rig.caps_w == {"setpoint": 2e6, "heartbeat-lost": FALLBACK_W}
            assert rig.said[-1].fault is not None
            bits = AlarmBit(int(await utility.get("alarms") or 0))
            assert AlarmBit.HEARTBEAT_LOST in bits
            assert await utility.get("own_cap_w") == 2e6
            assert await utility.put("heartbeat", 1) == 0
            assert rig.caps_w == {"setpoint": 2e6}
            # And where nobody writes any more, it is said all the same.
            rig.clock.now_s += 0.99
            count = len(rig.said)
            rig.clock.now_s += 0.01
            await until(lambda: len(rig.said) > count)
            assert rig.caps_w == {"setpoint": 2e6, "heartbeat-lost": FALLBACK_W}

    run(test)


def test_a_restart_forgets_no_cap_and_waits_for_a_living_master(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as rig, master(rig) as utility:
            for name, value in {"setpoint_w": 1e6, "ramp_w_per_s": 9, "priority": 4}.items():
                assert await utility.put(name, value) == 0
            assert await utility.put("enable", 1) == 0
        async with running(tmp_path) as rig, master(rig) as utility:
            assert rig.caps_w == {"setpoint": 1e6, "heartbeat-lost": FALLBACK_W}
            assert rig.said[0].caps == rig.said[-1].caps, "from its very first word"
            assert rig.said[0].caps[0].ramp_w_per_s == 9
            # A master that has hung writes one value for ever: the first one proves nothing.
            assert await utility.put("heartbeat", 7) == 0
            assert "heartbeat-lost" in rig.caps_w
            assert await utility.put("heartbeat", 8) == 0
            assert rig.caps_w == {"setpoint": 1e6}

    run(test)


def test_a_disk_that_is_full_stops_no_lower_cap(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as rig, master(rig) as utility:
            # A folder in the file's place: even root cannot replace it.
            (tmp_path / "utility-modbus.json" / "x").mkdir(parents=True)
            assert await utility.put("setpoint_w", 1e6) == 0
            assert await utility.put("enable", 1) == 0
            assert rig.caps_w["setpoint"] == 1e6
            assert "not kept on disk" in (rig.said[-1].fault or "")
            assert AlarmBit.NOT_KEPT in AlarmBit(int(await utility.get("alarms") or 0))

    run(test)


def test_a_damaged_file_is_told_and_the_fallback_holds(tmp_path: Path) -> None:
    (tmp_path / "utility-modbus.json").write_text('{"version": 1, "setpoint_w": -5}')
    rig = Rig(tmp_path)
    rig.source._say = rig.said.append
    rig.source._tell()
    assert rig.caps_w == {"heartbeat-lost": FALLBACK_W}
    assert "damaged" in (rig.said[-1].fault or "")


@pytest.mark.parametrize(
    ("alarms", "bits"),
    [
        ({"promise-short": "warning"}, AlarmBit.PROMISE_SHORT | AlarmBit.OTHER_WARNING),
        ({"promise-short": "critical"}, AlarmBit.PROMISE_SHORT | AlarmBit.OTHER_CRITICAL),
        ({"promise-shorter": "warning"}, AlarmBit.OTHER_WARNING),
        ({"feeder-below-floor:row": "critical"}, AlarmBit.OTHER_CRITICAL),
        ({"cap-below-floor": "critical"}, AlarmBit.CAP_BELOW_FLOOR),
    ],
)
def test_a_bit_that_came_later_stands_beside_the_one_that_older_masters_know(
    alarms: dict[str, str], bits: AlarmBit
) -> None:
    site = SiteFigures(alarms=alarms)
    assert alarm_bits(site, heartbeat_lost=False, not_kept=False) == bits


def test_no_bit_of_the_first_table_has_moved() -> None:
    assert [int(bit) for bit in AlarmBit] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert TABLE_VERSION == 1, "a master may refuse another, and nothing has moved"


def test_the_status_is_told_in_watts_and_words(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as rig, master(rig) as utility:
            assert await utility.get("draw_w") == 5.5e6
            assert await utility.get("headroom_w") == 0.5e6
            assert await utility.get("draw_age_s") == pytest.approx(1.3)
            assert await utility.get("shed_10s_w") == 2e6
            assert math.isnan(await utility.get("shed_30min_w") or 0.0)
            assert await utility.get("state") == StateWord.CURTAILED
            assert await utility.get("connection_w") == CONNECTION_W
            assert await utility.get("heartbeat_age_s") is None
            bits = AlarmBit.METER_STALE | AlarmBit.AGENT_LOST | AlarmBit.OTHER_CRITICAL
            assert await utility.get("alarms") == int(bits | AlarmBit.HEARTBEAT_LOST)
            assert (await utility.get("alarms_warning"), await utility.get("alarms_critical")) == (
                2,
                1,
            )
            block = await utility.client.read_holding_registers(100, count=35, device_id=1)
            raw = struct.pack(">8H", *block.registers[-8:])
            assert raw.rstrip(b"\0") == b"1.2.3"
            hole = await utility.client.read_holding_registers(5, count=10, device_id=1)
            assert hole.exception_code == Code.ADDRESS
            other = await utility.client.read_coils(0, count=1, device_id=1)
            assert other.exception_code == Code.FUNCTION

    run(test)


@pytest.mark.parametrize(
    ("site", "word"),
    [
        (SiteFigures(), StateWord.UNKNOWN),
        (SiteFigures(draw_w=1.0), StateWord.UNKNOWN),
        (SiteFigures(draw_w=9e6, cap_w=CONNECTION_W), StateWord.FREE),
        (SiteFigures(draw_w=6.02e6, cap_w=6e6), StateWord.CURTAILED),
        (SiteFigures(draw_w=6.04e6, cap_w=6e6), StateWord.ABOVE_CAP),
        (SiteFigures(draw_w=6e6, cap_w=5e6, least_w=5.5e6), StateWord.SHORT),
        (SiteFigures(draw_w=6e6, cap_w=5e6, shadow=True), StateWord.SHADOW),
    ],
)
def test_state_words(site: SiteFigures, word: StateWord) -> None:
    assert state_word(site, CONNECTION_W) is word


def test_nobody_but_peers_is_served_and_no_more_than_a_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_module, "CONNECTIONS_MOST", 2)

    async def test() -> None:
        async with running(tmp_path, peers=("127.9.0.2/32",)) as rig, master(rig) as utility:
            assert await utility.put("heartbeat", 1) == 0
            port = rig.source.port
            for _ in range(2):
                reader, writer = await asyncio.open_connection(
                    HOST, port, local_addr=("127.9.0.3", 0)
                )
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await reader.readexactly(1)
                writer.close()
            async with master(rig) as second:
                assert await second.put("heartbeat", 2) == 0
                reader, writer = await asyncio.open_connection(
                    HOST, port, local_addr=("127.9.0.2", 0)
                )
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await reader.readexactly(1)
                writer.close()
                # Anything new is said with what was counted.
                assert await second.put("priority", 11) == Code.VALUE
                assert await second.put("setpoint_w", 1e6) == 0
                assert await second.put("enable", 1) == 0
            told = " ".join(rig.said[-1].notes)
            assert "2 connections from outside peers" in told
            assert "1 connections too many" in told
            assert "priority 11 (value)" in told

    run(test)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        taken = socket.create_server((HOST, 0))
        rig = Rig(tmp_path, listen=f"{HOST}:{taken.getsockname()[1]}")
        task = asyncio.create_task(rig.source.run(rig.said.append))
        await until(lambda: any("cannot listen" in (one.fault or "") for one in rig.said))
        assert rig.caps_w == {"heartbeat-lost": FALLBACK_W}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        taken.close()

    run(test)


class Model:
    """The least that must hold, kept apart from the code under test."""

    def __init__(self) -> None:
        self.setpoint_w: float | None = None
        self.enabled = False
        self.beats: list[tuple[float, int]] = []

    def most_w(self, now_s: float) -> float:
        held = self.setpoint_w if self.enabled and self.setpoint_w is not None else math.inf
        changes = [at for (_, before), (at, value) in pairwise(self.beats) if value != before]
        alive = bool(changes) and now_s - changes[-1] < HEARTBEAT_S
        return held if alive else min(held, FALLBACK_W)


def test_no_sequence_of_writes_losses_and_restarts_raises_the_cap(tmp_path: Path) -> None:
    """Seeded walks against a model; each step's cap is no higher than what must hold."""

    async def walk(seed: int) -> None:
        dice, folder = random.Random(seed), tmp_path / str(seed)
        model, rig = Model(), Rig(folder)
        rig.source._say = rig.said.append
        for _ in range(60):
            step = dice.choice(("beat", "same", "setpoint", "enable", "wait", "restart", "bad"))
            if step == "restart":
                clock, rig = rig.clock, Rig(folder)
                rig.clock.now_s = clock.now_s
                rig.source._say = rig.said.append
                model.beats = []
            elif step == "wait":
                rig.clock.now_s += dice.choice((1.0, 29.0, 30.0, 31.0))
            elif step in ("beat", "same"):
                value = dice.randrange(3) if step == "beat" else 1
                await rig.source.write(7, (value,))
                model.beats.append((rig.clock.now_s, value))
            elif step == "setpoint":
                model.setpoint_w = float(dice.randrange(1, 10) * 1e6)
                await rig.source.write(0, encode(BY_NAME["setpoint_w"], model.setpoint_w))
            elif step == "enable" and model.setpoint_w is not None:
                model.enabled = dice.random() < 0.7
                await rig.source.write(6, (int(model.enabled),))
            elif step == "bad":
                with pytest.raises(RequestRefused):
                    await rig.source.write(0, encode(BY_NAME["setpoint_w"], 2e7))
            rig.source._tell()
            most_w = min(rig.caps_w.values(), default=math.inf)
            assert most_w == model.most_w(rig.clock.now_s), (seed, step)

    async def test() -> None:
        for seed in range(6):
            await walk(seed)

    run(test)


def test_the_pulse_is_lost_to_the_second() -> None:
    pulse = Pulse(30.0)
    assert pulse.lost(0.0)
    pulse.beat(1, 0.0)
    assert pulse.lost(0.0), "the first value is no change"
    pulse.beat(2, 10.0)
    assert not pulse.lost(39.999)
    assert pulse.lost(40.0)
    assert pulse.due_s(15.0) == 25.0


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("peers", (), "at least 1"),
        ("peers", ("0.0.0.0/0",), "everybody"),
        ("peers", ("10.0.0.1/8",), "range of addresses"),
        ("heartbeat", "0.5s", "out of range"),
        ("fallback", -1, "out of range"),
    ],
)
def test_a_section_that_is_wrong_is_refused(key: str, value: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        config(**{key: value})


def test_the_docs_hold_the_table() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "utility.md").read_text()
    for one in TABLE:
        access = "read, write" if one.writable else "read"
        step = f"{one.scale:g}" if one.kind in (Kind.U16, Kind.U32) else ""
        row = (one.address, one.words, f"`{one.name}`", one.kind.value, one.unit, step, access)
        assert f"| {' | '.join(map(str, row))} | {one.meaning} |" in docs
