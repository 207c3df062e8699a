"""What agents say, in columns: unknown stays unknown, nonsense is refused, clocks agree."""

import math
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.config.site import AgentRef
from wattshift_cluster.controller import agent_words
from wattshift_cluster.controller.agent_words import AnswerInvalid
from wattshift_scheduler.commands import GrantLeases

REF = AgentRef.model_validate(
    {
        "name": "racks",
        "address": "127.0.0.1:1",
        "token_file": "t",
        "feeder": "main",
        "devices": ["lux-*"],
    },
    context={"folder": __import__("pathlib").Path("/")},
)


def _point(watts_w: float, transition_s: float = 1.0) -> dict[str, Any]:
    return {"mode": "x", "watts_w": watts_w, "hashrate_h_per_s": 0, "transition_s": transition_s}


def _info(**changes: Any) -> dict[str, Any]:
    points = [
        {"mode": "sleep", "watts_w": 30, "hashrate_h_per_s": 0, "transition_s": 5},
        {"mode": "default", "watts_w": 2794, "hashrate_h_per_s": 1e14, "transition_s": 10},
    ]
    return {
        "id": "lux-1",
        "kind": "asic",
        "nameplate_w": 2794,
        "tolerance": 0.05,
        "continuous": False,
        "fenced": False,
        "safe_w": 30,
        "power_on_w": 2794,
        "points": points,
        **changes,
    }


def _reading(**changes: Any) -> dict[str, Any]:
    return {"device": "lux-1", "at_boot_s": 99.0, "watts_w": 2800.0, "error": None, **changes}


def test_only_the_devices_that_the_site_names_are_taken() -> None:
    devices = agent_words.offer(REF, [_info(), _info(id="other")]).devices
    assert [d.id for d in devices] == ["lux-1"]
    assert devices[0].feeder == "main"


def test_an_asic_that_takes_any_watts_takes_none_between_sleep_and_its_least() -> None:
    told = [_info(), _info(continuous=True), _info(kind="gpu", continuous=True)]
    (whole,), (target,), (gate,) = (agent_words.offer(REF, [one]).devices for one in told)
    assert (whole.rests_apart, target.rests_apart, gate.rests_apart) == (False, True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": []},
        {"nameplate_w": "a lot"},
        {"nameplate_w": -5},
        {"nameplate_w": float("nan")},
        {"points": [{"mode": "x"}]},
        {"tolerance": 2.0},
        {"points": [_point(30.0), _point(30.0)]},
        {"points": [_point(900.0), _point(30.0)]},
        {"points": [_point(-1.0)]},
        {"points": [_point(float("nan"))]},
        {"points": [_point(30.0, transition_s=float("inf"))]},
        {"power_on_w": -1.0},
        {"table_bytes": float("inf")},
    ],
)
def test_an_impossible_device_is_refused_by_name_and_the_others_go_on(
    wrong: dict[str, Any],
) -> None:
    offer = agent_words.offer(REF, [_info(id="lux-0"), _info(**wrong), _info(id="lux-2")])
    assert [one.id for one in offer.devices] == ["lux-0", "lux-2"]
    assert list(offer.refused) == ["lux-1"]


def test_of_two_devices_with_one_id_the_first_holds() -> None:
    offer = agent_words.offer(REF, [_info(), _info(nameplate_w=9000)])
    assert [one.nameplate_w for one in offer.devices] == [2794.0]
    assert "twice" in offer.refused["lux-1"]


@pytest.mark.parametrize("infos", [[{}], ["lux-1"], [_info()] * (agent_words.DEVICES_MAX + 1)])
def test_what_is_no_inventory_is_refused_as_a_whole(infos: list[Any]) -> None:
    with pytest.raises(AnswerInvalid):
        agent_words.offer(REF, infos)


@pytest.mark.parametrize("watts_w", [-1.0, float("nan"), float("inf")])
def test_watts_that_cannot_be_are_unknown(watts_w: float) -> None:
    rows = [_reading(watts_w=watts_w), _reading(device="lux-2")]
    read = agent_words.readings({"boot_s": 100.0, "readings": rows}, 1000.0)
    assert math.isnan(read.watts_w[0])
    assert read.watts_w[1] == 2800.0


def test_null_is_unknown_and_never_zero() -> None:
    answer = {"boot_s": 100.0, "readings": [_reading(watts_w=None, hashrate_h_per_s=None)]}
    read = agent_words.readings(answer, received_s=1000.0)
    assert math.isnan(read.watts_w[0])
    assert math.isnan(read.hashrate_h_per_s[0])
    assert math.isnan(read.held_w[0])
    assert read.held_mode == ("",)


def test_sample_times_are_on_our_clock_and_never_in_the_future() -> None:
    rows = [_reading(at_boot_s=97.5), _reading(at_boot_s=130.0)]
    read = agent_words.readings({"boot_s": 100.0, "readings": rows}, received_s=1000.0)
    np.testing.assert_allclose(read.at_s, [997.5, 1000.0])


def test_a_held_lease_is_seen_with_the_time_it_still_lasts() -> None:
    lease = {"mode": "default", "watts_w": 2933.0, "valid_until_boot_s": 112.0}
    answer = {"boot_s": 100.0, "readings": [_reading(lease=lease)]}
    read = agent_words.readings(answer, 1000.0)
    assert (read.held_w[0], read.held_for_s[0], read.held_mode) == (2933.0, 12.0, ("default",))


@pytest.mark.parametrize(
    "answer", [{}, {"boot_s": 1}, {"boot_s": 1, "readings": [{}]}, {"boot_s": "x", "readings": []}]
)
def test_malformed_readings_are_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(AnswerInvalid):
        agent_words.readings(answer, 1000.0)


def test_leases_and_their_results_travel() -> None:
    command = GrantLeases(
        7, "racks", "boot", 3, ("lux-1",), np.array([9]), ("default",), np.array([2933.0]), 115.0
    )
    assert agent_words.leases(command) == [
        {
            "device": "lux-1",
            "epoch": 3,
            "sequence": 9,
            "mode": "default",
            "watts_w": 2933.0,
            "valid_until_boot_s": 115.0,
        }
    ]
    result = {"device": "lux-1", "epoch": 3, "sequence": 9, "accepted": False, "reason": "expired"}
    replied = agent_words.replied(command, {"results": [result]})
    assert (replied.command, replied.reasons, bool(replied.accepted[0])) == (7, ("expired",), False)
