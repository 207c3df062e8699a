"""Webhooks from a real VTN to a real receiver: handshakes, tokens, replays, retries."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.grid import openadr_rig as rig

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.openadr.callback import Callback
from wattshift_cluster.grid.openadr.failures import VtnRefused
from wattshift_cluster.grid.openadr.notices import (
    MAX_NOTICE_BYTES,
    Heard,
    NoticeInvalid,
    read_notice,
)
from wattshift_cluster.grid.openadr.words import Notification, ObjectType, SubscriptionWish
from wattshift_cluster.grid.serving import serve

BEARER = "the bearer that the site named"


class Receiver:
    """A callback and what it passed on."""

    def __init__(self, **more: Any) -> None:
        self.notices: list[Notification] = []
        self.callback = Callback(BEARER, self.notices.append, **more)
        self.url = ""

    def told(self) -> list[tuple[str, str]]:
        return [(one.operation.value, str(one.object.get("eventName"))) for one in self.notices]


@asynccontextmanager
async def receiver(**more: Any) -> AsyncIterator[Receiver]:
    made = Receiver(**more)
    made.url = await made.callback.start(rig.HOST, 0)
    try:
        yield made
    finally:
        await made.callback.close()


def wish(url: str, **more: Any) -> SubscriptionWish:
    return SubscriptionWish(client_name="my-site", callback_url=url, bearer=BEARER, **more)


def notice(operation: str = "UPDATE", at: str = "2030-01-01T00:00:00Z", kw: float = 500) -> bytes:
    row = rig.event("program-1", kw) | {
        "id": "event-1",
        "objectType": "EVENT",
        "createdDateTime": "2029-01-01T00:00:00Z",
        "modificationDateTime": at,
    }
    return json.dumps({"objectType": "EVENT", "operation": operation, "object": row}).encode()


def test_what_happens_to_events_is_told_in_order_and_in_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            rig.vtn() as vtn,
            rig.client(vtn.url, tmp_path) as client,
            receiver() as site,
        ):
            program = await rig.program(vtn)
            await client.register("my-site", [])
            subscription = await client.subscribe(wish(site.url))
            assert site.callback.counts.echoed == 1
            assert await client.subscribe(wish(site.url)) == subscription, "not a second one"
            shown = await client._list("subscriptions", ())
            assert shown[0]["objectOperations"][0]["callbackUrl"] == site.url
            assert BEARER not in str(shown), "whoever set it knows it"
            row = await vtn.post(ObjectType.EVENT, rig.event(program, eventName="cut"))
            body = rig.event(program, 300, eventName="cut deeper")
            await vtn.put(ObjectType.EVENT, row["id"], body)
            vtn.delete(ObjectType.EVENT, row["id"])
            await rig.until(lambda: len(site.notices) == 3, "three notices")
            told = [("CREATE", "cut"), ("UPDATE", "cut deeper"), ("DELETE", "cut deeper")]
            assert site.told() == told
            event = site.notices[1].event()
            assert event is not None
            assert event.intervals[0].payloads[0].values == (300,)
            await client.unsubscribe(subscription)
            await client.unsubscribe(subscription)
            await vtn.post(ObjectType.EVENT, rig.event(program, eventName="unheard"))
            assert vtn.objects(ObjectType.SUBSCRIPTION) == []
            assert len(site.notices) == 3

    rig.run(scene())


def test_nobody_is_told_of_what_is_meant_for_others(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            rig.vtn() as vtn,
            rig.client(vtn.url, tmp_path) as mine,
            rig.client(vtn.url, tmp_path, rig.OTHER) as theirs,
            receiver() as my_site,
            receiver() as their_site,
        ):
            program = await rig.program(vtn)
            second = await rig.program(vtn, "another program")
            await rig.grant(vtn, rig.SITE, "my-site", ["north", "site"])
            await rig.grant(vtn, rig.OTHER, "their-site", ["south"])
            await mine.subscribe(wish(my_site.url, program_id=program))
            await theirs.subscribe(wish(their_site.url))
            for name, of, targets in (
                ("north only", program, ["north"]),
                ("both", program, ["north", "south"]),
                ("another program", second, ["north"]),
                ("all", program, []),
            ):
                body = rig.event(of, eventName=name, targets=targets)
                await vtn.post(ObjectType.EVENT, body)
            await rig.until(
                lambda: (
                    ("CREATE", "all") in my_site.told() and ("CREATE", "all") in their_site.told()
                ),
                "the last notice",
            )
            assert [name for _, name in my_site.told()] == ["north only", "both", "all"]
            assert [name for _, name in their_site.told()] == ["both", "all"]
            assert my_site.notices[1].object["targets"] == ["north"]
            assert their_site.notices[0].object["targets"] == ["south"]

    rig.run(scene())


def test_no_subscription_without_a_handshake(tmp_path: Path) -> None:
    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"something else"})

    async def scene() -> None:
        deaf_site = await serve(deaf, rig.HOST, 0, name="deaf")
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            for url, why in (
                (deaf_site.url + "/hook", "echo"),
                (f"http://{rig.HOST}:9/nobody-listens", "does not answer: ConnectError"),
                ("http://192.0.2.1/elsewhere", "own machine alone"),
                ("file:///etc/passwd", "no address"),
            ):
                with pytest.raises(VtnRefused) as no:
                    await client.subscribe(wish(url))
                assert no.value.status == 400
                assert why in no.value.title
            assert vtn.objects(ObjectType.SUBSCRIPTION) == []
        await deaf_site.close()

    rig.run(scene())


def test_a_site_that_is_away_for_a_moment_is_told_all_the_same(tmp_path: Path) -> None:
    refusals = [503, 500, 200, 403]
    came: list[int] = []

    async def shaky(scope: Any, receive: Any, send: Any) -> None:
        status, body = 200, b""
        if scope["method"] == "GET":
            body = scope["query_string"].removeprefix(b"echo=")
        else:
            status = refusals.pop(0) if refusals else 200
            came.append(status)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def scene() -> None:
        site = await serve(shaky, rig.HOST, 0, name="shaky")
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            program = await rig.program(vtn)
            await client.subscribe(wish(site.url + "/hook"))
            await vtn.post(ObjectType.EVENT, rig.event(program))
            await rig.until(lambda: vtn.webhooks.delivered == 1, "the third try")
            assert came == [503, 500, 200]
            await vtn.post(ObjectType.EVENT, rig.event(program))
            await rig.until(lambda: vtn.webhooks.dropped == 1, "a refusal is not tried again")
            assert came == [503, 500, 200, 403]
        await site.close()

    rig.run(scene())


@asynccontextmanager
async def caller() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
        yield http


def bearer(token: str = BEARER) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_notice_without_our_token_changes_nothing_and_is_counted() -> None:
    async def scene() -> None:
        async with receiver() as site, caller() as http:
            for headers, status in (
                ({}, 401),
                ({"Authorization": "Bearer"}, 401),
                ({"Authorization": "Basic eDp5"}, 401),
                (bearer("another token of some length"), 403),
                (bearer(BEARER + "x"), 403),
                (bearer(BEARER[:-1]), 403),
                (bearer("ä".encode().decode("latin-1")), 403),
            ):
                encoded = {name: value.encode("latin-1") for name, value in headers.items()}
                answer = await http.post(site.url, content=notice(), headers=encoded)
                assert answer.status_code == status, headers
                assert answer.text == ""
            assert site.notices == []
            assert site.callback.counts.unauthorised == 3
            assert site.callback.counts.forbidden == 4
            twice = [("Authorization", f"Bearer {BEARER}"), ("Authorization", "Bearer x" * 9)]
            answer = await http.post(site.url, content=notice(), headers=twice)
            assert answer.status_code == 401, "of two tokens none counts"

    rig.run(scene())


def test_a_notice_that_is_played_again_brings_no_old_limit_back() -> None:
    async def scene() -> None:
        async with receiver() as site, caller() as http:

            async def tell(data: bytes) -> int:
                answer = await http.post(site.url, content=data, headers=bearer())
                assert answer.status_code == 200
                return len(site.notices)

            high = notice(at="2030-01-01T00:00:01Z", kw=900)
            low = notice(at="2030-01-01T00:00:02Z", kw=100)
            assert await tell(high) == 1
            assert await tell(high) == 1, "the same again"
            assert await tell(low) == 2
            assert await tell(high) == 2, "older than what is known"
            corrected = notice(at="2030-01-01T00:00:02Z", kw=50)
            assert await tell(corrected) == 3, "of the same time, with other words"
            assert await tell(low) == 3, "the words of that time were heard"
            gone = notice("DELETE", at="2030-01-01T00:00:02Z", kw=50)
            assert await tell(gone) == 4, "a deletion does not change the time"
            assert await tell(corrected) == 4, "and ends it"
            assert await tell(notice("CREATE", at="2030-01-01T00:00:02Z", kw=900)) == 4
            assert await tell(notice("CREATE", at="2030-01-01T01:00:03+01:00")) == 5
            assert site.callback.counts.repeated == 5
            assert site.callback.counts.taken == 5

    rig.run(scene())


def test_what_is_no_notice_is_refused() -> None:
    row = json.loads(notice())
    wrong: list[bytes] = [
        b"",
        b"{",
        b"[]",
        b"null",
        json.dumps(row | {"operation": "EXPLODE"}).encode(),
        json.dumps(row | {"objectType": "TOASTER"}).encode(),
        json.dumps(row | {"object": {"id": "e"}}).encode(),
        json.dumps(row | {"object": {"modificationDateTime": "2030-01-01T00:00:00Z"}}).encode(),
        notice(at="yesterday"),
        notice().replace(b"500", b"NaN"),
        b"[" * 100_000,
        b" " * MAX_NOTICE_BYTES + notice(),
    ]

    async def scene() -> None:
        async with receiver() as site, caller() as http:
            for data in wrong:
                answer = await http.post(site.url, content=data, headers=bearer())
                assert answer.status_code == 400, data[:60]
            assert site.notices == []
            assert site.callback.counts.invalid == len(wrong)
            assert (
                await http.post(site.url, content=notice(), headers=bearer())
            ).status_code == 200

    rig.run(scene())


def test_a_notice_of_3_0_is_understood() -> None:
    old = json.loads(notice()) | {"operation": "PUT"}
    old["object"]["targets"] = [{"type": "GROUP", "values": ["north"]}]
    read = read_notice(json.dumps(old).encode())
    assert read.operation.value == "UPDATE"
    event = read.event()
    assert event is not None
    assert event.targets == ("north",)


def test_the_handshake_answers_one_plain_word_and_nothing_else() -> None:
    async def scene() -> None:
        async with receiver() as site, caller() as http:
            answer = await http.get(site.url, params={"echo": "<b>word</b> ü"})
            assert answer.text == "<b>word</b> ü"
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
            for query in ("", "?echo=", "?echo=a&echo=b", "?echo=a%0d%0ab", "?echo=" + "x" * 2000):
                assert (await http.get(site.url + query)).status_code == 400, query
            assert (await http.get(site.url + "/elsewhere")).status_code == 404
            assert (await http.delete(site.url)).status_code == 405
            assert site.callback.counts.echoed == 1

    rig.run(scene())


@pytest.mark.parametrize(
    ("deadline_s", "sent"), [(0.2, b"{"), (60.0, b" " * (MAX_NOTICE_BYTES + 1))]
)
def test_a_body_that_does_not_end_does_not_hold_the_receiver(
    monkeypatch: pytest.MonkeyPatch, deadline_s: float, sent: bytes
) -> None:
    monkeypatch.setattr("wattshift_cluster.grid.openadr.callback.BODY_DEADLINE_S", deadline_s)

    async def scene() -> None:
        async with receiver() as site, asyncio.timeout(rig.WAIT_S):
            host, port = site.url.split("/")[2].split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /openadr HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {BEARER}\r\n"
            writer.write((head + "Content-Length: 100000000\r\n\r\n").encode() + sent)
            line = await reader.readline()
            assert b" 400 " in line
            assert site.callback.counts.invalid == 1
            writer.close()

    rig.run(scene())
    with pytest.raises(NoticeInvalid, match="more than"):
        read_notice(b" " * MAX_NOTICE_BYTES + notice())


def test_a_receiver_with_a_certificate_speaks_tls(tmp_path: Path) -> None:
    made = rig.certificates(tmp_path)

    async def scene() -> None:
        settings = rig.VtnSettings(clients=rig.LOGINS, callback_verify=str(made.ca))
        async with (
            rig.vtn(settings) as vtn,
            rig.client(vtn.url, tmp_path) as client,
            receiver(cert=made.cert, key=made.key) as site,
        ):
            assert site.url.startswith("https://")
            program = await rig.program(vtn)
            await client.subscribe(wish(site.url))
            await vtn.post(ObjectType.EVENT, rig.event(program))
            await rig.until(lambda: len(site.notices) == 1, "a notice by TLS")

    rig.run(scene())


def test_an_address_that_is_taken_is_told() -> None:
    async def scene() -> None:
        async with receiver() as site:
            port = int(site.url.split("/")[2].split(":")[1])
            with pytest.raises(WattshiftError, match="cannot listen"):
                await Callback(BEARER, lambda one: None).start(rig.HOST, port)

    rig.run(scene())


def test_memory_of_what_was_heard_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattshift_cluster.grid.openadr.notices.MAX_OBJECTS_KNOWN", 3)
    heard = Heard()
    for number in range(10):
        row = json.loads(notice())
        row["object"]["id"] = f"event-{number}"
        assert heard.is_news(read_notice(json.dumps(row).encode()))
    assert len(heard._known) == 3
    many = [read_notice(notice(kw=kw)) for kw in range(50)]
    assert sum(heard.is_news(one) for one in many) == 8
    assert heard.is_news(read_notice(notice("DELETE", kw=99))), "a deletion is always heard"
