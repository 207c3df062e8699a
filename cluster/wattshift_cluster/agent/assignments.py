"""Work for one worker, and what became of the hits it found: shares, each counted once."""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import structlog

from wattshift_cluster.agent.child import WorkerChild
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.protocol import Counters
from wattshift_cluster.mining.checker import aside
from wattshift_cluster.mining.job import MiningWork
from wattshift_cluster.mining.nonces import AnyWork, Job
from wattshift_kernels.header import NONCES

log = structlog.get_logger()

KEPT_WORK = 64
"""As many as jobs are kept: some coins have ten a second."""

AHEAD = 2
MOST_ON_THEIR_WAY = 4096
"""Hits that are checked or submitted at one time. Where a device finds them so much faster than its
pool answers or its reference checks, its difficulty is too easy: more are lost, and counted so."""

SETTLE_S = 1.0
"""How long an end waits for the last shares' answers."""


class Assignments:
    """Between the pool desk and one worker.

    Attributes:
        counts: shares found, accepted, rejected and lost since this agent started.
        blocks: of the shares found, those that meet the network's own target.
    """

    def __init__(self, device: str, desk: PoolDesk | None) -> None:
        """Args: device: for the log; desk: None where nothing may be mined."""
        self.counts = Counters(0, 0, 0, 0, 0, 0.0)
        self.blocks = 0
        self._device = device
        self._desk = desk
        self._child: WorkerChild | None = None
        self._works: OrderedDict[int, AnyWork] = OrderedDict()
        self._last_work = 0
        self._submits: set[asyncio.Task[None]] = set()

    def serve(self, child: WorkerChild) -> None:
        """Give this worker work from now on."""
        self._child = child
        if self._desk is not None:
            self._desk.subscribe(self._told)

    def heard(self, event: dict[str, Any]) -> None:
        """Follow one line of the worker."""
        match event:
            case {"event": "ready"}:
                self._new_job()
            case {"event": "spent"}:
                self._give(clean=False)
            case {"event": "hit", "id": int(number), "nonce": int(nonce), **more}:
                self._hit(number, nonce, more.get("roll", 0))

    @property
    def fault(self) -> str | None:
        """Why there is no work; None while there is some or none is wanted."""
        if self._desk is None or self._desk.fault is None:
            return None
        return f"no pool session: {self._desk.fault}"

    @property
    def note(self) -> str | None:
        """What a person should know of the shares although all is well; None without."""
        found = f"{self.blocks} block candidate(s) found" if self.blocks else None
        alarm = None if self._desk is None else self._desk.alarm
        return "; ".join(filter(None, (alarm, found))) or None

    async def settle(self) -> None:
        """Let the last shares arrive."""
        if self._submits:
            await asyncio.wait(self._submits, timeout=SETTLE_S)

    def _told(self, job: Job | None) -> None:
        if job is not None:
            self._new_job()
        elif self._child is not None:
            self._child.send({"op": "idle"})

    def _new_job(self) -> None:
        self._give(clean=True)
        for _ in range(AHEAD - 1):
            self._give(clean=False)

    def _give(self, *, clean: bool) -> None:
        """Hand one assignment to the worker."""
        child = self._child
        if self._desk is None or child is None or child.fault is not None:
            return  # asked first: a unit that goes to nobody is lost
        unit = self._desk.unit()
        if unit is None:
            return
        self._last_work += 1
        self._works[self._last_work] = unit.work
        while len(self._works) > KEPT_WORK:
            self._works.popitem(last=False)
        work = unit.kernel
        child.send(
            {
                "op": "work",
                "id": self._last_work,
                "clean": clean,
                "algorithm": work.algorithm,
                "message": work.message.hex(),
                "target": f"{work.target:064x}",
                "height": work.height,
                "nonces": unit.nonces,
                "roll_mask": f"{work.roll_mask:08x}",
            }
        )

    def _hit(self, number: int, nonce: int, roll: Any) -> None:
        work = self._works.get(number)
        if work is None or not 0 <= nonce < NONCES or not _is_roll(roll):
            log.warning("worker.wrong_hit", device=self._device, work=number)
            return
        if len(self._submits) >= MOST_ON_THEIR_WAY:
            self._count(shares_found=1, lost=1)
            return
        task = asyncio.create_task(self._take(work, number, nonce, roll))
        self._submits.add(task)
        task.add_done_callback(self._submits.discard)

    async def _take(self, work: AnyWork, number: int, nonce: int, roll: int) -> None:
        """Believe nothing: hash it again, and only then is a share found."""
        if work.job.quick:
            found = work.is_share(nonce, roll)
        else:
            found = await aside(work.is_share, nonce, roll)
        if not found:
            log.warning("worker.wrong_hit", device=self._device, work=number)
            return
        block = work.is_block(nonce, roll)
        if block and isinstance(work, MiningWork):
            self.blocks += 1
            header = work.header(nonce, roll).hex()
            log.critical("block.candidate", device=self._device, job=work.job.job_id, header=header)
        await self._submit(work, nonce, roll, block=block)

    async def _submit(self, work: AnyWork, nonce: int, roll: int, *, block: bool) -> None:
        assert self._desk is not None
        self._count(shares_found=1)
        result = await self._desk.submit(work.share(nonce, roll), first=block)
        if result.accepted:
            self._count(accepted=1, accepted_difficulty=result.difficulty)
        elif result.kind is None:  # nobody refused it: it never got there, or got no answer
            self._count(lost=1)
        else:
            self._count(rejected=1)

    def _count(self, **more: float) -> None:
        now = {name: getattr(self.counts, name) + step for name, step in more.items()}
        self.counts = replace(self.counts, **now)


def _is_roll(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
