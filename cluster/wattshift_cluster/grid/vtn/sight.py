"""Who may see what: owners see what is theirs, targets open programs and events, BL sees all.

An object with targets is shown to a VEN only where a target that it asked for, one that it was
granted (on its VEN or a resource of it) and one of the object are the same; of the object's targets
only those are shown. An object without targets is public. Source: OpenADR 3.1 Definition, "Object
Privacy".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wattshift_cluster.grid.vtn.kinds import RESOURCE, VEN, Kind
from wattshift_cluster.grid.vtn.store import Row, Store

SECRET = "bearerToken"
EVERYTHING = "_everything"
"""Of a subscription, kept and never shown: whether its owner may see what is not its own."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """One who looks: a client, whether it may see everything, and the targets it was granted."""

    client_id: str
    everything: bool
    granted: frozenset[str] = frozenset()


def eyes_of(store: Store, client_id: str, *, everything: bool) -> Eyes:
    """A client's eyes, with the targets of its VENs and their resources."""
    mine = [row for row in store.all(VEN) if row["clientID"] == client_id]
    ids = {row["id"] for row in mine}
    mine += [row for row in store.all(RESOURCE) if row["venID"] in ids]
    granted = frozenset(target for row in mine for target in row.get("targets", ()))
    return Eyes(client_id, everything, granted)


def shown(kind: Kind, row: Row, eyes: Eyes, asked: Iterable[str] | None) -> Row | None:
    """An object as these eyes see it; None where they do not.

    Args:
        asked: the targets of a list's query, perhaps none; None: by id, or a notice, where every
            granted target counts as asked for.
    """
    targets = row.get("targets", [])
    wanted = None if asked is None else frozenset(asked)
    if kind.targeted and not eyes.everything:
        if not targets:
            return row if not wanted else None
        seen = [
            target
            for target in targets
            if target in eyes.granted and (wanted is None or target in wanted)
        ]
        return row | {"targets": seen} if seen else None
    if not eyes.everything and row["clientID"] != eyes.client_id:
        return None
    if wanted and not wanted.intersection(targets):
        return None
    return _without_secret(row)


def _without_secret(row: Row) -> Row:
    """A subscription without its tokens: whoever set them knows them."""
    if "objectOperations" not in row:
        return row
    told = [{k: v for k, v in one.items() if k != SECRET} for one in row["objectOperations"]]
    return {k: v for k, v in row.items() if k != EVERYTHING} | {"objectOperations": told}
