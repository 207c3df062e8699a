"""Which gates a process joins: those of its devices and its gang; too many, never too few."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.gate import ClientGate
from wattshift_cluster.gate.agent_file import read_identity
from wattshift_cluster.gate.devices import Card, driver_cards, uuid_bits, wanted

A = "GPU-11111111-2222-3333-4444-555555555555"
B = "GPU-11119999-2222-3333-4444-555555555555"
SLICE = "MIG-aaaaaaaa-2222-3333-4444-555555555555"
EVERY = {"gpu0", "gpu1", "cpu"}
H100, L4 = Card("H100", A), Card("L4", B)


@pytest.fixture
def host(gates: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two cards and a CPU, and no variable set."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "WATTSHIFT_GANG"):
        monkeypatch.delenv(name, raising=False)
    gates.agent().identify(A, 0)
    gates.add("gpu1", B, 1)
    gates.add("cpu")
    return gates


def joined(host: Any, **how: Any) -> set[str]:
    gate = ClientGate(host.folder, **how)
    found = set(gate.gates)
    assert found == set(gate.chosen)
    gate.close()
    return found


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, EVERY),
        ("", {"cpu"}),
        ("-1", {"cpu"}),
        ("0", {"gpu0", "cpu"}),
        ("1", {"gpu1", "cpu"}),
        ("1,0", EVERY),
        ("0,-1,1", {"gpu0", "cpu"}),
        (A, {"gpu0", "cpu"}),
        (B.upper(), {"gpu1", "cpu"}),
        ("GPU-11119", {"gpu1", "cpu"}),
        ("GPU-1111", EVERY),
        ("GPU-77777777", {"cpu"}),
        (f"MIG-{A}/1/0", {"gpu0", "cpu"}),
        (SLICE, EVERY),
        ("NoDevFiles", EVERY),
        ("0,gpu", EVERY),
        ("²", EVERY),
    ],
)
def test_the_gates_of_visible_devices_are_joined(
    host: Any, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: set[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert joined(host) == expected


def test_what_is_not_understood_is_said(
    host: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "zero")
    assert joined(host) == EVERY
    assert "'zero' names no device" in caplog.text


def test_an_argument_outranks_the_variable_and_may_name_gates(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert joined(host, devices=["gpu1"]) == {"gpu1", "cpu"}
    assert joined(host, devices=[1]) == {"gpu1", "cpu"}
    assert joined(host, devices=[]) == {"cpu"}
    assert joined(host, devices="all") == EVERY


def test_a_slice_with_a_gate_of_its_own_is_joined_alone(host: Any) -> None:
    host.add("slice", SLICE, None)
    assert joined(host, devices=[SLICE]) == {"slice", "cpu"}


def test_a_gate_that_says_later_which_gpu_it_is_is_left(
    host: Any, eventually: Callable[..., bool]
) -> None:
    host.agent("gpu1").identify(None, None)
    gate = ClientGate(host.folder, [0])
    assert set(gate.gates) == EVERY
    host.agent("gpu1").identify(B, 1)
    assert eventually(lambda: set(gate.gates) == {"gpu0", "cpu"})
    gate.close()


@pytest.mark.parametrize(
    ("environ", "cards", "uuids"),
    [
        # A container shows its one card as index 0, whatever the host calls it.
        ({"CUDA_VISIBLE_DEVICES": "0"}, (L4,), {B}),
        ({"CUDA_VISIBLE_DEVICES": "0"}, (H100, H100), {A}),
        # Cards of two kinds: CUDA puts the faster first.
        ({"CUDA_VISIBLE_DEVICES": "0"}, (L4, H100), {A, B}),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (L4, H100), {B}),
        ({"NVIDIA_VISIBLE_DEVICES": B}, (), {B}),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, (), {A, B}),
        ({"NVIDIA_VISIBLE_DEVICES": B, "CUDA_VISIBLE_DEVICES": "0"}, (), {B}),
    ],
)
def test_indices_count_what_the_process_sees(
    host: Any, environ: dict[str, str], cards: tuple[Card, ...], uuids: set[str]
) -> None:
    known = {A: "gpu0", B: "gpu1"}
    identities = {one: read_identity(host.folder / f"{one}.gate") for one in EVERY}
    assert wanted(None, environ, cards).of(identities) == {"cpu", *(known[one] for one in uuids)}


def test_the_drivers_list_is_read_in_pci_order(tmp_path: Path) -> None:
    for bus in ("41", "04", "c1", "81"):
        place = tmp_path / f"0000:{bus}:00.0"
        place.mkdir()
        text = f"Model: \t\t {bus}\nIRQ:   \t\t 25\nGPU UUID: \t {A}\n"
        (place / "information").write_text(text)
    assert driver_cards(tmp_path) == tuple(Card(bus, A) for bus in ("04", "41", "81", "c1"))
    (tmp_path / "0000:41:00.0" / "information").write_text("Model: x\nGPU UUID: GPU-????????\n")
    assert driver_cards(tmp_path) == ()
    assert driver_cards(tmp_path / "absent") == ()


def test_a_uuid_of_another_form_is_unknown() -> None:
    assert f"{uuid_bits(A):032x}" == A[4:].replace("-", "")
    assert [uuid_bits(one) for one in (None, "", "GPU-1", "card", A + "0")] == [0] * 5


MEMBER = """
import sys
from wattshift_cluster.gate import ClientGate
gate = ClientGate(sys.argv[1])
print(*gate.gates, flush=True)
for line in sys.stdin:
    if line == "enter\\n":
        span = gate.busy(); span.__enter__()
    else:
        span.__exit__()
    print("done", flush=True)
"""


def test_a_request_on_any_member_makes_the_whole_gang_busy(
    host: Any, script: Callable[..., Any]
) -> None:
    def rank(number: str, gang: str) -> Any:
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": number, "WATTSHIFT_GANG": gang}
        return script(MEMBER, str(host.folder), env=env)

    host.add("other", "GPU-33333333-2222-3333-4444-555555555555", 2)
    first, second = rank("0", f"0,{B}"), rank("1", "gpu0,gpu1")
    assert first.line() == second.line() == "cpu gpu0 gpu1"
    for member in (first, second):
        member.tell("enter")
        assert host.busy() == EVERY, "not the card outside of the gang"
        member.tell("leave")
        assert host.busy() == set()
    first.tell("enter")
    second.tell("enter")
    first.tell("leave")
    assert host.busy() == EVERY, "the other member is still busy"
    second.kill()
    assert host.busy() == set()
    alone = rank("0", "all")
    assert alone.line() == "cpu gpu0 gpu1 other"
