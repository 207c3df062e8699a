"""Style as a test: sizes, names, and what the repository must and must not hold."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.parsing import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = ("scheduler", "kernels", "cluster")
MODULE_LINES, FUNCTION_LINES, TEST_LINES = 500, 70, 600
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}
MAX_FILE_BYTES = 1 << 20
REQUIRED = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "STYLE.md",
    "CHANGELOG.md",
    "LICENSE",
    "pyproject.toml",
    "dev",
    ".ci/run",
    "Dockerfile",
    "importlinter.ini",
    "docs/legal.md",
    "requirements.lock",
    "requirements-model.lock",
    "requirements-dev.lock",
    "requirements-cuda12.lock",
    "requirements-cuda13.lock",
]


def files() -> list[Path]:
    """What git tracks or would track; a tree without git is taken whole."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return [path for path in paths if path.is_file()]


FILES = files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
MODULES = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in PACKAGES]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Every module of the packages, parsed once."""
    return {name(path): parsed(path.read_text()) for path in MODULES}


def long_functions(tree: ast.Module, most: int) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > most:
                yield f"{node.name} has {lines} lines"


def test_something_is_checked() -> None:
    assert len(MODULES) > 50


@pytest.mark.parametrize("required", REQUIRED)
def test_a_reader_finds_what_every_project_has(required: str) -> None:
    path = ROOT / required
    assert path.is_file()
    assert path.stat().st_size > 0


def test_no_module_is_too_long() -> None:
    long = {name(p): len(p.read_text().splitlines()) for p in PYTHON}
    over = {
        key: lines
        for key, lines in long.items()
        if lines > (TEST_LINES if key.startswith("tests/") else MODULE_LINES)
    }
    assert over == {}


def test_no_function_is_too_long(trees: dict[str, ast.Module]) -> None:
    over = {key: list(long_functions(tree, FUNCTION_LINES)) for key, tree in trees.items()}
    assert {key: found for key, found in over.items() if found} == {}


def test_every_module_tells_its_idea(trees: dict[str, ast.Module]) -> None:
    assert [key for key, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_no_name_says_nothing() -> None:
    assert [name(p) for p in PYTHON if p.stem.lower() in VAGUE] == []
    folders = {part for p in PYTHON for part in p.relative_to(ROOT).parts[:-1]}
    assert folders & VAGUE == set()


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    me = Path(__file__).resolve()
    found = [name(p) for p in PYTHON if p.resolve() != me and mark.search(p.read_text())]
    assert found == []


def test_an_ignored_type_names_its_rule() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?!\[[a-z-]+)")
    assert [name(p) for p in MODULES if bare.search(p.read_text())] == []


def test_no_file_is_huge() -> None:
    assert [name(p) for p in FILES if p.stat().st_size > MAX_FILE_BYTES] == []


def test_packages_are_typed() -> None:
    for package in PACKAGES:
        assert (ROOT / package / f"wattshift_{package}" / "py.typed").exists()


def test_scripts_can_be_run() -> None:
    for script in ("dev", ".ci/run"):
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} is not executable"


def test_test_files_have_names_of_their_own() -> None:
    stems = [p.stem for p in PYTHON if p.stem.startswith("test_")]
    assert sorted({stem for stem in stems if stems.count(stem) > 1}) == []


def test_the_size_check_bites() -> None:
    source = "def f():\n" + "    pass\n" * FUNCTION_LINES
    assert list(long_functions(parsed(source), FUNCTION_LINES)) == ["f has 71 lines"]
