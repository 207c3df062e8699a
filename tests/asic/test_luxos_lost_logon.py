"""A LuxOS log-on whose answer was lost: its session is used again, somebody else's never."""

import asyncio

import pytest

from wattshift_cluster.asic import luxos_session
from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.wire import ask_cgminer


class Losing:
    """A machine that obeys and whose answers to some commands get lost."""

    def __init__(self, miner):
        self.names, self.lost, self.act = [], set(), None
        self._answer = miner.firmware._one
        miner.firmware._one = self._one

    def _one(self, command, parameter):
        self.names.append(command)
        if self.act is not None:
            self.act()
        reply = self._answer(command, parameter)
        if command in self.lost:
            raise ConnectionResetError
        return reply


async def after_a_lost_log_on(miner, *, prepared=True):
    driver = await connect(miner.address, deadline_s=5.0)
    await driver.identify()
    if prepared:
        await driver.prepare()
    losing = Losing(miner)
    losing.lost.add("logon")
    with pytest.raises(AsicUnreachable):
        await driver.sleep()
    losing.lost.clear()
    return driver, losing


def test_the_session_of_a_lost_log_on_is_used_at_once_and_left_to_end_by_itself(on_miner):
    async def scenario(miner):
        driver, losing = await after_a_lost_log_on(miner)
        name = miner.firmware._session[0]
        await driver.sleep()
        assert miner.machine.asleep
        await driver.set_point("190MHz", 1000)
        assert miner.machine.mode == "190MHz"
        await driver.close()
        assert miner.firmware._session[0] == name, "it may be somebody else's after all"
        assert "logoff" not in losing.names

    on_miner("luxos", scenario, full=True)


def test_a_session_that_may_have_been_there_before_is_not_used(on_miner):
    async def scenario(miner):
        driver, _ = await after_a_lost_log_on(miner, prepared=False)
        with pytest.raises(AsicRefused, match="another session is open"):
            await driver.sleep()
        assert not miner.machine.asleep

    on_miner("luxos", scenario, full=True)


def test_what_is_open_long_after_is_not_taken_for_ours(on_miner, monkeypatch):
    monkeypatch.setattr(luxos_session, "LOST_S", 0.0)

    async def scenario(miner):
        driver, _ = await after_a_lost_log_on(miner)
        with pytest.raises(AsicRefused, match="another session is open"):
            await driver.sleep()

    on_miner("luxos", scenario, full=True)


def test_a_session_of_our_own_is_ended_again_once_one_was_opened(on_miner):
    async def scenario(miner):
        driver, losing = await after_a_lost_log_on(miner)
        await ask_cgminer(miner.address, "logoff", miner.firmware._session[0], deadline_s=5.0)
        losing.names.clear()
        await driver.sleep()
        await driver.close()
        assert losing.names == ["logon", "curtail", "logoff"]
        assert miner.firmware._session is None

    on_miner("luxos", scenario, full=True)


def test_a_log_on_that_was_broken_off_and_lost_is_found_again_too(on_miner):
    async def scenario(miner):
        driver = await connect(miner.address, deadline_s=5.0)
        await driver.identify()
        await driver.prepare()
        losing = Losing(miner)
        losing.lost.add("logon")
        command = asyncio.create_task(driver.sleep())
        losing.act = command.cancel
        with pytest.raises(asyncio.CancelledError):
            await command
        losing.act = None
        losing.lost.clear()
        await driver.sleep()
        assert miner.machine.asleep

    on_miner("luxos", scenario, full=True)
