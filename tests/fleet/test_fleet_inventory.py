"""The inventory: who is who after addresses changed, and a file that is never silently empty."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.fleet import inventory, inventory_file
from wattshift_cluster.fleet.inventory import Inventory, InventoryFull, mac_of, tally
from wattshift_cluster.fleet.inventory_file import InventoryDamaged, backup_of, load, save
from wattshift_cluster.fleet.scan import Sighting

A, B = "02:00:00:00:00:0A", "02:00:00:00:00:0B"


def events(changes):
    return [(change.event, change.identity, change.address, change.before) for change in changes]


def test_a_new_machine_a_new_address_and_a_new_firmware(sighted):
    known = Inventory()
    assert events(known.merge([sighted("10.0.0.1", mac=A)], 100.0)) == [
        ("new", f"mac:{A}", "10.0.0.1", None)
    ]
    assert known.merge([sighted("10.0.0.1", mac=A.lower())], 200.0) == []
    moved = known.merge([sighted("10.0.0.9", mac=A.replace(":", "-"))], 300.0)
    assert events(moved) == [("moved", f"mac:{A}", "10.0.0.9", "10.0.0.1")]
    changed = known.merge([sighted("10.0.0.9", mac=A, firmware="LuxOS 2")], 400.0)
    assert events(changed) == [("changed", f"mac:{A}", "10.0.0.9", "LuxOS 1")]
    (row,) = known.machines.values()
    assert (row.first_seen_s, row.last_seen_s, row.address) == (100.0, 400.0, "10.0.0.9")
    assert row.firmware == "LuxOS 2"


def test_another_machine_at_a_known_address_is_another_machine(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A)], 1.0)
    changes = known.merge([sighted("10.0.0.1", mac=B)], 2.0)
    assert events(changes) == [
        ("new", f"mac:{B}", "10.0.0.1", f"mac:{A}"),
        ("missing", f"mac:{A}", "10.0.0.1", None),
    ]
    assert known.machines[f"mac:{A}"].last_seen_s == 1.0
    assert known.machines[f"mac:{B}"].first_seen_s == 2.0


def test_two_that_change_places_are_both_known_again(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A), sighted("10.0.0.2", mac=B)], 1.0)
    changes = known.merge([sighted("10.0.0.2", mac=A), sighted("10.0.0.1", mac=B)], 2.0)
    assert events(changes) == [
        ("moved", f"mac:{A}", "10.0.0.2", "10.0.0.1"),
        ("moved", f"mac:{B}", "10.0.0.1", "10.0.0.2"),
    ]


def test_a_cloned_mac_is_named_twice_and_nobody_is_adopted(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A)], 1.0)
    before = known.machines
    twins = [sighted("10.0.0.1", mac=A), sighted("10.0.0.2", mac=A)]
    assert events(known.merge(twins, 2.0)) == [
        ("twice", f"mac:{A}", "10.0.0.1", "10.0.0.2"),
        ("twice", f"mac:{A}", "10.0.0.2", "10.0.0.1"),
    ]
    assert known.machines == before
    fresh = Inventory()
    fresh.merge(twins, 2.0)
    assert fresh.machines == {}


def test_a_machine_is_missing_only_where_it_was_looked_for(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A), sighted("10.0.1.1", mac=B)], 1.0)
    changes = known.merge([], 2.0, covered=lambda address: address.startswith("10.0.0."))
    assert events(changes) == [("missing", f"mac:{A}", "10.0.0.1", None)]
    assert known.merge([sighted("10.0.7.7", mac=A)], 3.0, covered=lambda address: False) != []


def test_the_serial_number_serves_where_there_is_no_mac(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", serial="SN1")], 1.0)
    moved = known.merge([sighted("10.0.0.2", serial="SN1")], 2.0)
    assert events(moved) == [("moved", "serial:SN1", "10.0.0.2", "10.0.0.1")]


def test_one_known_by_its_address_tells_who_it_is_later(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1")], 1.0)
    changes = known.merge([sighted("10.0.0.1", mac=A)], 2.0)
    assert events(changes) == [("identified", f"mac:{A}", "10.0.0.1", "address:10.0.0.1")]
    assert list(known.machines) == [f"mac:{A}"]
    assert known.machines[f"mac:{A}"].first_seen_s == 1.0


def test_one_known_by_its_address_is_not_taken_for_another_model(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1")], 1.0)
    changes = known.merge([sighted("10.0.0.1", model="Antminer T21", mac=A)], 2.0)
    assert ("new", f"mac:{A}", "10.0.0.1", "address:10.0.0.1") in events(changes)
    other = Inventory()
    other.merge([sighted("10.0.0.1")], 1.0)
    changes = other.merge([sighted("10.0.0.1", model="Antminer T21")], 2.0)
    assert events(changes) == [("new", "address:10.0.0.1", "10.0.0.1", "address:10.0.0.1")]
    (row,) = other.machines.values()
    assert (row.model, row.first_seen_s) == ("Antminer T21", 2.0)


def test_what_does_not_prove_who_it_is_is_neither_the_old_one_nor_a_new_one(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A)], 1.0)
    before = known.machines
    silent = known.merge([sighted("10.0.0.1", identified=False, firmware="x")], 2.0)
    assert events(silent) == [("unproven", f"mac:{A}", "10.0.0.1", None)]
    garbled = known.merge([sighted("10.0.0.1", kind=None, model=None)], 3.0)
    assert garbled == [], "what answers garbage is not a missing machine"
    assert known.machines == before
    elsewhere = known.merge([sighted("10.0.0.5", mac=A), sighted("10.0.0.1")], 4.0)
    assert tally(elsewhere) == {"moved": 1, "new": 1}


def test_the_word_of_the_probe_alone_is_no_change_of_firmware(sighted):
    known = Inventory()
    known.merge([sighted("10.0.0.1", serial="S", identified=True)], 1.0)
    assert known.merge([sighted("10.0.0.1", serial="S", identified=False, firmware="?")], 2.0) == []
    assert known.machines["serial:S"].firmware == "LuxOS 1"


@pytest.mark.parametrize(
    ("text", "mac"),
    [
        ("62:f7:5e:01:02:03", "62:F7:5E:01:02:03"),
        ("62-F7-5E-01-02-03", "62:F7:5E:01:02:03"),
        ("62f75e010203", "62:F7:5E:01:02:03"),
        ("00:00:00:00:00:00", None),
        ("ff:ff:ff:ff:ff:ff", None),
        ("01:00:5e:00:00:01", None),
        ("62:f7:5e:01:02", None),
        ("N/A", None),
        ("", None),
        (None, None),
    ],
)
def test_what_counts_as_a_hardware_address(text, mac):
    assert mac_of(text) == mac


def test_no_more_machines_than_the_inventory_holds(sighted, monkeypatch):
    monkeypatch.setattr(inventory, "MOST_MACHINES", 3)
    known = Inventory()
    known.merge([sighted(f"10.0.0.{i}") for i in (1, 2)], 1.0)
    with pytest.raises(InventoryFull):
        known.merge([sighted("10.0.0.8"), sighted("10.0.0.9")], 2.0)
    assert len(known.machines) == 2
    known.merge([sighted("10.0.0.8")], 2.0)


SIGHTINGS = st.builds(
    Sighting,
    address=st.sampled_from([f"10.0.0.{i}" for i in range(1, 6)]),
    kind=st.sampled_from(["luxos", "whatsminer", None]),
    identified=st.booleans(),
    model=st.sampled_from(["S21", "T21", None, "", "x" * 500]),
    firmware=st.sampled_from(["1", "2", None, ""]),
    mac=st.sampled_from([A, B, "02:00:00:00:00:0c", "junk", None]),
    serial=st.sampled_from(["S", None, " ", "y" * 500]),
    watts_w=st.none(),
    hashrate_h_per_s=st.none(),
    drivable=st.booleans(),
    control=st.just("x"),
)
SWEEPS = st.lists(
    st.lists(SIGHTINGS, max_size=5, unique_by=lambda one: one.address), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(SWEEPS)
def test_whatever_is_seen_no_machine_is_two_and_none_is_lost(tmp_path_factory, sweeps):
    known = Inventory()
    file = tmp_path_factory.mktemp("book") / "fleet.json"
    for now_s, sweep in enumerate(sweeps):
        before = known.machines
        changes = known.merge(sweep, float(now_s))
        gone = set(before) - set(known.machines)
        assert gone == {change.before for change in changes if change.event == "identified"}
        for identity, row in known.machines.items():
            assert row.identity == identity
            if identity.startswith("mac:"):
                assert row.mac == identity[4:]
        twice = {change.identity for change in changes if change.event == "twice"}
        for identity in twice:
            assert known.machines.get(identity) == before.get(identity)
        save(known, file)
        assert load(file).machines == known.machines


# The file


def test_a_file_that_is_not_there_is_an_empty_inventory(tmp_path):
    assert load(tmp_path / "fleet.json").machines == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"machines": []}',
        '{"version": 2, "machines": []}',
        '{"version": 1}',
        '{"version": 1, "machines": [{}]}',
        '{"version": 1, "machines": {}}',
        '{"version": 1, "machines": [], "more": 1}',
        "\x00" * 4096,
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_an_error_and_stays_as_it_is(tmp_path, sighted, text):
    file = tmp_path / "fleet.json"
    file.write_text(text)
    with pytest.raises(InventoryDamaged, match=r"fleet\.json: the inventory cannot be read"):
        load(file)
    with pytest.raises(InventoryDamaged):
        save(Inventory(), file)
    assert file.read_text() == text
    assert InventoryDamaged.exit_code == 3


def test_a_machine_twice_in_the_file_is_damage(tmp_path, sighted):
    file = tmp_path / "fleet.json"
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A)], 1.0)
    save(known, file)
    body = json.loads(file.read_text())
    body["machines"] *= 2
    file.write_text(json.dumps(body))
    with pytest.raises(InventoryDamaged, match="twice"):
        load(file)


def test_the_file_before_is_kept_and_named_when_the_new_one_is_damaged(tmp_path, sighted):
    file = tmp_path / "fleet.json"
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A)], 1.0)
    save(known, file)
    known.merge([sighted("10.0.0.2", mac=B)], 2.0)
    save(known, file)
    assert len(load(file).machines) == 2
    assert len(load(backup_of(file)).machines) == 1
    file.write_text(file.read_text()[:-40])
    with pytest.raises(InventoryDamaged, match=r"fleet\.json\.bak") as damaged:
        load(file)
    assert damaged.value.backup == backup_of(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.json", "fleet.json.bak"]


def test_a_full_inventory_is_written_and_read_within_its_limits(tmp_path, sighted):
    known = Inventory()
    known.merge(
        [
            sighted(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", mac=f"02{i:010x}", model="m" * 300)
            for i in range(inventory.MOST_MACHINES)
        ],
        1.0,
    )
    file = tmp_path / "fleet.json"
    save(known, file)
    assert file.stat().st_size < inventory_file.FILE_LIMIT
    assert load(file).machines == known.machines


def test_whoever_reads_while_it_is_written_sees_one_whole_file(tmp_path, sighted):
    file = tmp_path / "fleet.json"
    known = Inventory()
    known.merge([sighted("10.0.0.1", mac=A)], 1.0)
    save(known, file)
    with file.open() as before:
        known.merge([sighted("10.0.0.2", mac=B)], 2.0)
        save(known, file)
        assert len(json.load(before)["machines"]) == 1
    assert len(load(file).machines) == 2


def test_killed_while_writing_the_file_is_the_old_or_the_new_one(tmp_path):
    file = tmp_path / "fleet.json"
    code = textwrap.dedent(
        f"""
        import itertools, pathlib
        from wattshift_cluster.fleet.inventory import Inventory, Known
        from wattshift_cluster.fleet.inventory_file import save
        file = pathlib.Path({str(file)!r})
        for n in itertools.count():
            rows = [Known(f"address:{{i}}", str(i), "luxos", None, None, None, None, n, n)
                    for i in range(400)]
            save(Inventory(rows), file)
        """
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code])
        deadline_s = time.monotonic() + 30
        began = file.stat().st_mtime_ns if file.exists() else 0
        while not file.exists() or file.stat().st_mtime_ns == began:
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
        time.sleep(0.01 * os.getpid() % 7 / 100)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        machines = load(file).machines
        assert len(machines) == 400
        assert len({row.first_seen_s for row in machines.values()}) == 1
