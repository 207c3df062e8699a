"""The independent meter as a real process beside a scripted truth."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.grid.own_meter.draws import GpuSource, HostSource, Part, TruthSource
from wattshift_cluster.grid.own_meter.process import SampleLog, body_of
from wattshift_cluster.jsonhttp import address, serve_json

METER = [
    sys.executable,
    "-m",
    "wattshift_cluster.grid.own_meter.process",
    "--listen",
    "127.0.0.1:0",
]


@asynccontextmanager
async def meter(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(*METER, *flags, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            ready = json.loads(await process.stdout.readline())
        yield process, f"http://{ready['power']}/v1/power"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as response:
        body: dict[str, Any] = json.load(response)
    return body


async def sample_when(url: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            body = await asyncio.to_thread(get, url)
            if wanted(body):
                return body
            await asyncio.sleep(0.05)


def test_it_adds_up_serves_and_logs_the_same_and_a_failed_truth_is_unknown(tmp_path: Path) -> None:
    async def scene() -> None:
        machines: list[dict[str, Any]] = [
            {"id": "rig-1", "watts_w": 2700.25},
            {"id": "rig-2", "watts_w": 30.0},
        ]
        truth = {"machines": machines}
        server = await serve_json(
            "127.0.0.1", 0, {"/v1/truth": lambda: {"at_s": boot_s(), **truth}}
        )
        log = tmp_path / "samples.jsonl"
        flags = ["--truth", f"http://{address(server)}/v1/truth", "--host-idle-w", "100"]
        flags += ["--host-core-w", "150", "--period-s", "0.1", "--gpus", "none"]
        async with meter(*flags, "--log", str(log)) as (process, url):
            body = await sample_when(url, lambda body: body["window_s"] > 0.9)
            watts = {part["name"]: part["watts_w"] for part in body["parts"]}
            assert (watts["rig-1"], watts["rig-2"]) == (2700.25, 30.0)
            cores = os.cpu_count() or 1
            assert 100.0 <= watts["host cpu"] <= 100.0 + 150.0 * cores * 1.05
            assert body["watts_w"] == pytest.approx(sum(watts.values()), abs=0.01)
            assert body["quality"] == "modelled"
            assert abs(body["at_s"] - time.time()) < 1
            assert abs(body["at_boot_s"] - boot_s()) < 1

            machines[0]["watts_w"] = None
            body = await sample_when(url, lambda body: body["watts_w"] is None)
            failed = next(part for part in body["parts"] if part["quality"] == "emulated")
            assert failed["watts_w"] is None
            assert "None" in failed["fault"]

            machines[0]["watts_w"] = 5.0
            await sample_when(url, lambda body: body["watts_w"] is not None)
            server.close()
            await sample_when(url, lambda body: body["watts_w"] is None)

            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert len(lines) > 10
        assert lines[0].keys() == body.keys()
        assert {None} < {line["watts_w"] for line in lines}
        times = [line["at_boot_s"] for line in lines]
        assert times == sorted(times)

    asyncio.run(scene())


def test_the_host_model_follows_real_load() -> None:
    """One spinning core must show; the same figure without it must not."""

    async def scene() -> None:
        flags = ["--host-idle-w", "0", "--host-core-w", "100", "--period-s", "0.1"]
        async with meter(*flags, "--gpus", "none") as (_, url):
            code = "import time\nt = time.time() + 4\nwhile time.time() < t: pass"
            spin = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
            busy = await sample_when(url, lambda body: (body["watts_w"] or 0) > 60)
            spin.kill()
            await spin.wait()
            assert busy["watts_w"] <= 100.0 * (os.cpu_count() or 1) * 1.05

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ([], 3, "nothing to measure"),
        (["--truth", "ftp://x"], 3, "wanted http://"),
        (["--host-idle-w", "-1"], 3, "0 to 1e6"),
        (["--host-idle-w", "1", "--period-s", "0"], 3, "0.02 to 60"),
        (["--host-idle-w", "1", "--log", "/nonexistent/x"], 1, "No such file"),
    ],
)
def test_wrong_flags_are_said_and_end_it(flags: list[str], code: int, words: str) -> None:
    ended = subprocess.run(
        [*METER, "--gpus", "none", *flags], capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == code
    assert words in ended.stderr


def test_a_used_port_is_said() -> None:
    async def scene() -> None:
        server = await serve_json("127.0.0.1", 0, {})
        process = await asyncio.create_subprocess_exec(
            *METER, "--listen", address(server), "--host-idle-w", "1", stderr=subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        assert b"address already in use" in errors
        server.close()

    asyncio.run(scene())


def test_the_total_is_unknown_where_any_part_is() -> None:
    known = Part("a", 5.0, "measured")
    stamps: dict[str, Any] = {"at_s": 1.0, "at_boot_s": 2.0, "window_s": None}
    assert body_of([known, Part("b", 0.0, "emulated")], **stamps)["watts_w"] == 5.0
    assert body_of([known, Part("b", None, "emulated", "x")], **stamps)["watts_w"] is None
    assert body_of([], **stamps)["watts_w"] is None
    assert body_of([known], **stamps)["quality"] == "measured"


def test_the_host_window_is_about_a_second_whatever_the_period() -> None:
    async def scene() -> None:
        now = busy = 0.0
        host = HostSource(100.0, 150.0, clock_s=lambda: now, busy_s=lambda: busy)
        assert (await host.read())[0].watts_w is None  # no window yet
        for step in range(1, 60):
            now = step * 0.2
            busy += 0.2 * (1.5 if step > 30 else 0.0)
            part = (await host.read())[0]
            if step == 30:
                assert part.watts_w == pytest.approx(100.0)
            if step >= 6:
                assert host.window_s == pytest.approx(1.0, abs=0.21)
        assert part.watts_w == pytest.approx(100.0 + 1.5 * 150.0)

    asyncio.run(scene())


def test_a_frozen_truth_is_unknown() -> None:
    async def scene() -> None:
        body = {"at_s": 10.0, "machines": [{"id": "a", "watts_w": 1.0}]}
        server = await serve_json("127.0.0.1", 0, {"/t": lambda: body})
        url = f"http://{address(server)}/t"
        assert (await TruthSource(url, clock_s=lambda: 11.0).read())[0].watts_w == 1.0
        (part,) = await TruthSource(url, clock_s=lambda: 13.0).read()
        assert part.watts_w is None
        assert part.fault == "the truth is 3.0 s old"
        server.close()

    asyncio.run(scene())


def test_many_machines_become_one_sum() -> None:
    async def scene() -> None:
        rows = [{"id": str(n), "watts_w": 10.0} for n in range(100)]
        server = await serve_json("127.0.0.1", 0, {"/t": lambda: {"at_s": 0, "machines": rows}})
        (part,) = await TruthSource(f"http://{address(server)}/t", clock_s=lambda: 0.0).read()
        assert part == Part("100 emulated machines", 1000.0, "emulated")
        server.close()

    asyncio.run(scene())


class BrokenNvml:
    """A driver whose second GPU fails, and which can hang."""

    hang_s = 0.0

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802 - NVML's name
        time.sleep(self.hang_s)
        if handle == 1:
            raise RuntimeError("GPU is lost")
        return 123_456


def test_a_gpu_that_fails_or_hangs_is_unknown() -> None:
    async def scene() -> None:
        driver = BrokenNvml()
        gpus = GpuSource(driver, [0, 1], deadline_s=0.1)
        first, second = await gpus.read()
        assert (first.watts_w, first.quality) == (123.456, "measured")
        assert (second.watts_w, second.fault) == (None, "GPU is lost")
        driver.hang_s = 0.4
        (hung,) = await gpus.read()
        assert hung.watts_w is None

    asyncio.run(scene())


def test_the_log_moves_on_when_it_is_full(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    log = SampleLog(file, max_bytes=100)
    for number in range(30):
        log.write({"n": number})
    log.close()
    kept = [
        json.loads(line)["n"]
        for name in ("s.jsonl.1", "s.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert kept == list(range(kept[0], 30))
    assert (tmp_path / "s.jsonl.1").stat().st_size <= 120
