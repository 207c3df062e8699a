"""Flag > environment > file > default: overrides laid over a file, and where each value came from.

An override names one value by its path, `site.lease_ttl` or `feeders[0].limit`; a row of a list may
also be named: `feeders[hall-a].limit`. In the environment the parts are joined by two underscores:
`WATTSHIFT_SITE__LEASE_TTL=20s`, `WATTSHIFT_FEEDERS__0__LIMIT=12kW`.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wattshift_cluster.errors import Fault

Source = Literal["default", "file", "environment", "flag"]
PREFIX = "WATTSHIFT_"
_PART = re.compile(r"([A-Za-z0-9_-]+)|\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: the layer, and the variable, flag or file in words."""

    source: Source
    detail: str


@dataclass(frozen=True, slots=True)
class Override:
    """One value laid over the file. `path` is as the user wrote it, split into its parts."""

    path: tuple[str, ...]
    value: object
    origin: Origin


@dataclass(frozen=True, slots=True)
class Layered:
    """The merged raw file, who set each overridden path, and overrides that name nothing."""

    raw: dict[str, Any]
    origins: Mapping[str, Origin]
    faults: tuple[Fault, ...]


def environment_overrides(
    environ: Mapping[str, str], sections: Iterable[str], foreign: Iterable[str]
) -> tuple[list[Override], list[Fault]]:
    """Overrides among the variables; `foreign` sections belong to the other kind of file.

    A variable with a section that no file has is a fault: a misspelt override must not pass unseen.
    """
    known, others = set(sections), set(foreign)
    found: list[Override] = []
    faults: list[Fault] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or "__" not in variable[len(PREFIX) :]:
            continue
        parts = tuple(variable[len(PREFIX) :].lower().split("__"))
        if parts[0] in known:
            origin = Origin("environment", variable)
            found.append(Override(parts, environ[variable], origin))
        elif parts[0] not in others:
            allowed = ", ".join(sorted(known))
            message = f"names no section; allowed: {PREFIX}<SECTION>__<KEY> with {allowed}"
            faults.append(Fault("environment", variable, shown(environ[variable]), message))
    return found, faults


def flag_overrides(flags: Mapping[str, object]) -> list[Override]:
    """Overrides given by the caller, by dotted path."""
    found = []
    for path, value in flags.items():
        parts = tuple(name or row for name, row in _PART.findall(path))
        found.append(Override(parts, value, Origin("flag", f"--set {path}")))
    return found


def lay(raw: Mapping[str, Any], overrides: Iterable[Override]) -> Layered:
    """The file with every override laid over it, later ones winning."""
    merged = copy.deepcopy(dict(raw))
    origins: dict[str, Origin] = {}
    faults: list[Fault] = []
    for override in overrides:
        try:
            path = _assign(merged, override)
        except LookupError as missing:
            where = "environment" if override.origin.source == "environment" else "command line"
            name = override.origin.detail
            faults.append(Fault(where, name, shown(override.value), str(missing.args[0])))
        else:
            origins[path] = override.origin
    return Layered(merged, origins, tuple(faults))


def shown(value: object) -> str | None:
    """A value as the file would show it, at most 60 characters; None for a table or list."""
    if value is None or isinstance(value, (dict, list, tuple)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, (str, os.PathLike)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a nested table with its path; lists of plain values count as one value."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)) and any(isinstance(row, Mapping) for row in tree):
        for at, row in enumerate(tree):
            yield from leaves(row, f"{path}[{at}]")
    else:
        yield path, tree


def _assign(tree: dict[str, Any], override: Override) -> str:
    """Set one value and return its canonical path. Raises LookupError with the reason."""
    node: Any = tree
    path = ""
    *way, last = override.path
    for part in way:
        if isinstance(node, list):
            at = _row(node, part)
            node, path = node[at], f"{path}[{at}]"
        elif isinstance(node, dict):
            node, path = node.setdefault(part, {}), f"{path}.{part}" if path else part
        else:
            raise LookupError(f"{path} is a value and holds no {part}")
    if not isinstance(node, dict):
        raise LookupError(f"{path or 'it'} is not one table; name one row and its key")
    if not way:
        raise LookupError("names a whole section; name one key of it")
    node[last] = override.value
    return f"{path}.{last}"


def _row(rows: list[Any], part: str) -> int:
    if part.isdigit():
        if int(part) < len(rows):
            return int(part)
    else:
        for at, row in enumerate(rows):
            if isinstance(row, dict) and _plain(row.get("name", row.get("id", ""))) == _plain(part):
                return at
    raise LookupError(f"there is no row {part}; the file has {len(rows)}")


def _plain(name: object) -> str:
    """A name as an environment variable can spell it."""
    return re.sub(r"[^a-z0-9]", "_", str(name).lower())
