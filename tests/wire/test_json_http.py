"""The small HTTP server: keep-alive, problems, limits."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx2

from wattshift_cluster.jsonhttp import MAX_CONNECTIONS, address, serve_json


def serving(body: Callable[[str], Awaitable[None]]) -> None:
    async def scene() -> None:
        server = await serve_json("127.0.0.1", 0, {"/v1/x": lambda: {"a": 1}})
        async with asyncio.timeout(20):
            await body(address(server))
        server.close()

    asyncio.run(scene())


def test_routes_problems_and_methods() -> None:
    async def body(at: str) -> None:
        async with httpx2.AsyncClient(base_url=f"http://{at}", trust_env=False) as client:
            answers = [
                await client.get("/v1/x"),
                await client.get("/v1/x?a=b"),
                await client.head("/v1/x"),
                await client.get("/nope"),
                await client.post("/v1/x", content=b"{}"),
                await client.get("/v1/x"),
            ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 405, 200]
        assert answers[0].json() == {"a": 1}
        assert answers[2].content == b""
        assert answers[3].headers["content-type"] == "application/problem+json"
        assert answers[3].json()["status"] == 404
        assert answers[4].headers["allow"] == "GET, HEAD"

    serving(body)


def test_garbage_and_huge_heads_end_the_connection() -> None:
    async def body(at: str) -> None:
        host, port = at.split(":")
        for sent in (b"hello\r\n\r\n", b"GET /" + b"x" * 20_000):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            try:
                data = await reader.read()
            except ConnectionResetError:
                data = b""
            assert data == b"" or data.startswith(b"HTTP/1.1 400 ")
            writer.close()

    serving(body)


def test_there_is_a_limit_on_connections_and_room_again_after() -> None:
    async def body(at: str) -> None:
        host, port = at.split(":")
        request = b"GET /v1/x HTTP/1.1\r\n\r\n"
        held = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CONNECTIONS)]
        for reader, writer in held:
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(await reader.readexactly(8)) == {"a": 1}
        writer.close()

    serving(body)
