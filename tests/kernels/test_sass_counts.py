"""Counting machine code: what is read from a listing, and what the best kernel comes to."""

from pathlib import Path

import pytest

from wattshift_kernels import nvrtc, sass
from wattshift_kernels.sass import CodeUnknown, Instruction, Tally
from wattshift_kernels.sha256d.source import source
from wattshift_kernels.sha256d.variants import by_name

LISTING = """
        //--------------------- .text.ws_search          --------------------------
.text.ws_search:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   IMAD.HI.U32 R0, R7.reuse, UR6, RZ ;
        /*0020*/              @!P1 IADD3 R2, R0, R1, RZ ;
.L_x_0:
        /*0030*/                   LEA.HI R5, R4, R7, R4, 0x1a ;
        /*0040*/                   NOP ;
        /*0050*/               @P0 BRA `(.L_x_0) ;
        /*0060*/              @!P1 CALL.REL.NOINC `(.L_x_1) ;
        /*0070*/                   UIADD3 UR4, UR4, 0x1, URZ ;
        /*0080*/                   STL [R1], R0                         (*"SpillRefill"*) ;
        /*0090*/               @P2 BRA `(.L_x_1) ;
.L_x_2:
        /*00a0*/                   BRA `(.L_x_2) ;
"""


def straight(first: int, count: int, opcode: str = "LOP3") -> list[Instruction]:
    return [Instruction(16 * (first + i), opcode) for i in range(count)]


def back(at: int, to: int) -> Instruction:
    return Instruction(16 * at, "BRA", 16 * to)


def test_a_listing_is_read_without_its_nops() -> None:
    code = sass.read(LISTING)
    assert [one.opcode for one in code] == [
        "LDC", "IMAD", "IADD3", "LEA", "BRA", "CALL", "UIADD3", "STL", "BRA", "BRA",
    ]  # fmt: skip
    assert [one.target for one in code if one.opcode == "BRA"] == [0x30, 0x10, 0xA0]
    assert sass.tally(code) == Tally(alu=2, multiply_add=1, elsewhere=7)


def test_what_is_not_known_counts_at_its_worst() -> None:
    code = [Instruction(0, "NEWLOGIC"), Instruction(16, "LDGSTS"), Instruction(32, "VIADD")]
    assert sass.tally(code) == Tally(alu=2, multiply_add=0, elsewhere=1)


def test_a_loop_in_a_loop_is_shared_by_its_ways() -> None:
    code = [
        *straight(0, 10), *straight(10, 100, "IMAD"), *straight(110, 600), back(710, 110),
        *straight(711, 9), back(720, 10), *straight(721, 50),
    ]  # fmt: skip
    loops = sass.hot_loops(code)
    assert loops.per_way == Tally(alu=600, multiply_add=0, elsewhere=1)
    assert loops.per_nonce == Tally(alu=9, multiply_add=100, elsewhere=1)
    assert loops.code_bytes == 16 * (720 - 10 + 1)
    assert loops.per_hash(10) == Tally(alu=600.9, multiply_add=10.0, elsewhere=1.1)


def test_a_single_loop_is_one_version() -> None:
    loops = sass.hot_loops([*straight(0, 600), back(600, 5), *straight(601, 20)])
    assert loops.per_way is None
    assert loops.per_hash(1).alu == 595
    with pytest.raises(ValueError, match="one version"):
        loops.per_hash(2)


@pytest.mark.parametrize(
    "code",
    [
        straight(0, 700),
        [*straight(0, 600), back(600, 0), *straight(601, 600), back(1201, 601)],
        [*straight(0, 20), back(20, 0), *straight(21, 900)],
    ],
    ids=["no loop", "two in a row", "a small one"],
)
def test_code_of_another_shape_is_refused(code: list[Instruction]) -> None:
    with pytest.raises(CodeUnknown):
        sass.hot_loops(code)


def test_a_listing_of_two_functions_or_none_is_refused() -> None:
    with pytest.raises(CodeUnknown, match="more than one"):
        sass.read(LISTING + LISTING)
    with pytest.raises(CodeUnknown, match="no instruction"):
        sass.read("")


def test_clocks_are_those_of_the_fullest() -> None:
    assert Tally(alu=640, multiply_add=10).clocks == 10
    assert Tally(alu=10, multiply_add=1280).clocks == 20
    assert Tally(alu=640, multiply_add=640, elsewhere=640).clocks == 15


def test_no_disassembler_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sass.DisassemblerMissing, match="nvidia-cuda-nvdisasm"):
        sass.instructions(b"")


def test_the_best_kernel_keeps_its_bars_on_sm_90() -> None:
    """One architecture here; `./dev bench kernels-static` holds the others to the same."""
    try:
        sass.disassembler()
        made = nvrtc.compiled(source(by_name("loop-level")), "sm_90")
    except (sass.DisassemblerMissing, nvrtc.NvrtcMissing) as missing:
        pytest.skip(str(missing))
    loops = sass.hot_loops(sass.instructions(made.cubin))
    tally = loops.per_hash(8)
    assert (made.registers <= 80, made.spill_bytes) == (True, 0)
    assert loops.code_bytes <= 48 * 1024
    assert tally.alu <= 1_470
    assert tally.total <= 2_500
    assert tally.clocks <= 21.5
