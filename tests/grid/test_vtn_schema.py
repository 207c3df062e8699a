"""Both ends of the wire against the OpenAPI file of OpenADR 3.1.1, and against a client of others.

Needs the folder of public data, WATTSHIFT_DATA, for the first; the second is `openadr3` of PyPI.
"""

import asyncio
import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from wattshift_cluster.grid.openadr.callback import Callback
from wattshift_cluster.grid.openadr.words import (
    Notification,
    ObjectType,
    Payload,
    Report,
    ReportPayloadDescriptor,
    ResourceWish,
    SubscriptionWish,
)
from wattshift_cluster.grid.serving import serve
from wattshift_cluster.grid.vtn import server as vtn_server
from wattshift_cluster.grid.vtn.publisher import BrokerSettings
from wattshift_cluster.grid.vtn.server import VtnSettings

rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("openadr_rig.py"))))

pytestmark = pytest.mark.filterwarnings("ignore:Unsupported scheme type")
BEARER = "the bearer that the site named"
PLACES = ("reference/openadr-3.1.1", "openadr-3.1.1", "")
SERVER = "http://vtn.example"


@dataclass
class Spoken:
    """One request and its answer, or a notification (no answer)."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytes = b""


class Recorder:
    """Stands between the server and its app, and writes down what is said."""

    def __init__(self) -> None:
        self.spoken: list[Spoken] = []

    def around(self, app: Any) -> Any:
        async def recorded(scope: Any, receive: Any, send: Any) -> None:
            headers = {k.decode(): v.decode() for k, v in scope["headers"]}
            one = Spoken(
                scope["method"], scope["path"], scope["query_string"].decode(), headers, b""
            )

            async def heard() -> Any:
                message = await receive()
                one.body += message.get("body", b"")
                return message

            async def said(message: Any) -> None:
                if message["type"] == "http.response.start":
                    one.status = message["status"]
                one.answer += message.get("body", b"")
                await send(message)

            await app(scope, heard, said)
            self.spoken.append(one)

        return recorded


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    build = vtn_server.build
    monkeypatch.setattr(vtn_server, "build", lambda *given: made.around(build(*given)))
    return made


def specification(name: str) -> dict[str, Any]:
    folder = os.environ.get("WATTSHIFT_DATA")
    if not folder:
        pytest.skip("WATTSHIFT_DATA names no folder of public data")
    found = [path for place in PLACES if (path := Path(folder, place, name)).exists()]
    if not found:
        pytest.skip(f"the folder of public data holds no {name}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    spec: dict[str, Any] = yaml.load(found[0].read_text(), Loader=loader)
    spec["servers"] = [{"url": SERVER}]
    return spec


def reader(spec: dict[str, Any]) -> Any:
    from openapi_core import Config, OpenAPI

    return OpenAPI.from_dict(spec, config=Config(spec_validator_cls=None))


@pytest.fixture(scope="module")
def openapi() -> Any:
    return reader(possible(specification("openadr3.yaml")))


def possible(spec: dict[str, Any]) -> dict[str, Any]:
    """The file where it can be fulfilled.

    It asks that the `objectType` of a ven in an answer be both VEN and BL_VEN_REQUEST, the same of
    a resource, and names as discriminator a property whose values are no names of schemas.
    """
    schemas = spec["components"]["schemas"]
    for name, request in (("ven", "BlVenRequest"), ("resource", "BlResourceRequest")):
        body = copy.deepcopy(schemas[request])
        body["required"].remove("objectType")
        del body["properties"]["objectType"]
        schemas[name]["allOf"][1] = body
    del schemas["notification"]["properties"]["object"]["discriminator"]
    spec["paths"]["/notified"] = {
        "post": {
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/notification"}}
                },
            },
            "responses": {"200": {"description": "taken"}},
        }
    }
    return spec


def check(openapi: Any, spoken: list[Spoken], *, requests: bool = True) -> set[tuple[str, str]]:
    """Every answer, and every request, is as the file says; which were checked."""
    from openapi_core.testing import MockRequest, MockResponse

    seen = set()
    for one in spoken:
        content_type = one.headers.get("content-type", "application/json")
        request = MockRequest(
            SERVER,
            one.method.lower(),
            one.path,
            args=dict(parse_qs(one.query)),
            headers=one.headers,
            data=one.body or None,
            content_type=content_type,
        )
        told = f"{one.method} {one.path} -> {one.status} {one.answer[:300]!r}"
        try:
            if requests:
                openapi.validate_request(request)
            if one.status:
                openapi.validate_response(request, MockResponse(one.answer, one.status))
        except Exception as fault:
            raise AssertionError(
                f"{told}\n{one.body[:500]!r}\n{fault}: {fault.__cause__}"
            ) from fault
        seen.add((one.method, str(one.status)))
    return seen


def report(event_id: str) -> Report:
    told = ReportPayloadDescriptor(payload_type="USAGE", units="KWH", confidence=95)
    made: Report = rig.usage(event_id, descriptors=(told,))
    return made


def test_client_and_server_speak_as_the_file_says(
    tmp_path: Path, recorder: Recorder, openapi: Any
) -> None:
    told: list[Spoken] = []
    notices: list[Notification] = []

    async def scene() -> None:
        callback = Callback(BEARER, notices.append)
        url = await callback.start(rig.HOST, 0)
        settings = VtnSettings(
            clients=rig.LOGINS,
            broker=BrokerSettings("mqtt://127.7.3.1:9"),
            callback_verify=False,
        )
        async with rig.vtn(settings) as vtn, rig.client(vtn.url, tmp_path) as client:
            vtn.webhooks.tell = spy(vtn.webhooks.tell, told)
            program = await rig.program(vtn)
            await rig.grant(vtn, rig.SITE, "my-site", ["north"])
            attribute = Payload(type="MAX_POWER", values=(5,))
            wishes = [ResourceWish(name="hall", attributes=(attribute,))]
            ven = (await client.register("my-site", wishes)).ven
            subscription = await client.subscribe(
                SubscriptionWish(
                    client_name="my-site", callback_url=url, bearer=BEARER, objects=list(ObjectType)
                )
            )
            body = rig.event(
                program,
                targets=["north"],
                priority=0,
                duration="PT2H",
                reportDescriptors=[{"payloadType": "USAGE", "readingType": "DIRECT_READ"}],
            )
            row = await vtn.post(ObjectType.EVENT, body)
            assert len(await client.programs()) == 1
            assert len(await client.events(program)) == 1
            made = await client.report(report(row["id"]))
            await client.report(report(row["id"]).model_copy(update={"id": made}))
            topics = await client.topics(ven_id=ven.id, program_ids=[program])
            assert topics is not None
            assert len(topics.names) == 4
            vtn.delete(ObjectType.EVENT, row["id"])
            await client.unsubscribe(subscription)
        await callback.close()

    rig.run(scene())
    seen = check(openapi, recorder.spoken)
    assert {("GET", "200"), ("POST", "201"), ("PUT", "200"), ("DELETE", "200")} <= seen
    assert {one.path.split("/")[1] for one in recorder.spoken} == {
        "auth", "programs", "events", "reports", "subscriptions", "vens", "resources", "notifiers",
    }  # fmt: skip
    assert len(told) >= 3
    check(openapi, told)


def spy(tell: Callable[..., None], told: list[Spoken]) -> Callable[..., None]:
    def recorded(subscription_id: str, url: str, bearer: str, notice: Any) -> None:
        told.append(Spoken("POST", "/notified", "", {}, json.dumps(notice).encode()))
        tell(subscription_id, url, bearer, notice)

    return recorded


async def old_server(scope: Any, receive: Any, send: Any) -> None:
    """Answers as a VTN of 3.0 does: what is posted comes back with what a VTN adds."""
    data = b""
    while True:
        message = await receive()
        data += message.get("body", b"")
        if not message.get("more_body"):
            break
    at = "2030-01-01T00:00:00Z"
    stamps = {"id": "1", "createdDateTime": at, "modificationDateTime": at}
    status, said = 200, b"[]"
    if scope["path"] == "/auth/server":
        status, said = 404, b"{}"
    elif scope["path"] == "/auth/token":
        said = json.dumps({"access_token": "a-token", "token_type": "Bearer"}).encode()
    elif scope["method"] == "POST":
        status, said = 201, json.dumps(json.loads(data) | stamps).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def test_the_client_speaks_3_0_as_its_file_says(tmp_path: Path) -> None:
    openapi = reader(specification("openadr3_3.0.1.yaml"))
    made = Recorder()

    async def scene() -> None:
        serving = await serve(made.around(old_server), rig.HOST, 0, name="old")
        async with rig.client(serving.url, tmp_path, version="3.0") as client:
            attribute = Payload(type="MAX_POWER", values=(5,))
            await client.register("my-site", [ResourceWish(name="hall", attributes=(attribute,))])
            await client.programs()
            await client.events("1")
            await client.report(report("1").model_copy(update={"program_id": "1"}))
            await client.subscribe(
                SubscriptionWish(
                    client_name="my-site",
                    callback_url="https://site.example/openadr",
                    bearer=BEARER,
                    program_id="1",
                )
            )
        await serving.close()

    rig.run(scene())
    spoken = [one for one in made.spoken if one.path != "/auth/server"]
    assert len([one for one in spoken if one.method == "POST"]) == 5
    check(openapi, spoken)


def test_refusals_are_as_the_file_says(tmp_path: Path, recorder: Recorder, openapi: Any) -> None:
    import httpx2

    async def scene() -> None:
        async with (
            rig.vtn() as vtn,
            rig.client(vtn.url, tmp_path, rig.UTILITY) as utility,
            rig.client(vtn.url, tmp_path) as site,
            httpx2.AsyncClient(trust_env=False, verify=False) as http,
        ):
            program = await rig.program(vtn)
            bl = {"Authorization": f"Bearer {await utility.token()}"}
            ven = {"Authorization": f"Bearer {await site.token()}"}
            for method, path, headers, body, status in (
                ("GET", "programs", {}, None, 401),
                ("GET", "programs/program-none", ven, None, 404),
                ("POST", "programs", ven, {"programName": "mine"}, 403),
                ("POST", "programs", bl, {}, 400),
                ("POST", "programs", bl, {"programName": "curtailment"}, 409),
                ("POST", "events", bl, {"programID": "program-none"}, 409),
                ("DELETE", f"programs/{program}x", bl, None, 404),
                ("GET", "notifiers/mqtt/topics/programs", ven, None, 404),
            ):
                answer = await http.request(method, f"{vtn.url}/{path}", headers=headers, json=body)
                assert answer.status_code == status, (method, path, answer.text)
                assert answer.json()["status"] == status

    rig.run(scene())
    check(openapi, recorder.spoken, requests=False)


def test_a_client_of_others_does_a_round_as_utility_and_as_site(
    tmp_path: Path, recorder: Recorder
) -> None:
    openadr3 = pytest.importorskip("openadr3", reason="the independent client is not installed")

    def utility(url: str) -> tuple[str, str]:
        with openadr3.OpenADRClient(url) as bl:
            bl.fetch_token(rig.UTILITY.id, rig.UTILITY.secret)
            program = bl.create_program({"programName": "from outside"})
            assert openadr3.success(program), program.text
            ven = bl.create_ven(
                {
                    "objectType": "BL_VEN_REQUEST",
                    "clientID": rig.SITE.id,
                    "venName": "my-site",
                    "targets": ["north"],
                }
            )
            assert openadr3.success(ven), ven.text
            event = rig.event(program.json()["id"], 400, targets=["north"], eventName="cut")
            made = bl.create_event(event)
            assert openadr3.success(made), made.text
            read = bl.event(made.json()["id"])
            assert read.intervals[0].payloads[0].values == [400]
            assert openadr3.success(bl.update_event(made.json()["id"], event | {"priority": 1}))
            assert bl.find_program_by_name("from outside").id == program.json()["id"]
            return program.json()["id"], made.json()["id"]

    def site(url: str, program: str, event: str) -> None:
        with openadr3.OpenADRClient(url) as ven:
            ven.fetch_token(rig.SITE.id, rig.SITE.secret)
            assert ven.programs()[0].id == program
            assert ven.events() == [], "targeted: seen by those who ask with the target"
            (read,) = ven.events(targets=["north"])
            assert read.id == event
            assert read.priority == 1
            assert not openadr3.success(ven.delete_event(event))
            mine = ven.find_ven_by_name("my-site")
            made = ven.create_resource(
                {"objectType": "VEN_RESOURCE_REQUEST", "resourceName": "hall", "venID": mine.id}
            )
            assert openadr3.success(made), made.text
            said = report(event).on_wire()
            done = ven.create_report(said)
            assert openadr3.success(done), done.text
            assert ven.reports()[0].resources[0].resource_name == "hall"
            assert ven.get_notifiers().json() == {"WEBHOOK": True}

    def after(url: str, event: str) -> None:
        with openadr3.OpenADRClient(url) as bl:
            bl.fetch_token(rig.UTILITY.id, rig.UTILITY.secret)
            assert len(bl.reports()) == 1
            assert openadr3.success(bl.delete_event(event))

    async def scene() -> None:
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            program, event = await asyncio.to_thread(utility, vtn.url)
            await asyncio.to_thread(site, vtn.url, program, event)
            await client.register("my-site", [ResourceWish(name="hall")])
            (ours,) = await client.events()
            assert ours.id == event, "our client reads what theirs wrote"
            await asyncio.to_thread(after, vtn.url, event)
            assert await client.events() == []

    rig.run(scene())
    assert all(one.status != 500 for one in recorder.spoken)
