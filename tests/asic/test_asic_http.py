"""Our HTTP client against servers that are well, slow, closed, huge, or speak nonsense."""

import asyncio
import time
from weakref import WeakKeyDictionary

import pytest
from tests.ports import own_address

from wattshift_cluster.asic import http_auth, wire
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.http import WORDS_LIMIT, AsicUnauthorised, HttpSession
from wattshift_cluster.asic.http_auth import Digest, Fixed
from wattshift_cluster.asic.http_line import HEAD_LIMIT, Line
from wattshift_cluster.asic.wire import REPLY_LIMIT
from wattshift_cluster.emulate.http import Digest as ServerDigest
from wattshift_cluster.emulate.http import HttpResponse, http

PORT = 8080
SECRET = "hunter2"


class Machine:
    """A server; it counts connections and keeps what was asked."""

    def __init__(self, serve):
        self.address = own_address()
        self.connections = 0
        self._speak = serve
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, self.address, PORT)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.hang_up()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.append(writer)
        try:
            await self._speak(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def hang_up(self):
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def session(self, **more):
        return HttpSession(self.address, port=PORT, **{"deadline_s": 2.0, **more})


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def answering(*answers, keep=True, asked=None):
    """A wire that gives these answers, one per request, as raw bytes."""

    async def serve(reader, writer):
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head.decode())
            writer.write(answer)
            await writer.drain()
        if keep:
            await reader.read()

    return serve


def raw(status=200, body=b'{"a": 1}', **headers):
    fields = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
    length = "" if "Transfer_Encoding" in headers else f"Content-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} X\r\n{length}{fields}\r\n".encode() + body


def test_a_session_uses_one_connection_and_reconnects_when_it_was_closed():
    async def main():
        async with Machine(http(lambda r: HttpResponse(200, {"you": r.path}))) as machine:
            session = machine.session()
            for path in ("/a", "/b", "/c"):
                assert await session.get_json(path) == {"you": path}
            assert machine.connections == 1
            machine.hang_up()
            assert await session.post_json("/d", {"x": 1}) == {"you": "/d"}
            assert machine.connections == 2
            machine.hang_up()
            await asyncio.sleep(0.05)
            assert await session.get_json("/e") == {"you": "/e"}
            await session.close()

    run(main())


def test_a_login_costs_one_more_round_trip_and_then_none():
    seen = []

    async def main():
        door = ServerDigest("here", {"root": SECRET}, seed=1, clock=time.monotonic)

        def respond(request):
            seen.append((request.method, request.target))
            return door.refusal(request) or HttpResponse(200, {"body": request.json()})

        async with Machine(http(respond)) as machine:
            session = machine.session(auth=Digest("root", SECRET))
            await session.get_json("/one?x=1")
            assert seen == [("GET", "/one?x=1")] * 2
            del seen[:]
            for n in range(5):
                assert await session.post_json("/two", {"n": n}) == {"body": {"n": n}}
            assert seen == [("POST", "/two")] * 5
            del seen[:]
            door.forget()
            await session.get_json("/three")
            assert len(seen) == 2, "a forgotten nonce is replaced within the request"
            del seen[:]
            with pytest.raises(AsicUnauthorised, match="login was refused") as refused:
                await machine.session(auth=Digest("root", "wrong" + SECRET)).get_json("/four")
            assert len(seen) == 2, "a wrong password is tried once"
            assert SECRET not in str(refused.value)
            assert SECRET not in repr(vars(refused.value))
            with pytest.raises(AsicUnauthorised, match="no login was given"):
                await machine.session().get_json("/five")

    run(main())


def test_the_digest_is_that_of_the_standards_example(monkeypatch):
    """RFC 2617, section 3.5."""
    monkeypatch.setattr(http_auth.secrets, "token_hex", lambda _: "0a4f113b")
    auth = Digest("Mufasa", "Circle Of Life")
    challenge = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    assert auth.header("GET", "/dir/index.html") is None
    assert auth.challenged(challenge)
    header = auth.header("GET", "/dir/index.html")
    assert 'response="6629fae49393a05397450978507c4ef1"' in header
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in header
    assert "nc=00000002" in auth.header("GET", "/dir/index.html")
    assert "Circle" not in repr(auth)
    for other in (
        "",
        "Basic realm=x",
        'Digest realm="x", qop="auth"',
        'Digest realm="x", nonce="n"',
        'Digest realm="x", nonce="n", qop="auth-int"',
        'Digest realm="x", nonce="n\tm", qop="auth"',
        f"{challenge}, algorithm=SHA-256",
    ):
        assert not auth.challenged(other)


