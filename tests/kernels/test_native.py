"""The host's compiler and what is kept of it: nothing runs that others could have put there."""

import os
import shutil
from pathlib import Path

import pytest

from wattshift_kernels import native
from wattshift_kernels.native import CacheUnsafe, CompilerFailed, CompilerMissing, library

THREE = 'extern "C" int answer() { return 3; }'
FOUR = 'extern "C" int answer() { return 4; }'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept; a compiler that counts its calls stands before the real one."""
    real = shutil.which("g++")
    if real is None:
        pytest.skip("no g++ here")
    counting = tmp_path / "counting"
    counting.write_text(f'#!/bin/sh\necho >> {tmp_path}/calls\nexec {real} -O0 "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv("CXX", str(counting))
    monkeypatch.setenv("WATTSHIFT_CACHE_DIR", str(tmp_path / "cache"))
    native._version.cache_clear()
    return tmp_path / "cache" / "native"


def compiled(folder: Path) -> int:
    """Compilations so far; the compiler is also asked for its version, once."""
    calls = folder.parents[1] / "calls"
    return len(calls.read_text().splitlines()) - 1 if calls.exists() else 0


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_compiled_once_and_kept(folder: Path) -> None:
    assert library("answer", THREE).answer() == 3
    assert library("answer", THREE).answer() == 3
    assert compiled(folder) == 1
    assert len(kept(folder)) == 1
    assert folder.stat().st_mode & 0o777 == 0o700


def test_other_text_or_flags_make_another(folder: Path) -> None:
    assert library("answer", THREE).answer() == 3
    assert library("answer", FOUR).answer() == 4
    asked = 'extern "C" int answer() { return ANSWER; }'
    assert [library("answer", asked, flags=(f"-DANSWER={n}",)).answer() for n in (5, 6)] == [5, 6]
    assert (compiled(folder), len(kept(folder))) == (4, 4)


def test_a_file_that_is_not_what_was_made_is_made_anew(folder: Path) -> None:
    library("answer", THREE)
    path = folder / kept(folder)[0]
    library("answer", FOUR)
    (other,) = set(folder.iterdir()) - {path}
    path.unlink()  # not written over: this process has it mapped
    shutil.copy(other, path)
    assert library("answer", THREE).answer() == 3, "what was put in its place is not run"
    assert compiled(folder) == 3
    path.unlink()
    path.write_bytes(b"cut sho")
    assert library("answer", THREE).answer() == 3
    os.chmod(path, 0o777)
    assert library("answer", THREE).answer() == 3
    assert path.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_a_folder_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    library("answer", THREE)
    folder.chmod(mode)
    with pytest.raises(CacheUnsafe, match="others may enter"):
        library("answer", THREE)


def test_a_folder_above_that_others_may_write_to_is_refused(folder: Path) -> None:
    library("answer", THREE)
    folder.parent.chmod(0o777)
    with pytest.raises(CacheUnsafe, match="others may write to"):
        library("answer", THREE)
    folder.parent.chmod(0o1777)
    assert library("answer", THREE).answer() == 3, "sticky, as /tmp is"


def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    library("answer", THREE)
    os.chown(folder, 12_345, -1)
    with pytest.raises(CacheUnsafe, match="belongs to user 12345"):
        library("answer", THREE)


def test_a_link_in_the_folders_place_is_refused(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(CacheUnsafe, match="is no folder"):
        library("answer", THREE)


def test_without_a_place_to_keep_it_it_is_compiled_each_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WATTSHIFT_CACHE_DIR", str(tmp_path / "file"))
    assert [library("answer", THREE).answer() for _ in range(2)] == [3, 3]
    assert compiled(folder) == 2


def test_what_does_not_compile_leaves_nothing_and_says_why(folder: Path) -> None:
    with pytest.raises(CompilerFailed, match="no_such_thing"):
        library("answer", "int x = no_such_thing;")
    assert kept(folder) == []


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(CompilerMissing, match="no-such-compiler is not on PATH"):
        library("answer", THREE)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerMissing, match=r"g\+\+ or clang"):
        library("answer", THREE)


def test_old_files_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FILES_MOST", 2)
    for number in range(4):
        text = f'extern "C" int answer() {{ return {number}; }}'
        assert library("answer", text).answer() == number
    assert len(kept(folder)) == 2


@pytest.mark.parametrize("umask", [0o002, 0o000, 0o022])
def test_folders_that_it_makes_are_never_refused_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    deep = folder.parents[1] / f"home{umask}" / ".cache" / "wattshift"
    monkeypatch.setenv("WATTSHIFT_CACHE_DIR", str(deep))
    before = os.umask(umask)
    try:
        assert library("answer", THREE).answer() == 3
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o777 for one in (deep / "native", deep, deep.parent)] == 3 * [
        0o700
    ]


def test_a_passing_folder_where_others_write_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WATTSHIFT_CACHE_DIR", str(tmp_path / "file"))
    everybodys = tmp_path / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(everybodys))
    with pytest.raises(CacheUnsafe, match="others may write to"):
        library("answer", THREE)
    everybodys.chmod(0o1777)
    assert library("answer", THREE).answer() == 3
