"""C++ text compiled by the host's compiler when it is needed, and kept for the next time.

What is kept is code that will be run, so it lies in a folder of our own that nobody else can write
to or put in its place, under a name that holds the digest of what it was made from and of itself.
Anything else is refused or made anew.
"""

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

COMPILE_S = 120.0
ASK_S = 10.0
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
FILES_MOST = 64
"""Kept at once; the oldest go first. A version of wattshift has about one per algorithm."""

LOG_MOST = 2000
"""Characters of a compiler's complaint that are passed on."""

_NAME = re.compile(r"[a-z0-9_]{1,32}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class CompilerMissing(Exception):
    """There is no C++ compiler here."""


class CompilerFailed(Exception):
    """The compiler did not take the text; the message ends with what it said."""


class CacheUnsafe(Exception):
    """Somebody else could put code where we keep ours; the text says where and why."""


def library(name: str, source: str, *, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The library that a C++ text makes, compiled now or kept from before.

    Without a folder that can be written (no home, a read-only container) it is compiled anew in
    each process.

    Args:
        name: for people who look into the folder.
        flags: of the compiler, beside FLAGS.

    Raises:
        CompilerMissing, CompilerFailed: it cannot be made.
        CacheUnsafe: others can write where it would be kept.
    """
    assert _NAME.fullmatch(name), name
    compiler = _compiler()
    options = (*FLAGS, *flags)
    made_from = (source, *options, *compiler, _version(compiler), _processor())
    key = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:32]
    try:
        folder = _folder()
    except OSError:
        with tempfile.TemporaryDirectory(prefix="wattshift-") as passing:
            folder = Path(passing).resolve()
            _check_all(folder)
            return _loaded(_make(folder, f"{name}-{key}", source, compiler, options))
    kept = _kept(folder, f"{name}-{key}")
    if kept is None:
        kept = _make(folder, f"{name}-{key}", source, compiler, options)
        _tidy(folder, kept)
    return _loaded(kept)


def host() -> str:
    """The processor, and the compiler if there is one: what a library's speed depends on."""
    with suppress(CompilerMissing, CompilerFailed):
        return f"{_processor()}\n{_version(_compiler())}"
    return _processor()


def cache_folder() -> Path:
    """Where this user's wattshift keeps what it can make again."""
    own = os.environ.get("WATTSHIFT_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wattshift"


def private_folder(name: str) -> Path:
    """A folder in there that is ours alone, made if need be.

    Raises:
        CacheUnsafe: it or one above it is not ours, or others can write there.
        OSError: it cannot be made.
    """
    try:
        base = cache_folder()
    except RuntimeError as homeless:
        raise FileNotFoundError(str(homeless)) from homeless
    folder = base.resolve() / name  # links are followed here, once
    for place in (*reversed(folder.parents), folder):
        if not place.is_dir():
            with suppress(FileExistsError):  # what is missing is ours alone, whatever the umask
                place.mkdir(mode=0o700)
    _check_all(folder)
    return folder


def _folder() -> Path:
    folder = private_folder("native")
    if not os.access(folder, os.W_OK):
        raise PermissionError(str(folder))
    return folder


def _check_all(folder: Path) -> None:
    for place in (folder, *folder.parents):
        _check(place, ours_alone=place == folder)


def _check(place: Path, *, ours_alone: bool) -> None:
    found = place.lstat()
    mode = found.st_mode
    if not stat.S_ISDIR(mode):
        raise CacheUnsafe(f"{place} is no folder")
    owners = {os.geteuid()} if ours_alone else {os.geteuid(), 0}
    if found.st_uid not in owners:
        raise CacheUnsafe(f"{place} belongs to user {found.st_uid}")
    if ours_alone and mode & _OTHERS:
        raise CacheUnsafe(f"others may enter {place}: its mode is {stat.S_IMODE(mode):o}, not 700")
    # In a sticky folder, such as /tmp, others cannot put anything in the place of what is ours.
    if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
        raise CacheUnsafe(f"others may write to {place}")


def _kept(folder: Path, stem: str) -> Path | None:
    """The library made before, if it is still what it was; anything else there is removed."""
    for path in folder.glob(f"{stem}-*.so"):
        if path.name == f"{stem}-{_digest(path)}.so":
            with suppress(OSError):
                os.utime(path)  # the oldest go first, and this one is in use
            return path
        path.unlink(missing_ok=True)
    return None


def _digest(path: Path) -> str:
    """Of a file that is ours; of anything else, what no file is named after."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return ""
        if found.st_mode & _OTHERS_WRITE:
            return ""
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _make(
    folder: Path, stem: str, source: str, compiler: Sequence[str], options: Sequence[str]
) -> Path:
    """Compile it beside its place, then move it there whole."""
    fd, raw = tempfile.mkstemp(prefix=".", suffix=".so", dir=folder)
    os.close(fd)
    made = Path(raw)
    try:
        command = (*compiler, *options, "-x", "c++", "-", "-o", raw)
        done = subprocess.run(
            command, input=source, capture_output=True, text=True, timeout=COMPILE_S, check=False
        )
        if done.returncode != 0:
            raise CompilerFailed(f"{compiler[0]} ended with {done.returncode}: {_brief(done)}")
        made.chmod(0o700)
        place = folder / f"{stem}-{_digest(made)}.so"
        made.replace(place)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise CompilerFailed(f"{compiler[0]}: {fault}") from fault
    finally:
        made.unlink(missing_ok=True)
    return place


def _brief(done: "subprocess.CompletedProcess[str]") -> str:
    return done.stderr.strip()[:LOG_MOST]


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as fault:  # a folder from which nothing may be executed
        raise CompilerFailed(f"{path.name} cannot be loaded: {fault}") from fault


def _tidy(folder: Path, newest: Path) -> None:
    with suppress(OSError):  # another process tidies, too
        by_age = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
        for path in by_age[: max(0, len(by_age) - FILES_MOST)]:
            if path != newest:
                path.unlink(missing_ok=True)


@cache
def _processor() -> str:
    """What -march=native depends on: a cache may be shared between machines."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
        wanted = ("model name", "flags", "Features", "CPU part")
        return "\n".join(line for line in first.splitlines() if line.startswith(wanted))
    return " ".join(os.uname())


@cache
def _version(compiler: tuple[str, ...]) -> str:
    try:
        asked = (*compiler, "--version")
        done = subprocess.run(asked, capture_output=True, text=True, timeout=ASK_S, check=True)
    except (OSError, subprocess.SubprocessError) as fault:
        raise CompilerFailed(f"{compiler[0]} does not say its version: {fault}") from fault
    return done.stdout


def _compiler() -> tuple[str, ...]:
    """The command of $CXX, else what PATH has."""
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [["g++"], ["clang++"], ["c++"]]:
        found = shutil.which(command[0])
        if found is not None:
            return (found, *command[1:])
    named = asked[0] if asked else "g++ or clang++"
    raise CompilerMissing(f"no C++ compiler here: {named} is not on PATH")