def test_a_fixed_header_is_sent_and_not_shown():
    asked = []

    async def main():
        async with Machine(answering(raw(), asked=asked)) as machine:
            auth = Fixed(f"Bearer {SECRET}")
            assert SECRET not in repr(auth)
            await machine.session(auth=auth).get_json("/")

    run(main())
    assert f"Authorization: Bearer {SECRET}\r\n" in asked[0]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (
            raw(
                body=b'5;x=y\r\n{"a":\r\n3\r\n 2}\r\n0\r\nT: x\r\n\r\n', Transfer_Encoding="chunked"
            ),
            2,
        ),
        (b'HTTP/1.0 200 OK\r\n\r\n{"a": 3}', 3),
        (b'HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 8\r\n\r\n{"a": 4}', 4),
    ],
)
def test_the_ways_to_send_a_body(answer, value):
    async def main():
        async with Machine(answering(answer, keep=False)) as machine:
            assert await machine.session().get_json("/") == {"a": value}

    run(main())


def test_an_answer_without_a_body():
    async def main():
        async with Machine(answering(b"HTTP/1.1 204 No Content\r\n\r\n", raw(body=b""))) as machine:
            session = machine.session()
            assert await session.patch_json("/", {"x": 1}) == {}
            assert await session.put_json("/", {"x": 1}) == {}
            assert machine.connections == 1

    run(main())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-dropbear\r\n\r\n", "not HTTP"),
        (b"\x00" * 96 + b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "not HTTP"),
        (raw(body=b"<html>"), "not a JSON object"),
        (raw(body=b"[1, 2]"), "not a JSON object"),
        (raw(body=b'{"a": '), "not a JSON object"),
        (raw(body=b"[" * 100_000), "not a JSON object"),
        (raw(body=b""), "not a JSON object"),
        (raw(503), "status 503"),
        (raw(302, Location="http://127.31.0.9/"), "status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{}", "announced"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}", "announced"),
        (f"HTTP/1.1 200 OK\r\nContent-Length: {REPLY_LIMIT + 1}\r\n\r\n".encode(), "announced"),
        (raw(body=b"zz\r\n", Transfer_Encoding="chunked"), "chunk"),
        (raw(body=b"-5\r\n", Transfer_Encoding="chunked"), "chunk"),
        (raw(body=b"2\r\n{}}}\r\n", Transfer_Encoding="chunked"), "chunk"),
        (raw(body=b"fffffff\r\n", Transfer_Encoding="chunked"), "more than"),
        (raw(body=b"0\r\n" + b"t: x\r\n" * 99, Transfer_Encoding="chunked"), "trailers"),
        (raw(body=b"\x1f\x8b", Transfer_Encoding="gzip"), "encoding"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * (2 * HEAD_LIMIT), "head of more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "closed in the middle"),
        (b"", "closed in the middle"),
    ],
)
def test_what_is_no_answer_is_silence(answer, reason):
    async def main():
        async with Machine(answering(answer, keep=False)) as machine:
            with pytest.raises(AsicUnreachable, match=reason):
                await machine.session().get_json("/")

    run(main())


