"""A real controller and a real loopback VTN: by poll, by webhook, through loss and restart."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

from tests.ports import free_port

from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.openadr.words import ObjectType

rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("vtn_site_rig.py"))))
wire: Any = rig.wire
holds = rig.holds


def site(
    folder: Path, url: str, poll: str, more: str = ""
) -> AbstractAsyncContextManager[Controller]:
    """A controller that listens to a VTN."""
    running: AbstractAsyncContextManager[Controller] = rig.running(
        folder, rig.UTILITY.format(url=url, poll=poll) + more
    )
    return running


def test_a_poll_brings_the_cap_and_neither_loss_nor_restart_takes_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wire.vtn() as vtn:
            program = await wire.program(vtn)
            async with site(tmp_path, vtn.url, "1s") as made:
                await holds(made, 600e3)
                await vtn.post(ObjectType.EVENT, wire.now_event(program, 300))
                await holds(made, 300e3)
                await vtn.stop()
                await wire.until(lambda: made.sources.fault("utility") is not None, "the loss")
                assert made.state.outlook.cap_w == 300e3
            # Its own memory is lost too, and the VTN is still away: the journal is what is left.
            (tmp_path / "state" / "openadr-utility.json").unlink()
            async with site(tmp_path, vtn.url, "1s") as made:
                assert made.state.outlook.cap_w == 300e3
                await wire.until(lambda: made.sources.said("utility") is not None, "a word")
                made.turn(made.inbox.take())
                assert made.state.outlook.cap_w == 300e3
                await rig.comes_back(made, vtn)
                assert made.state.outlook.cap_w == 300e3

    wire.run(scene())


def test_a_webhook_brings_it_at_once_and_an_override_lifts_it_for_a_while(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = rig.HOOK.format(at=f"{wire.HOST}:{free_port()}")
        async with (
            wire.vtn() as vtn,
            site(tmp_path, vtn.url, "1h", hook) as made,
        ):
            program = await wire.program(vtn)
            await wire.until(lambda: bool(vtn.objects(ObjectType.SUBSCRIPTION)), "a subscription")
            row = await vtn.post(ObjectType.EVENT, wire.now_event(program, 300))
            await holds(made, 300e3)
            front = Front(made)
            (held,) = (cap for cap in front.caps() if cap["limit_w"] == 300e3)
            # The subscription's own cap comes after the event: nothing else holds meanwhile.
            ends_s = made.clock.now_s() + 0.5
            await front.override_cap(
                "utility", held["id"], 450e3, ends_s, by="ann", reason="called by phone"
            )
            assert made.state.outlook.cap_w == 450e3
            await holds(made, 300e3)
            assert made.clock.now_s() >= ends_s, "it ended by the clock, and nobody ended it"
            vtn.delete(ObjectType.EVENT, row["id"])
            await holds(made, 600e3)

    wire.run(scene())
