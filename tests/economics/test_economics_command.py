"""`wattshift economics` by formula: the worked table, units, and what it refuses."""

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from wattshift_cluster.cli.main import main

NOW = ["--difficulty", "150T", "--price", "100000", "--fees", "0.03"]
RIGS = ["34.2", "21.5", "17.5", "15", "13.5"]


def economics(*words: str) -> Result:
    return CliRunner().invoke(main, ["economics", *words])


def table(*words: str) -> dict[str, Any]:
    result = economics(*words, "-o", "json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def each(*values: str) -> list[str]:
    return [word for value in values for word in ("--j-per-th", value)]


def test_the_worked_table() -> None:
    result = economics(*each(*RIGS), *NOW)
    assert result.exit_code == 0, result.output
    for figure in ("42.31 USD/PH/day", "51.55", "82.00", "100.74", "117.53", "130.59"):
        assert figure in result.stdout
    assert "height 840,000 is assumed" in result.stdout
    before = economics(*each("34.2"), "--difficulty", "1e14", "--price", "$100000")
    assert "62.86 USD/PH/day" in before.stdout


def test_with_a_power_price_it_says_what_idles() -> None:
    view = table(*each(*RIGS), *NOW, "--power-price", "0.1 USD/kWh", "--pool-fee", "2%")
    assert [row["verdict"] for row in view["rows"]] == ["idles"] * 3 + ["earns"] * 2
    assert view["net_hashprice_usd_per_ph_day"] == pytest.approx(0.98 * 42.3118, abs=1e-3)
    row = view["rows"][0]
    even = row["break_even_usd_per_mwh"]
    assert row["curtailment_credit_usd_per_mwh"] == pytest.approx(100.0 - even)
    assert row["net_usd_per_ph_day"] == pytest.approx(0.98 * 42.3118 - 0.024 * 34.2 * 100, abs=1e-3)
    text = economics(*each(*RIGS), *NOW, "--power-price", "100").stdout
    assert "VERDICT" in text
    assert "idles" in text


def test_height_and_scheme_count() -> None:
    halved = table(*each("17.5"), *NOW, "--height", "1050000")
    assert halved["subsidy_btc"] == 1.5625
    assert halved["hashprice_usd_per_ph_day"] == pytest.approx(42.3118 * 1.5925 / 3.155, abs=1e-3)
    subsidy_alone = table(*each("17.5"), *NOW, "--scheme", "pps")
    assert subsidy_alone["hashprice_usd_per_ph_day"] == pytest.approx(41.909, abs=1e-3)


def test_it_answers_in_yaml() -> None:
    result = economics(*each("17.5"), *NOW, "-o", "yaml")
    assert yaml.safe_load(result.stdout)["rows"][0]["j_per_th"] == 17.5


@pytest.mark.parametrize(
    "words",
    [
        ["--j-per-th", "17.5"],
        ["--difficulty", "150T", "--price", "100000"],
        ["--j-per-th", "0", *NOW],
        ["--j-per-th", "17.5", "--difficulty", "0", "--price", "1"],
        ["--j-per-th", "17.5", "--difficulty", "nan", "--price", "1"],
        ["--j-per-th", "17.5", "--difficulty", "150X", "--price", "1"],
        ["--j-per-th", "17.5", "--difficulty", "150T", "--price", "-1"],
        ["--j-per-th", "17.5", *NOW, "--pool-fee", "100%"],
        ["--j-per-th", "17.5", *NOW, "--scheme", "solo"],
        ["--j-per-th", "17.5", *NOW, "--height", "-1"],
        ["--j-per-th", "17.5", *NOW, "--power-price", "cheap"],
    ],
    ids=" ".join,
)
def test_what_it_refuses_is_usage(words: list[str]) -> None:
    result = economics(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
