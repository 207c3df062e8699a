"""A kernel's machine code counted by the pipes that execute it, so that its speed can be bounded.

The model: an SM issues 128 lanes of instructions a clock; of these 64 can be of the ALU pipe (sums,
logic, shifts, comparisons) and 64 multiply-adds (CUDA C++ Programming Guide, table of arithmetic
throughput, compute capability 8.0 to 9.0). So a hash takes at least the largest of the three
quotients. The ALU figure was held against a public hash rate (docs/kernels.md); what a card makes
of it is for `./dev bench kernels-gpu` to say.

What a count knows of time: every instruction of a loop is taken to be executed once a pass. What is
there for the rare hit alone is counted, too, which errs on the safe side.
"""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ISSUED_PER_CLOCK, PIPE_PER_CLOCK = 128, 64
"""Lanes per clock and SM, in all and of each of the two pipes."""

MULTIPLY_ADD = re.compile(r"IMAD|IMUL|IDP|[FHD](FMA|MUL|ADD)2?")
ELSEWHERE = re.compile(
    r"U[A-Z0-9]+|LD[A-Z]*|ST[A-Z]*|ATOM[A-Z]*|RED[A-Z]*|S2R|S2UR|CS2R|R2UR|B?RA|BR[A-Z]*|BSSY|BSYNC"
    r"|BREAK|BMOV|CALL|RET|EXIT|JMP|JMX|WARPSYNC|YIELD|BAR|MEMBAR|VOTE[A-Z]*|SHFL|MATCH|POPC|FLO"
    r"|BREV|I2F[A-Z]*|F2I[A-Z]*|MUFU|DEPBAR|ERRBAR|CCTL[A-Z]*|NANOSLEEP"
)
"""Opcodes that only take a turn of the issue. Whatever is not known is the ALU pipe's."""

HOT_LEAST = 500
"""Instructions of a loop that hashes; loops over a few hits are far shorter."""

DISASSEMBLE_WITHIN_S = 60.0
LISTING_MOST_BYTES = 64 << 20

LABEL = re.compile(r"^\s*(\.L\w*):")
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)(\S*)([^;]*);")
TARGET = re.compile(r"`\((\.L\w*)\)")


class DisassemblerMissing(Exception):
    """nvdisasm is neither installed as a package nor on PATH."""


class CodeUnknown(Exception):
    """The machine code is not what the count was made for; the text says in what."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of them; `target` is where a branch goes, else None."""

    address: int
    opcode: str
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Instructions by pipe; shares of them per hash."""

    alu: float = 0.0
    multiply_add: float = 0.0
    elsewhere: float = 0.0

    @property
    def total(self) -> float:
        """All that is issued."""
        return self.alu + self.multiply_add + self.elsewhere

    @property
    def clocks(self) -> float:
        """That the fullest pipe, or the issue, needs at least."""
        fullest = max(self.alu, self.multiply_add) / PIPE_PER_CLOCK
        return max(fullest, self.total / ISSUED_PER_CLOCK)

    def plus(self, other: "Tally", share: float = 1.0) -> "Tally":
        """With that share of another."""
        return Tally(
            self.alu + other.alu * share,
            self.multiply_add + other.multiply_add * share,
            self.elsewhere + other.elsewhere * share,
        )


@dataclass(frozen=True, slots=True)
class Loops:
    """A search kernel's hot code.

    Attributes:
        per_nonce: what the loop over nonces executes, without an inner one.
        per_way: the loop over versions inside it; None when there is none.
        code_bytes: of both.
    """

    per_nonce: Tally
    per_way: Tally | None
    code_bytes: int

    def per_hash(self, ways: int) -> Tally:
        """With so many versions. Raises ValueError for several where there is no loop over them."""
        if self.per_way is None:
            if ways != 1:
                raise ValueError("this kernel hashes one version")
            return self.per_nonce
        return self.per_way.plus(self.per_nonce, 1 / ways)


def disassembler() -> Path:
    """Where nvdisasm is: in NVIDIA's package, else on PATH. Raises DisassemblerMissing."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec is not None else ():
        for path in sorted(Path(root).glob("*/bin/nvdisasm"), reverse=True):
            return path
    on_path = shutil.which("nvdisasm")
    if on_path is None:
        raise DisassemblerMissing("no nvdisasm: install nvidia-cuda-nvdisasm")
    return Path(on_path)


