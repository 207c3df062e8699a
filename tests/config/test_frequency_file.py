"""`[frequency]` of agent.toml: off unless a programme is named, and what a sensor cannot carry."""

from typing import Any

import pytest
from pydantic import ValidationError

from wattshift_cluster.config.agent import AgentConfig
from wattshift_cluster.config.frequency import Frequency

GOOD: dict[str, Any] = {
    "programme": "a service",
    "nominal_hz": 50,
    "dead_band_hz": 0.2,
    "full_at_hz": 0.5,
    "accuracy_hz": 0.01,
    "window": "100ms",
    "feed": {"listen": "127.0.0.1:7001"},
}
METER = {"address": "10.0.0.9", "hz": {"address": 10}}


def test_without_the_section_nothing_is_shed() -> None:
    assert AgentConfig.model_fields["frequency"].default is None


def test_the_terms_are_those_of_the_file() -> None:
    section = Frequency.model_validate({**GOOD, "emergency_hz": 49.0, "delay": "2m"})
    terms = section.terms("host7")
    assert (terms.nominal_hz, terms.emergency_hz, terms.delay_s) == (50.0, 49.0, 120.0)
    assert (terms.low_pu, terms.high_pu, terms.needs_voltage) == (0.9, 1.05, True)
    assert section.terms("host7").dice == terms.dice != section.terms("host8").dice
    assert 0.0 <= terms.dice < 1.0
    assert section.sensor.rate_hz == 10.0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"programme": " "}, "programme"),
        ({"nominal_hz": 55}, "neither 50 nor 60"),
        ({"high_pu": 1.06}, "1.05"),
        ({"low_pu": 0.85}, "0.9"),
        ({"persist_cycles": 1}, "2"),
        ({"full_at_hz": 0.1}, "more than dead_band_hz"),
        ({"emergency_hz": 49.9}, "within the dead band"),
        ({"accuracy_hz": 0.1, "dead_band_hz": 0.1}, "noise would be answered"),
        ({"feed": None}, "one sensor"),
        ({"replay": {"file": "x.csv"}}, "one sensor"),
        ({"feed": {"listen": "10.0.0.1:7001"}}, "not of this machine"),
        ({"feed": {"listen": "127.0.0.1:1", "socket": "x"}}, "one of them"),
        ({"feed": {"listen": "127.0.0.1:1", "rate_hz": 4}}, "5"),
        ({"feed": None, "modbus": METER}, "tells no voltage"),
        ({"feed": None, "modbus": {**METER, "volts": {"address": 12}}}, "go together"),
        (
            {"feed": None, "modbus": {**METER, "volts": {"address": 900}, "nominal_v": 230}},
            "registers apart",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Frequency.model_validate({**GOOD, **wrong})


def test_an_owner_may_do_without_a_voltage() -> None:
    section = Frequency.model_validate({**GOOD, "feed": None, "modbus": METER, "no_voltage": True})
    assert not section.terms("x").needs_voltage
