"""`./dev`: what it refuses plainly, and which packages it picks for which machine."""

import ast
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from tests.parsing import parsed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    loader = SourceFileLoader("wattshift_dev", str(ROOT / "dev"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(ROOT / "dev"), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_and_usage() -> None:
    assert "./dev demo" in run("--help").stdout
    assert run().returncode == 2
    wrong = run("fly")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert "no such command: fly" in wrong.stderr


def test_it_needs_the_standard_library_only() -> None:
    names = set(sys.stdlib_module_names)
    for node in ast.walk(parsed((ROOT / "dev").read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= names
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.module.split(".")[0] in names


def test_one_cupy_only_whatever_the_driver(dev: ModuleType) -> None:
    for release in (None, 12, 13):
        locks = [dev.RUN, dev.MODEL, dev.DEV, *([dev.CUDA[release]] if release else [])]
        packages = dev.merged(locks, release)
        cupy = sorted(name for name in packages if name.startswith("cupy"))
        assert cupy == [f"cupy-cuda{release or 13}x"]
        assert "numpy" in packages
    assert not any(name.startswith("cupy") for name in dev.merged([dev.RUN, dev.MODEL], None))


def test_a_package_with_several_markers_keeps_all_its_lines(dev: ModuleType) -> None:
    text = (
        "a==1 ; python_version < '3.12' \\\n    --hash=sha256:aa\n"
        "a==2 ; python_version >= '3.12' \\\n    --hash=sha256:bb\n"
        "b==1 \\\n    --hash=sha256:cc \\\n    --hash=sha256:dd\n"
    )
    packages = dev.split(text)
    assert sorted(packages) == ["a", "b"]
    assert "".join(packages.values()) == text


def test_a_missing_lock_is_said_plainly(
    dev: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        dev.digest(ROOT / "requirements-none.lock")
    assert "is missing" in capsys.readouterr().err


def test_without_venv_it_names_the_package_to_install(
    dev: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = tmp_path / "python3"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(dev, "PYTHON", tmp_path / "none" / "bin" / "python")
    monkeypatch.setattr(dev, "find_python", lambda: str(bare))
    with pytest.raises(SystemExit) as stopped:
        dev.make_venv(None)
    assert stopped.value.code == 1
    assert "sudo apt install python3-venv" in capsys.readouterr().err


def test_an_environment_made_anew_gets_every_lock(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed: list[list[str]] = []
    projects: list[object] = []
    monkeypatch.setattr(dev, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(dev, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(dev, "cuda_release", lambda: None)
    monkeypatch.setattr(dev, "install_locks", lambda locks, *_: installed.append(list(locks)))
    monkeypatch.setattr(dev, "install_project", projects.append)
    for anew, wanted in (
        (True, [dev.RUN, dev.MODEL]),
        (False, [dev.RUN, dev.MODEL]),
        (False, [dev.RUN, dev.MODEL, dev.DEV]),
    ):
        monkeypatch.setattr(dev, "make_venv", lambda uv, moved, anew=anew: anew)
        dev.prepare(wanted)
    assert installed == [[dev.RUN, dev.MODEL], [dev.DEV]], "only what is missing"
    assert len(projects) == 2

    (tmp_path / "stamp.json").write_text(
        (tmp_path / "stamp.json").read_text().replace(str(ROOT), "/elsewhere")
    )
    seen: list[bool] = []
    monkeypatch.setattr(dev, "make_venv", lambda uv, moved: seen.append(moved) or True)
    dev.prepare([dev.RUN, dev.MODEL])
    assert seen == [True], "an environment that was moved is made anew"
    assert installed[-1] == [dev.RUN, dev.MODEL]


def test_tests_are_rewritten_once_for_all_workers_and_again_when_they_change(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "PYTEST", [sys.executable, "-m", "pytest"])
    monkeypatch.setattr(dev, "STALE_MANY", 2)
    room = tmp_path / "tests"
    room.mkdir()
    files = [room / f"test_{letter}.py" for letter in "abc"]
    for file in files:
        file.write_text("def test_it() -> None:\n    assert True\n")
    assert dev.stale_tests() == [str(file) for file in files]
    dev.rewrite(dev.stale_tests())
    assert dev.stale_tests() == []
    later_s = files[1].stat().st_mtime + 60.0
    os.utime(files[1], (later_s, later_s))
    assert dev.stale_tests() == [str(files[1])]
