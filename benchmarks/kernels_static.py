"""What the SHA-256d kernels ask of a chip per hash, counted in their machine code without a GPU.

Each variant is compiled for each architecture and its hot loops are counted by pipe (`sass`); of
the other coins that no memory bounds, the first placement for one architecture (`passes`). Clocks
per hash are the model's; what a card makes of them is measured by `kernels-gpu`. Compile times are
CPU seconds of this process.
"""

from collections.abc import Mapping
from types import ModuleType

from benchmarks.cannot import CannotRunHere

from wattshift_kernels.blake3 import cuda as blake3
from wattshift_kernels.kheavyhash import cuda as kheavyhash
from wattshift_kernels.nvrtc import Compiled, NvrtcMissing, compiled
from wattshift_kernels.passes import per_hash
from wattshift_kernels.sass import (
    DisassemblerMissing,
    Tally,
    disassembler,
    hot_loops,
    instructions,
)
from wattshift_kernels.sha256d.source import source
from wattshift_kernels.sha256d.variants import by_name

ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
HELD_TO_BARS = ("sm_80", "sm_86", "sm_89", "sm_90")
"""The model is one of these; for later ones the counts are but reported."""

AGAIN_ABOVE_S = 2.5
AGAIN_MOST = 2
WAYS = 8
KERNELS = {
    "rolling_default": ("loop-turned", WAYS),
    "rolling_best": ("loop-level", WAYS),
    "rolling_best_16": ("loop-level", 2 * WAYS),
    "plain": ("one-turned", 1),
    "plain_best": ("one-level", 1),
}
"""What is reported: a variant, and versions per nonce."""

COINS_ARCH = "sm_90"

Figures = dict[str, float | int]


def run() -> dict[str, object]:
    """Count; the keys are those of INTERFACES, two kernels and two coins more, and the worst."""
    try:
        disassembler()
        archs = {arch: _of(arch) for arch in ARCHS}
        coins = {"kheavyhash": _coin(kheavyhash), "blake3": _coin(blake3)}
    except (NvrtcMissing, DisassemblerMissing) as why:
        raise CannotRunHere(str(why)) from why
    return {
        "archs": archs,
        "worst": _worst(archs),
        "ways": WAYS,
        "algorithms": {COINS_ARCH: coins},
        "quality": "modelled",
    }


def _worst(archs: Mapping[str, Mapping[str, Figures]]) -> dict[str, Figures]:
    """Of the architectures that are held to bars: of all figures, the largest."""
    held = [archs[arch] for arch in HELD_TO_BARS]
    return {
        kernel: {figure: max(of[kernel][figure] for of in held) for figure in held[0][kernel]}
        for kernel in KERNELS
    }


def _quickest(text: str, arch: str) -> Compiled:
    """Compiled; again where it took long, since a neighbour on the core slows even CPU time."""
    made = compiled(text, arch)
    for _ in range(AGAIN_MOST):
        if made.compile_s > AGAIN_ABOVE_S:
            made = min(made, compiled(text, arch), key=lambda one: one.compile_s)
    return made


def _of(arch: str) -> dict[str, Figures]:
    """All kernels for one architecture; a variant with several numbers of ways is compiled once."""
    counted = {}
    for variant in {variant for variant, _ in KERNELS.values()}:
        made = _quickest(source(by_name(variant)), arch)
        counted[variant] = made, hot_loops(instructions(made.cubin))
    figures = {}
    for name, (variant, ways) in KERNELS.items():
        made, loops = counted[variant]
        figures[name] = _figures(made, loops.per_hash(ways)) | {"code_bytes": loops.code_bytes}
    return figures


def _coin(room: ModuleType) -> dict[str, float | int | str]:
    """The placement that a card tries first."""
    placement = room.PLACEMENTS[0]
    made = compiled(room.source(), COINS_ARCH, ("-std=c++17", *placement.flags))
    tally = per_hash(instructions(made.cubin), room.PASSES)
    return {"placement": placement.name, **_figures(made, tally)}


def _figures(made: Compiled, tally: Tally) -> Figures:
    return {
        "instr_per_hash": round(tally.total, 1),
        "alu_per_hash": round(tally.alu, 1),
        "imad_per_hash": round(tally.multiply_add, 1),
        "clocks_per_hash": round(tally.clocks, 2),
        "registers": made.registers,
        "spills": made.spill_bytes,
        "compile_s": round(made.compile_s, 2),
    }
