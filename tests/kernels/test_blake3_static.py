"""BLAKE3's machine code, counted without a GPU: pipes, registers, spills."""

import pytest

from wattshift_kernels.blake3.cuda import PASSES, PLACEMENTS
from wattshift_kernels.blake3.source import source
from wattshift_kernels.nvrtc import NvrtcMissing, compiled
from wattshift_kernels.passes import per_hash
from wattshift_kernels.sass import CodeUnknown, DisassemblerMissing, instructions


@pytest.mark.parametrize("arch", ["sm_90"])
def test_the_first_placement_keeps_its_pipes_level(arch: str) -> None:
    try:
        made = compiled(source(), arch, ("-std=c++17", *PLACEMENTS[0].flags))
        code = instructions(made.cubin)
    except (NvrtcMissing, DisassemblerMissing) as missing:
        pytest.skip(str(missing))
    assert made.spill_bytes == 0
    assert made.registers <= 64
    assert len(made.cubin) < 2 * 48 * 1024
    counted = per_hash(code, PASSES)
    assert counted.alu <= 3_060
    assert counted.total <= 5_950
    assert counted.multiply_add < counted.alu
    assert counted.clocks <= 48
    with pytest.raises(CodeUnknown, match="loops within"):
        per_hash(code, (*PASSES, 2))
