"""A long list, page by page, so that nothing is missed while it changes.

A list is asked for with `skip` and `limit`. An object that is deleted meanwhile moves all later
ones forward, so that the next page would begin too late and an event would look as if it had been
withdrawn. Each page therefore begins with the last object of the one before; where it does not,
the list has moved and is read again from the start.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnUnreachable

PAGE = 50
"""The most that the schema lets a client ask for."""

MAX_OBJECTS = 10_000
MOVES = 3
"""So often a list may move while it is read."""

Row = dict[str, Any]
Fetch = Callable[[int, int], Awaitable[Any]]
"""Asks for a page: (skip, limit)."""


async def whole(fetch: Fetch, what: str) -> list[Row]:
    """Every object of a list, each once.

    Raises:
        VtnUnreachable: the list moved again and again, or what `fetch` raises.
        VtnNonsense: not a list of objects with ids, or longer than MAX_OBJECTS.
    """
    for _ in range(MOVES):
        rows = await _once(fetch, what)
        if rows is not None:
            return rows
    raise VtnUnreachable(f"{what}: the list changes while it is read, or its pages overlap")


async def _once(fetch: Fetch, what: str) -> list[Row] | None:
    """The list; None where it moved."""
    known: dict[str, Row] = {}
    first: str | None = None
    last: str | None = None
    while len(known) <= MAX_OBJECTS:
        skip = max(0, len(known) - 1)
        page = _page(await fetch(skip, PAGE), what)
        ids = [row["id"] for row in page]
        if last is None and not page:
            return []
        if last is not None and (not page or ids[0] != last):
            # A server that knows no `skip` gives the same list each time; it is whole if it is no
            # page cut to our limit.
            same = ids[:1] == [first] and len(ids) != PAGE and set(ids) <= set(known)
            return list(known.values()) if same else None
        new = {row["id"]: row for row in page if row["id"] not in known}
        if not new:
            return list(known.values())
        first, last = first or ids[0], ids[-1]
        known |= new
    raise VtnNonsense(f"{what}: more than {MAX_OBJECTS} objects")


def _page(said: Any, what: str) -> list[Row]:
    if not isinstance(said, list):
        raise VtnNonsense(f"{what}: the answer is not a list")
    for row in said:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not row["id"]:
            raise VtnNonsense(f"{what}: an object without an id")
    return said
