"""Carbon: WattTime and Electricity Maps as their documents show them, units, and a history."""

import asyncio
import base64
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from tests.grid import curve_rig as rig_of

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.readers import CurveFailed
from wattshift_cluster.grid.curves.steps import value_at
from wattshift_cluster.grid.market.carbon import ElectricityMaps, WattTime, in_unit
from wattshift_cluster.grid.market.carbon_history import parse_moer

NOON_S = rig_of.NOON_S
serving = rig_of.serving

FORECAST = {
    "data": [
        {"point_time": "2026-09-01T12:00:00+00:00", "value": 1000.0},
        {"point_time": "2026-09-01T12:05:00+00:00", "value": 0.0},
        {"point_time": "2026-09-01T12:15:00+00:00", "value": 1200.0},
    ],
    "meta": {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "data_point_period_seconds": 300,
        "generated_at": "2026-09-01T11:55:00+00:00",
        "warnings": [],
    },
}
MAPS = {
    "zone": "DE",
    "forecast": [
        {"carbonIntensity": 302, "datetime": "2026-09-01T12:00:00.000Z"},
        {"carbonIntensity": 250, "datetime": "2026-09-01T13:00:00.000Z"},
    ],
    "updatedAt": "2026-09-01T11:50:00.000Z",
}


def secret(tmp_path: Path, text: str = "hunter2\n") -> Path:
    file = tmp_path / "secret"
    file.write_text(text)
    return file


def watttime(rig: Any, file: Path) -> WattTime:
    return WattTime(rig.url, "CAISO_NORTH", "ada", file)


def test_units_become_g_per_kwh() -> None:
    assert in_unit("lbs/MWh")(1000) == pytest.approx(453.59237)
    assert in_unit("kg/kWh")("0.49") == pytest.approx(490)
    assert in_unit("kg/MWh")(490) == 490
    for wrong in (float("nan"), -1, 5001, True, None, "much", 10**400):
        with pytest.raises(ValueError, match=r"outside|figure"):
            in_unit("g/kWh")(wrong)


def test_watttime_logs_in_and_its_forecast_is_a_curve_with_gaps(tmp_path: Path) -> None:
    async def run() -> None:
        with serving() as rig:
            rig.answer("/login", json.dumps({"token": "tok1"}))
            rig.answer("/v3/forecast", json.dumps(FORECAST))
            reader = watttime(rig, secret(tmp_path))
            told = await reader.read(NOON_S)
            assert told.steps is not None
            assert told.steps.told_s == NOON_S - 300
            assert value_at(told.steps, NOON_S) == pytest.approx(453.59237)
            assert value_at(told.steps, NOON_S + 300) == 0.0
            assert math.isnan(value_at(told.steps, NOON_S + 600))
            assert told.steps.ends_s == NOON_S + 1200
            basic = base64.b64encode(b"ada:hunter2").decode()
            assert rig.asked[0][1]["authorization"] == f"Basic {basic}"
            path, headers = rig.asked[1]
            assert headers["authorization"] == "Bearer tok1"
            assert path == "/v3/forecast?region=CAISO_NORTH&signal_type=co2_moer&horizon_hours=24"
            await reader.read(NOON_S)
            assert [path.partition("?")[0] for path, _ in rig.asked[2:]] == ["/v3/forecast"]
            await reader.close()

    asyncio.run(run())


