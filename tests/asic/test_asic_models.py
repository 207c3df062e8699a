"""The table of ratings: a name finds its own model, however a firmware spells it, or none."""

import pytest

from wattshift_cluster.asic.models import ABILITIES, RATINGS, rating


@pytest.mark.parametrize("name", RATINGS)
def test_every_model_is_found_by_its_own_name(name):
    assert rating(name) is RATINGS[name]
    assert rating(f" {name.upper()} ") is RATINGS[name]


@pytest.mark.parametrize(
    ("told", "model"),
    [
        ("Antminer S21", "S21"),
        ("Antminer S21 Pro", "S21 Pro"),
        ("Antminer S21 XP", "S21 XP"),
        ("Antminer S21 XP Hyd.", "S21 XP Hyd"),
        ("Antminer S21 Hyd.", "S21 Hyd"),
        ("Bitmain Antminer S19k Pro", "S19k Pro"),
        ("S19KPro", "S19k Pro"),
        ("Antminer S19 XP (88)", "S19 XP"),
        ("Antminer S19 (Vnish 1.2.0)", "S19"),
        ("M60S_VK40", "M60S"),
        ("M60SVK40", "M60S"),
        ("WhatsMiner M60S_VK30", "M60S"),
        ("M60S++_VL40", "M60S++"),
        ("M66S+_VL20", "M66S+"),
        ("AvalonMiner 1466", "A1466"),
        ("Avalon A1566", "A1566"),
        ("Avalon Q", "Avalon Q"),
        ("Bitaxe Gamma", "BitAxe Gamma"),
    ],
)
def test_a_firmware_s_spelling_finds_the_model(told, model):
    assert rating(told) is RATINGS[model]


@pytest.mark.parametrize(
    "told",
    [
        "",
        " ",
        "Antminer",
        "Antminer S21 Pro Max",
        "Antminer S21+",
        "Antminer S21 Pro Hyd",
        "Antminer S19j",
        "Antminer S19j Pro+",
        "M60S+_VK30",
        "M60_VK30",
        "M50SVH30",
        "M66_VL20",
        "S2",
        "1466",
        "unknown",
    ],
)
def test_a_name_that_only_resembles_one_finds_nothing(told):
    assert rating(told) is None


def test_each_rating_has_a_source_and_a_likely_efficiency():
    for name, row in RATINGS.items():
        assert row.source
        j_per_th = row.watts_w / (row.hashrate_h_per_s / 1e12)
        assert 9 < j_per_th < 36, name


def test_what_stands_in_conflict_counts_at_its_upper_value():
    assert rating("A1566").watts_w == 3681
    assert rating("M60S").watts_w == 3441
    assert rating("M63S").watts_w == 7511
    assert all("upper value" in RATINGS[name].source for name in ("A1566", "M60S", "M63S"))


def test_standby_is_far_below_any_rating():
    for kind, ability in ABILITIES.items():
        assert 0 <= ability.standby_w <= 100, kind
        assert ability.sleep_s > 0
        assert ability.settle_s > 0
