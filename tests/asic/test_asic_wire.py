"""Parsing of what a machine reports, identification of unknown ones, and the rating table."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.wire import first, number, rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "value", [None, "", "n/a", "nan", "inf", -1, float("nan"), True, [], {}, "-3"]
)
def test_a_value_that_is_no_quantity_is_unknown(value):
    assert number(value) is None


@pytest.mark.parametrize(("value", "parsed"), [(0, 0.0), ("59756.06", 59756.06), (25.4, 25.4)])
def test_quantities(value, parsed):
    assert number(value) == parsed


@given(JSON)
def test_any_reply_is_survived(reply):
    assert isinstance(rows(reply, "a"), list)
    assert isinstance(first(reply, "a"), dict)
    parsed = number(reply)
    assert parsed is None or parsed >= 0


def test_ratings_are_found_by_the_whole_name_only():
    assert rating("Antminer S19k Pro").watts_w == 2760
    assert rating("M60S_VK40").watts_w == 3441
    assert rating("Antminer S21 Pro").watts_w == 3510
    assert rating("Antminer S21 Pro Max") is None
    assert rating("") is None


def test_a_stock_antminer_is_refused_before_pyasic_sees_it():
    asked = []

    async def serve(reader, writer):
        asked.append(json.loads(await reader.read(4096))["command"])
        version = {"VERSION": [{"Type": "Antminer S21", "API": "3.1", "Miner": "uart_trans.1.3"}]}
        writer.write(json.dumps(version).encode() + b"\x00")
        writer.close()

    async def main():
        address = f"127.22.{1 + os.getpid() % 250}.1"
        server = await asyncio.start_server(serve, address, 4028)
        async with server:
            with pytest.raises(AsicRefused, match="Antminer S21"):
                await connect(address, deadline_s=1.0)

    asyncio.run(main())
    assert asked == ["version"]


def test_the_room_imports_without_pyasic_or_ray():
    code = (
        "import sys; sys.modules['pyasic'] = None; sys.modules['ray'] = None\n"
        "import wattshift_cluster.asic.connect, wattshift_cluster.emulate.process\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
