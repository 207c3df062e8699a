"""The demo's utility reaches the demo's own site by OpenADR alone; that needs no Ray."""

import asyncio
import time
from pathlib import Path

import pytest
from tests.grid import openadr_rig as rig

from wattshift_cluster.config.load import load_site
from wattshift_cluster.demo.scenario import Scenario
from wattshift_cluster.demo.stage import Stage, build
from wattshift_cluster.demo.utility import announce
from wattshift_cluster.errors import TryLater
from wattshift_cluster.grid.openadr.source import OpenAdrSource
from wattshift_cluster.grid.said import Said
from wattshift_cluster.grid.vtn.clients_file import made_up
from wattshift_cluster.grid.vtn.server import LoopbackVtn, VtnSettings


async def cut(stage: Stage, starts_s: float) -> None:
    await announce(
        stage.vtn,
        stage.utility_secret,
        starts_s=starts_s,
        ends_s=starts_s + 20.0,
        cap_w=1234.5,
    )


def test_the_announced_cut_is_a_cap_of_the_sites_source_from_start_to_end(tmp_path: Path) -> None:
    async def scene() -> None:
        stage = build(tmp_path / "demo", Scenario(60.0))
        config = load_site(stage.site_file)
        said: list[Said] = []
        source = OpenAdrSource(config.openadr[0], config.site.state_dir)
        host, port = stage.vtn.split(":")
        placed = made_up(stage.secrets)
        vtn = LoopbackVtn(VtnSettings(clients=tuple(one.client for one in placed)))
        await vtn.start(host, int(port))
        running = asyncio.create_task(source.run(said.append))
        try:
            starts_s = round(time.time()) + 5.0
            await cut(stage, starts_s)
            await rig.until(lambda: bool(said) and bool(said[-1].caps), "the cap")
            (cap,) = said[-1].caps
            assert (cap.limit_w, cap.starts_s, cap.ends_s) == (1234.5, starts_s, starts_s + 20.0)
            assert cap.name == "curtailment: evening peak"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await vtn.close()

    rig.run(scene())


def test_a_vtn_that_is_away_is_told_with_the_log_to_look_at(tmp_path: Path) -> None:
    stage = build(tmp_path / "demo", Scenario(60.0))
    with pytest.raises(TryLater, match=r"vtn\.log"):
        asyncio.run(cut(stage, time.time()))
