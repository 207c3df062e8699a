"""What a stock Antminer reports and how its configuration is handled, without a machine."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.asic.antminer_conf import Doubtful, changed, check, mode_of, with_mode
from wattshift_cluster.asic.antminer_sample import (
    ideal_rate,
    stats_sample,
    summary_rate,
    web_sample,
)
from wattshift_cluster.emulate.antminer_conf import fresh_conf

CONF = fresh_conf("w", asleep=False)


def json_of(floats):
    return st.recursive(
        st.none() | st.booleans() | st.integers() | floats | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=6,
    )


JSON = json_of(st.floats())
FINITE = json_of(st.floats(allow_nan=False))
NAMES = st.sampled_from(["pools", "STATS", "SUMMARY", "chain", "temp_chip", "temp_chip1", "GHS 5s"])


@settings(max_examples=40)
@given(st.dictionaries(NAMES | st.sampled_from(list(CONF)), JSON, max_size=6))
def test_any_reply_is_survived(reply):
    for nested in (reply, {"STATS": [reply]}, {"SUMMARY": [reply]}):
        assert mode_of(nested) in (None, 0, 1, 2, 3)
        for value in (summary_rate(nested), ideal_rate(nested), *stats_sample(nested)):
            assert value is None or value >= 0
        web_sample(nested)
        with contextlib.suppress(Doubtful):
            check(nested)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=4), FINITE, max_size=4), st.sampled_from([0, 1, 3]))
def test_a_write_carries_every_other_field_as_it_was_read(more, mode):
    conf = {**more, **CONF}
    posted = with_mode(conf, mode)
    assert (posted["miner-mode"], posted["bitmain-work-mode"]) == (mode, str(mode))
    assert posted["freq-level"] == conf["bitmain-freq-level"]
    assert set(changed(conf, {**posted})) <= {"freq-level"}
    legacy = {**{k: v for k, v in CONF.items() if k != "bitmain-work-mode"}, "miner-mode": 0}
    assert with_mode(legacy, mode)["miner-mode"] == mode
    assert "bitmain-work-mode" not in with_mode(legacy, mode)


def test_values_of_another_type_differ():
    assert changed({"a": True, "b": [1]}, {"a": 1, "b": ["1"]}) == ["a", "b"]
    assert changed({"a": {"x": [1, None]}}, {"a": {"x": [1, None]}}) == []
    assert changed({"a": 1}, {"b": 1}) == ["a", "b"]


def test_newer_firmware_names_watts_and_no_mode():
    """Fields of a record of an S23 Hyd. (256foundation/asic-rs)."""
    chain = {"index": 0, "temp_chip": [44, 44, 56, 0], "rate_real": 188896.1}
    row = {"chain": [chain], "rate_5s": 572845.56, "rate_unit": "GH/s", "watt": 5525}
    sample = web_sample({"STATS": [row]})
    assert (sample.hashrate_h_per_s, sample.temperature_c) == (pytest.approx(572.84556e12), 56)
    assert (sample.watts_w, sample.mode) == (5525, None)
    assert web_sample({"STATS": [{**row, "watt": 0, "rate_unit": "sol/s"}]}).watts_w is None
    assert web_sample({"STATS": [{**row, "rate_unit": "sol/s"}]}).hashrate_h_per_s is None
    assert web_sample({"STATS": []}).hashrate_h_per_s is None
    no_sensor = web_sample({"STATS": [{"chain": [{"temp_chip": [0, 0]}]}]})
    assert no_sensor.temperature_c is None
