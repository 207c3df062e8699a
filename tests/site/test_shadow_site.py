"""A site in shadow, of real processes: it decides, and no machine ever hears of it."""

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from wattshift_cluster.demo.up import EmbeddedSite
from wattshift_cluster.errors import Refused

if TYPE_CHECKING:
    from tests.site.conftest import SmallSite

pytestmark = pytest.mark.timeout(120)

FULL_W = 8_000.0
"""Less than three machines at work draw, and more than two."""

CAP_W = 4_000.0
GRACE_S = 20.0
"""After so long without a lease an agent in control puts its machines to sleep."""


def _in_shadow(site: "SmallSite") -> EmbeddedSite:
    """Rewrite the files of the site, with addresses of this test's own."""
    for name, old, new in (
        ("site.toml", "[site]\n", '[site]\nmode = "shadow"\n'),
        ("agent.toml", "[agent]\n", "[agent]\nshadow = true\n"),
        ("agent.toml", "127.21.9.", "127.36.9."),
        ("emulator.json", "127.21.9.", "127.36.9."),
    ):
        path = site.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    return EmbeddedSite(site.folder / "site.toml")


def test_a_shadow_site_moves_no_machine(small_site: "SmallSite") -> None:
    async def play() -> None:
        embedded = _in_shadow(small_site)

        def leased_w() -> float:
            """What all would be leased, W; 0 until each has a lease."""
            found = [one["leased_w"] for one in small_site.client().get("/v1/devices")["devices"]]
            return 0.0 if len(found) < 3 or None in found else float(sum(found))

        def all_would_run() -> bool:
            return leased_w() > FULL_W

        def they_would_shed() -> bool:
            return 0.0 < leased_w() <= CAP_W

        try:
            await embedded.start(small_site.world)
            began_s, client = time.monotonic(), small_site.client()
            await small_site.until(all_would_run, 40.0)
            assert small_site.true_w() > FULL_W
            await asyncio.to_thread(client.post, "/v1/caps", {"limit": CAP_W})
            await small_site.until(they_would_shed, 20.0)
            with pytest.raises(Refused, match="shadow mode"):
                await asyncio.to_thread(client.post, "/v1/fleet/sleep", {"devices": ["*"]})
            await asyncio.sleep(max(began_s + GRACE_S + 3.0 - time.monotonic(), 0.0))
            assert small_site.true_w() > FULL_W, "no lease, and nothing was put to sleep for that"
            site = await asyncio.to_thread(client.get, "/v1/site")
            assert site["mode"] == "shadow"
            assert site["power_w"] > FULL_W, "the meter is shown as it is"
            devices = (await asyncio.to_thread(client.get, "/v1/devices"))["devices"]
            assert {one["state"] for one in devices} == {"shadow"}
            told = (await asyncio.to_thread(client.get, "/v1/decisions", limit=200))["decisions"]
            assert [one for one in told if one["action"] == "shed"]
            assert "wattshift_shadow 1.0" in await asyncio.to_thread(client.text, "/metrics")
            await asyncio.to_thread(client.delete, "/v1/caps")
            await small_site.until(all_would_run, 20.0)
            for name in ("controller", "agent-rack"):
                await embedded.children.end(name)
            await asyncio.sleep(2.0)
            assert small_site.true_w() > FULL_W, "an end leaves what was never commanded alone"
        finally:
            await embedded.stop()

    asyncio.run(play())
