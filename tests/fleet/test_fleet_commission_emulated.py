"""Commissioning over real sockets: emulated machines, real drivers, meters that add up."""

import asyncio
import os
import threading
import time

import pytest

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.fleet.commission import Record, chosen, commission
from wattshift_cluster.fleet.pulses import Kind
from wattshift_cluster.fleet.site_port import DeviceLook, Look, Plan

SPEED = 25.0
"""Emulated seconds per real one."""

TREE = {"site": None, "a": "site", "b": "site"}
DECLARED = {"rig-right": "a", "rig-miswired": "a"}
WIRED = {"rig-right": "a", "rig-miswired": "b"}


def now_s():
    return time.monotonic() * SPEED


class Emulated:
    """A port onto real machines; the event loop of the drivers runs in a thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        block = 1 + os.getpid() % 250
        self.miners = {
            name: EmulatedMiner(
                name, "luxos", f"127.37.{block}.{10 + n}", seed=n, clock=now_s, full=True
            )
            for n, name in enumerate(DECLARED)
        }
        self.drivers = {}

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20.0)

    def start(self):
        for name, miner in self.miners.items():
            self.wait(miner.start())
            self.drivers[name] = self.wait(connect(miner.address, deadline_s=2.0))

    def stop(self):
        for driver in self.drivers.values():
            self.wait(driver.close())
        for miner in self.miners.values():
            self.wait(miner.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5.0)
        self.loop.close()

    def look(self):
        devices = []
        for name, driver in self.drivers.items():
            watts_w = self.wait(driver.poll()).watts_w
            asleep = None if watts_w is None else watts_w < 100.0
            devices.append(
                DeviceLook(name, "asic", "S19k", DECLARED[name], "x", "ok", watts_w, asleep)
            )
        draws_w = {name: miner.machine.watts_w() for name, miner in self.miners.items()}
        meters = {
            feeder: 500.0 + sum(w for name, w in draws_w.items() if feeder in ("site", WIRED[name]))
            for feeder in TREE
        }
        return Look(now_s(), None, TREE, meters, tuple(devices))

    def command(self, action, device, reason):
        driver = self.drivers[device]
        self.wait(driver.sleep() if action == "sleep" else driver.wake())

    def pause(self, span_s):
        time.sleep(span_s / SPEED)


def test_a_miswired_machine_is_found_among_real_ones():
    site = Emulated()
    try:
        site.start()
    except OSError as taken:
        pytest.skip(f"cannot bind the machines' ports: {taken}")
    try:
        plan = Plan(pulse_s=40.0, period_s=1.0, restore_s=300.0)
        record = Record(plan, (), tuple(TREE))
        commission(site, plan, chosen(site.look()), lambda _: None, record)
        awake = [miner.machine.asleep for miner in site.miners.values()]
    finally:
        site.stop()
    rows = {row.device: row.verdict for row in record.rows}
    assert record.stopped is None
    assert rows["rig-right"].kind is Kind.CONFIRMED, rows["rig-right"].text
    assert rows["rig-miswired"].kind is Kind.WRONG_FEEDER, rows["rig-miswired"].text
    assert rows["rig-miswired"].meter == "b"
    assert rows["rig-right"].step_w == pytest.approx(2760.0, rel=0.1)
    assert abs(rows["rig-right"].off_pct) < 3.0
    assert awake == [False, False]
