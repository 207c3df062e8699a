"""The calls that a VEN makes of its VTN, over HTTP: OpenADR 3.1.1, and 3.0.1 through `shim`.

Every call has a deadline and reads no more than bounds allow. A list is returned whole or not at
all. A VTN of 3.1 shows objects that have targets only to those who ask with targets that they were
granted, so lists are asked for twice: with the targets of this VEN and its resources, and without.
"""

from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from wattshift_cluster.grid.openadr.exchange import Exchange, Request
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused
from wattshift_cluster.grid.openadr.login import Login
from wattshift_cluster.grid.openadr.pages import whole
from wattshift_cluster.grid.openadr.shim import Dialect, modern
from wattshift_cluster.grid.openadr.topics import Topics, find_topics
from wattshift_cluster.grid.openadr.words import (
    Event,
    Program,
    Registered,
    Report,
    Resource,
    ResourceWish,
    Stored,
    SubscriptionWish,
    Ven,
    read_event,
)

CONFLICT = 409
GONE = (404, 410)
Query = tuple[tuple[str, str], ...]
Kind = TypeVar("Kind", bound=Stored)


class VtnClient:
    """One VTN, as `words.Vtn` asks for it.

    Every call raises VtnUnreachable, VtnRefused or VtnNonsense (see `failures`), and ConfigInvalid
    where the file of the secret is at fault.
    """

    def __init__(
        self,
        base_url: str,
        login: Login | None,
        *,
        version: str = "3.1",
        verify: bool | str = True,
        deadline_s: float = 10.0,
        targets: Sequence[str] = (),
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            base_url: where the VTN's paths begin.
            login: None for a VTN that shows public programs to everybody.
            version: of OpenADR: "3.1", or "3.0".
            verify: True: the system's authorities; a file: those in it; False: no check at all.
            deadline_s: of one request, s.
            targets: to ask for in lists, beside those that the VTN granted when it registered us.

        Raises:
            ConfigInvalid: the address or the file of authorities cannot be used.
        """
        self._exchange = Exchange(base_url, verify, deadline_s)
        self._login = login
        self._dialect = Dialect(version)
        self._targets = tuple(sorted(set(targets)))
        self._secure = self._exchange.base_url.startswith("https:") and verify is not False

    @property
    def skew_s(self) -> float | None:
        """The VTN's clock less ours by its last Date header, s; None before there was one."""
        return self._exchange.skew_s

    async def programs(self) -> list[Program]:
        """Every program that this client may see."""
        rows = await self._seen("programs", ())
        return [_read(Program, row, "programs") for row in rows]

    async def events(self, program_id: str | None = None) -> list[Event]:
        """Every event that this client may see; with `program_id`, of that program.

        An event that breaks the schema is among them, marked `unreadable`.
        """
        rows = await self._seen(
            "events", () if program_id is None else (("programID", program_id),)
        )
        try:
            return [read_event(row) for row in rows]
        except ValueError as fault:
            raise VtnNonsense(f"events: {fault}") from None

    async def register(self, ven_name: str, resources: Sequence[ResourceWish]) -> Registered:
        """Make this site known: its VEN and its resources, each found by name or created.

        A resource whose attributes differ from the wish is updated. Targets that the VTN granted
        are remembered, for lists.
        """
        ven = _read(Ven, await self._found_or_made_ven(ven_name), "vens")
        path, query = self._dialect.resources(ven.id)
        known = {row.get("resourceName"): row for row in await self._list(path, query)}
        made = [await self._settled(ven.id, path, known, wish) for wish in resources]
        mine = [_read(Resource, row, "resources") for row in made]
        granted = {*ven.targets}.union(*(resource.targets for resource in mine))
        self._targets = tuple(sorted(granted.union(self._targets)))
        return Registered(ven=ven, resources=tuple(mine))

    async def report(self, report: Report) -> str:
        """Deliver a report; its id. One with an id or the names of an earlier one updates that."""
        body = self._dialect.report(report)
        if report.id:
            return _id(await self._send("PUT", _at("reports", report.id), body=body), "reports")
        try:
            return _id(await self._send("POST", "reports", body=body), "reports")
        except VtnRefused as no:
            if no.status != CONFLICT:
                raise
        query = (("eventID", report.event_id), ("clientName", report.client_name))
        for row in await self._list("reports", query):
            if all(
                row.get(key) == body.get(key) for key in ("eventID", "clientName", "reportName")
            ):
                return _id(await self._send("PUT", _at("reports", row["id"]), body=body), "reports")
        raise VtnRefused("POST reports", CONFLICT, "and no such report is there")

    async def subscribe(self, wish: SubscriptionWish) -> str:
        """Ask for notices by webhook; the subscription's id.

        One of the same name and program is taken over: an earlier run of ours asked for it, perhaps
        with another token or address.
        """
        body = self._dialect.subscription(wish)
        if self._dialect.old and wish.program_id is None:
            raise VtnRefused("POST subscriptions", 400, "OpenADR 3.0 subscribes to one program")
        for row in await self._list("subscriptions", (("clientName", wish.client_name),)):
            if _is_of(wish, row):
                path = _at("subscriptions", row["id"])
                return _id(await self._send("PUT", path, body=body), "subscriptions")
        return _id(await self._send("POST", "subscriptions", body=body), "subscriptions")

    async def unsubscribe(self, id: str) -> None:  # noqa: A002 (the seam's own name)
        """End a subscription; one that is gone already is fine."""
        try:
            await self._send("DELETE", _at("subscriptions", id))
        except VtnRefused as no:
            if no.status not in GONE:
                raise

    async def topics(
        self, *, ven_id: str | None = None, program_ids: Sequence[str] = ()
    ) -> Topics | None:
        """Where MQTT tells of programs and events; None where the VTN has none for us.

        A VTN that is reached by checked TLS is not believed over a broker without TLS.
        """
        if self._dialect.old:
            return None

        async def ask(path: str) -> Any:
            return await self._send("GET", path)

        return await find_topics(ask, secure=self._secure, ven_id=ven_id, program_ids=program_ids)

    async def token(self) -> str | None:
        """A token that is good now, as a broker may ask for; None without a login."""
        return await self._token(None)

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()

    async def _found_or_made_ven(self, name: str) -> dict[str, Any]:
        for again in (False, True):
            for row in await self._list("vens", (("venName", name),)):
                if row.get("venName") == name:
                    return row
            try:
                return _row(await self._send("POST", "vens", body=self._dialect.ven(name)), "vens")
            except VtnRefused as no:
                if no.status != CONFLICT or again:
                    raise
        raise AssertionError("a conflict is raised the second time")

    async def _settled(
        self, ven_id: str, path: str, known: dict[Any, dict[str, Any]], wish: ResourceWish
    ) -> dict[str, Any]:
        body = self._dialect.resource(ven_id, wish)
        row = known.get(wish.name)
        if row is None:
            return _row(await self._send("POST", path, body=body), path)
        if not wish.attributes or row.get("attributes") == body["attributes"]:
            return row
        at = _at(path, row["id"])
        # The VEN may not write targets, and the answer need not repeat them.
        return row | _row(await self._send("PUT", at, body=body), path)

    async def _seen(self, path: str, query: Query) -> list[dict[str, Any]]:
        """A list of what may be private to some: asked for with our targets, then without."""
        rows: dict[str, dict[str, Any]] = {}
        if self._targets and not self._dialect.old:
            mine = tuple(("targets", target) for target in self._targets)
            rows = {row["id"]: row for row in await self._list(path, query + mine)}
        # What was seen first is replaced: the later answer is the newer.
        rows |= {row["id"]: row for row in await self._list(path, query)}
        return list(rows.values())

    async def _list(self, path: str, query: Query) -> list[dict[str, Any]]:
        async def page(skip: int, most: int) -> Any:
            return await self._send("GET", path, query=(*query, ("skip", skip), ("limit", most)))

        return [modern(row) for row in await whole(page, path)]

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: tuple[tuple[str, str | int], ...] = (),
        body: dict[str, Any] | None = None,
    ) -> Any:
        """One request with our token; once more with a fresh one where that was refused."""
        token = await self._token(None)
        try:
            return await self._exchange.send(
                Request(method, path, query=query, body=body, headers=_bearer(token))
            )
        except VtnRefused as no:
            if no.status != 401 or token is None:
                raise
        fresh = await self._token(token)
        return await self._exchange.send(
            Request(method, path, query=query, body=body, headers=_bearer(fresh))
        )

    async def _token(self, refused: str | None) -> str | None:
        if self._login is None:
            return None
        version = self._dialect.version
        return await self._login.token(self._exchange, version=version, refused=refused)


def _at(path: str, object_id: str) -> str:
    return f"{path}/{quote(object_id, safe='')}"


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _row(said: Any, what: str) -> dict[str, Any]:
    made = modern(said)
    if not isinstance(made, dict):
        raise VtnNonsense(f"{what}: the answer is not an object")
    return made


def _id(said: Any, what: str) -> str:
    found = _row(said, what).get("id")
    if not isinstance(found, str) or not found:
        raise VtnNonsense(f"{what}: an object without an id")
    return found


def _read(kind: type[Kind], row: dict[str, Any], what: str) -> Kind:
    try:
        made = kind.model_validate(row)
    except ValidationError as fault:
        first = fault.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VtnNonsense(f"{what}: {where}: {first['msg']}"[:300]) from None
    if not made.id:
        raise VtnNonsense(f"{what}: an object without an id")
    return made


def _is_of(wish: SubscriptionWish, row: dict[str, Any]) -> bool:
    return row.get("clientName") == wish.client_name and row.get("programID") == wish.program_id
