"""The client of a VTN against a real one: logins, lists that are whole, failures by their kind."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.openadr import pages
from wattshift_cluster.grid.openadr.client import VtnClient
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused, VtnUnreachable
from wattshift_cluster.grid.openadr.shim import modern, modern_notice
from wattshift_cluster.grid.openadr.words import (
    ObjectType,
    Payload,
    Report,
    ResourceWish,
)
from wattshift_cluster.grid.serving import Certificate, serve
from wattshift_cluster.grid.vtn.server import VtnSettings

rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("openadr_rig.py"))))

Answers = Callable[[str, str, bytes], tuple[int, Any]]


@asynccontextmanager
async def scripted(
    answers: Answers, certificate: Certificate | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers as told; its address, and the requests that it got."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        data = b""
        while True:
            message = await receive()
            data += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"] + "?" + scope["query_string"].decode()
        asked.append(f"{scope['method']} {path}")
        status, said = answers(scope["method"], path, data)
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    serving = await serve(app, rig.HOST, 0, name="scripted", certificate=certificate)
    try:
        yield serving.url, asked
    finally:
        await serving.close()


TOKEN = {"access_token": "a-token", "token_type": "Bearer", "expires_in": 3600}


def after_login(then: Answers) -> Answers:
    def answers(method: str, path: str, data: bytes) -> tuple[int, Any]:
        if path.startswith("/auth/server"):
            return 404, {"title": "Not Found"}
        if path.startswith("/auth/token"):
            return 200, TOKEN
        return then(method, path, data)

    return answers


def test_a_site_makes_itself_known_once_and_reads_what_is_meant_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            program = await rig.program(vtn)
            await rig.grant(vtn, rig.SITE, "my-site", ["north"])
            await vtn.post(ObjectType.EVENT, rig.event(program, eventName="for all"))
            mine = rig.event(program, eventName="for the north", targets=["north", "south"])
            await vtn.post(ObjectType.EVENT, mine)
            theirs = rig.event(program, eventName="for the south", targets=["south"])
            await vtn.post(ObjectType.EVENT, theirs)
            wishes = [ResourceWish(name="hall-1"), ResourceWish(name="hall-2")]
            made = await client.register("my-site", wishes)
            again = await client.register("my-site", wishes)
            assert again.ven.id == made.ven.id
            assert [one.id for one in again.resources] == [one.id for one in made.resources]
            assert len(vtn.objects(ObjectType.RESOURCE)) == 2
            assert [one.name for one in await client.programs()] == ["curtailment"]
            events = {one.name: one for one in await client.events()}
            assert set(events) == {"for all", "for the north"}
            assert events["for the north"].targets == ("north",), "other sites' targets are hidden"
            assert await client.events("program-none") == []
            assert client.skew_s is not None
            assert abs(client.skew_s) < 30

    rig.run(scene())


def test_a_changed_attribute_is_told_and_targets_stay_the_utilitys(tmp_path: Path) -> None:
    def wish(value: int) -> ResourceWish:
        return ResourceWish(name="hall", attributes=(Payload(type="MAX_POWER", values=(value,)),))

    async def scene() -> None:
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            made = await client.register("my-site", [wish(5)])
            row = vtn.objects(ObjectType.RESOURCE)[0]
            body = {
                "objectType": "BL_RESOURCE_REQUEST",
                "clientID": "site",
                "resourceName": "hall",
                "venID": made.ven.id,
                "targets": ["hall-target"],
            }
            await vtn.put(ObjectType.RESOURCE, row["id"], body)
            after = await client.register("my-site", [wish(7)])
            (kept,) = vtn.objects(ObjectType.RESOURCE)
            assert kept["attributes"] == [{"type": "MAX_POWER", "values": [7]}]
            assert kept["targets"] == ["hall-target"]
            assert after.resources[0].targets == ("hall-target",)
            program = await rig.program(vtn)
            await vtn.post(ObjectType.EVENT, rig.event(program, targets=["hall-target"]))
            assert len(await client.events()) == 1, "targets of a resource open its events"

    rig.run(scene())


def test_a_token_is_kept_renewed_before_its_end_and_once_more_when_refused(tmp_path: Path) -> None:
    now = [0.0]
    settings = VtnSettings(
        clients=rig.LOGINS, token_life_s=100.0, clock=lambda: now[0], callback_verify=False
    )

    async def scene() -> None:
        async with rig.vtn(settings) as vtn:
            login = rig.login(tmp_path, clock=lambda: now[0])
            client = VtnClient(vtn.url, login, verify=False)
            first = await client.token()
            now[0] = 89.0
            assert await client.token() == first
            now[0] = 91.0
            second = await client.token()
            assert second != first, "a tenth of its life is left: renewed"
            vtn.clients.forget_tokens()
            assert await client.programs() == []
            assert await client.token() != second, "the refused one is not given again"
            await client.close()

    rig.run(scene())


def test_a_public_vtn_is_asked_without_a_login() -> None:
    async def scene() -> None:
        async with scripted(lambda *_: (200, [])) as (url, asked):
            client = VtnClient(url, None, verify=False)
            assert await client.programs() == []
            assert await client.token() is None
            await client.close()
            assert asked == ["GET /programs?skip=0&limit=50"]

    rig.run(scene())


def test_a_client_that_is_refused_for_good_does_not_ask_for_ever(tmp_path: Path) -> None:
    answers = after_login(lambda *_: (401, {"title": "no", "detail": "not you"}))

    async def scene() -> None:
        async with scripted(answers) as (url, asked), rig.client(url, tmp_path) as client:
            with pytest.raises(VtnRefused) as no:
                await client.programs()
            assert no.value.status == 401
            assert no.value.title == "no: not you"
            assert [one.split("?")[0] for one in asked] == [
                "GET /auth/server",
                "POST /auth/token",
                "GET /programs",
                "POST /auth/token",
                "GET /programs",
            ]

    rig.run(scene())


def test_the_secret_is_never_shown_and_its_file_is_the_owners_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn:
            wrong = rig.Client("site", rig.Role.VEN, "quite another secret")
            async with rig.client(vtn.url, tmp_path, wrong) as client:
                with pytest.raises(VtnRefused) as no:
                    await client.programs()
                assert "invalid_client" in no.value.title
                assert "secret" not in repr(client.__dict__["_login"]).lower()
                assert wrong.secret not in str(no.value)
                os.chmod(tmp_path / "site.secret", 0o644)
                with pytest.raises(ConfigInvalid, match="chmod 600") as fault:
                    await client.programs()
                assert wrong.secret not in str(fault.value)

    rig.run(scene())


def test_no_secret_is_sent_to_an_address_that_is_none(tmp_path: Path) -> None:
    now: list[object] = [None]
    wrong = (
        ({"tokenURL": "ftp://x/token"}, "no address"),
        ({"tokenURL": 7}, "no tokenURL"),
        ([], "no tokenURL"),
    )

    async def scene() -> None:
        async with scripted(lambda *_: (200, now[0])) as (url, asked):
            async with rig.client(url, tmp_path) as client:
                for said, why in wrong:
                    now[0] = said
                    with pytest.raises(VtnNonsense, match=why):
                        await client.programs()
            assert asked == ["GET /auth/server?"] * len(wrong)

    rig.run(scene())


FAILURES: list[tuple[int, Any, type[Exception]]] = [
    (503, {"title": "later"}, VtnUnreachable),
    (429, {}, VtnUnreachable),
    (404, {"title": "none"}, VtnRefused),
    (302, {}, VtnRefused),
    (200, b"<html>", VtnNonsense),
    (200, b'[{"id": "p", "attributes": [{"type": "t", "values": [NaN]}]}]', VtnNonsense),
    (200, {"not": "a list"}, VtnNonsense),
    (200, [{"programName": "without an id"}], VtnNonsense),
    (200, [{"id": "p", "programName": ["no", "text"]}], VtnNonsense),
    (200, b"[" + b" " * (4 << 20) + b"]", VtnNonsense),
]


def test_each_failure_is_of_its_kind(tmp_path: Path) -> None:
    now: list[tuple[int, Any]] = []

    async def scene() -> None:
        answers = after_login(lambda *_: now[-1])
        async with scripted(answers) as (url, _), rig.client(url, tmp_path) as client:
            for status, body, kind in FAILURES:
                now.append((status, body))
                with pytest.raises(kind):
                    await client.programs()

    rig.run(scene())


def test_a_vtn_that_is_gone_or_silent_is_unreachable(tmp_path: Path) -> None:
    async def scene() -> None:
        async with scripted(after_login(lambda *_: (200, []))) as (url, _):
            pass
        async with rig.client(url, tmp_path) as client:
            with pytest.raises(VtnUnreachable):
                await client.events()
        silent = await asyncio.start_server(lambda reader, writer: None, rig.HOST, 0)
        host, port = silent.sockets[0].getsockname()
        async with rig.client(f"http://{host}:{port}", tmp_path, deadline_s=0.2) as client:
            with pytest.raises(VtnUnreachable, match=r"within 0\.2 s"):
                await client.events()
        silent.close()

    rig.run(scene())


def test_one_broken_event_hides_no_other(tmp_path: Path) -> None:
    rows = [
        {"id": "e1", "programID": "p", "intervals": [{"id": 0, "payloads": "none"}]},
        {"id": "e2", "programID": "p", "intervals": []},
    ]

    async def scene() -> None:
        answers = after_login(lambda *_: (200, rows))
        async with scripted(answers) as (url, _), rig.client(url, tmp_path) as client:
            first, second = await client.events()
            assert first.unreadable is not None
            assert second.unreadable is None

    rig.run(scene())


def test_a_report_is_made_once_and_then_updated(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            program = await rig.program(vtn)
            row = await vtn.post(ObjectType.EVENT, rig.event(program))
            made = await client.report(rig.usage(row["id"], 1.5))
            again = rig.usage(row["id"], 2.5).model_copy(update={"id": made})
            assert await client.report(again) == made
            (kept,) = vtn.objects(ObjectType.REPORT)
            assert kept["resources"][0]["intervals"][0]["payloads"][0]["values"] == [2.5]
            assert kept["clientID"] == "site"
            with pytest.raises(VtnRefused):
                await client.report(rig.usage("event-none", 1.0))

    rig.run(scene())


def test_a_vtn_of_3_0_is_spoken_to_in_its_words(tmp_path: Path) -> None:
    sent: dict[str, Any] = {}
    target = [{"type": "GROUP", "values": ["north", 7]}]

    def vtn(method: str, path: str, data: bytes) -> tuple[int, Any]:
        where = path.partition("?")[0]
        if method == "POST":
            sent[where] = json.loads(data)
            return 201, {"id": "x1", "venName": "my-site", "resourceName": "hall", **sent[where]}
        if where == "/events":
            return 200, [{"id": "e1", "programID": "p1", "targets": target}]
        return 200, []

    async def scene() -> None:
        answers = after_login(vtn)
        async with scripted(answers) as (url, asked):
            async with rig.client(url, tmp_path, version="3.0") as client:
                made = await client.register("my-site", [ResourceWish(name="hall")])
                assert made.ven.id == "x1"
                (event,) = await client.events()
                assert event.targets == ("north", "7")
                report = Report(event_id="e1", program_id="p1", client_name="my-site")
                await client.report(report)
                assert await client.topics(ven_id="x1") is None
            assert sent["/vens"] == {"venName": "my-site"}
            assert sent["/vens/x1/resources"] == {"resourceName": "hall", "venID": "x1"}
            assert sent["/reports"]["programID"] == "p1"
            assert not any("targets=" in one for one in asked)

    rig.run(scene())


def test_words_of_3_0_become_those_of_3_1() -> None:
    old = {
        "objectType": "EVENT",
        "operation": "PUT",
        "object": {"id": "e", "targets": [{"type": "VEN_NAME", "values": ["a"]}]},
        "targets": [{"type": "GROUP", "values": ["b", "c"]}],
    }
    assert modern_notice(old) == {
        "objectType": "EVENT",
        "operation": "UPDATE",
        "object": {"id": "e", "targets": ["a"]},
        "targets": ["b", "c"],
    }
    new = {"id": "e", "targets": ["a"], "reportDescriptors": [{"targets": ["b"]}]}
    assert modern(new) == new
    assert modern_notice(new | {"operation": "DELETE", "object": None})["operation"] == "DELETE"
    assert modern(None) is None


def test_a_certificate_is_believed_only_if_its_authority_is(tmp_path: Path) -> None:
    made = rig.certificates(tmp_path)
    settings = VtnSettings(
        clients=rig.LOGINS,
        certificate=Certificate(made.cert, made.key),
        callback_verify=False,
    )

    async def scene() -> None:
        async with rig.vtn(settings) as vtn:
            assert vtn.url.startswith("https://")
            for verify, is_believed in ((True, False), (str(made.ca), True), (False, True)):
                async with rig.client(vtn.url, tmp_path, verify=verify) as client:
                    if is_believed:
                        assert await client.programs() == []
                    else:
                        with pytest.raises(VtnUnreachable, match="certificate"):
                            await client.programs()

    rig.run(scene())
    with pytest.raises(ConfigInvalid, match="no certificates"):
        VtnClient("https://127.7.3.1", None, verify=str(made.key))


def test_a_secret_never_leaves_tls_for_less(tmp_path: Path) -> None:
    made = rig.certificates(tmp_path)

    async def scene() -> None:
        told = {"tokenURL": f"http://{rig.HOST}:9/token"}
        answers: Answers = lambda *_: (200, told)  # noqa: E731
        async with scripted(answers, Certificate(made.cert, made.key)) as (url, asked):
            async with rig.client(url, tmp_path, verify=str(made.ca)) as client:
                with pytest.raises(VtnNonsense, match="leaves TLS"):
                    await client.programs()
            assert asked == ["GET /auth/server?"]

    rig.run(scene())


class Changing:
    """A list that a script changes while it is read: after each page, some steps of it."""

    def __init__(self, count: int, changes: list[list[tuple[str, int]]]) -> None:
        self.ids = list(range(count))
        self.always = set(self.ids)
        self._next = count
        self._changes = list(changes)

    async def page(self, skip: int, most: int) -> list[dict[str, str]]:
        answer = [{"id": f"e{one}"} for one in self.ids[skip : skip + most]]
        for what, place in self._changes.pop(0) if self._changes else ():
            if what == "push":
                self.ids.insert(place % (len(self.ids) + 1), self._next)
                self._next += 1
            elif self.ids:
                self.always.discard(self.ids.pop(place % len(self.ids)))
        return answer


PLACES = st.integers(0, 4) | st.integers(0, 40)
CHANGES = st.lists(st.lists(st.tuples(st.sampled_from(["drop", "push"]), PLACES)), max_size=6)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 16), CHANGES)
@example(12, [[("push", 0)] * 4])
@example(5, [[("drop", 0)] * 2])
def test_a_list_that_is_returned_lacks_nothing_that_was_there_all_the_time(
    count: int, changes: list[list[tuple[str, int]]]
) -> None:
    changing = Changing(count, changes)

    # A server may give fewer than it is asked for.
    reading = pages.whole(lambda skip, most: changing.page(skip, 4), "events")
    rows: list[dict[str, Any]] = []
    try:
        reading.send(None)
    except StopIteration as done:  # it waits for nothing, so it needs no loop
        rows = done.value
    except VtnUnreachable:
        return
    assert {f"e{one}" for one in changing.always} <= {row["id"] for row in rows}


def test_a_server_that_knows_no_skip_is_read_as_far_as_that_goes() -> None:
    async def all_of(count: int) -> list[dict[str, Any]]:
        async def same(skip: int, most: int) -> list[dict[str, str]]:
            return [{"id": f"e{one}"} for one in range(count)]

        return await pages.whole(same, "events")

    assert len(asyncio.run(all_of(3))) == 3
    assert len(asyncio.run(all_of(120))) == 120
    with pytest.raises(VtnUnreachable):
        asyncio.run(all_of(pages.PAGE))


def test_a_list_without_end_is_given_up() -> None:
    asked: list[int] = []

    async def endless(skip: int, most: int) -> list[dict[str, str]]:
        asked.append(skip)
        return [{"id": f"e{one}"} for one in range(skip, skip + most)]

    with pytest.raises(VtnNonsense, match="more than"):
        asyncio.run(pages.whole(endless, "events"))
    assert max(asked) <= pages.MAX_OBJECTS


@pytest.mark.parametrize("url", ["ftp://x", "http://user:geheim@x/", "no address", "https://"])
def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(ConfigInvalid) as fault:
        VtnClient(url, None)
    assert "geheim" not in str(fault.value)
