"""A changed password meets those, too, who had a connection open already."""

import asyncio
import json
import struct
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.listener import EmulatedMiner

INFO = {"cmd": "get.device.info"}


async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> object:
    body = json.dumps(INFO).encode()
    writer.write(struct.pack("<I", len(body)) + body)
    (length,) = struct.unpack("<I", await reader.readexactly(4))
    return json.loads(await reader.readexactly(length))["code"]


def test_a_changed_password_ends_the_connections_that_were_kept() -> None:
    async def main() -> None:
        address = own_address()
        miner = EmulatedMiner("rig", "whatsminer", address, seed=7, clock=time.monotonic)
        await miner.start()
        try:
            for fault in (Fault.WRONG_PASSWORD, Fault.NONE):
                reader, writer = await asyncio.open_connection(address, 4433)
                assert await told(reader, writer) == 0
                await miner.inject(fault)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await asyncio.wait_for(told(reader, writer), 10.0)
                writer.close()
        finally:
            await miner.stop()

    asyncio.run(main())
