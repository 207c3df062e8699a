"""Machine code of the coins' kernels, counted without a GPU: pipes, registers, spills."""

from importlib import import_module

import pytest

from wattshift_kernels.nvrtc import Compiled, NvrtcMissing, compiled
from wattshift_kernels.passes import per_hash
from wattshift_kernels.sass import CodeUnknown, DisassemblerMissing, instructions

ROOMS = "wattshift_kernels"
NIGHTLY = [pytest.param(arch, marks=pytest.mark.nightly) for arch in ("sm_80", "sm_89")]


def made(source: str, arch: str, *flags: str) -> Compiled:
    try:
        return compiled(source, arch, ("-std=c++17", *flags))
    except NvrtcMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("room", "registers", "code_kib", "alu", "total", "clocks"),
    [
        ("blake3", 64, 48, 3_060, 5_950, 48.0),
        ("kheavyhash", 128, 32, 6_750, 12_100, 105.5),
    ],
)
def test_the_first_placement_keeps_its_pipes_level(
    room: str, registers: int, code_kib: int, alu: int, total: int, clocks: float
) -> None:
    cuda = import_module(f"{ROOMS}.{room}.cuda")
    source = import_module(f"{ROOMS}.{room}.source").source()
    kernel = made(source, "sm_90", *cuda.PLACEMENTS[0].flags)
    assert kernel.spill_bytes == 0
    assert kernel.registers <= registers
    assert len(kernel.cubin) < 2 * code_kib * 1024
    try:
        code = instructions(kernel.cubin)
    except DisassemblerMissing as missing:
        pytest.skip(str(missing))
    counted = per_hash(code, cuda.PASSES)
    assert counted.alu <= alu
    assert counted.total <= total
    assert counted.multiply_add < counted.alu
    assert counted.clocks <= clocks
    with pytest.raises(CodeUnknown, match="loops within"):
        per_hash(code, (*cuda.PASSES, 2))


@pytest.mark.parametrize("arch", ["sm_90", *NIGHTLY])
@pytest.mark.parametrize(
    ("room", "name", "registers"),
    [
        ("autolykos2", "autolykos2.cu", 64),
        ("autolykos2", "build.cu", 64),
        ("etchash", "etchash.cu", 96),
        ("etchash", "build.cu", 104),
    ],
)
def test_a_table_s_kernels_keep_to_their_registers(
    room: str, name: str, registers: int, arch: str
) -> None:
    """What the number of threads on an SM rests on; nothing is spilled to memory."""
    kernel = made(import_module(f"{ROOMS}.{room}.job").source(name), arch)
    assert kernel.spill_bytes == 0
    assert kernel.registers <= registers
