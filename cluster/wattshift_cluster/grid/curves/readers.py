"""Whom one can ask for a curve: a file that is followed, or a server that answers GET."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import httpx2

from wattshift_cluster.errors import ConfigInvalid, WattshiftError
from wattshift_cluster.grid.curves.rows import ReadValue, Shape, Table, of_answer, of_csv
from wattshift_cluster.grid.fetch import FetchFailed, JsonSource
from wattshift_cluster.grid.said import Steps
from wattshift_cluster.grid.watched import WatchedFile

MOST_ANSWER_BYTES = 4 * 1024 * 1024
"""A year of hourly values, each with two times, is about 1 MB."""


class CurveFailed(WattshiftError):
    """Nobody gave a curve; the text says why, without credentials.

    Attributes:
        retry_after_s: how long the server asks to be left alone, s; None if it does not say.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Told:
    """A curve as it was told: what is known now, and what was not taken as it stood.

    Attributes:
        steps: None where nothing is known yet, such as before the first issue.
        notes: for people.
        fault: what is wrong with a newer version, while an older one is in force.
    """

    steps: Steps | None
    notes: tuple[str, ...] = ()
    fault: str | None = None


class Reader(Protocol):
    """Somebody who knows a curve."""

    @property
    def local(self) -> bool:
        """Whether it may be asked again at once, because that troubles nobody."""
        ...

    async def read(self, now_s: float) -> Told:
        """Ask once, within a deadline. `now_s` is unix time. Raises: CurveFailed."""
        ...

    async def close(self) -> None:
        """Give back what is held open."""
        ...


class FileReader:
    """A CSV file that the site's owner keeps, followed as it changes."""

    local = True

    def __init__(self, path: Path, shape: Shape, read: ReadValue) -> None:
        """Read it for the first time. Raises: ConfigInvalid, each fault with file:line."""
        self._file = WatchedFile(path, lambda text, file: of_csv(text, file, shape, read))
        self._last: tuple[Table, int, Steps | None] | None = None

    async def read(self, now_s: float) -> Told:
        """See Reader. Reads and parses beside the event loop."""
        table, steps = await asyncio.to_thread(self._look, now_s)
        fault = None if self._file.fault is None else str(self._file.fault)
        return Told(steps, table.notes, fault)

    def _look(self, now_s: float) -> tuple[Table, Steps | None]:
        table = self._file.read()
        issues = table.issued_by(now_s)
        if self._last is None or self._last[:2] != (table, issues):
            self._last = (table, issues, table.known(now_s, now_s))
        steps = self._last[2]
        if steps is not None and math.isnan(table.issues[issues - 1].told_s):
            # The file says nothing of its age; what it holds is valid by its own times.
            steps = replace(steps, told_s=now_s)
        return table, steps

    async def close(self) -> None:
        """See Reader; nothing is held open."""


class HttpReader:
    """A server that answers GET with a table, JSON or CSV."""

    local = False

    def __init__(
        self,
        url: str,
        shape: Shape,
        read: ReadValue,
        *,
        is_csv: bool = False,
        headers: Mapping[str, str] | None = None,
        deadline_s: float = 10.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            headers: sent with each question; never shown.
            deadline_s: of a whole question, s.
            client: one of the caller's, which stays open.
        """
        self._source = JsonSource(url, deadline_s, client)
        self._shape, self._value, self._is_csv = shape, read, is_csv
        self._headers = headers

    async def read(self, now_s: float) -> Told:
        """See Reader."""
        # A query may hold a key, so that only what stands before it is shown.
        shown = self._source.url.partition("?")[0]
        try:
            text = await self._source.text(self._headers, MOST_ANSWER_BYTES)
            return await asyncio.to_thread(self._told, text, shown, now_s)
        except FetchFailed as failed:
            raise CurveFailed(f"{shown}: {failed}", failed.retry_after_s) from None
        except ConfigInvalid as fault:
            raise CurveFailed(str(fault)) from None

    def _told(self, text: str, shown: str, now_s: float) -> Told:
        table = of_answer(text, shown, self._shape, self._value, is_csv=self._is_csv)
        # An issue from the future tells that a clock is wrong, and is none the less known.
        return Told(table.known(math.inf, now_s), table.notes)

    async def close(self) -> None:
        """See Reader."""
        await self._source.close()
