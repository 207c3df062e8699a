"""A machine at another address is the same machine: found again by who it is, never by trust."""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from tests.agent import asic_machine as bench
from tests.ports import own_net

from wattshift_cluster.agent.asics import neighbours, whereabouts
from wattshift_cluster.agent.asics.claims import MOST_CLAIMED, Claims
from wattshift_cluster.agent.asics.contact import Contact, connect_by_probe
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.neighbours import Neighbours
from wattshift_cluster.agent.asics.rhythm import Rhythm
from wattshift_cluster.agent.asics.trail import Trail, TwoClaim
from wattshift_cluster.agent.asics.whereabouts import Lost, Patience, Whereabouts
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic, AsicSection
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.fleet import inventory_file
from wattshift_cluster.fleet.inventory import Inventory, Known
from wattshift_cluster.fleet.kept import Moved
from wattshift_cluster.fleet.locks import Lock, Restraint
from wattshift_cluster.fleet.memory import Memory, MemoryFolder
from wattshift_cluster.fleet.scan import Sighting

eventually, lease = bench.eventually, bench.lease

NET = own_net()
WAIT_S = 15.0
EAGER = Patience(lost_s=0.05, again_s=0.05, scan_after_s=0.05, scan_s=(0.1,), heard_s=5.0)
_hosts = itertools.count(1)


def free() -> str:
    """An address that no other test of this process uses."""
    number = next(_hosts)
    assert number < 255
    return f"{NET}.{number}"


