"""OpenADR 2.0b through the extra `openadr2` (openleadr): the same source, with an older VTN.

An event of 2.0b is put into the shape of one of 3.1, so that all that follows (what it becomes, how
long it holds, what survives a restart) is one and the same. What has no counterpart keeps its own
name and is ignored with the reason, as any private type. Reports are not offered this way.

A VTN of 2.0b answers with the list of all its events, or with a bare acknowledgement where it has
nothing to tell; the latter takes nothing back. The library reads an answer whole, within 10 s.
"""

import asyncio
import importlib
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wattshift_cluster.config.openadr import OpenAdr2
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.openadr.asked import BaselineW, Terms, no_baseline_w
from wattshift_cluster.grid.openadr.asking import Wishes
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused, VtnUnreachable
from wattshift_cluster.grid.openadr.kept import KeptFile
from wattshift_cluster.grid.openadr.ven import OpenAdrVen
from wattshift_cluster.grid.openadr.words import (
    Event,
    Program,
    Registered,
    Report,
    ResourceWish,
    SubscriptionWish,
    Ven,
)
from wattshift_cluster.grid.openadr2.events import Raw, standing
from wattshift_cluster.grid.said import Say

DEADLINE_S = 30.0
MAX_EVENTS = 1_000


def library() -> Any:
    """The library openleadr. Raises: ConfigInvalid, where the extra is not installed."""
    try:
        return importlib.import_module("openleadr")
    except ImportError as fault:
        told = f"OpenADR 2.0b needs the extra openadr2: pip install 'wattshift[openadr2]' ({fault})"
        raise ConfigInvalid([told]) from None


class OpenAdr2Source:
    """One VTN of OpenADR 2.0b as site.toml names it (see `said.Source`)."""

    def __init__(
        self,
        config: OpenAdr2,
        state_dir: Path,
        *,
        baseline_w: BaselineW = no_baseline_w,
        clock_s: Callable[[], float] = time.time,
        poll_s: float = 10.0,
    ) -> None:
        """Prepare; nothing is read or sent yet.

        Args:
            state_dir: what is known of the VTN is kept there, as `openadr2-NAME.json`.
            baseline_w: see `openadr.asked.BaselineW`.
            clock_s: unix time, s.
            poll_s: poll period, s; 10 s is the custom of 2.0b.

        Raises:
            ConfigInvalid: the extra is not installed.
        """
        self._vtn = Vtn2(config)
        terms = Terms(
            config.name,
            config.ven_name,
            levels_w=config.levels_w,
            commitments_w=config.commitments_w,
            baseline_w=baseline_w,
        )
        file = KeptFile(state_dir / f"openadr2-{config.name}.json")
        self._ven = OpenAdrVen(self._vtn, terms, Wishes(poll_s=poll_s), file, clock_s=clock_s)
        self._vtn.remembered = self._remembered

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._ven.name

    def power_lost(self) -> None:
        """The grid's power failed: no limit counts until the VTN has answered."""
        self._ven.power_lost()

    async def run(self, say: Say) -> None:
        """Speak until cancelled; faults of the outside world are said, not raised."""
        try:
            await self._ven.run(say)
        finally:
            await self._vtn.close()

    def _remembered(self) -> list[Event]:
        heard = self._ven.known.heard.values()
        return [one.event for one in heard if one.cancelled_s is None]


