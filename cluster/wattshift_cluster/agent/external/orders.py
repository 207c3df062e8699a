"""The wrapper's orders: a file of mode 0600 between the agent that writes it and the wrapper."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from wattshift_cluster.errors import ConfigInvalid

MOST_BYTES = 64 * 1024


class OrdersInvalid(ConfigInvalid):
    """A file of orders that cannot be read."""


@dataclass(frozen=True, slots=True)
class Orders:
    """One program to hold.

    Attributes:
        program: name of its row.
        command, environment: whole.
        api_port, api_token: of its HTTP interface on loopback.
        keep_s, quiet_s: see `hold.Terms`.
    """

    program: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    api_port: int
    api_token: str | None
    keep_s: float
    quiet_s: float

    def write(self, path: Path) -> None:
        """For the wrapper alone to read. Raises: OSError."""
        private(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Orders":
        """Raises: OrdersInvalid."""
        try:
            raw = json.loads(path.read_bytes()[:MOST_BYTES])
            return cls(**{**raw, "command": tuple(raw["command"])})
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise OrdersInvalid(f"{path}: {fault}") from fault


def private(path: Path, text: str) -> None:
    """Write a file anew that nobody else may read."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
