"""Who may log in at the loopback VTN: from a file, or two that are made up for a dry run.

    [[clients]]
    id = "my-site"
    role = "ven"                  # or "bl": the business logic of a utility
    secret_file = "my-site.secret"

A secret stands in a file of its own that only its owner may read; its path is relative to this
file.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.openadr.login import read_secret
from wattshift_cluster.grid.vtn.clients import Client, Role
from wattshift_cluster.wire.token import create_token

MAX_CLIENTS = 1_000
MAX_FILE_BYTES = 1 << 20
DRY_RUN = (("site", Role.VEN), ("utility", Role.BL))


@dataclass(frozen=True, slots=True)
class Placed:
    """A client, and the file of its secret."""

    client: Client
    secret_file: Path


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Annotated[str, Field(min_length=1, max_length=128)]
    role: Role
    secret_file: Annotated[str, Field(min_length=1, max_length=4096)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    clients: Annotated[tuple[_Row, ...], Field(min_length=1, max_length=MAX_CLIENTS)]


def read_clients(file: Path) -> list[Placed]:
    """The clients of a file. Raises ConfigInvalid: the file, or a file of a secret."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
        rows = _File.model_validate(tomllib.loads(data.decode())).clients
    except ValidationError as wrong:
        faults = [
            Fault(str(file), ".".join(str(part) for part in one["loc"]), None, one["msg"])
            for one in wrong.errors(include_input=False, include_url=False)
        ]
        raise ConfigInvalid(faults) from None
    except (OSError, ValueError, RecursionError) as fault:
        raise ConfigInvalid([Fault(str(file), "", None, str(fault))]) from None
    if len({row.id for row in rows}) != len(rows):
        raise ConfigInvalid([Fault(str(file), "clients", None, "an id stands there twice")])
    return [_placed(row.id, row.role, file.parent / row.secret_file) for row in rows]


def made_up(folder: Path) -> list[Placed]:
    """A site and a utility, with secrets in this folder; those of an earlier run are kept.

    Raises:
        ConfigInvalid: the folder or a file in it cannot be used.
    """
    placed = []
    for name, role in DRY_RUN:
        file = folder / f"{name}.secret"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_token(file)
        except FileExistsError:
            pass  # of an earlier run: what was configured with it goes on working
        except OSError as fault:
            raise ConfigInvalid([Fault(str(file), "", None, str(fault))]) from None
        placed.append(_placed(name, role, file))
    return placed


def _placed(name: str, role: Role, file: Path) -> Placed:
    return Placed(Client(name, role, read_secret(file)), file.absolute())
