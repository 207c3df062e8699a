"""`[[openadr2]]` of a site file through a real controller, against the VTN of openleadr."""

import sys
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.ports import free_port

from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.errors import ConfigInvalid

RIG = Path(__file__).parents[1] / "controller" / "vtn_site_rig.py"
rig: Any = SimpleNamespace(**run_path(str(RIG)))
wire: Any = rig.wire
HOST = "127.71.2.1"
CONTEXT = "http://utility.example/cpp"
SITE = """
[[openadr2]]
name = "old-utility"
url = "http://{host}:{port}/OpenADR2/Simple/2.0b"
ven_name = "my-site"
levels = ["800kW", "500kW"]
commitments = {{ "http://utility.example/cpp" = "50kW" }}
"""


def site(folder: Path, port: int) -> AbstractAsyncContextManager[Controller]:
    running: AbstractAsyncContextManager[Controller] = rig.running(
        folder, SITE.format(host=HOST, port=port)
    )
    return running


def test_a_level_of_2_0b_is_the_effective_cap_of_the_controller_and_outlives_the_vtn(
    tmp_path: Path,
) -> None:
    pytest.importorskip("openleadr")
    answers: list[str] = []

    async def scene() -> None:
        port = free_port(HOST)
        async with wire.vtn_2_0b(HOST, port) as server:
            interval = {
                "dtstart": datetime.now(UTC) - timedelta(seconds=5),
                "duration": timedelta(minutes=5),
                "signal_payload": 2,
            }
            server.add_event(
                "ven-id", "SIMPLE", "level", [interval], event_id="e1", market_context=CONTEXT,
                callback=lambda ven_id, event_id, opt_type: answers.append(opt_type),
            )  # fmt: skip
            async with site(tmp_path, port) as made:
                await wire.until(lambda: made.state.outlook.cap_w == 500e3, "the cap of level 2")
                await wire.until(lambda: answers == ["optIn"], "the site takes part")
                view = Front(made).site()
                assert (view["cap_origin"], view["cap_kind"]) == ("old-utility", "contract")
                (event,) = Front(made).signals()["sources"]["old-utility"]["events"]
                assert (event["id"], event["program"], event["commitment_w"]) == (
                    "e1",
                    CONTEXT,
                    50e3,
                )
                kept = tmp_path / "state" / "openadr2-old-utility.json"
                await wire.until(kept.exists, "its memory")
        async with site(tmp_path, port) as made:
            assert made.state.outlook.cap_w == 500e3, "of the journal, from the first moment"
            await wire.until(lambda: made.sources.fault("old-utility") is not None, "the loss")
            await wire.until(lambda: made.sources.said("old-utility") is not None, "a word")
            made.turn(made.inbox.take())
            assert made.state.outlook.cap_w == 500e3

    wire.run(scene())


def test_without_the_extra_the_site_file_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openleadr", None)
    made = rig.rig.controller(tmp_path, SteadyClock(), SITE.format(host=HOST, port=1))
    try:
        with pytest.raises(ConfigInvalid, match=r"wattshift\[openadr2\]"):
            feeds_of(made)
    finally:
        made.journal.close()
