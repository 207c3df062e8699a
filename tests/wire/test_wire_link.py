"""The link and the server over real loopback sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.errors import ConfigInvalid, Refused
from wattshift_cluster.wire import lines, server
from wattshift_cluster.wire.link import Link, LinkError, OpFailed, Unauthorized
from wattshift_cluster.wire.token import create_token, read_token

TOKEN = b"0123456789abcdef0123456789abcdef"


async def echo(op: str, fields: dict[str, Any]) -> dict[str, Any]:
    match op:
        case "refuse":
            raise Refused("the cap forbids it")
        case "crash":
            raise RuntimeError("secret detail")
        case "slow":
            await asyncio.sleep(fields["seconds"])
        case "big":
            return {"text": "x" * (lines.LINE_LIMIT_BYTES + 1)}
        case "nan":
            return {"watts_w": float("nan")}
    return {"op_was": op, "fields": fields}


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    listener = await server.serve("127.0.0.1", 0, name="rig", token=TOKEN, handler=echo)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def raw(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, limit=lines.LINE_LIMIT_BYTES)


async def log_in(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client written only from the protocol's text."""
    reader, writer = await raw(port)
    theirs = lines.decode(await reader.readline())["nonce"]
    ours = "ab" * 16
    mac = lines.proof(TOKEN, "client", theirs, ours)
    writer.write(lines.encode({"nonce": ours, "mac": mac}))
    answer = lines.decode(await reader.readline())
    assert lines.proves(answer["mac"], TOKEN, "server", ours, theirs)
    return reader, writer


def test_a_call_comes_back_with_its_fields() -> None:
    async def scenario() -> None:
        async with serving() as port:
            link = Link("127.0.0.1", port, TOKEN)
            answer = await link.call("exchange", leases=[{"device": "gpu0"}])
            assert answer == {"op_was": "exchange", "fields": {"leases": [{"device": "gpu0"}]}}
            assert link.name == "rig"
            await link.close()
            assert (await link.call("again"))["op_was"] == "again"

    asyncio.run(scenario())


def test_a_wrong_token_is_refused_and_nothing_is_served() -> None:
    async def scenario() -> None:
        async with serving() as port:
            with pytest.raises(Unauthorized, match="not accepted"):
                await Link("127.0.0.1", port, b"another-token-of-good-size").call("hello")
            reader, writer = await raw(port)
            await reader.readline()
            writer.write(b'{"nonce":"' + b"00" * 16 + b'","mac":"' + b"0" * 64 + b'"}\n')
            writer.write(b'{"id":1,"op":"hello"}\n')
            assert lines.decode(await reader.readline()) == {"error": "unauthorized"}
            assert await reader.read() == b""

    asyncio.run(scenario())


def test_a_server_that_does_not_know_the_token_is_not_trusted() -> None:
    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = "cd" * 16
        writer.write(lines.encode({"wattshift": 1, "name": "impostor", "nonce": nonce}))
        hello = lines.decode(await reader.readline())
        # Playing the client's own proof back must not pass for the server's.
        writer.write(lines.encode({"mac": hello["mac"]}))
        await reader.read()

    async def scenario() -> None:
        listener = await asyncio.start_server(impostor, "127.0.0.1", 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            link = Link("127.0.0.1", port, TOKEN)
            with pytest.raises(Unauthorized, match="another token"):
                await link.call("hello")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("refuse", "the cap forbids it"),
        ("crash", "internal error: RuntimeError$"),
        ("big", "longer than"),
        ("nan", "not representable"),
    ],
)
def test_a_failed_request_says_why_and_the_connection_lives(op: str, message: str) -> None:
    async def scenario() -> None:
        async with serving() as port:
            link = Link("127.0.0.1", port, TOKEN)
            with pytest.raises(OpFailed, match=message):
                await link.call(op)
            assert (await link.call("next"))["op_was"] == "next"

    asyncio.run(scenario())


def test_an_oversized_line_ends_the_connection_only() -> None:
    async def scenario() -> None:
        async with serving() as port:
            reader, writer = await log_in(port)
            writer.write(b"[" * (lines.LINE_LIMIT_BYTES + 2))
            assert await reader.read() == b""
            assert (await Link("127.0.0.1", port, TOKEN).call("hello"))["op_was"] == "hello"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[1]\n", b'{"id":1,"op":NaN}\n', b"[" * 100_000 + b"\n"]
)
def test_a_line_that_is_no_object_ends_the_connection(line: bytes) -> None:
    async def scenario() -> None:
        async with serving() as port:
            reader, writer = await log_in(port)
            writer.write(line)
            assert await reader.read() == b""

    asyncio.run(scenario())


@pytest.mark.parametrize("line", [b'{"op":"x"}\n', b'{"id":true,"op":"x"}\n', b'{"id":1}\n'])
def test_a_request_without_id_or_op_is_answered(line: bytes) -> None:
    async def scenario() -> None:
        async with serving() as port:
            reader, writer = await log_in(port)
            writer.write(line)
            assert lines.decode(await reader.readline())["ok"] is False

    asyncio.run(scenario())


def test_a_late_answer_is_never_taken_for_the_next_one() -> None:
    async def scenario() -> None:
        async with serving() as port:
            link = Link("127.0.0.1", port, TOKEN, deadline_s=0.2)
            with pytest.raises(LinkError, match="no answer"):
                await link.call("slow", seconds=0.3)
            assert (await link.call("next"))["op_was"] == "next"

    asyncio.run(scenario())


def test_strangers_cannot_use_up_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.3)

    async def scenario() -> None:
        async with serving() as port:
            strangers = [await raw(port) for _ in range(server.CONNECTIONS)]
            for reader, _ in strangers:
                await reader.readline()
            with pytest.raises(LinkError, match="too many"):
                await Link("127.0.0.1", port, TOKEN).call("hello")
            await asyncio.sleep(0.5)
            links = [Link("127.0.0.1", port, TOKEN) for _ in range(server.CONNECTIONS)]
            for link in links:
                await link.call("hello")
            with pytest.raises(LinkError, match="too many"):
                await Link("127.0.0.1", port, TOKEN).call("hello")
            await links[0].close()
            await asyncio.sleep(0.05)
            await Link("127.0.0.1", port, TOKEN).call("hello")

    asyncio.run(scenario())


def test_nobody_there_is_a_link_error() -> None:
    async def scenario() -> None:
        async with serving() as port:
            link = Link("127.0.0.1", port, TOKEN)
            await link.call("hello")
        await link.close()
        with pytest.raises(LinkError):
            await link.call("hello")

    asyncio.run(scenario())


def test_token_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert create_token(path) == read_token(path)
    with pytest.raises(FileExistsError):
        create_token(path)
    path.chmod(0o640)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    path.write_bytes(b"short\n")
    with pytest.raises(ConfigInvalid, match="16 to 1024"):
        read_token(path)
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_token(tmp_path / "absent")
