"""How the pools of one coin speak: the handshake, what their words mean, and what a no means.

A dialect is what differs between coins. A session does all else: lines, deadlines, answers. What it
hears goes to the dialect's *feed*, which makes jobs of it; a job knows what its shares say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from wattshift_cluster.mining.job import Extranonce
from wattshift_cluster.mining.nonces import Job
from wattshift_cluster.mining.refusals import CODES, Kind


class Feed(Protocol):
    """What one connection has heard. No I/O.

    Attributes:
        extranonce: of this connection; None while the pool has told none.
        session_id: what to give to subscribe again so that the pool resumes; None without.
        methods: the notifications that `told` understands.
    """

    extranonce: Extranonce | None
    session_id: str | None
    methods: frozenset[str]

    def configured(self, result: Any) -> frozenset[str]:
        """Take the answer to mining.configure; returns the extensions that the pool has."""
        ...

    def subscribed(self, result: Any) -> Job | None:
        """Take the answer to mining.subscribe; a job that had come before it. Raises: JobFault."""
        ...

    def told(self, method: str, params: list[Any]) -> Job | None:
        """Take a notification; the job to work on from now, if it changes that. Raises: JobFault"""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One coin's.

    Attributes:
        algorithm: what is hashed.
        feed: makes the feed of a connection, given its number.
        subscribe: what mining.subscribe says behind our name; None: it is not said at all.
        extensions: mining.configure is known (BIP 310).
        moves: mining.extranonce.subscribe is known.
        suggests: mining.suggest_difficulty is known.
        codes: of refused shares, for where their words say nothing.
    """

    algorithm: str
    feed: Callable[[int], Feed]
    subscribe: tuple[str, ...] | None = ()
    extensions: bool = False
    moves: bool = False
    suggests: bool = False
    codes: Mapping[int, Kind] = field(default_factory=lambda: CODES)
