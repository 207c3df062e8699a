"""CUDA source to machine code without a GPU and without a driver, by NVIDIA's run-time compiler.

So a kernel's instructions can be counted, and its registers and spills held to a bar, on any
machine that has the library. What runs on a card is compiled by CuPy as ever (`gpu.compiled`).
"""

import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ELF_MAGIC = b"\x7fELF"
SOURCE_MOST_BYTES = 4 << 20
"""Ours have a twentieth of it. The compiler takes no deadline, so its input is bounded."""

USED = re.compile(r"Used (\d+) registers")
SPILLED = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
LOG_MOST = 4000


class NvrtcMissing(Exception):
    """The compiler's library or its binding is not installed; the text says which."""


class NvrtcFailed(Exception):
    """It does not compile; the text is the compiler's log."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel as machine code.

    Attributes:
        cubin: a whole ELF file.
        registers: per thread.
        spill_bytes: stored and loaded per thread because registers did not suffice.
        compile_s: CPU time of this process, so that a busy machine does not count.
    """

    cubin: bytes
    registers: int
    spill_bytes: int
    compile_s: float


def compiled(source: str, arch: str, options: Sequence[str] = ("-std=c++17",)) -> Compiled:
    """Compile a source with one kernel for an architecture such as "sm_90".

    Raises:
        NvrtcMissing: see there.
        NvrtcFailed: the source is wrong, or this compiler does not know the architecture.
    """
    if len(source) > SOURCE_MOST_BYTES:
        raise NvrtcFailed(f"a source of {len(source)} bytes")
    binding = _binding()
    try:
        program = binding.createProgram(source, "kernel.cu", [], [])
    except Exception as missing:
        # The loader's own exception, whose class is in another package's private module.
        raise NvrtcMissing(f"NVRTC cannot be loaded: {missing}") from missing
    began_s = time.process_time()
    try:
        binding.compileProgram(program, [f"-arch={arch}", *options, "--ptxas-options=-v"])
    except binding.NVRTCError as fault:
        log = str(binding.getProgramLog(program))[:LOG_MOST]
        raise NvrtcFailed(f"{arch}: {log or fault}") from fault
    compile_s = time.process_time() - began_s
    log, cubin = str(binding.getProgramLog(program)), whole(bytes(binding.getCUBIN(program)))
    binding.destroyProgram(program)
    used, spilled = USED.findall(log), SPILLED.findall(log)
    if len(used) != 1 or len(spilled) != 1:
        raise NvrtcFailed(f"{arch}: the log does not speak of one kernel: {log[:LOG_MOST]}")
    return Compiled(cubin, int(used[0]), sum(map(int, spilled[0])), compile_s)


def whole(cubin: bytes) -> bytes:
    """With the last byte that CuPy's binding takes for the end of a text and cuts off.

    Raises NvrtcFailed for anything but an ELF file that is whole or lacks that byte.
    """
    if not cubin.startswith(ELF_MAGIC) or len(cubin) < 64:
        raise NvrtcFailed("the compiler gave no ELF file")
    programs, sections = struct.unpack_from("<QQ", cubin, 0x20)
    program_size, program_count, section_size, section_count = struct.unpack_from(
        "<4H", cubin, 0x36
    )
    end = max(programs + program_size * program_count, sections + section_size * section_count)
    if len(cubin) == end - 1:
        return cubin + b"\0"
    if len(cubin) < end:
        raise NvrtcFailed(f"the compiler gave {len(cubin)} of {end} bytes")
    return cubin


def _binding() -> Any:
    try:
        from cupy_backends.cuda.libs import nvrtc
    except ImportError as missing:
        raise NvrtcMissing(f"CuPy is not installed: {missing}") from missing
    return nvrtc
