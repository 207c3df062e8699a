"""Alarms told outside: a signed POST of JSON whenever one comes or goes.

    POST url
    Content-Type: application/json
    Idempotency-Key: the same for every try of one message
    Wattshift-Signature: sha256=HEX, the HMAC-SHA256 of the body under the shared secret

    {"version": 1, "site": "north", "alarm": "agent-lost:rack-3", "state": "raised" | "cleared",
     "severity": "warning" | "critical", "text": "…", "since_s": 1795872000.0, "told_s": …,
     "changes": 1, "dropped": 0}

One message waits for each alarm, its newest state; `changes` counts what it stands for. An alarm is
told at most once every so often. Where too many wait the oldest is dropped, and the next message
says how many were. A try that fails is made again with back-off, but not for ever.
"""

import asyncio
import hashlib
import hmac
import json
import random
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

import httpx2
import structlog

from wattshift_cluster.config.utility import Alarms
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.openadr.login import read_secret
from wattshift_scheduler.state import Alarm

WAITING_MOST = 256
"""More alarms at once are a flood that nobody reads one by one."""

TRIES_MOST = 10
"""With the pauses below some minutes: after that the message is dropped and counted."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
TEXT_MOST = 1000
TOLD_MOST = 1000
"""Alarms whose last message is remembered, to hold the next one back."""

LATER = frozenset((HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS))
"""Refusals that mean "again"; so does every 5xx. Every other answer but 2xx drops the message."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """What is told of one alarm.

    Attributes:
        alarm: as it stood last.
        state: "raised" or "cleared".
        at_s: when it came or went, unix time, s.
        changes: how often it did since the last message.
    """

    alarm: Alarm
    state: str
    at_s: float
    changes: int = 1


@dataclass(slots=True)
class Counts:
    """What became of the messages since the hook was made.

    Attributes:
        told: taken by the other side.
        tries: requests made.
        dropped: messages given up: too many waited, too many tries, or refused for good.
        trouble: why the last try failed; None: it did not.
    """

    told: int = 0
    tries: int = 0
    dropped: int = 0
    trouble: str | None = None


class _Failed(Exception):
    """A try that failed; `final`: another would fail too; `after_s`: not before, s."""

    def __init__(self, reason: str, *, final: bool, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.final, self.after_s = reason, final, after_s


class AlarmHook:
    """Tells alarms to one URL. `show` takes what stands now, `run` tells it."""

    def __init__(
        self,
        config: Alarms,
        site: str,
        *,
        clock_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
        first_pause_s: float = FIRST_PAUSE_S,
        rng: random.Random | None = None,
    ) -> None:
        """Read the secret once, so that a wrong file is found at the start.

        Args:
            site: its name, told in every message.
            clock_s: unix time, s.
            steady_s: a clock that nobody sets, s.
            first_pause_s: before the second try, s; it doubles.
            rng: of the pauses' jitter.

        Raises:
            ConfigInvalid: the secret's file, or that of the authorities.
        """
        read_secret(config.secret_file)
        self.counts = Counts()
        self._config = config
        self._site = site
        self._clock_s, self._steady_s = clock_s, steady_s
        self._first_pause_s = first_pause_s
        self._rng = rng or random.Random()
        self._standing: Mapping[str, Alarm] = {}
        self._waiting: OrderedDict[str, Message] = OrderedDict()
        self._next_s: OrderedDict[str, float] = OrderedDict()
        self._untold_drops = 0
        self._news = asyncio.Event()
        # No proxy of the environment, and no redirect: the owner named this URL and no other.
        self._client = httpx2.AsyncClient(
            verify=_authorities(config),
            timeout=config.deadline_s,
            trust_env=False,
            follow_redirects=False,
        )

    def show(self, alarms: Mapping[str, Alarm]) -> None:
        """What stands now, by id; what came or went since the last time is told. Quick."""
        wanted = {k: a for k, a in alarms.items() if a.severity in self._config.severities}
        now_s, before = self._clock_s(), self._standing
        for name, alarm in wanted.items():
            if name not in before or before[name].severity != alarm.severity:
                self._put(Message(alarm, "raised", now_s))
        for name, alarm in before.items():
            if name not in wanted:
                self._put(Message(alarm, "cleared", now_s))
        self._standing = wanted

    def _put(self, message: Message) -> None:
        name = message.alarm.id
        older = self._waiting.pop(name, None)
        if older is not None:
            message = replace(message, changes=older.changes + 1)
        self._waiting[name] = message
        if len(self._waiting) > WAITING_MOST:
            self._drop(self._waiting.popitem(last=False)[1], "too many wait")
        self._news.set()

    async def run(self) -> None:
        """Tell until cancelled; faults of the other side are counted, not raised."""
        try:
            while True:
                self._news.clear()
                name, wait_s = self._due()
                if name is not None:
                    await self._tell(self._waiting.pop(name))
                    continue
                try:
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
                except TimeoutError:
                    pass
        finally:
            await self._client.aclose()

    def _due(self) -> tuple[str | None, float | None]:
        """The oldest alarm that may be told now; else how long until one may, None: none waits."""
        now_s = self._steady_s()
        waits = {name: self._next_s.get(name, now_s) - now_s for name in self._waiting}
        due = next((name for name, wait_s in waits.items() if wait_s <= 0), None)
        return due, min(waits.values(), default=None)

    async def _tell(self, message: Message) -> None:
        """Tell one message, with all its tries."""
        name, drops = message.alarm.id, self._untold_drops
        body = self._body(message, drops)
        key = _key(self._site, message)
        pause_s = self._first_pause_s
        for number in range(1, TRIES_MOST + 1):
            self.counts.tries += 1
            try:
                await self._post(body, key)
            except _Failed as failed:
                self.counts.trouble = failed.reason
                log.warning("alarm_hook.failed", alarm=name, reason=failed.reason, number=number)
                if failed.final or number == TRIES_MOST:
                    self._drop(message, failed.reason)
                    break
                wait_s = max(pause_s * self._rng.uniform(0.8, 1.2), failed.after_s or 0.0)
                await asyncio.sleep(min(wait_s, LONGEST_PAUSE_S))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self.counts.told += 1
                self.counts.trouble = None
                self._untold_drops -= drops
                break
        self._next_s[name] = self._steady_s() + self._config.every_s
        self._next_s.move_to_end(name)
        if len(self._next_s) > TOLD_MOST:
            self._next_s.popitem(last=False)

    async def _post(self, body: bytes, key: str) -> None:
        """One try. Raises: _Failed."""
        try:
            # Read each time, so that it can be changed while the site runs.
            secret = await asyncio.to_thread(read_secret, self._config.secret_file)
        except ConfigInvalid as fault:
            raise _Failed(str(fault), final=False) from None
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "Wattshift-Signature": "sha256=" + signature(secret, body),
        }
        try:
            async with (
                asyncio.timeout(self._config.deadline_s),
                self._client.stream(
                    "POST", self._config.url, content=body, headers=headers
                ) as response,
            ):
                status = response.status_code  # its body is nobody's business and is not read
                told = response.headers.get("retry-after", "")
        except TimeoutError:
            raise _Failed(f"no answer within {self._config.deadline_s:g} s", final=False) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
            raise _Failed(type(fault).__name__, final=False) from None
        if not 200 <= status < 300:
            after_s = float(told) if told.isascii() and told.isdigit() and len(told) < 6 else None
            again = status in LATER or status >= 500
            raise _Failed(f"HTTP status {status}", final=not again, after_s=after_s)

    def _body(self, message: Message, dropped: int) -> bytes:
        alarm = message.alarm
        told = {
            "version": 1,
            "site": self._site,
            "alarm": alarm.id,
            "state": message.state,
            "severity": alarm.severity,
            "text": alarm.text[:TEXT_MOST],
            "since_s": alarm.since_s,
            "told_s": message.at_s,
            "changes": message.changes,
            "dropped": dropped,
        }
        return json.dumps(told, allow_nan=False).encode()

    def _drop(self, message: Message, reason: str) -> None:
        self.counts.dropped += 1
        self._untold_drops += 1
        log.error("alarm_hook.dropped", alarm=message.alarm.id, reason=reason)


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA256 of a body, as hex: what the receiver works out and compares."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _key(site: str, message: Message) -> str:
    about = json.dumps([site, message.alarm.id, message.state, message.at_s])
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def _authorities(config: Alarms) -> ssl.SSLContext | bool:
    """Who signs the other side's certificate. Raises: ConfigInvalid."""
    if config.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(config.ca_file))
    except OSError as fault:  # ssl.SSLError is one
        raise ConfigInvalid([Fault(str(config.ca_file), "", None, str(fault))]) from None
