"""Locks and memories: who may let a machine up, and what a restart must not forget."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from wattshift_cluster.errors import Refused
from wattshift_cluster.fleet.locks import Hold, Lock, Order, Restraint, apply
from wattshift_cluster.fleet.memory import MOST_BYTES, Memory, MemoryDamaged, MemoryFolder

ANNA = Order("lock", "anna", "replacing a fan")
LOCKED = apply(ANNA, Restraint(), 100.0)


def test_only_who_locked_unlocks() -> None:
    assert LOCKED.why_asleep == "locked by anna: replacing a fan"
    with pytest.raises(Refused, match="only anna unlocks"):
        apply(Order("unlock", "bob"), LOCKED, 200.0)
    assert apply(Order("unlock", "anna"), LOCKED, 200.0).lock is None
    with pytest.raises(Refused, match="not locked"):
        apply(Order("unlock", "anna"), Restraint(), 200.0)


@pytest.mark.parametrize("by", ["anna", "bob"])
def test_no_wake_goes_past_a_lock(by: str) -> None:
    with pytest.raises(Refused, match="only anna unlocks"):
        apply(Order("wake", by, override=True), LOCKED, 200.0)


def test_a_lock_is_not_taken_over() -> None:
    with pytest.raises(Refused, match="only anna"):
        apply(Order("lock", "bob", "mine"), LOCKED, 200.0)
    again = apply(Order("lock", "anna", "and a board"), LOCKED, 200.0)
    assert again.lock == Lock("anna", 100.0, "and a board"), "since when does not change"


def test_an_override_is_remembered() -> None:
    broken = apply(Order("unlock", "root", override=True), LOCKED, 300.0)
    assert broken.lock is None
    assert broken.override is not None
    assert (broken.override.by, broken.override.lock.by) == ("root", "anna")
    own = apply(Order("unlock", "anna", override=True), LOCKED, 300.0)
    assert own.override is None, "nothing was broken"


def test_a_held_machine_may_be_woken_by_anyone_and_an_unlock_leaves_the_hold() -> None:
    held = apply(Order("sleep", "bob"), LOCKED, 200.0)
    assert held.why_asleep == "locked by anna: replacing a fan"
    unlocked = apply(Order("unlock", "anna"), held, 300.0)
    assert unlocked.why_asleep == "held asleep by bob"
    assert apply(Order("wake", "carol"), unlocked, 400.0).why_asleep is None


def test_a_limit_is_set_and_lifted() -> None:
    limited = apply(Order("limit", "bob", watts_w=2000.0), Restraint(), 0.0)
    assert (limited.limit_w, limited.limit_by, limited.why_asleep) == (2000.0, "bob", None)
    assert apply(Order("limit", "bob"), limited, 0.0) == Restraint()


FULL = Memory(
    restraint=replace(
        apply(Order("unlock", "root", override=True), LOCKED, 3.0),
        lock=Lock("anna", 1.0, None),
        hold=Hold("bob", 2.0, "noise"),
        limit_w=2000.0,
        limit_by="bob",
    ),
    mac="02:00:00:00:00:01",
    written="sleep",
    slept_s=10.0,
    woke_s=5.0,
    cycles=3,
)


@pytest.mark.parametrize("memory", [Memory(), FULL, Memory(restraint=LOCKED)])
@pytest.mark.parametrize("sync", [True, False])
def test_what_is_saved_is_read_back(memory: Memory, sync: bool, tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    assert folder.load("rig.1") == Memory()
    folder.save("rig.1", memory, sync=sync)
    folder.save("rig", Memory(), sync=sync)
    assert MemoryFolder(tmp_path).load("rig.1") == memory


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    folder.save("rig", FULL, sync=True)
    folder.path("rig").with_suffix(".new").mkdir()
    with pytest.raises(OSError, match="directory"):
        folder.save("rig", Memory(), sync=True)
    assert folder.load("rig") == FULL


def whole() -> dict[str, object]:
    return {
        "version": 1,
        "restraint": {
            "lock": None, "hold": None, "limit_w": None, "limit_by": None, "override": None
        },
        "mac": None,
        "written": None,
        "slept_s": None,
        "woke_s": None,
        "cycles": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"version": 1}',
        json.dumps(whole() | {"version": 2}),
        json.dumps(whole() | {"restraint": None}),
        json.dumps(whole() | {"restraint": {}}),
        json.dumps(whole() | {"cycles": -1}),
        json.dumps(whole() | {"cycles": True}),
        json.dumps(whole() | {"slept_s": "yesterday"}),
        json.dumps(whole() | {"slept_s": float("nan")}),
        json.dumps(whole() | {"slept_s": 10**400}),
        json.dumps(whole() | {"written": 5}),
        json.dumps(whole() | {"restraint": {**whole()["restraint"], "lock": {}}}),  # type: ignore[dict-item]
        json.dumps(whole() | {"restraint": {**whole()["restraint"], "hold": {}}}),  # type: ignore[dict-item]
        json.dumps(whole() | {"restraint": {**whole()["restraint"], "lock": 0}}),  # type: ignore[dict-item]
        "[" * 20_000,
        "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"),
        " " * (MOST_BYTES + 1),
    ],
)
def test_a_damaged_file_is_never_an_empty_memory(text: str, tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    folder.path("rig").write_text(text, encoding="latin-1")
    with pytest.raises(MemoryDamaged, match="not commanded") as caught:
        folder.load("rig")
    assert caught.value.path == folder.path("rig")
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_whole_is_read(tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    folder.path("rig").write_text(json.dumps(whole() | {"transitions_s": {"sleep": 4.5}}))
    assert folder.load("rig") == Memory(), "and a key of an older version is passed over"


def test_a_file_that_may_not_be_read_is_not_an_empty_memory(tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    os.mkdir(folder.path("rig"))
    with pytest.raises(MemoryDamaged):
        folder.load("rig")
