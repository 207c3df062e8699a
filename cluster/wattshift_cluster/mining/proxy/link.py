"""The proxy's side of one miner's connection: handshake, jobs told, shares judged.

Told first is what holds for the next job (extranonce, version mask, difficulty), then the job, all
in one write. A difficulty belongs to the jobs told after it, so each share is judged by the one it
was worked under.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.job import (
    Extranonce,
    JobFault,
    Share,
    StratumJob,
    parse_difficulty,
    parse_mask,
)
from wattshift_cluster.mining.lines import LineFault, Message
from wattshift_cluster.mining.pool.verdict import Credit, IssuedJob, ShareRefused, judge
from wattshift_cluster.mining.proxy.accounts import Accounts
from wattshift_cluster.mining.proxy.jobs import JobBook, LiveJob
from wattshift_cluster.mining.proxy.pace import Pace
from wattshift_cluster.mining.proxy.prefixes import split
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_cluster.mining.session import WANTED_MASK

log = structlog.get_logger()

MAX_USERS = 4
"""Names on one connection: a machine has one, a rig with a proxy of its own a few."""

MAX_REFUSED = 200
"""Refused shares in a row before the connection is dropped: such a miner only costs watts."""


class Refusal(Exception):
    """A request that is answered with an error: `code` and `text`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class House(Protocol):
    """What a connection shares with all others."""

    settings: ProxySettings
    accounts: Accounts
    book: JobBook
    clock_s: Callable[[], float]

    @property
    def lost(self) -> bool:
        """Whether the pool is away."""
        ...

    def forward(self, device: str, difficulty: float, share: Share, *, first: bool) -> None:
        """Send a share to the pool and settle it when it answers; `first`: it may be a block."""
        ...


