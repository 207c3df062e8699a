"""Meters from the site file: which kind, what it needs, and what it becomes."""

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wattshift_cluster.config.draft import Draft
from wattshift_cluster.config.meter_checks import whole_meters
from wattshift_cluster.config.meters import Meter
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.meters.build import bounds_of, build
from wattshift_cluster.grid.meters.reading import Flaw
from wattshift_cluster.jsonhttp import address, serve_json

DOCS = Path(__file__).parents[2] / "docs" / "meters.md"


def section(text: str) -> Meter:
    return Meter.model_validate(tomllib.loads(text), by_alias=True, by_name=False)


def faults(text: str) -> list[str]:
    draft = Draft({}, {"meter": section(text)})
    return [f"{path}: {why}" for path, _, why in whole_meters(draft)]


def test_a_bare_url_is_a_meter_over_http() -> None:
    meter = Meter.model_validate("http://10.0.9.11/v1/power")
    assert (meter.kind, meter.url, meter.stale_after_s) == (
        "http",
        "http://10.0.9.11/v1/power",
        3.0,
    )
    assert faults('url = "http://10.0.9.11/v1/power"\nstale_after = "5s"') == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "url: missing"),
        ('kind = "modbus"', "address: missing"),
        ('kind = "modbus"\naddress = "m:502"\nurl = "http://m"', "url: kind modbus has address"),
        ('kind = "modbus"\naddress = "m:502"\nwatts = {}', "watts.register: missing"),
        ('kind = "modbus"\naddress = "m:502"\nenergy = {register = 1}', "needs watts too"),
        ('kind = "mqtt"\naddress = "m:1883"', "watts: missing"),
        ('kind = "mqtt"\naddress = "m:1883"\nwatts = {}', "watts.topic: missing"),
        ('kind = "prometheus"\nurl = "http://m"\nwatts = {}', "watts.query: missing"),
        ('url = "http://m"\nwatts = {register = 1}', "names its values itself"),
        (
            'kind = "mqtt"\naddress = "m:1883"\ntopic = "t"\nwatts = {}\nusername = "u"',
            "password_file: missing",
        ),
        (
            'kind = "mqtt"\naddress = "m:1883"\ntopic = "t"\nwatts = {}\nusername = "u"\n'
            'password_file = "p"',
            "tls: a password, not encrypted",
        ),
        (
            'kind = "prometheus"\nurl = "http://m"\nwatts = {query = "w"}\nbearer_file = "t"',
            "url: a token, not encrypted",
        ),
    ],
)
def test_what_a_kind_needs_is_asked_for(text: str, words: str) -> None:
    assert any(words in fault for fault in faults(text)), faults(text)
    with pytest.raises(ConfigInvalid):
        build(section(text), 20_000.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'kind = "prometheus"\nurl = "http://m"\nwatts = {query = "sum(w)"}',
            "time_query has to give",
        ),
        (
            'kind = "mqtt"\naddress = "m:1883"\ntopic = "t"\nwatts = {pointer = "/a~2"}',
            "not a JSON pointer",
        ),
    ],
)
def test_what_only_its_reader_can_tell_is_refused_at_the_start(text: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        build(section(text), 20_000.0)


@pytest.mark.parametrize(
    "text", ['topic = "a/#"', 'kind = "dlms"', "unit = 300", "scales = 1", 'frozen_after = "1s"']
)
def test_a_value_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        section(text)


def test_a_meter_of_the_file_is_guarded_by_the_limit_of_its_feeder() -> None:
    async def scene() -> None:
        clock = [1_800_000_000.0]
        answer: dict[str, Any] = {"watts_w": 9000.0, "quality": "emulated", "hz": 50.0}
        server = await serve_json("127.0.0.1", 0, {"/p": lambda: answer | {"at_s": clock[0]}})
        text = f'url = "http://{address(server)}/p"\ndeadline = "10s"'
        meter = build(section(text), 20_000.0, devices_w=lambda: 8000.0, wall_s=lambda: clock[0])
        assert (await meter.poll()).watts_w == 9000.0
        for watts_w, believed_w, flaw in (
            (50_000.0, None, Flaw.BEYOND),
            (-9000.0, 9000.0, Flaw.SWAPPED),
            (-900.0, None, Flaw.NEGATIVE),
        ):
            clock[0] += 1
            answer["watts_w"] = watts_w
            reading = await meter.poll()
            assert (reading.watts_w, [one.flaw for one in reading.findings]) == (believed_w, [flaw])
            assert reading.hz == 50.0
        await meter.close()
        server.close()

    asyncio.run(scene())


def test_when_it_disagrees_is_the_file_s() -> None:
    text = 'url = "http://m"\ndisagree_pct = 5\ndisagree = "2kW"\ndisagree_after = "2m"'
    bounds = bounds_of(section(text))
    assert (bounds.share, bounds.least_w, bounds.after_s) == (0.05, 2000.0, 120.0)


def test_every_example_of_the_page_is_a_meter() -> None:
    blocks = DOCS.read_text().split("```toml\n")[1:]
    found = [tomllib.loads(block.split("```")[0]) for block in blocks]
    meters = [one["meter"] for one in found if "meter" in one]
    meters += [feeder["meter"] for one in found for feeder in one.get("feeders", [])]
    assert len(meters) >= 5
    for one in meters:
        meter = Meter.model_validate(one, by_alias=True, by_name=False)
        asyncio.run(_made(meter))


async def _made(meter: Meter) -> None:
    await build(meter, 20_000.0).close()


def test_every_flaw_stands_on_the_page() -> None:
    page = DOCS.read_text()
    assert [flaw for flaw in Flaw if f"| `{flaw}` |" not in page] == []
