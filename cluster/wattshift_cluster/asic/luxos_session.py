"""The one session that a LuxOS machine has: taken for a command, given back behind it.

There is a single session per machine, the owner's tools want it too, and it dies after a minute
without use. So it is never held ready: a command logs on, does its work and logs off, and the
caller does not wait for the log-off. A session that somebody else holds is never used and never
ended: the command is refused, says so, and the caller tries again.

Where the answer to a log-on gets lost, the machine may hold a session whose name we never heard. If
the session was known to be free just before, the one that is open right after is taken for ours and
used; but it is left to end by itself, in case it is not. Otherwise commands wait for the minute.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.reported import Json, first, number, text
from wattshift_cluster.asic.wire import ask_cgminer
from wattshift_cluster.bootclock import boot_s

FREE_S = 30.0
"""That the session was free says something of a log-on for so long; it is asked more often."""

LOST_S = 10.0
"""After a lost answer the session that is open counts as ours for so long: a few tries' time."""

TAKEN = "another session is open on the machine; it ends after a minute without use"


class LuxosSession:
    """Sessions on one machine, one after the other. Not for two commands at a time.

    Args:
        address: of the machine.
        deadline_s: for each exchange.
    """

    def __init__(self, address: str, deadline_s: float) -> None:
        self.address = address
        self._deadline_s = deadline_s
        self._session: str | None = None
        self._guessed = False
        self._free_s: float | None = None
        self._lost_s: float | None = None
        self._behind: asyncio.Task[None] | None = None

    async def free(self, doing: str) -> None:
        """Check that a session can be had, without taking it. Raises AsicRefused, AsicUnreachable.

        Nothing is held afterwards: it is a question, so that the owner is not shut out.
        """
        await self.settled()
        holder = await self._holder(doing)
        self._free_s = None if holder else boot_s()
        if holder and holder != self._session:
            raise AsicRefused(self.address, doing, TAKEN)

    @asynccontextmanager
    async def held(self, doing: str, last: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Log on; afterwards, also when broken off, run `last` and log off in the background.

        Raises:
            AsicRefused: somebody else holds the session.
            AsicUnreachable: no usable answer.
        """
        try:
            await self.settled()
            await self._log_on(doing)
        except BaseException:
            last.close()
            raise
        try:
            yield
        finally:
            self._leave(last)

    async def tell(self, doing: str, command: str, *arguments: str) -> None:
        """Give one command in the session. Raises AsicRefused with the machine's own reason."""
        assert self._session is not None
        parameter = ",".join((self._session, *arguments))
        reply = await ask_cgminer(self.address, command, parameter, deadline_s=self._deadline_s)
        _check(self.address, doing, reply)

    async def settled(self) -> None:
        """Wait until what runs behind the last command is over."""
        if self._behind is not None:
            await asyncio.wait({self._behind})
            self._behind = None

    async def _log_on(self, doing: str) -> None:
        logon = asyncio.create_task(ask_cgminer(self.address, "logon", deadline_s=self._deadline_s))
        try:
            reply = await asyncio.shield(logon)
        except asyncio.CancelledError:
            # The machine may have opened a session all the same, and nobody else would close it.
            self._behind = asyncio.create_task(self._log_off_again(logon))
            raise
        except AsicUnreachable:
            self._lost(boot_s())
            raise
        lost_s, self._lost_s = self._lost_s, None
        if opened := text(first(reply, "SESSION").get("SessionID")):
            self._session, self._guessed = opened, False
            return
        holder = await self._holder(doing)
        if holder and holder == self._session:
            # Our own one, left over from a log-off that got lost.
            return
        if holder and lost_s is not None and boot_s() < lost_s + LOST_S:
            self._session, self._guessed = holder, True
            return
        self._session = None
        _check(self.address, doing, reply, otherwise=TAKEN if holder else None)
        raise AsicUnreachable(self.address, doing, "the machine opened no session")

    async def _log_off_again(self, logon: asyncio.Task[Json]) -> None:
        await asyncio.wait({logon})
        if logon.cancelled() or logon.exception() is not None:
            self._lost(boot_s())
            return
        self._session, self._guessed = (
            text(first(logon.result(), "SESSION").get("SessionID")),
            False,
        )
        await self._log_off()

    def _leave(self, last: Coroutine[Any, Any, None]) -> None:
        async def leave() -> None:
            await last
            await self._log_off()

        self._behind = asyncio.create_task(leave())

    def _lost(self, now_s: float) -> None:
        """A log-on got no answer: the machine may have opened a session all the same."""
        free = self._free_s is not None and now_s < self._free_s + FREE_S
        self._lost_s, self._free_s = (now_s if free else self._lost_s), None

    async def _log_off(self) -> None:
        if self._session is None or self._guessed:
            return
        try:
            await self.tell("log off", "logoff")
        except AsicRefused:
            # It had ended by itself.
            self._session = None
        except AsicUnreachable:
            # Its name is kept: it may still be open, and the next command can use it.
            return
        else:
            self._session, self._free_s = None, boot_s()

    async def _holder(self, doing: str) -> str | None:
        reply = await ask_cgminer(self.address, "session", deadline_s=self._deadline_s)
        _check(self.address, doing, reply)
        return text(first(reply, "SESSION").get("SessionID"))


def _check(address: str, doing: str, reply: Json, otherwise: str | None = None) -> None:
    """Raise AsicRefused with the machine's own reason (or `otherwise`) unless it agreed."""
    status = first(reply, "STATUS")
    if status.get("STATUS") in ("S", "I"):
        return
    if status.get("STATUS") != "E":
        raise AsicUnreachable(address, doing, "the answer does not say whether it was accepted")
    reason = text(status.get("Msg")) or "refused"
    code = number(status.get("Code"))
    told = f"code {code:.0f}: {reason}" if code is not None else reason
    raise AsicRefused(address, doing, f"{otherwise} ({told})" if otherwise else told)
