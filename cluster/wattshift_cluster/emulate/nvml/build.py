"""Compiles the emulated NVML with the host's C compiler and loads it.

The library bears the real one's name, so a program finds it in either of two ways: through
LD_LIBRARY_PATH, or because this process has loaded it first (the loader of glibc matches the SONAME
of what is already there).
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from wattshift_cluster.emulate.nvml.layout import c_header
from wattshift_cluster.errors import WattshiftError

SONAME = "libnvidia-ml.so.1"
SOURCES = ("fake_nvml.c", "readings.h", "session.h", "physics.h")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", f"-Wl,-soname,{SONAME}")
LIBRARIES = ("-lm", "-lpthread")
COMPILE_TIMEOUT_S = 60.0
"""A second or two on any machine; beyond this the compiler hangs."""

_HERE = Path(__file__).parent


class NvmlNotBuilt(WattshiftError):
    """The emulated NVML cannot be compiled here; the text says why."""


def find_compiler() -> str | None:
    """Path of a C compiler, or None."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def build(cache: Path, flags: tuple[str, ...] = ()) -> Path:
    """The library's file below `cache`, compiled now unless these very sources already were.

    Raises:
        NvmlNotBuilt: there is no C compiler, or it failed.
    """
    compiler = find_compiler()
    sources = {name: (_HERE / name).read_text(encoding="utf-8") for name in SOURCES}
    sources["layout.h"] = c_header()
    key = hashlib.sha256(repr((sorted(sources.items()), FLAGS, flags)).encode()).hexdigest()[:16]
    library = Path(cache) / f"nvml-{key}" / SONAME
    if library.exists():
        return library
    if compiler is None:
        raise NvmlNotBuilt(f"no C compiler on PATH ({', '.join(COMPILERS)}): NVML is not emulated")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        for name, text in sources.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        made = Path(folder) / SONAME
        _compile([compiler, *FLAGS, *flags, "-o", str(made), f"{folder}/{SOURCES[0]}", *LIBRARIES])
        os.replace(made, library)  # whole or not at all: two processes may build at once
    return library


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise NvmlNotBuilt(f"{command[0]}: {fault}") from fault
    if done.returncode != 0:
        raise NvmlNotBuilt(f"{command[0]} failed:\n{done.stderr}")


def load(library: Path) -> ctypes.CDLL:
    """Load the library into this process, before anything asks for NVML here.

    Raises:
        OSError: it cannot be loaded.
    """
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def child_environment(
    library: Path, control: Path, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Environment with which a child finds the emulated library and its control file."""
    environment = dict(os.environ if base is None else base)
    before = environment.get("LD_LIBRARY_PATH")
    environment["LD_LIBRARY_PATH"] = os.pathsep.join([str(library.parent), *filter(None, [before])])
    environment["WATTSHIFT_EMULATED_NVML"] = str(control)
    return environment