class Hall:
    """Emulated machines on loopback, and an agent's devices that are to run them.

    Attributes:
        table: in place of the kernel's neighbour table, which knows nothing of loopback.
        inventory: what `fleet scan --inventory` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.table = folder / "arp"
        self.inventory = folder / "fleet.json"
        self.miners: list[EmulatedMiner] = []
        self.networks: tuple[IPv4Network, ...] = ()

    async def miner(self, address: str, seed: int = 7, kind: str = "luxos") -> EmulatedMiner:
        made = EmulatedMiner("rig", kind, address, seed=seed, clock=time.monotonic, full=True)
        await made.start()
        self.miners.append(made)
        return made

    def neighbours(self, **rows: str) -> None:
        """By "a127_62_1_1"-like names the hardware addresses seen there."""
        lines = ["IP address       HW type     Flags       HW address            Mask     Device"]
        lines += [
            f"{name[1:].replace('_', '.')} 0x1 0x2 {mac} * eth0" for name, mac in rows.items()
        ]
        self.table.write_text("\n".join(lines) + "\n")

    def listed(self, mac: str, address: str) -> None:
        row = Known(f"mac:{mac}", address, "luxos", None, None, mac, None, 1.0, 2.0)
        inventory_file.save(Inventory([row]), self.inventory)

    def whereabouts(self) -> Whereabouts:
        return Whereabouts(self.networks, self.inventory, self.table, EAGER)

    def run(
        self,
        test: Callable[..., Awaitable[None]],
        *asics: Asic,
        memory: Memory | None = None,
    ) -> None:
        async def main() -> None:
            lanes = Lanes(rhythm=bench.FAST, pace=bench.PATIENT, whereabouts=self.whereabouts())
            devices = [
                AsicDevice(asic, None, connect_by_probe, lanes=lanes, memory=memory)
                for asic in asics
            ]
            try:
                await bench.sweeping(devices, lanes, test(*devices), within_s=30.0)
            finally:
                await asyncio.gather(*(miner.stop() for miner in self.miners))
                self.miners = []

        asyncio.run(main())


@pytest.fixture
def hall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hall:
    monkeypatch.setattr(neighbours, "KEPT_S", 0.0)
    return Hall(tmp_path)


def entry(address: str, name: str = "rig1", **fields: Any) -> Asic:
    return Asic(id=name, address=address, emulated=True, **fields)


def row(address: str) -> str:
    return "a" + address.replace(".", "_")


async def mac_of(device: AsicDevice) -> str:
    await device.identified.wait()
    identity = device.contact.identity
    assert identity is not None
    assert identity.mac is not None
    return identity.mac


async def moved(device: AsicDevice, address: str) -> None:
    await eventually(lambda: device.contact.trail.address == address, WAIT_S)
    await eventually(lambda: device.contact.error is None, WAIT_S)


@pytest.mark.parametrize("source", ["inventory", "neighbours", "sweep"])
def test_a_machine_is_followed_to_its_new_address_and_obeys_there(hall: Hall, source: str) -> None:
    old, new = free(), free()

    async def test(device: AsicDevice) -> None:
        before = await hall.miner(old)
        mac = await mac_of(device)
        device.safe()
        await eventually(lambda: before.machine.asleep, WAIT_S)
        await before.stop()
        after = await hall.miner(new)
        if source == "inventory":
            hall.listed(mac, new)
        elif source == "neighbours":
            hall.neighbours(**{row(old): mac, row(new): mac.lower()})
        await moved(device, new)
        await eventually(lambda: after.machine.asleep, WAIT_S)
        assert device.memory.moved == Moved(old, new)

    if source == "sweep":
        hall.networks = (IPv4Network(f"{new}/32"),)
    hall.run(test, entry(old))


def test_nothing_is_swept_without_ranges_and_never_what_is_not_private(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[object] = []

    def scan(networks: object, limits: object) -> None:
        swept.append(networks)

    monkeypatch.setattr(whereabouts, "Scan", scan)
    old = free()

    async def test(device: AsicDevice) -> None:
        await (await hall.miner(old)).stop()
        await eventually(lambda: device.contact.misses > 8, WAIT_S)
        assert device.contact.trail.address == old
        assert swept == []

    hall.run(test, entry(old, mac="02:00:00:00:00:01"))
    with pytest.raises(ConfigInvalid, match=r"asic\.ranges.*only private ranges"):
        Lanes.of(AsicSection(ranges=("8.8.8.0/24",)))
    with pytest.raises(ValueError, match="not an IPv4 range"):
        AsicSection(ranges=("hall one",))
    assert Lanes.of(AsicSection(ranges=("10.1.0.7/24",))).section.ranges == ("10.1.0.0/24",)


def test_a_restart_begins_where_the_machine_had_moved_to_and_a_lock_goes_with_it(
    hall: Hall, tmp_path: Path
) -> None:
    old, new = free(), free()
    folder = MemoryFolder(tmp_path)
    asic = entry(old, mac="62:F7:5E:54:13:65")

    async def test(device: AsicDevice) -> None:
        miner = await hall.miner(new)
        assert await mac_of(device) == asic.mac
        assert device.contact.trail.address == new
        await eventually(lambda: miner.machine.asleep, WAIT_S)
        assert "locked by mona" in (device.reading().note or "")

    seen = EmulatedMiner("rig", "luxos", new, seed=7, clock=time.monotonic)
    mac = str(getattr(seen.firmware, "_mac")).upper()  # noqa: B009 - a private name of another room
    asic = entry(old, mac=mac)
    lock = Restraint(lock=Lock("mona", 1.0, None))
    folder.save("rig1", Memory(mac=mac, moved=Moved(old, new), restraint=lock), sync=True)
    hall.run(test, asic, memory=folder.load("rig1"))


def test_an_address_that_its_owner_has_changed_since_is_where_it_is_asked() -> None:
    memory = Memory(mac="02:00:00:00:00:01", moved=Moved("10.0.0.1", "10.0.0.2"))
    asic = Asic(id="rig1", address="10.0.0.3")
    assert AsicDevice(asic, memory=memory).contact.trail.address == "10.0.0.3"
    at_home = asic.model_copy(update={"address": "10.0.0.1"})
    assert AsicDevice(at_home, memory=memory).contact.trail.address == "10.0.0.2"


def test_two_that_have_swapped_their_addresses_are_told_by_each_other(hall: Hall) -> None:
    one, two = free(), free()

    async def test(first: AsicDevice, second: AsicDevice) -> None:
        miners = [await hall.miner(one, 7), await hall.miner(two, 8)]
        macs = await mac_of(first), await mac_of(second)
        first.safe()
        await eventually(lambda: miners[0].machine.asleep, WAIT_S)
        await asyncio.gather(*(miner.stop() for miner in miners))
        mine, other = await hall.miner(two, 7), await hall.miner(one, 8)
        await asyncio.gather(moved(first, two), moved(second, one))
        assert (await mac_of(first), await mac_of(second)) == macs
        await eventually(lambda: mine.machine.asleep, WAIT_S)
        assert not other.machine.asleep

    hall.run(test, entry(one, "rig1"), entry(two, "rig2"))


def test_two_addresses_that_claim_one_machine_are_both_left_alone(hall: Hall) -> None:
    one, two = free(), free()

    async def test(device: AsicDevice) -> None:
        miner = await hall.miner(one)
        mac = await mac_of(device)
        twin = await hall.miner(two)
        hall.neighbours(**{row(one): mac, row(two): mac})
        # It is asked who it is now and then; here at once.
        device.contact._identify_due_s = 0.0
        await eventually(lambda: "neither is commanded" in (device.reading().error or ""), WAIT_S)
        device.safe()
        await asyncio.sleep(0.3)
        assert not miner.machine.asleep
        assert not twin.machine.asleep
        assert device.reading().watts_w is None
        await twin.stop()
        await eventually(lambda: miner.machine.asleep, WAIT_S)
        assert device.contact.error is None

    hall.run(test, entry(one))


def test_a_machine_that_says_what_another_says_is_not_even_believed_once() -> None:
    mac = "02:00:00:00:00:01"
    finder = Whereabouts(neighbours=Path("/nonexistent"))
    finder.claims.heard(mac, "10.0.0.2", boot_s())
    trail = Trail(Asic(id="rig1", address="10.0.0.1"), mac, finder, None)
    with pytest.raises(TwoClaim, match=r"10\.0\.0\.1 and 10\.0\.0\.2; neither"):
        asyncio.run(trail.recognise(replace(bench.IDENTITY, mac=mac)))
    known = Contact(Asic(id="rig1", address="10.0.0.1"), mac, connect_by_probe, Rhythm(), finder)
    known.identity = bench.IDENTITY
    assert not known.sure, "nor is it commanded before the next look"
    finder.claims.unheard(mac, "10.0.0.2")
    assert known.sure


def test_a_lost_machine_that_two_addresses_claim_is_not_followed(hall: Hall) -> None:
    old, one, two = free(), free(), free()

    async def test(device: AsicDevice) -> None:
        before = await hall.miner(old)
        mac = await mac_of(device)
        device.safe()
        await before.stop()
        twins = [await hall.miner(one), await hall.miner(two)]
        hall.neighbours(**{row(one): mac, row(two): mac})
        await asyncio.sleep(0.5)
        assert device.contact.trail.address == old
        assert not any(twin.machine.asleep for twin in twins)
        await twins[0].stop()
        await moved(device, two)
        await eventually(lambda: twins[1].machine.asleep, WAIT_S)

    hall.run(test, entry(old))


def test_two_entries_that_mean_one_machine_do_not_both_command_it(hall: Hall) -> None:
    one, two = free(), free()

    async def test(first: AsicDevice, second: AsicDevice) -> None:
        miner = await hall.miner(one)
        mac = await mac_of(first)
        second.contact.trail.meant_mac = mac
        hall.listed(mac, one)
        second.safe()
        await asyncio.sleep(0.4)
        assert second.contact.trail.address == two
        assert not miner.machine.asleep
        assert first.contact.error is None

    hall.run(test, entry(one, "rig1"), entry(two, "rig2"))


def secret(folder: Path) -> Path:
    path = folder / "password"
    path.write_text("admin")
    return path


def test_the_password_goes_to_nobody_but_the_machine_that_is_meant(
    hall: Hall, tmp_path: Path
) -> None:
    old, new = free(), free()

    async def test(device: AsicDevice) -> None:
        before = await hall.miner(old, 7, "vnish")
        mac = await mac_of(device)
        await before.stop()
        await eventually(lambda: not device.contact.sure, WAIT_S)
        stranger = await hall.miner(old, 8, "vnish")
        after = await hall.miner(new, 7, "vnish")
        await eventually(lambda: "another machine" in (device.contact.error or ""), WAIT_S)
        hall.listed(mac, new)
        await moved(device, new)
        await eventually(lambda: getattr(after.firmware, "logins") > 0, WAIT_S)  # noqa: B009
        told = stranger.firmware
        assert (getattr(told, "logins"), getattr(told, "refused_logins")) == (0, 0)  # noqa: B009

    hall.run(test, entry(old, password_file=secret(tmp_path)))


def test_firmware_that_tells_nothing_without_a_login_is_proved_by_its_neighbours(
    hall: Hall, tmp_path: Path
) -> None:
    old, wrong, new = free(), free(), free()
    logins: list[str] = []

    async def test(device: AsicDevice) -> None:
        before = await hall.miner(old, 7, "antminer")
        mac = await mac_of(device)
        await before.stop()
        for address, seed in ((wrong, 8), (new, 7)):
            miner = await hall.miner(address, seed, "antminer")
            digest = getattr(miner.firmware, "_digest")  # noqa: B009
            digest.refusal = _noted(digest.refusal, address, logins)
        hall.listed(mac, wrong)
        await asyncio.sleep(0.4)
        assert device.contact.trail.address == old, "nothing proves that it is there"
        hall.neighbours(**{row(wrong): "02:00:00:00:00:09", row(new): mac})
        await moved(device, new)
        assert set(logins) == {new}

    secret(tmp_path).write_text("root")
    hall.run(test, entry(old, password_file=tmp_path / "password"))


def _noted(refusal: Callable[[Any], Any], address: str, logins: list[str]) -> Callable[[Any], Any]:
    def noted(request: Any) -> Any:
        if "authorization" in request.headers:
            logins.append(address)
        return refusal(request)

    return noted


def test_an_emulated_machine_never_leads_to_a_real_one_nor_any_to_a_public_one(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    async def ask(address: str, deadline_s: float) -> Sighting:
        asked.append(address)
        return Sighting(address, None, False, *(None,) * 6, False, "silent")

    async def sought(home: str) -> list[str]:
        asked.clear()
        finder = Whereabouts((), None, table, EAGER, ask)
        lost = Lost("rig1", "02:00:00:00:00:01", home, home, -1e9)
        assert await finder.seek(lost) is None
        return list(asked)

    table = tmp_path / "arp"
    rows = (f"{at} 0x1 0x2 02:00:00:00:00:01 * e" for at in ("10.9.0.1", "8.8.8.8", "127.0.9.1"))
    table.write_text("\n".join(("head", *rows, "10.9.0.2 0x1 0x0 02:00:00:00:00:01 * e", "junk")))
    assert asyncio.run(sought("127.62.0.1")) == ["127.0.9.1"]
    assert asyncio.run(sought("10.1.0.1")) == ["10.9.0.1"]


def test_a_damaged_inventory_and_a_missing_table_are_no_more_than_no_help(hall: Hall) -> None:
    hall.inventory.write_text(json.dumps({"version": 9}))
    old, new = free(), free()

    async def test(device: AsicDevice) -> None:
        before = await hall.miner(old)
        mac = await mac_of(device)
        await before.stop()
        await hall.miner(new)
        await asyncio.sleep(0.3)
        hall.inventory.unlink()
        hall.listed(mac, new)
        await moved(device, new)

    hall.run(test, entry(old))


def test_what_is_heard_of_strangers_is_bounded_and_forgotten() -> None:
    claims = Claims(heard_s=10.0)
    for number in range(MOST_CLAIMED + 3):
        claims.heard(f"mac{number}", "10.0.0.1", 0.0)
    assert claims.at(f"mac{MOST_CLAIMED}", 1.0) == ()
    claims.heard("late", "10.0.0.1", 11.0)
    assert claims.at("late", 12.0) == ("10.0.0.1",)
    claims.claim("rig1", "late", "10.0.0.2")
    assert claims.rivals("late", "10.0.0.2", 12.0) == ("10.0.0.1",)
    assert claims.rivals("late", "10.0.0.2", 22.0) == ()
    claims.withdraw("rig1")
    assert claims.owner("late") is None


def test_a_table_is_read_once_for_many_and_afresh_for_a_proof(tmp_path: Path) -> None:
    path, head = tmp_path / "arp", "IP address HW type Flags HW address Mask Device\n"
    path.write_text(f"{head}10.0.0.1 0x1 0x2 02:00:00:00:00:01 * e\n")
    table = Neighbours(path)
    assert table.at("02:00:00:00:00:01") == ("10.0.0.1",)
    path.write_text(f"{head}10.0.0.1 0x1 0x2 02:00:00:00:00:02 * e\n")
    assert table.at("02:00:00:00:00:01") == ("10.0.0.1",)
    assert table.of("10.0.0.1") == "02:00:00:00:00:02"
    path.write_text(f"{path.read_text()}10.0.0.1 0x1 0x2 02:00:00:00:00:03 * f\n")
    assert table.of("10.0.0.1") is None, "two networks know that address"


def test_the_kernels_own_table_can_be_read() -> None:
    assert isinstance(Neighbours().at("02:00:00:00:00:01"), tuple)
    assert Neighbours(Path("/nonexistent")).of("10.0.0.1") is None
