"""A small file that is replaced whole or not at all, whatever dies meanwhile."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, body: str) -> None:
    """Write a file of the owner's alone, whole or not at all. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as made:
            made.write(body)
            made.flush()
            os.fsync(made.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
