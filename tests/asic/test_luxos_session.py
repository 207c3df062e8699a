"""The one session of a LuxOS machine, and the thermal tuning that must never stay off."""

import asyncio
import time

import pytest

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.luxos_session import LuxosSession
from wattshift_cluster.asic.wire import ask_cgminer
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.listener import EmulatedMiner


async def driver_of(miner, deadline_s=5.0):
    driver = await connect(miner.address, deadline_s=deadline_s)
    await driver.identify()
    return driver


async def eventually(holds):
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.01)


class Seen:
    """Every command that reaches the machine, and what is done when the n-th arrives."""

    def __init__(self, miner, act=None):
        self.names, self.act, self.lost = [], act, set()
        self._answer = miner._firmware._one
        miner._firmware._one = self._one

    def _one(self, command, parameter):
        self.names.append(command)
        if self.act is not None:
            self.act(len(self.names))
        reply = self._answer(command, parameter)
        if command in self.lost:
            raise ConnectionResetError
        return reply


def firmware(miner):
    return miner._firmware


def test_a_curtailment_is_two_exchanges_and_the_log_off_follows(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        seen = Seen(miner)
        await driver.sleep()
        assert seen.names[:2] == ["logon", "curtail"]
        await eventually(lambda: seen.names[2:] == ["logoff"])
        await driver.sleep()
        await driver.sleep()
        await driver.close()
        assert seen.names == ["logon", "curtail", "logoff"] * 3
        assert firmware(miner)._session is None

    on_miner("luxos", scenario, full=True)


def test_what_runs_behind_a_command_is_over_before_the_next_one_begins(on_miner):
    async def scenario(miner):
        session = LuxosSession(miner.address, 1.0)
        seen = Seen(miner)
        for command in ("sleep", "wakeup"):
            async with session.held(command, asyncio.sleep(0.1)):
                await session.tell(command, "curtail", command)
        await session.settled()
        assert seen.names == ["logon", "curtail", "logoff"] * 2

    on_miner("luxos", scenario, full=True)


def test_prepare_asks_for_the_session_and_does_not_take_it(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        seen = Seen(miner)
        await driver.prepare()
        assert seen.names == ["session"]
        await ask_cgminer(miner.address, "logon", deadline_s=5.0)
        with pytest.raises(AsicRefused, match="another session is open"):
            await driver.prepare()

    on_miner("luxos", scenario, full=True)


def test_somebody_elses_session_is_neither_used_nor_ended(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        theirs = await ask_cgminer(miner.address, "logon", deadline_s=5.0)
        name = theirs["SESSION"][0]["SessionID"]
        for command in (driver.sleep(), driver.set_point("190MHz", 1000)):
            with pytest.raises(AsicRefused, match=r"another session is open.*code 402"):
                await command
        assert firmware(miner)._session[0] == name
        assert miner.machine.commands == 0
        await ask_cgminer(miner.address, "logoff", name, deadline_s=5.0)
        await driver.sleep()
        assert miner.machine.asleep

    on_miner("luxos", scenario, full=True)


def test_a_session_of_ours_that_was_left_over_is_used_again(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver._session._log_on("sleep")
        await driver.sleep()
        await driver.close()
        assert miner.machine.asleep
        assert firmware(miner)._session is None

    on_miner("luxos", scenario, full=True)


@pytest.mark.parametrize("at", range(1, 8))
def test_whenever_a_set_point_is_broken_off_atm_is_on_again_and_the_session_free(on_miner, at):
    """The n-th request has just arrived when the caller loses interest: config, log-on, ATM off,
    profile, ATM on, config, wake."""

    async def scenario(miner):
        driver = await driver_of(miner)
        command = asyncio.create_task(driver.set_point("190MHz", 1000))
        seen = Seen(miner, lambda n: command.cancel() if n == at else None)
        with pytest.raises(asyncio.CancelledError):
            await command
        seen.act = None
        await driver._session.settled()
        assert len(seen.names) >= at
        assert firmware(miner)._atm is True
        assert firmware(miner)._session is None
        assert not driver._atm_owed
        await driver.set_point("190MHz", 1000)
        assert miner.machine.mode == "190MHz"
        await driver.close()

    on_miner("luxos", scenario)


@pytest.mark.parametrize("lost", ["atmset", "profileset", "logoff"])
def test_a_lost_answer_leaves_atm_on(on_miner, lost):
    async def scenario(miner):
        driver = await driver_of(miner)
        seen = Seen(miner)
        seen.lost.add(lost)
        if lost == "logoff":
            await driver.set_point("190MHz", 1000)
        else:
            with pytest.raises(AsicUnreachable):
                await driver.set_point("190MHz", 1000)
        await driver._session.settled()
        assert firmware(miner)._atm is True
        seen.lost.clear()
        await driver.set_point("190MHz", 1000)
        await driver.close()
        assert firmware(miner)._session is None

    on_miner("luxos", scenario)


def test_atm_is_switched_on_when_a_machine_that_left_in_between_is_back(on_miner, monkeypatch):
    monkeypatch.setattr("wattshift_cluster.asic.luxos.RESTORE_S", (0.05,) * 60)

    async def scenario(miner):
        driver = await driver_of(miner, deadline_s=0.5)
        seen = Seen(miner)

        def leave(_):
            if seen.names[-1] == "profileset":
                leaving.append(asyncio.create_task(miner.inject(Fault.MUTE)))

        leaving = []
        seen.act = leave
        with pytest.raises(AsicUnreachable):
            await driver.set_point("190MHz", 1000)
        await driver._session.settled()
        assert firmware(miner)._atm is False
        seen.act = None
        await miner.inject(Fault.NONE)
        await eventually(lambda: firmware(miner)._atm)
        await driver.close()
        assert firmware(miner)._session is None

    on_miner("luxos", scenario)


def test_an_owner_who_switched_atm_off_finds_it_off(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        firmware(miner)._atm = False
        seen = Seen(miner)
        await driver.set_point("190MHz", 1000)
        await driver.close()
        assert "atmset" not in seen.names
        assert miner.machine.mode == "190MHz"

    on_miner("luxos", scenario)


def test_an_answer_from_another_machine_is_no_sample(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.read()
        await miner.stop()
        stranger = EmulatedMiner("other", "luxos", miner.address, seed=8, clock=time.monotonic)
        await stranger.start()
        try:
            for call in (driver.poll(), driver.read(), driver.set_point("190MHz", 1000)):
                with pytest.raises(AsicUnreachable, match="it is now 62:F7:5E"):
                    await call
            assert stranger.machine.commands == 0
        finally:
            await stranger.stop()

    on_miner("luxos", scenario)
