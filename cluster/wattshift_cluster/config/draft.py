"""A file on its way to being valid: its sections that are valid on their own, beside the raw."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from wattshift_cluster.config.fields import Section

S = TypeVar("S", bound=Section)

Finding = tuple[str, object, str]
"""Path, value as written (None: no one value is at fault), message."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file on its way to being valid; `valid` maps paths such as `feeders[2]` to sections."""

    raw: Mapping[str, Any]
    valid: Mapping[str, Section]

    def all(self, kind: type[S]) -> list[tuple[str, S]]:
        """Path and section of every valid section of one kind, in the file's order."""
        return [(path, one) for path, one in self.valid.items() if isinstance(one, kind)]

    def names(self, section: str, key: str = "name") -> list[str]:
        """Every name given in a list of tables, valid or not; `compute.nodes` stands deeper."""
        rows: Any = self.raw
        for part in section.split("."):
            rows = rows.get(part) if isinstance(rows, Mapping) else None
        rows = rows if isinstance(rows, list) else []
        return [str(row[key]) for row in rows if isinstance(row, dict) and key in row]


def duplicates(names: Sequence[str], section: str, key: str) -> Iterator[Finding]:
    """A fault for every name that was given before."""
    for at, name in enumerate(names):
        if name in names[:at]:
            yield f"{section}[{at}].{key}", name, f"given before by {section}[{names.index(name)}]"


def section_of(annotation: Any) -> tuple[type[Section], bool]:
    """The section class behind a field, and whether it stands in a list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    inner = next(one for one in get_args(annotation) if one not in (type(None), Ellipsis))
    if get_origin(annotation) is Annotated:
        return section_of(inner)
    assert issubclass(inner, Section)
    return inner, get_origin(annotation) in (tuple, list)


def unknown_key(section: type[Section], way: Sequence[int | str]) -> str:
    """What to say of a key that nobody knows: the nearest one, and all that are allowed there.

    Args:
        section: where the first part of `way` stands.
        way: from there to the key; what lies between are tables inside, and rows of lists.
    """
    for part in way[:-1]:
        for name, field in section.model_fields.items():
            if part in (name, field.alias):
                section, _ = section_of(field.annotation)
    known = [field.alias or name for name, field in section.model_fields.items()]
    close = difflib.get_close_matches(str(way[-1]), known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown key{hint} (allowed: {', '.join(known)})"
