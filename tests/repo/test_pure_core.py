"""The scheduler is a pure function: no clock, no randomness, no I/O, and few imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.parsing import parsed

CORE = Path(__file__).parents[2] / "scheduler" / "wattshift_scheduler"
# What a pure module may import. Everything that reads a clock, rolls dice or touches the world is
# absent, so a new import is a decision taken here and not a slip. Of zlib it is the checksum.
PURE = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "enum", "fnmatch", "fractions",
    "functools", "heapq", "itertools", "math", "numpy", "operator", "statistics", "types", "typing",
    "wattshift_scheduler", "zlib",
}  # fmt: skip
SOLVERS = {"plan/highs.py": {"highspy"}}
BANNED_NAMES = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}
BANNED_ATTRIBUTES = {
    "random",
    "default_rng",
    "tofile",
    "fromfile",
    "memmap",
    "save",
    "savez",
    "load",
}


def impurities(source: str, extra: frozenset[str] = frozenset()) -> Iterator[str]:
    """Every use of the world in one module's source."""
    for node in ast.walk(parsed(source)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=module, level=0) if module:
                modules = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_NAMES:
                yield f"line {node.lineno}: calls {name}"
                continue
            case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=name):
                if name in BANNED_ATTRIBUTES:
                    yield f"line {node.lineno}: uses numpy.{name}"
                continue
            case _:
                continue
        for module in modules:
            if module.split(".")[0] not in PURE | extra or module.startswith("numpy.random"):
                yield f"line {node.lineno}: imports {module}"


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.name)
def test_the_core_touches_nothing(path: Path) -> None:
    extra = frozenset(SOLVERS.get(path.relative_to(CORE).as_posix(), ()))
    assert list(impurities(path.read_text(), extra)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from datetime import datetime",
        "import os.path",
        "def f():\n    import random",
        "import numpy.random",
        "from numpy import random",
        "import numpy as np\nx = np.random.default_rng(1)",
        "print(1)",
        "open('f')",
        "import asyncio",
        "import highspy",
    ],
)
def test_the_check_bites(source: str) -> None:
    assert list(impurities(source))