class Vtn2:
    """A VTN of 2.0b with the face of one of 3.1 (`words.Vtn`).

    Attributes:
        skew_s: None: 2.0b tells no clock.
        remembered: the events that are known, for an answer that has nothing to tell.
    """

    def __init__(self, config: OpenAdr2) -> None:
        """Prepare. Raises: ConfigInvalid, where the extra is not installed."""
        made = library()
        self.skew_s: float | None = None
        self.remembered: Callable[[], Sequence[Event]] = list
        self._config = config
        self._client = made.OpenADRClient(
            config.ven_name,
            config.url,
            cert=_text(config.certificate),
            key=_text(config.key),
            ca_file=_text(config.ca_file),
            vtn_fingerprint=config.fingerprint,
            show_fingerprint=False,
        )
        self._programs: dict[str, Program] = {}
        self._agreed: set[tuple[str, int]] = set()
        self._registered: Registered | None = None

    async def register(self, ven_name: str, resources: Sequence[ResourceWish]) -> Registered:
        """Make this site known; a VTN gives the VEN its id. Once, until the VTN was lost."""
        if self._registered is not None:
            return self._registered
        await _said(self._client.query_registration(), "registration")
        await _said(self._client.create_party_registration(), "registration")
        ven_id = self._client.ven_id
        if not ven_id or not self._client.registration_id:
            raise VtnRefused("registration", 403, "the VTN gave no id")
        self._registered = Registered(ven=Ven(id=str(ven_id), name=ven_name))
        return self._registered

    async def programs(self) -> list[Program]:
        """Market contexts of the events seen so far: 2.0b has no other programs."""
        return list(self._programs.values())

    async def events(self, program_id: str | None = None) -> list[Event]:
        """Every event that stands. Each that wants it is told that the site takes part."""
        registered, self._registered = self._registered, None
        kind, payload = await _said(self._client.request_event(), "events")
        # Whatever goes wrong above, the site makes itself known again before it asks anew.
        self._registered = registered
        rows = payload.get("events") or ()
        if kind == "oadrResponse":
            return list(self.remembered())
        if kind != "oadrDistributeEvent" or not isinstance(rows, list | tuple):
            raise VtnNonsense(f"events: {kind} is no list of events")
        if len(rows) > MAX_EVENTS:
            raise VtnNonsense(f"events: more than {MAX_EVENTS}")
        await self._agree(rows, str(payload.get("request_id") or "0"))
        found = standing(rows)
        self._programs = {one.program_id: _program(one.program_id) for one in found}
        return found

    async def report(self, report: Report) -> str:
        """Not offered."""
        raise VtnRefused("report", 501, "no reports by OpenADR 2.0b")

    async def subscribe(self, wish: SubscriptionWish) -> str:
        """Not offered."""
        raise VtnRefused("subscribe", 501, "OpenADR 2.0b has no webhooks")

    async def unsubscribe(self, subscription: str, /) -> None:
        """Nothing to end."""

    async def close(self) -> None:
        """Close the connection."""
        if self._client.client_session is not None:
            await self._client.client_session.close()

    async def _agree(self, rows: Sequence[Raw], request: str) -> None:
        for row in rows:
            about = row["event_descriptor"]
            version = (str(about["event_id"]), int(about.get("modification_number") or 0))
            if row.get("response_required") != "always" or version in self._agreed:
                continue
            # The library cannot unpack an empty answer; the VTN has taken ours by then.
            with suppress(TypeError):
                async with asyncio.timeout(DEADLINE_S):
                    await self._client.created_event(request, version[0], "optIn", version[1])
            if len(self._agreed) >= MAX_EVENTS:
                self._agreed.clear()
            self._agreed.add(version)


async def _said(asking: Coroutine[Any, Any, Any], what: str) -> tuple[str, Raw]:
    """Kind and content of an answer. Raises: VtnUnreachable, VtnRefused."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            answer = await asking
    except (TimeoutError, OSError) as fault:
        raise VtnUnreachable(f"{what}: {str(fault) or 'no answer in time'}") from None
    if not isinstance(answer, tuple) or answer[0] is None:
        # The library tells the reason to its log alone.
        raise VtnUnreachable(f"{what}: no answer that could be read")
    kind, payload = answer
    code = (payload.get("response") or {}).get("response_code", 200)
    if code != 200:
        raise VtnRefused(what, int(code), str(payload["response"].get("response_description")))
    return kind, payload


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _program(context: str) -> Program:
    return Program(id=context, name=context)
