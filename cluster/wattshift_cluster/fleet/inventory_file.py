"""The inventory on disk: one JSON file with a version, replaced as a whole.

A file that cannot be read is left as it is and named in the error: it is never taken for an empty
one, nor written over. Beside it stands the one before, `NAME.bak`.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.fleet.inventory import MOST_MACHINES, Inventory, Known

VERSION = 1
FILE_LIMIT = 32 * 1024 * 1024
"""Some 20,000 machines take 8 MiB."""

_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class InventoryDamaged(WattshiftError):
    """The file is there and cannot be understood.

    Attributes:
        file: that file, untouched.
        backup: the one before, if there is one.
    """

    exit_code = 3

    def __init__(self, file: Path, reason: str) -> None:
        before = backup_of(file)
        self.file = file
        self.backup = before if before.exists() else None
        mend = f"; the one before it is {before}" if self.backup else ""
        super().__init__(f"{file}: the inventory cannot be read: {reason}{mend}")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: _Text
    address: _Text
    kind: _Text
    model: _Text | None
    firmware: _Text | None
    mac: _Text | None
    serial: _Text | None
    first_seen_s: _Time
    last_seen_s: _Time


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    machines: Annotated[list[_Row], Field(max_length=MOST_MACHINES)]


def backup_of(file: Path) -> Path:
    """Where the file before this one is kept."""
    return file.with_name(f"{file.name}.bak")


def load(file: Path) -> Inventory:
    """Read the inventory; an empty one where the file does not exist.

    Raises:
        InventoryDamaged: it exists and cannot be understood.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        return Inventory()
    except OSError as error:
        raise InventoryDamaged(file, error.strerror or str(error)) from error
    if len(raw) > FILE_LIMIT:
        raise InventoryDamaged(file, f"it is larger than {FILE_LIMIT} bytes")
    try:
        version = json.loads(raw)["version"]
        if version != VERSION:
            raise InventoryDamaged(file, f"version {version!r}; this program knows {VERSION}")
        rows = _File.model_validate_json(raw).machines
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InventoryDamaged(file, f"{where}: {first['msg']}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InventoryDamaged(file, "it is not the JSON that was written") from error
    if len({row.identity for row in rows}) < len(rows):
        raise InventoryDamaged(file, "a machine stands in it twice")
    return Inventory(Known(**row.model_dump()) for row in rows)


def save(inventory: Inventory, file: Path) -> None:
    """Replace the file; the one before is kept. A power cut leaves the old one or the new one.

    Raises:
        InventoryDamaged: the file that is there now cannot be understood.
        OSError: it cannot be written.
    """
    load(file)
    rows = sorted(inventory.machines.values(), key=lambda machine: machine.identity)
    body = {"version": VERSION, "machines": [asdict(row) for row in rows]}
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    kept = file.with_name(f".{file.name}.{os.getpid()}.bak")
    try:
        with fresh.open("w", encoding="utf-8") as opened:
            json.dump(body, opened, indent=1, allow_nan=False)
            opened.write("\n")
            opened.flush()
            os.fsync(opened.fileno())
        if file.exists():
            shutil.copy2(file, kept)
            kept.replace(backup_of(file))
        fresh.replace(file)
    finally:
        for left in (fresh, kept):
            with suppress(FileNotFoundError):
                left.unlink()
    _settle(file.parent)


def _settle(folder: Path) -> None:
    """Make the renames survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
