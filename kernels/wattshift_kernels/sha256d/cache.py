"""Where numba keeps compiled searches: beside the code if it may, else in the user's cache."""

import os
from pathlib import Path


def use_writable_cache() -> None:
    """Point numba at a folder that can be written, before numba is imported.

    An installed package is often read-only (a container, a system site-packages); without a cache
    every start would compile for seconds. An own choice in NUMBA_CACHE_DIR is kept.
    """
    if "NUMBA_CACHE_DIR" in os.environ or os.access(Path(__file__).parent, os.W_OK):
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ["NUMBA_CACHE_DIR"] = str(Path(base) / "wattshift" / "numba")
