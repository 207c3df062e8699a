"""CUDA to machine code without a driver."""

import struct

import pytest

from wattshift_kernels import nvrtc
from wattshift_kernels.nvrtc import NvrtcFailed, NvrtcMissing, compiled, whole

KERNEL = """
extern "C" __global__ void twice(unsigned* at) { at[threadIdx.x] *= 2; }
"""


def elf(size: int, program_at: int, section_at: int) -> bytes:
    """A header of 64 bytes that speaks of one entry of 56 and of 64 bytes, and `size` in all."""
    head = bytearray(64)
    head[:4] = b"\x7fELF"
    struct.pack_into("<QQ", head, 0x20, program_at, section_at)
    struct.pack_into("<4H", head, 0x36, 56, 1, 64, 1)
    return bytes(head).ljust(size, b"\1")


def test_the_byte_that_was_cut_off_is_put_back() -> None:
    for entries in ((144, 80), (80, 136)):
        end = max(entries[0] + 56, entries[1] + 64)
        assert whole(elf(end - 1, *entries)) == elf(end - 1, *entries) + b"\0"
        assert whole(elf(end, *entries)) == elf(end, *entries)
        with pytest.raises(NvrtcFailed, match="of 200 bytes"):
            whole(elf(end - 2, *entries))
    for no_elf in (b"", b"\x7fELF", b"PTX" * 50):
        with pytest.raises(NvrtcFailed, match="no ELF"):
            whole(no_elf)


def test_a_kernel_is_compiled_and_its_registers_are_told() -> None:
    try:
        made = compiled(KERNEL, "sm_80")
    except NvrtcMissing as missing:
        pytest.skip(str(missing))
    assert whole(made.cubin) == made.cubin
    assert 1 <= made.registers <= 32
    assert made.spill_bytes == 0
    assert made.compile_s > 0
    with pytest.raises(NvrtcFailed, match="undefined"):
        compiled(KERNEL.replace("threadIdx", "nothing"), "sm_80")
    with pytest.raises(NvrtcFailed, match="sm_1"):
        compiled(KERNEL, "sm_1")
    with pytest.raises(NvrtcFailed, match="one kernel"):
        compiled(KERNEL + KERNEL.replace("twice", "again"), "sm_80")


def test_a_source_without_bounds_is_refused() -> None:
    with pytest.raises(NvrtcFailed, match="bytes"):
        compiled(" " * (nvrtc.SOURCE_MOST_BYTES + 1), "sm_80")
