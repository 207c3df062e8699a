"""kHeavyHash's machine code, counted without a GPU: pipes, registers, spills."""

import pytest

from wattshift_kernels.kheavyhash.cuda import PASSES, PLACEMENTS
from wattshift_kernels.kheavyhash.source import source
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
    assert made.registers <= 128
    assert len(made.cubin) < 2 * 32 * 1024
    counted = per_hash(code, PASSES)
    assert counted.alu <= 6_750
    assert counted.total <= 12_100
    assert counted.multiply_add < counted.alu
    assert counted.clocks <= 105.5
    with pytest.raises(CodeUnknown, match="loops within"):
        per_hash(code, (*PASSES, 2))
