"""The operating errors of wattshift and the exit code each one ends a command with.

    WattshiftError            1   something operational went wrong
    ├── ConfigInvalid         3   a file, a flag or a variable holds faults; all of them are listed
    ├── NotFound              4   the named job, device or file does not exist
    ├── Unreachable           5   the other side did not answer within its deadline
    ├── Refused               6   a power or operator cap, or the owner's consent, forbids it
    └── TryLater             75   right request, wrong moment

Rooms add leaves of their own below these. A programmer's mistake is an assertion instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class WattshiftError(Exception):
    """Base of every error an operator can meet; `exit_code` is what the command ends with."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a configuration: where it stands, what it says, and what is allowed.

    Attributes:
        file: the file (or `environment`, `command line`) that holds the value.
        path: the key, for example `feeders[2].limit`; empty when the whole file is at fault.
        value: the value as written; None when it is missing or has no short form.
        message: what is wrong, with the allowed range.
    """

    file: str
    path: str
    value: str | None
    message: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.path}" if self.path else self.file
        return (
            f"{where}: {self.message}"
            if self.value is None
            else f"{where} = {self.value}: {self.message}"
        )


class ConfigInvalid(WattshiftError):
    """A configuration with at least one fault; its text is one line per fault."""

    exit_code: ClassVar[int] = 3

    def __init__(self, faults: Sequence[Fault | str]) -> None:
        assert faults, "a configuration without faults is valid"
        self.faults: tuple[Fault | str, ...] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class NotFound(WattshiftError):
    """The named job, device, file or address does not exist."""

    exit_code: ClassVar[int] = 4


class Unreachable(WattshiftError):
    """The other side did not answer within its deadline."""

    exit_code: ClassVar[int] = 5


class Refused(WattshiftError):
    """A power cap, an operator's cap or the owner's consent forbids the request."""

    exit_code: ClassVar[int] = 6


class TryLater(WattshiftError):
    """The request is right but cannot be served now."""

    exit_code: ClassVar[int] = 75
