"""kill -9 of the controller in the middle of a cut: power never rises, nothing accepted is lost.

Two endings are shown: the controller comes back and takes over the leases it finds, or it keeps
dying, and then the leases end by themselves and the agent puts every machine to sleep.
"""

import asyncio
import itertools
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.site.conftest import SmallSite

pytestmark = pytest.mark.timeout(150)

CAP_W = 4_000.0
TRANSITION_S = 10.0
NOISE_W = 5.0
TTL_S = 6.0
JOB = {"kind": "mining", "name": "kept", "devices": ["no-such-device"]}


async def _full_power(site: "SmallSite") -> None:
    await site.embedded.start(site.world)
    client = site.client()

    def every_machine_is_up() -> bool:
        devices = client.get("/v1/devices")["devices"]
        obeys = len(devices) == 3 and all(
            d["state"] == "confirmed" and d["leased_w"] > 2500 for d in devices
        )
        return obeys and site.true_w() > 2 * CAP_W

    await site.until(every_machine_is_up, 40.0)


async def _watched(site: "SmallSite", seconds: float) -> list[tuple[float, float]]:
    rows = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        rows.append((time.monotonic(), await asyncio.to_thread(site.true_w)))
        await asyncio.sleep(0.1)
    return rows


def _kill(site: "SmallSite") -> None:
    pid = site.embedded.children.pid("controller")
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


async def _cut(site: "SmallSite") -> dict[str, Any]:
    """Accept a job, then cut the cap; returns the job."""
    client = site.client()
    job: dict[str, Any] = await asyncio.to_thread(client.post, "/v1/jobs", JOB)
    await asyncio.to_thread(client.post, "/v1/caps", {"limit": CAP_W})
    return job


def _only_falls_to_the_cap(rows: list[tuple[float, float]]) -> bool:
    """Power falls until it is under the cap, and is never above the cap again.

    Under the cap it may rise: where a restart takes longer than the leases last, the agent has put
    the machines to sleep meanwhile, and the controller that comes back wakes what fits.
    """
    over = [watts_w > CAP_W for _, watts_w in rows]
    falls = all(
        b <= a + NOISE_W for (_, a), (_, b) in itertools.pairwise(rows) if a > CAP_W or b > CAP_W
    )
    return falls and over == sorted(over, reverse=True)


def _never_rises(rows: list[tuple[float, float]]) -> bool:
    return all(b <= a + NOISE_W for (_, a), (_, b) in itertools.pairwise(rows))


def test_a_restarted_controller_takes_over(small_site: "SmallSite") -> None:
    async def play() -> None:
        try:
            await _full_power(small_site)
            job = await _cut(small_site)
            cut_s = time.monotonic()
            await asyncio.sleep(0.8)
            _kill(small_site)
            rows = await _watched(small_site, 14.0)
            client = small_site.client()
            assert small_site.embedded.children.restarts == {"controller": 1}
            assert _only_falls_to_the_cap(rows)
            within = [at_s - cut_s for at_s, watts_w in rows if watts_w > CAP_W]
            assert max(within, default=0.0) <= TTL_S + TRANSITION_S
            assert rows[-1][1] <= CAP_W
            found = await asyncio.to_thread(client.get, f"/v1/jobs/{job['id']}")
            assert found["spec"] == job["spec"]
            site = await asyncio.to_thread(client.get, "/v1/site")
            assert site["cap_w"] == CAP_W, "the operator's cap survives, too"
            assert site["epoch"] == 2
            devices = (await asyncio.to_thread(client.get, "/v1/devices"))["devices"]
            awake = [d for d in devices if d["mode"] != "sleep"]
            assert awake, "a restart puts no machine to sleep that fits under the cap"
        finally:
            await small_site.embedded.stop()

    asyncio.run(play())


def test_a_controller_that_keeps_dying_leaves_the_site_asleep(small_site: "SmallSite") -> None:
    async def play() -> None:
        try:
            await _full_power(small_site)
            await _cut(small_site)
            await asyncio.sleep(0.8)

            async def keep_killing() -> None:
                while True:
                    _kill(small_site)
                    await asyncio.sleep(0.05)

            killer = asyncio.create_task(keep_killing())
            rows = await _watched(small_site, TTL_S + TRANSITION_S)
            killer.cancel()
            assert _never_rises(rows)
            assert rows[-1][1] < 100.0, "every machine sleeps once its lease has ended"
        finally:
            await small_site.embedded.stop()

    asyncio.run(play())


def test_an_end_leaves_every_machine_at_its_safe_point(small_site: "SmallSite") -> None:
    """Ctrl-C ends every child; a second start right after works."""

    def every_machine_sleeps() -> bool:
        return small_site.true_w() < 100.0

    async def play() -> None:
        for _ in range(2):
            try:
                await _full_power(small_site)
                pids = [
                    small_site.embedded.children.pid(name)
                    for name in ("controller", "agent-rack", "meter")
                ]
                for name in ("controller", "agent-rack"):
                    await small_site.embedded.children.end(name)
                await small_site.until(every_machine_sleeps, 6.0)
            finally:
                await small_site.embedded.stop()
            for pid in pids:
                assert pid is not None
                with pytest.raises(ProcessLookupError):
                    os.kill(pid, 0)

    asyncio.run(play())
