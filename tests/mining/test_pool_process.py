"""The pool as a real process: ready line, mining, status over HTTP, clean end, refusals."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from wattshift_cluster.mining.client import StratumClient

POOL = [sys.executable, "-m", "wattshift_cluster.mining.pool.process"]


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as response:
        body: dict[str, Any] = json.load(response)
    return body


def test_shares_show_in_the_status_and_sigterm_ends_it_cleanly() -> None:
    async def scene() -> None:
        flags = ["--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--difficulty", "1e-6"]
        process = await asyncio.create_subprocess_exec(*POOL, *flags, stdout=subprocess.PIPE)
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        client = StratumClient(f"stratum+tcp://{ready['stratum']}", "rig")
        mining = asyncio.create_task(client.run())
        async with asyncio.timeout(10):
            while client.current_job() is None:  # noqa: ASYNC110 - waits for the other process
                await asyncio.sleep(0.01)
        for _ in range(3):
            work = client.next_work()
            assert work is not None
            nonce = next(n for n in range(1 << 22) if work.is_share(n))
            assert (await client.submit(work.share(nonce))).accepted
        url = f"http://{ready['status']}/v1/status"
        status = await asyncio.to_thread(get, url)
        assert (status["accepted"], status["rejected"], status["pays"]) == (3, 0, "nobody")
        assert status["accepted_difficulty"] == pytest.approx(3e-6)
        assert status["users"]["rig"]["accepted"] == 3
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await asyncio.to_thread(get, url + "/nope")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        mining.cancel()
        await asyncio.gather(mining, return_exceptions=True)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--listen", "0.0.0.0:3333", "--status", "127.0.0.1:0"], 6, "loopback only"),
        (["--status", "0.0.0.0:3334"], 6, "loopback"),
        (["--difficulty", "0"], 3, "difficulty"),
        (["--listen", "http://x:1"], 3, "stratum+tcp"),
    ],
)
def test_what_it_refuses(flags: list[str], code: int, words: str) -> None:
    ended = subprocess.run([*POOL, *flags], capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == code
    assert words in ended.stderr