def test_a_body_without_end_and_a_silent_machine_cost_one_deadline():
    sent = []

    async def endless(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent.append(65536)

    async def silent(reader, writer):
        await reader.read()

    async def main():
        async with Machine(endless) as machine:
            with pytest.raises(AsicUnreachable, match=r"more than|closed"):
                await machine.session(deadline_s=10.0).get_json("/")
        assert sum(sent) < 12 * REPLY_LIMIT
        async with Machine(silent) as machine:
            started_s = time.monotonic()
            with pytest.raises(AsicUnreachable, match=r"within 0\.3 s"):
                await machine.session(deadline_s=0.3).get_json("/")
            assert time.monotonic() - started_s < 5.0
        with pytest.raises(AsicUnreachable, match="refused"):
            await machine.session().get_json("/")

    run(main())


def test_a_late_or_surplus_answer_is_never_taken_for_the_next():
    held = asyncio.Event()

    async def late(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await held.wait()
        writer.write(raw(body=b'{"late": 1}'))
        await reader.read()

    async def main():
        async with Machine(late) as machine:
            session = machine.session(deadline_s=0.2)
            with pytest.raises(AsicUnreachable):
                await session.get_json("/first")
            held.set()
            await session.get_json("/second")
            assert machine.connections == 2
        twice = raw(body=b'{"n": 1}') + raw(body=b'{"n": 2}')
        async with Machine(answering(twice)) as machine:
            session = machine.session()
            assert await session.get_json("/") == {"n": 1}
            assert await session.get_json("/") == {"n": 1}
            assert machine.connections == 2

    run(main())


def test_a_connection_that_spoke_nonsense_is_not_used_again():
    nonsense = b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n"

    async def main():
        async with Machine(answering(nonsense, raw(body=b'{"rest": 1}'))) as machine:
            session = machine.session()
            for _ in range(2):
                with pytest.raises(AsicUnreachable, match="announced"):
                    await session.get_json("/")
            assert machine.connections == 2

    run(main())


def test_a_connection_that_the_machine_means_to_close_is_not_used_again():
    async def main():
        async with Machine(answering(raw(Connection="close"), raw(body=b"late"))) as machine:
            session = machine.session()
            assert await session.get_json("/") == {"a": 1}
            assert await session.get_json("/") == {"a": 1}
            assert machine.connections == 2

    run(main())


def test_what_comes_unasked_ends_the_connection():
    async def speaking(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw(body=b'{"n": 1}'))
        await asyncio.sleep(0.05)
        writer.write(raw(body=b'{"forged": 1}'))
        await reader.read()

    async def main():
        async with Machine(speaking) as machine:
            session, before = machine.session(), Line.open_now
            assert await session.get_json("/") == {"n": 1}
            assert Line.open_now == before + 1
            await asyncio.sleep(0.2)
            assert Line.open_now == before
            assert await session.get_json("/") == {"n": 1}
            assert machine.connections == 2

    run(main())


def test_a_request_is_not_repeated_once_an_answer_began_or_on_a_new_connection():
    asked = []

    async def main():
        half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"
        async with Machine(answering(raw(), half, keep=False, asked=asked)) as machine:
            session = machine.session()
            await session.get_json("/")
            with pytest.raises(AsicUnreachable, match="closed in the middle"):
                await session.post_json("/", {})
            assert len(asked) == 2
        del asked[:]
        async with Machine(answering(b"", keep=False, asked=asked)) as machine:
            with pytest.raises(AsicUnreachable):
                await machine.session().post_json("/", {})
            assert len(asked) == 1

    run(main())


def test_a_slow_answer_holds_nobody_up_and_is_asked_for_once(monkeypatch):
    monkeypatch.setattr(wire, "_slots", WeakKeyDictionary())
    monkeypatch.setattr(wire, "MAX_EXCHANGES", 1)
    door = ServerDigest("here", {"root": SECRET}, seed=1, clock=time.monotonic)
    go, thinking, seen = asyncio.Event(), asyncio.Event(), []

    async def respond(request):
        seen.append(request.path)
        if refusal := door.refusal(request):
            return refusal
        if request.path == "/slow":
            thinking.set()
            await go.wait()
        return HttpResponse(200, {"you": request.path})

    async def main():
        async with Machine(http(respond)) as machine:
            slow = machine.session(auth=Digest("root", SECRET), deadline_s=0.5)
            asked = asyncio.create_task(slow.request_slow("POST", "/slow", {}, patience_s=20.0))
            await thinking.wait()
            other = machine.session(auth=Digest("root", SECRET))
            assert await other.get_json("/quick") == {"you": "/quick"}
            await asyncio.sleep(0.7)
            go.set()
            assert await asked == (200, b'{"you": "/slow"}')
            assert seen.count("/slow") == 2, "the first was refused for want of a login"
            go.clear()
            with pytest.raises(AsicUnreachable, match=r"no answer within 0\.1 s"):
                await slow.request_slow("POST", "/slow", {}, patience_s=0.1)
        for answer in (b"", b"nonsense\r\n\r\n"):
            asked_of = []
            async with Machine(answering(answer, keep=False, asked=asked_of)) as machine:
                with pytest.raises(AsicUnreachable):
                    await machine.session().request_slow("POST", "/", {}, patience_s=5.0)
                assert len(asked_of) == 1

    run(main())


def test_a_refusal_carries_a_few_words_of_the_machine():
    async def main():
        words = b"No such\tprofile\r\n\x1b[31m" + b"!" * 5000
        async with Machine(answering(raw(404, words))) as machine:
            with pytest.raises(AsicRefused, match="404: No such profile") as refused:
                await machine.session().get_json("/x")
            assert len(refused.value.reason) <= WORDS_LIMIT + 5
            assert refused.value.reason.isprintable()

    run(main())


def test_only_the_machines_own_address_is_ever_connected_to(monkeypatch):
    strangers = []

    async def stranger(reader, writer):
        strangers.append(1)

    async def main():
        async with Machine(stranger) as other:
            elsewhere = f"http://{other.address}:{PORT}/"
            monkeypatch.setenv("http_proxy", elsewhere)
            monkeypatch.setenv("HTTP_PROXY", elsewhere)
            async with Machine(answering(raw(307, Location=elsewhere), raw())) as machine:
                session = machine.session()
                with pytest.raises(AsicUnreachable, match="307"):
                    await session.get_json("/")
                assert await session.get_json("/") == {"a": 1}

    run(main())
    assert not strangers
    for name in ("localhost", "example.com", "::1", ""):
        with pytest.raises(ValueError, match=r"IPv4|Expected|cannot be empty"):
            HttpSession(name, deadline_s=1.0)


def test_sessions_hold_no_more_connections_than_the_process_can_spare(monkeypatch):
    monkeypatch.setattr("wattshift_cluster.asic.http.most_held", lambda: Line.open_now - 1)

    async def main():
        async with Machine(http(lambda _: HttpResponse(200, {}))) as machine:
            session = machine.session()
            for _ in range(3):
                await session.get_json("/")
            assert machine.connections == 3

    run(main())


def test_a_forgotten_session_leaves_nothing_open():
    async def main():
        before = Line.open_now
        async with Machine(http(lambda _: HttpResponse(200, {}))) as machine:
            session = machine.session()
            await session.get_json("/")
            assert Line.open_now == before + 1
            del session
            await asyncio.sleep(0.05)
            assert Line.open_now == before

    run(main())
