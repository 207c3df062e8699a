"""`[market]` in the controller: prices set the price, peaks and demand cap, carbon is shown."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.jsonhttp import address, serve_json

_SPEC = spec_from_file_location("controller_rig", Path(__file__).with_name("controller_rig.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
rig = module_from_spec(_SPEC)
_SPEC.loader.exec_module(rig)

PATIENCE_S = 20.0
MINUTE_S = 60.0
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
[[feeders]]
name = "main"
limit = "40kW"
"""


def at(when_s: float) -> str:
    return datetime.fromtimestamp(when_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def curve(path: Path, *rows: tuple[float, float, float]) -> None:
    lines = [f"{at(starts_s)},{at(ends_s)},{value}" for starts_s, ends_s, value in rows]
    path.write_text("\n".join(["time,end,value", *lines]) + "\n")


def run(folder: Path, more: str, scenario: Callable[[Controller, Front], Any]) -> None:
    """A controller of such a site with its feeds, beside a scenario."""

    async def main() -> None:
        (folder / "site.toml").write_text(SITE + more)
        made = rig.started(folder)
        stop = asyncio.Event()
        running = asyncio.create_task(made.run(stop, feeds_of(made)))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(made, Front(made))
        finally:
            stop.set()
            await running
            made.journal.close()

    asyncio.run(main())


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


def test_the_first_price_that_is_known_is_the_site_s(tmp_path: Path) -> None:
    now_s = time.time()
    curve(tmp_path / "late.csv", (now_s + 9e4, now_s + 1e5, 10.0))
    curve(tmp_path / "now.csv", (now_s - 60, now_s + 3600, 41.5))
    curve(tmp_path / "air.csv", (now_s - 60, now_s + 3600, 250.0))
    more = """
[[market.prices]]
name = "day-ahead"
file = "late.csv"
[[market.prices]]
name = "contract"
file = "now.csv"
[[market.carbon]]
name = "air"
file = "air.csv"
"""

    async def scenario(_: Controller, front: Front) -> None:
        await until(lambda: front.site()["price_usd_per_mwh"] == 41.5)
        await until(lambda: front.signals()["carbon_g_per_kwh"] == 250.0)
        sources = front.signals()["sources"]
        assert sources["contract"]["prices"]["now"] == 41.5
        assert sources["day-ahead"]["prices"]["now"] is None, "a gap is no price"
        assert {sources[name]["kind"] for name in ("day-ahead", "contract", "air")} == {"feed"}

    run(tmp_path, more, scenario)


def test_a_price_that_nobody_knows_is_unknown(tmp_path: Path) -> None:
    now_s = time.time()
    curve(tmp_path / "late.csv", (now_s + 9e4, now_s + 1e5, 10.0))
    more = '[[market.prices]]\nname = "day-ahead"\nfile = "late.csv"\n'

    async def scenario(made: Controller, front: Front) -> None:
        await until(lambda: made.sources.speaks_of_price("day-ahead"))
        assert front.site()["price_usd_per_mwh"] is None

    run(tmp_path, more, scenario)


def test_a_demand_charge_hears_the_site_meter(tmp_path: Path) -> None:
    said = {"watts_w": 9000.0}

    async def scenario(made: Controller, front: Front) -> None:
        await until(lambda: front.site()["power_w"] == 9000.0)
        await until(lambda: front.site()["cap_origin"] == "charge")
        assert front.site()["cap_w"] <= 20e3
        now_s = made.clock.now_s()
        # Its minutes are those of the meter's samples: an hour of them makes a higher month.
        made.samplers[0](9000.0, now_s)
        for minute in range(1, 130):
            made.samplers[0](30e3, now_s + minute * MINUTE_S / 2)
        await until(
            lambda: any(
                cap["limit_w"] > 29e3 for cap in front.signals()["sources"]["charge"]["caps"]
            )
        )

    def body() -> dict[str, Any]:
        return {**said, "at_s": time.time(), "quality": "emulated"}

    async def metered(made: Controller, front: Front) -> None:
        await scenario(made, front)

    async def whole() -> None:
        server = await serve_json("127.63.251.1", 0, {"/p": body})
        more = f"""
[meter]
url = "http://{address(server)}/p"
[[market.demand]]
name = "charge"
planned = "20kW"
interval = "15m"
"""
        await rig_run(tmp_path, more, metered)
        server.close()

    asyncio.run(whole())


async def rig_run(folder: Path, more: str, scenario: Callable[[Controller, Front], Any]) -> None:
    (folder / "site.toml").write_text(SITE + more)
    load_site(folder / "site.toml", environ={})