def test_a_token_that_is_refused_is_renewed_once(tmp_path: Path) -> None:
    async def run() -> None:
        with serving() as rig:
            rig.answer("/login", json.dumps({"token": "tok1"}))
            rig.answer("/v3/forecast", json.dumps(FORECAST))
            reader = watttime(rig, secret(tmp_path))
            await reader.read(NOON_S)
            rig.asked.clear()
            rig.answer("/v3/forecast", "", 401)
            with pytest.raises(CurveFailed, match="HTTP status 401"):
                await reader.read(NOON_S)
            paths = [path.partition("?")[0] for path, _ in rig.asked]
            assert paths == ["/v3/forecast", "/login", "/v3/forecast"]
            await reader.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "answer", "told"),
    [
        ("/login", {"token": "a\nb"}, "no token"),
        ("/login", {}, "no token"),
        ("/v3/forecast", FORECAST | {"meta": {"units": "percentile"}}, "percentile"),
        ("/v3/forecast", FORECAST | {"data": []}, "no values"),
        ("/v3/forecast", [1], "not a JSON object"),
    ],
)
def test_watttime_s_nonsense_is_refused(
    tmp_path: Path, path: str, answer: object, told: str
) -> None:
    async def run() -> None:
        with serving() as rig:
            rig.answer("/login", json.dumps({"token": "tok1"}))
            rig.answer("/v3/forecast", json.dumps(FORECAST))
            rig.answer(path, json.dumps(answer))
            reader = watttime(rig, secret(tmp_path))
            with pytest.raises(CurveFailed, match=told) as caught:
                await reader.read(NOON_S)
            assert "hunter2" not in str(caught.value)
            await reader.close()

    asyncio.run(run())


def test_electricity_maps_tells_of_its_zone_alone(tmp_path: Path) -> None:
    async def run() -> None:
        with serving() as rig:
            path = "/v3/carbon-intensity/forecast"
            rig.answer(path, json.dumps(MAPS))
            reader = ElectricityMaps(rig.url, "DE", secret(tmp_path))
            told = await reader.read(NOON_S)
            assert [value_at(told.steps, NOON_S + at) for at in (0, 3600)] == [302, 250]
            assert rig.asked == [(f"{path}?zone=DE&horizonHours=24", rig.asked[0][1])]
            assert rig.asked[0][1]["auth-token"] == "hunter2"
            rig.answer(path, json.dumps(MAPS | {"zone": "FR"}))
            with pytest.raises(CurveFailed, match="zone 'FR'"):
                await reader.read(NOON_S)
            secret(tmp_path, "\n")
            with pytest.raises(CurveFailed, match="holds no secret"):
                await reader.read(NOON_S)
            (tmp_path / "secret").unlink()
            with pytest.raises(CurveFailed, match="No such file"):
                await reader.read(NOON_S)
            await reader.close()

    asyncio.run(run())


def test_a_replay_of_moer_knows_what_was_told_then() -> None:
    text = "time,moer,f1,f2\n1000,0.5,0.4,0.3\n1300,0.45,0.44,\n"
    history = parse_moer(text, "m.csv")
    assert history.known(999) is None
    early, late = history.known(1299), history.known(1300)
    assert [value_at(early, at) for at in (1000, 1300, 1600)] == pytest.approx([500, 400, 300])
    assert [value_at(late, at) for at in (1000, 1300, 1600)] == pytest.approx([500, 450, 440])
    assert math.isnan(value_at(late, 1900))
    with pytest.raises(ConfigInvalid, match="not after the row before"):
        parse_moer("time,moer\n1000,0.5\n1000,0.5\n", "m.csv")


def test_the_moer_file_of_the_data_folder_is_read() -> None:
    folder = os.environ.get("WATTSHIFT_DATA")
    file = Path(folder or "/nonexistent") / "grid" / "caiso_sce_moer_5min_2021-08.csv.gz"
    if not file.exists():
        pytest.skip("WATTSHIFT_DATA names no folder with the MOER history")
    with gzip.open(file, "rt") as lines:
        text = "".join(line for line, _ in zip(lines, range(600), strict=False))
    history = parse_moer(text, file.name)
    assert len(history.times_s) == 599
    now_s = history.times_s[400] + 10
    known = history.known(now_s)
    assert known is not None
    assert known.ends_s == history.times_s[400] + 13 * 300
    assert value_at(known, now_s) == pytest.approx(history.rows[400][0])
