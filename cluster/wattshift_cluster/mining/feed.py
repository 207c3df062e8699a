"""What a pool says of its own accord, as one connection has heard it: from messages to jobs.

No I/O. A new difficulty or extranonce holds from the next job on; a new version mask holds at once
(BIP 310), but only for the bits that we asked for. A job may come before the answer to subscribe.
"""

from dataclasses import replace
from typing import Any

import structlog

from wattshift_cluster.mining.job import (
    Extranonce,
    JobFault,
    StratumJob,
    parse_difficulty,
    parse_mask,
)

log = structlog.get_logger()

WANTED_MASK = 0x1FFFE000
"""Version bits that BIP 320 reserves for rolling."""

MOST_SESSION_ID = 128


class BitcoinFeed:
    """The feed of the Bitcoin dialect; see `dialect.Feed`.

    Attributes:
        extranonce: of this connection; None before the answer to subscribe.
        session_id: what to give to subscribe again so that the pool resumes; None without.
    """

    methods = frozenset(
        {
            "mining.notify",
            "mining.set_difficulty",
            "mining.set_extranonce",
            "mining.set_version_mask",
        }
    )

    def __init__(self, number: int = 0) -> None:
        """Args: number: of the connection, stamped on its jobs."""
        self.extranonce: Extranonce | None = None
        self.session_id: str | None = None
        self._number = number
        self._difficulty = 1.0
        self._mask = 0
        self._job: StratumJob | None = None
        self._early: list[Any] | None = None

    def configured(self, result: Any) -> frozenset[str]:
        """Take the answer to mining.configure; returns the extensions that the pool has.

        A malformed mask is no version rolling; all else would be a reason to hang up, and is not.
        """
        if not isinstance(result, dict):
            return frozenset()
        if result.get("version-rolling") is True:
            try:
                self._mask = parse_mask(result.get("version-rolling.mask")) & WANTED_MASK
            except JobFault as fault:
                log.warning("stratum.mask_ignored", reason=str(fault))
        names = ("version-rolling", "minimum-difficulty", "subscribe-extranonce")
        return frozenset(name for name in names if result.get(name) is True)

    def subscribed(self, result: Any) -> StratumJob | None:
        """Take the answer to mining.subscribe; returns the job that had come before it, if one had.

        Raises:
            JobFault: it is not [subscriptions, extranonce1, extranonce2 size].
        """
        if not isinstance(result, list) or len(result) < 3:
            raise JobFault("the answer to subscribe is not a list of three")
        self.extranonce = Extranonce.parse(result[1], result[2])
        self.session_id = _session_id(result[0])
        early, self._early = self._early, None
        return None if early is None else self._notified(early)

    def told(self, method: str, params: list[Any]) -> StratumJob | None:
        """Take a notification; returns the job to work on from now, if it changes that.

        Raises:
            JobFault: it cannot be what it says it is.
        """
        match method:
            case "mining.notify":
                return self._notified(params)
            case "mining.set_difficulty":
                self._difficulty = parse_difficulty(params[0] if params else None)
            case "mining.set_extranonce":
                self.extranonce = Extranonce.parse(*[*params, None, None][:2])
            case "mining.set_version_mask":
                return self._masked(parse_mask(params[0] if params else None) & WANTED_MASK)
        return None

    def _notified(self, params: list[Any]) -> StratumJob | None:
        if self.extranonce is None:
            self._early = params
            return None
        self._job = StratumJob.from_notify(
            params,
            extranonce=self.extranonce,
            difficulty=self._difficulty,
            version_mask=self._mask,
            session=self._number,
        )
        return self._job

    def _masked(self, mask: int) -> StratumJob | None:
        self._mask = mask
        if self._job is None or self._job.version_mask == mask:
            return None
        self._job = replace(self._job, version_mask=mask, clean=False)
        return self._job


def _session_id(subscriptions: Any) -> str | None:
    """The id beside mining.notify in [[method, id], …], or in one such pair."""
    if not isinstance(subscriptions, list):
        return None
    pairs = [subscriptions, *subscriptions] if subscriptions else []
    for pair in pairs[:16]:
        if isinstance(pair, list) and len(pair) == 2 and pair[0] == "mining.notify":
            identity = pair[1]
            if isinstance(identity, str) and 0 < len(identity) <= MOST_SESSION_ID:
                return identity
    return None