class WorkerLink:
    """One connected miner.

    Attributes:
        prefix: its own part of the extranonce.
        devices: login name → device, of all that logged in here.
        last_job: number of the newest job told to it; None: of none.
        pace: its difficulty.
    """

    def __init__(
        self,
        house: House,
        prefix: bytes,
        upstream: Extranonce,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Args: upstream: the pool's extranonce now."""
        self.prefix = prefix
        self.devices: dict[str, str] = {}
        self.last_job: int | None = None
        self.pace = Pace(house.settings)
        self._house = house
        self._reader, self._writer = reader, writer
        self._upstream = upstream
        self._first_job = 0
        self._subscribed = self._takes_extranonce = False
        self._asked_mask: int | None = None
        self._told_mask = 0
        self._refused = 0

    @property
    def ready(self) -> bool:
        """Whether it may be told jobs."""
        return self._subscribed and bool(self.devices)

    async def run(self) -> None:
        """Serve until the miner leaves, falls silent or breaks the protocol."""
        reason = await lines.served(self._reader, self._patience_s, self._answer)
        if reason is not None:
            log.info("proxy.hung_up", devices=self._names(), reason=reason)

    def hang_up(self, reason: str | None = None) -> None:
        """Close this connection; `run` then ends. Without a reason nothing is logged."""
        if reason is not None:
            log.info("proxy.dropped", devices=self._names(), reason=reason)
        self._writer.transport.abort()

    def tell(self, live: LiveJob, *, clean: bool) -> None:
        """Tell a job, and before it what holds for it; a miner that does not read is dropped.

        Thousands wait for this one after the other, so it does nothing that could wait.
        """
        if not self._subscribed or not self.devices:
            return
        upstream, before = live.upstream, b""
        if upstream.extranonce is not self._upstream and upstream.extranonce != self._upstream:
            if not self._takes_extranonce:
                self.hang_up("the pool gave another extranonce, which this miner cannot take")
                return
            self._upstream = upstream.extranonce
            before = _line("mining.set_extranonce", *self._extranonce())
        if self._asked_mask is not None:
            before += self._mask_line(upstream)
        difficulty = self.pace.for_job(live.number, upstream.difficulty, self._house.book.oldest)
        if difficulty is not None:
            before += _line("mining.set_difficulty", difficulty)
        if self.last_job is None:
            clean, self._first_job = True, live.number
        self.last_job = live.number
        line = live.clean_line if clean else live.line
        self._send(before + line if before else line)

    def tell_mask(self, upstream: StratumJob) -> None:
        """The pool's version mask has changed for the job under way."""
        if self.ready and (line := self._mask_line(upstream)):
            self._send(line)

    def issued(self, live: LiveJob) -> StratumJob:
        """The job as it was told here."""
        extranonce, asked = live.upstream.extranonce, self._asked_mask or 0
        own = Extranonce(extranonce.extranonce1 + self.prefix, split(extranonce, len(self.prefix)))
        return replace(
            live.upstream,
            job_id=f"{live.number:x}",
            extranonce=own,
            difficulty=self.pace.of(live.number),
            version_mask=live.upstream.version_mask & asked,
        )

    # What is told

    def _send(self, data: bytes) -> None:
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._house.settings.max_unsent_bytes:
            self.hang_up("it does not read")
        else:
            self._writer.write(data)

    def _extranonce(self) -> tuple[str, int]:
        own = self._upstream.extranonce1 + self.prefix
        return own.hex(), split(self._upstream, len(self.prefix))

    def _mask_line(self, upstream: StratumJob) -> bytes:
        if self._asked_mask is None:
            return b""
        mask = self._asked_mask & upstream.version_mask
        if mask == self._told_mask:
            return b""
        self._told_mask = mask
        return _line("mining.set_version_mask", f"{mask:08x}")

    # What is asked

    def _patience_s(self) -> float:
        settings = self._house.settings
        return settings.idle_s if self.ready else settings.handshake_s

    async def _answer(self, message: Message) -> None:
        """Answer one request, then send what follows from it."""
        handlers: dict[str, Callable[[list[Any]], Any]] = {
            "mining.configure": self._configure,
            "mining.subscribe": self._subscribe,
            "mining.authorize": self._authorize,
            "mining.suggest_difficulty": self._suggest,
            "mining.extranonce.subscribe": self._take_extranonce,
            "mining.submit": self._submit,
            "mining.ping": lambda _: "pong",
        }
        handler = handlers.get(message.method or "")
        body: dict[str, Any] = {"id": message.id, "result": False, "error": None}
        try:
            if handler is None:
                raise Refusal(lines.MALFORMED, "Unknown method")
            body["result"] = handler(message.params)
        except (Refusal, ShareRefused) as refused:
            body["error"] = [refused.code, refused.text, None]
        await lines.send(self._writer, body)
        newest = self._house.book.newest
        if self.ready and self.last_job is None and newest is not None:
            self.tell(newest, clean=True)
        if self._refused >= MAX_REFUSED:
            raise LineFault(f"{self._refused} refused shares in a row")
        if self.pace.flooded:
            raise LineFault("far too many shares for one job")

    def _configure(self, params: list[Any]) -> dict[str, Any]:
        """BIP 310; an extension that we do not have is simply absent from the answer."""
        wanted, options = [*params, None, None][:2]
        if not isinstance(wanted, list):
            return {}
        options = options if isinstance(options, dict) else {}
        told: dict[str, Any] = {}
        if "version-rolling" in wanted:
            told |= self._roll_versions(options)
        if "minimum-difficulty" in wanted:
            self.pace.raise_floor(_difficulty(options.get("minimum-difficulty.value")))
            told["minimum-difficulty"] = True
        if "subscribe-extranonce" in wanted:
            told["subscribe-extranonce"] = self._take_extranonce([])
        return told

    def _roll_versions(self, options: dict[str, Any]) -> dict[str, Any]:
        try:
            asked = parse_mask(options.get("version-rolling.mask", f"{WANTED_MASK:08x}"))
        except JobFault as fault:
            raise Refusal(lines.MALFORMED, str(fault)) from fault
        newest = self._house.book.newest
        self._asked_mask = asked & WANTED_MASK
        self._told_mask = self._asked_mask & (newest.upstream.version_mask if newest else 0)
        mask = f"{self._told_mask:08x}"
        return {"version-rolling": self._told_mask != 0, "version-rolling.mask": mask}

    def _subscribe(self, _params: list[Any]) -> list[Any]:
        newest = self._house.book.newest
        if not self.ready and newest is not None:
            self._upstream = newest.upstream.extranonce
        self._subscribed = True
        return [[["mining.notify", self.prefix.hex()]], *self._extranonce()]

    def _authorize(self, params: list[Any]) -> bool:
        name = params[0] if params else None
        if not isinstance(name, str) or not 0 < len(name) <= 128 or not name.isprintable():
            raise Refusal(lines.UNAUTHORIZED, "A worker's name has 1 to 128 characters")
        device = self._house.settings.device_of(name)
        if device is None:
            log.warning("proxy.unknown_worker", name=name)
            raise Refusal(lines.UNAUTHORIZED, "Unknown worker")
        if name in self.devices:
            return True
        if len(self.devices) >= MAX_USERS:
            raise Refusal(lines.UNAUTHORIZED, "Too many workers on one connection")
        account = self._house.accounts.of(device)
        account.sessions += 1
        self.pace.remember(account.wanted_difficulty)
        self.devices[name] = device
        return True

    def _suggest(self, params: list[Any]) -> bool:
        self.pace.suggest(_difficulty(params[0] if params else None))
        return True

    def _take_extranonce(self, _params: list[Any]) -> bool:
        self._takes_extranonce = True
        return True

    def _submit(self, params: list[Any]) -> bool:
        if not self._subscribed:
            self._house.accounts.refuse(None, lines.NOT_SUBSCRIBED)
            raise Refusal(lines.NOT_SUBSCRIBED, "Not subscribed")
        try:
            live, job, credit = self._judge(params)
        except ShareRefused as refused:
            name = params[0] if params and isinstance(params[0], str) else ""
            self._house.accounts.refuse(self.devices.get(name), refused.code)
            self._refused += 1
            raise
        self._refused = 0
        self.pace.credited()
        device = self.devices[credit.user]
        if credit.block:
            log.critical("proxy.block_candidate", device=device, difficulty=credit.reached)
        self._house.accounts.find(device, credit, self._house.clock_s())
        if job.difficulty >= live.upstream.difficulty or (
            # The client checks again, exactly; a rounding error must not keep a share back.
            credit.reached * (1.0 + 1e-9) >= live.upstream.difficulty
        ):
            share = self._share(params, live, job)
            self._house.forward(device, job.difficulty, share, first=credit.block)
        elif self._house.lost:
            self._house.accounts.lose(device, "the pool is away")
        else:
            self._house.accounts.keep(device, job.difficulty)
        return True

    def _judge(self, params: list[Any]) -> tuple[LiveJob, StratumJob, Credit]:
        """The job of a share, as the pool and as the miner know it. Raises: ShareRefused."""
        name = params[1] if len(params) > 1 and isinstance(params[1], str) else ""
        live = self._house.book.get(name)
        if live is not None and not self._first_job <= live.number <= (self.last_job or -1):
            live = None  # a job that only others were told
        job = None if live is None else self.issued(live)
        credit = judge(
            params,
            users=self.devices,
            issued={} if live is None or job is None else {name: IssuedJob(job, live.template)},
            now_s=self._house.clock_s(),
            grace_s=0.0,
        )
        assert live is not None
        assert job is not None
        return live, job, credit

    def _share(self, params: list[str], live: LiveJob, job: StratumJob) -> Share:
        """The share in the pool's terms; its form was checked before."""
        upstream, mask = live.upstream, job.version_mask
        rolled = int(params[5], 16) if len(params) == 6 else job.version & mask
        version = (job.version & ~mask) | (rolled & mask)
        return Share(
            job_id=upstream.job_id,
            extranonce2=self.prefix + bytes.fromhex(params[2]),
            ntime=int(params[3], 16),
            nonce=int(params[4], 16),
            version_bits=version & upstream.version_mask,
            session=upstream.session,
        )

    def _names(self) -> str:
        return " ".join(self.devices.values()) or "nobody yet"


@lru_cache(maxsize=256)
def _line(method: str, *params: str | int | float) -> bytes:
    return lines.encode({"id": None, "method": method, "params": params})


def _difficulty(value: Any) -> float:
    try:
        return parse_difficulty(value)
    except JobFault as fault:
        raise Refusal(lines.MALFORMED, str(fault)) from fault
