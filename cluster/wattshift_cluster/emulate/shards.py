"""One emulator in several processes, for more machines than one process and one core can serve.

Each child has machines and a truth port of its own. All of them listen before the one ready line is
written; when one ends, all end; they die with this process.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.emulate.fleet_file import EmulatorConfig
from wattshift_cluster.process import die_with_parent, stop_event

READY_S = 120.0
END_S = 15.0
MAX_SHARDS = 64
LINE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class _Shard:
    process: asyncio.subprocess.Process
    truth: str


class _Ended(Exception):
    """A child ended or did not come up; `code` is what the whole ends with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def serve_shards(config: EmulatorConfig, host: str, port: int, count: int) -> int:
    """Run the machines in `count` processes until told to stop; returns the exit code.

    Args:
        config: all machines.
        host, port: truth of the first shard; the others take the ports that follow, or free ones
            where `port` is 0.
        count: processes, at most `MAX_SHARDS`.
    """
    assert 1 <= count <= MAX_SHARDS
    die_with_parent()
    return asyncio.run(_run(config.shards(count), host, port))


async def _run(configs: list[EmulatorConfig], host: str, port: int) -> int:
    stopped = asyncio.create_task(stop_event().wait())
    processes: list[asyncio.subprocess.Process] = []
    try:
        for number in range(len(configs)):
            truth = f"{host}:{port + number if port else 0}"
            processes.append(await _child(truth))
        coming = asyncio.gather(*map(_ready, processes, configs))
        either: set[asyncio.Future[Any]] = {stopped, coming}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            coming.cancel()
            return 0
        shards = coming.result()
        truths = [shard.truth for shard in shards]
        machines = sum(len(config.machines) for config in configs)
        ready = {"ready": True, "truth": truths[0], "truths": truths, "machines": machines}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        either = {stopped, *(asyncio.create_task(process.wait()) for process in processes)}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return 0
        sys.stderr.write("emulate: a shard ended by itself; the others are stopped\n")
        return 1
    except _Ended as ended:
        return ended.code
    finally:
        stopped.cancel()
        await asyncio.gather(*map(_end, processes))


async def _child(truth: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wattshift_cluster.emulate.process",
        "--config=-",
        f"--truth={truth}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
    )


async def _ready(process: asyncio.subprocess.Process, config: EmulatorConfig) -> _Shard:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            process.stdin.write(config.to_json().encode())
            await process.stdin.drain()
            process.stdin.close()
            line = await process.stdout.readline()
            if not line:
                # It has said why on the standard error that we share.
                raise _Ended(await process.wait() or 1)
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        raise _Ended(1) from None
    return _Shard(process, json.loads(line)["truth"])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