def instructions(cubin: bytes) -> tuple[Instruction, ...]:
    """All of a cubin with one kernel, in their order, without NOPs.

    Raises:
        DisassemblerMissing: see there.
        CodeUnknown: it cannot be disassembled.
    """
    program = disassembler()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [program, "-c", file.name],
            capture_output=True, text=True, check=False, timeout=DISASSEMBLE_WITHIN_S,
        )  # fmt: skip
    if done.returncode != 0:
        raise CodeUnknown(f"nvdisasm: {done.stderr.strip()[:500]}")
    return read(done.stdout[:LISTING_MOST_BYTES])


def read(listing: str) -> tuple[Instruction, ...]:
    """What nvdisasm printed. Raises CodeUnknown when there is nothing in it."""
    labels: dict[str, int] = {}
    waiting: list[str] = []
    found: list[tuple[int, str, str | None]] = []
    for line in listing.splitlines():
        label = LABEL.match(line)
        if label:
            waiting.append(label[1])
            continue
        match = INSTRUCTION.match(line)
        if match is None:
            continue
        address = int(match[1], 16)
        if found and address <= found[-1][0]:
            raise CodeUnknown("there is more than one function")
        labels |= dict.fromkeys(waiting, address)
        waiting.clear()
        goes = TARGET.search(match[4])
        found.append((address, match[2], goes[1] if goes else None))
    if not found:
        raise CodeUnknown("there is no instruction in it")
    return tuple(
        Instruction(address, opcode, labels.get(goes) if goes else None)
        for address, opcode, goes in found
        if opcode != "NOP"
    )


def tally(code: Sequence[Instruction]) -> Tally:
    """Instructions by pipe."""
    pipes: Counter[str] = Counter(map(_pipe, code))
    return Tally(pipes["alu"], pipes["multiply_add"], pipes["elsewhere"])


def hot_loops(code: Sequence[Instruction]) -> Loops:
    """The loop over nonces, which is the outermost large one, and a large one within it.

    A loop is what lies between a branch back and where it goes.

    Raises:
        CodeUnknown: there is no such loop, or two side by side.
    """
    spans: dict[int, int] = {}
    for one in code:
        back = one.opcode == "BRA" and one.target is not None and one.target < one.address
        if back and one.target is not None:
            spans[one.target] = max(spans.get(one.target, 0), one.address)
    large = [
        (first, last)
        for first, last in spans.items()
        if len(_between(code, first, last)) >= HOT_LEAST
    ]
    large.sort(key=lambda span: span[0] - span[1])
    nested = all(a[0] <= b[0] and b[1] <= a[1] for a, b in pairwise(large))
    if not 1 <= len(large) <= 2 or not nested:
        raise CodeUnknown(f"{len(large)} hot loops, nested: {nested}")
    outer = _between(code, *large[0])
    code_bytes = large[0][1] - large[0][0] + _step(code)
    if len(large) == 1:
        return Loops(tally(outer), None, code_bytes)
    inner = _between(code, *large[1])
    per_nonce = tally(outer).plus(tally(inner), -1.0)
    return Loops(per_nonce, tally(inner), code_bytes)


def _between(code: Sequence[Instruction], first: int, last: int) -> list[Instruction]:
    return [one for one in code if first <= one.address <= last]


def _step(code: Sequence[Instruction]) -> int:
    return min(b.address - a.address for a, b in pairwise(code))


def _pipe(one: Instruction) -> str:
    if MULTIPLY_ADD.fullmatch(one.opcode):
        return "multiply_add"
    return "elsewhere" if ELSEWHERE.fullmatch(one.opcode) else "alu"
