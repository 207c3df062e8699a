"""What the utility's Modbus server makes of bytes, whole, in parts, and wrong."""

import asyncio
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.grid.utility_rig import (
    HOST,
    run,
    running,
)

from wattshift_cluster.grid.utility.frames import Code, RequestRefused, read_request


def test_two_requests_that_arrive_together_are_both_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as rig:
            reader, writer = await asyncio.open_connection(
                HOST, rig.source.port, local_addr=("127.9.0.2", 0)
            )
            writer.write(_one(1, 7, 5) + _one(2, 7, 6) + _one(3, 8, 1)[:-1])
            answers = await reader.readexactly(24)
            assert answers == _one(1, 7, 5) + _one(2, 7, 6)
            assert rig.caps_w == {}, "the heart beat twice"
            writer.write(_one(3, 8, 1)[-1:])
            assert await reader.readexactly(12) == _one(3, 8, 1)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await reader.read() == b"", "no Modbus: hung up on"
            writer.close()

    run(test)


def _one(transaction: int, address: int, word: int) -> bytes:
    return struct.pack(">HHHBBHH", transaction, 0, 6, 1, 6, address, word)


@given(
    st.builds(
        lambda function, body: bytes([function]) + body,
        st.sampled_from([3, 4, 6, 16, 22, 43, 131]),
        st.binary(max_size=40),
    )
)
@settings(max_examples=100, deadline=None)
def test_no_bytes_are_read_as_more_than_they_are(pdu: bytes) -> None:
    try:
        request = read_request(pdu)
    except RequestRefused:
        return
    assert request.address + request.count <= 0x1_0000
    assert request.words is None or len(request.words) == request.count


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        ("0300000000", Code.VALUE),
        ("030000007e", Code.VALUE),
        ("03fffe0003", Code.ADDRESS),
        ("03000000", Code.VALUE),
        ("06000000", Code.VALUE),
        ("10000000", Code.VALUE),
        ("100000000204" + "0000", Code.VALUE),
        ("100000000203" + "00000000", Code.VALUE),
        ("10fffe000306" + "0000" * 3, Code.ADDRESS),
        ("1600000000ffff", Code.FUNCTION),
    ],
)
def test_a_request_whose_lengths_do_not_fit_is_refused(pdu: str, code: Code) -> None:
    with pytest.raises(RequestRefused) as no:
        read_request(bytes.fromhex(pdu))
    assert no.value.code is code
