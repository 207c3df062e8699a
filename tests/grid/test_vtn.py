"""The loopback VTN: who may do what, what is checked, how lists are cut, and how it is played."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.grid import openadr_rig as rig

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.openadr.words import ObjectType
from wattshift_cluster.grid.vtn.clients_file import made_up, read_clients
from wattshift_cluster.grid.vtn.kinds import KINDS
from wattshift_cluster.grid.vtn.problems import Problem
from wattshift_cluster.grid.vtn.script import play, read_script
from wattshift_cluster.grid.vtn.server import LoopbackVtn, VtnSettings
from wattshift_cluster.grid.vtn.store import Store


class Asking:
    """One login, asking over HTTP."""

    def __init__(self, http: httpx2.AsyncClient, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await self._http.request(
            method, f"{self._url}/{path}", json=body, headers=self._headers
        )
        return answer.status_code, answer.json()


@asynccontextmanager
async def asking(vtn: LoopbackVtn, *clients: Any) -> AsyncIterator[list[Asking]]:
    async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
        made = []
        for client in clients:
            form = {
                "grant_type": "client_credentials",
                "client_id": client.id,
                "client_secret": client.secret,
            }
            answer = await http.post(vtn.url + "/auth/token", data=form)
            made.append(Asking(http, vtn.url, answer.json()["access_token"]))
        yield made


def test_scopes_and_owners_are_kept_apart() -> None:
    async def scene() -> None:
        async with (
            rig.vtn() as vtn,
            asking(vtn, rig.UTILITY, rig.SITE, rig.OTHER) as (utility, site, other),
        ):
            status, program = await utility("POST", "programs", {"programName": "p"})
            assert status == 201
            _, event = await utility("POST", "events", rig.event(program["id"]))
            for method, path, body in (
                ("POST", "programs", {"programName": "mine"}),
                ("PUT", f"events/{event['id']}", rig.event(program["id"], 9999)),
                ("DELETE", f"events/{event['id']}", None),
            ):
                assert (await site(method, path, body))[0] == 403, "only the utility writes events"
            report = {"eventID": event["id"], "clientName": "s", "resources": []}
            assert (await utility("POST", "reports", report))[0] == 403, "only sites report"
            status, mine = await site("POST", "reports", report)
            assert status == 201
            assert mine["clientID"] == "site"
            assert (await other("GET", "reports")) == (200, [])
            for method in ("GET", "DELETE"):
                assert (await other(method, f"reports/{mine['id']}"))[0] == 404
            assert len((await utility("GET", "reports"))[1]) == 1
            assert (await utility("GET", f"reports?programID={program['id']}"))[1] == [mine]
            assert (await utility("GET", "reports?programID=program-99"))[1] == []

    rig.run(scene())


def test_a_site_grants_itself_nothing() -> None:
    async def scene() -> None:
        async with (
            rig.vtn() as vtn,
            asking(vtn, rig.UTILITY, rig.SITE, rig.OTHER) as (utility, site, other),
        ):
            bl = {"objectType": "BL_VEN_REQUEST", "clientID": "site", "venName": "v"}
            assert (await site("POST", "vens", bl | {"targets": ["gold"]}))[0] == 403
            own = {"objectType": "VEN_VEN_REQUEST", "venName": "v", "targets": ["gold"]}
            status, ven = await site("POST", "vens", own)
            assert status == 201
            assert "targets" not in ven
            assert (await other("POST", "vens", own))[0] == 409, "the name is taken"
            at = f"vens/{ven['id']}"
            assert (await utility("PUT", at, bl | {"targets": ["north"]}))[0] == 200
            _, after = await site("PUT", at, own)
            assert after["targets"] == ["north"], "its own update leaves what was granted"
            resource = {
                "objectType": "VEN_RESOURCE_REQUEST",
                "resourceName": "hall",
                "venID": ven["id"],
                "targets": ["gold"],
            }
            assert (await other("POST", "resources", resource))[0] == 403, "another's ven"
            status, hall = await site("POST", "resources", resource)
            assert status == 201
            assert "targets" not in hall
            assert (await site("DELETE", at))[0] == 409, "its resources belong to it"
            assert (await other("GET", at))[0] == 404

    rig.run(scene())


def test_targets_asked_for_granted_and_of_the_object_must_meet() -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn, asking(vtn, rig.UTILITY, rig.SITE) as (utility, site):
            program = await rig.program(vtn)
            ven = await rig.grant(vtn, rig.SITE, "my-site", ["a", "b"])
            for name, targets in (("ab", ["a", "b"]), ("bc", ["b", "c"]), ("c", ["c"]), ("", [])):
                body = rig.event(program, eventName=name or "public", targets=targets)
                await vtn.post(ObjectType.EVENT, body)

            async def seen(query: str) -> dict[str, list[str]]:
                status, rows = await site("GET", f"events{query}")
                assert status == 200
                return {row["eventName"]: row["targets"] for row in rows}

            assert await seen("") == {"public": []}
            assert await seen("?targets=a") == {"ab": ["a"]}
            assert await seen("?targets=a&targets=b") == {"ab": ["a", "b"], "bc": ["b"]}
            assert await seen("?targets=c") == {}
            _, rows = await utility("GET", "events")
            ids = {row["eventName"]: row["id"] for row in rows}
            assert len(ids) == 4
            assert (await site("GET", f"events/{ids['bc']}"))[1]["targets"] == ["b"]
            assert (await site("GET", f"events/{ids['c']}"))[0] == 404, "not 403: it is hidden"
            assert len((await utility("GET", "events?targets=c"))[1]) == 2
            vtn.delete(ObjectType.VEN, ven)
            assert await seen("?targets=a") == {}

    rig.run(scene())


WRONG_EVENTS: list[dict[str, Any]] = [
    {"priority": -1},
    {"priority": "0"},
    {"intervalPeriod": {"start": "yesterday"}},
    {"intervalPeriod": {"start": "2030-01-01T00:00:00"}},
    {"intervalPeriod": {"duration": "1 hour"}},
    {"intervalPeriod": {"duration": "P"}},
    {"intervals": [{"payloads": []}]},
    {"intervals": [{"id": 0, "payloads": [{"type": "", "values": []}]}]},
    {"intervals": [{"id": 0, "payloads": [{"type": "PRICE", "values": [[1]]}]}]},
    {"intervals": [{"id": 0, "payloads": [{"type": "PRICE", "values": "1"}]}]},
    {"payloadDescriptors": [{"objectType": "X", "payloadType": "PRICE"}]},
    {"targets": ["x" * 129]},
    {"programID": "no/id"},
    {"reportDescriptors": [{"payloadType": "USAGE", "repeat": 1.5}]},
]


def test_what_is_no_event_is_refused_and_what_is_one_is_taken() -> None:
    right = (
        {"intervalPeriod": {"start": "0001-01-01", "duration": "P9999Y", "randomizeStart": "PT5M"}},
        {"intervals": [{"id": 0, "payloads": [{"type": "CURVE", "values": [{"x": 1, "y": 2.5}]}]}]},
        {"intervals": [{"id": 0, "payloads": [{"type": "X", "values": [True, 1, 1.5, "t"]}]}]},
        {"priority": None, "targets": None, "intervals": None, "unheardOf": 7},
    )

    async def scene() -> None:
        async with rig.vtn() as vtn, asking(vtn, rig.UTILITY) as (utility,):
            program = await rig.program(vtn)
            for more in WRONG_EVENTS:
                status, said = await utility("POST", "events", rig.event(program) | more)
                assert status == 400, more
                assert said["title"] == "Bad Request"
            for more in right:
                status, said = await utility("POST", "events", rig.event(program) | more)
                assert status == 201, (more, said)
                assert "unheardOf" not in said
            for path in ("events?limit=51", "events?skip=-1", "events?limit=x"):
                assert (await utility("GET", path))[0] == 400, path
            answer = await utility._http.post(
                vtn.url + "/events", content=b"[" * 100_000, headers=utility._headers
            )
            assert answer.status_code == 400
            answer = await utility._http.post(
                vtn.url + "/events", content=b" " * (5 << 20), headers=utility._headers
            )
            assert answer.status_code == 400
            assert "larger" in answer.json()["detail"]

    rig.run(scene())


def test_lists_are_cut_into_pages_and_past_events_left_out() -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn, asking(vtn, rig.UTILITY) as (utility,):
            program = await rig.program(vtn)
            for number in range(60):
                await vtn.post(ObjectType.EVENT, rig.event(program, eventName=f"e{number}"))
            names = []
            for query in ("limit=25", "skip=25&limit=25", "skip=50&limit=25", "skip=75&limit=25"):
                _, rows = await utility("GET", f"events?{query}")
                names += [row["eventName"] for row in rows]
            assert names == [f"e{number}" for number in range(60)]
            assert len((await utility("GET", "events"))[1]) == 50
            assert (await utility("GET", "events?limit=0"))[1] == []
            past = {"intervalPeriod": {"start": "2020-01-01T00:00:00Z", "duration": "PT1H"}}
            _, row = await utility("POST", "events", rig.event(program) | past)
            _, rows = await utility("GET", "events?active=true&skip=50")
            assert row["id"] not in [one["id"] for one in rows]
            assert len(rows) == 10

    rig.run(scene())


def test_each_change_has_a_time_of_its_own_and_numbers_have_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wattshift_cluster.grid.vtn.store.MAX_OBJECTS", 3)
    store = Store()
    by_type = {kind.type: kind for kind in KINDS}
    rows = [store.add(by_type[ObjectType.EVENT], {"programID": "p"}) for _ in range(3)]
    times = [row["modificationDateTime"] for row in rows]
    assert times == sorted(set(times))
    with pytest.raises(Problem, match="already"):
        store.add(by_type[ObjectType.EVENT], {"programID": "p"})
    for number in range(5):
        store.add(by_type[ObjectType.REPORT], {"n": number})
    assert [row["n"] for row in store.all(by_type[ObjectType.REPORT])] == [2, 3, 4]


def test_objects_of_another_run_have_other_ids() -> None:
    made = [Store().add(KINDS[0], {KINDS[0].name or "x": "same"})["id"] for _ in range(2)]
    assert made[0] != made[1], "a site remembers events by id, beyond the end of a dry run"


def test_logins_are_checked_and_tokens_end() -> None:
    now = [0.0]
    settings = VtnSettings(
        clients=rig.LOGINS, token_life_s=60, clock=lambda: now[0], callback_verify=False
    )

    async def scene() -> None:
        async with rig.vtn(settings) as vtn, asking(vtn, rig.SITE) as (site,):
            right = {
                "grant_type": "client_credentials",
                "client_id": "site",
                "client_secret": rig.SITE.secret,
            }
            for more, status, error in (
                ({"client_secret": "x"}, 401, "invalid_client"),
                ({"client_id": "nobody"}, 401, "invalid_client"),
                ({"grant_type": "password"}, 400, "unsupported_grant_type"),
                ({"scope": "write_events"}, 400, "invalid_scope"),
                ({"client_id": ""}, 400, "invalid_request"),
            ):
                answer = await site._http.post(vtn.url + "/auth/token", data=right | more)
                assert (answer.status_code, answer.json()["error"]) == (status, error)
                assert rig.SITE.secret not in answer.text
            narrow = await site._http.post(
                vtn.url + "/auth/token", data=right | {"scope": "read_targets"}
            )
            only = Asking(site._http, vtn.url, narrow.json()["access_token"])
            assert (await only("GET", "programs"))[0] == 200
            assert (await only("GET", "vens"))[0] == 403
            now[0] = 59.9
            assert (await site("GET", "vens"))[0] == 200
            now[0] = 60.0
            assert (await site("GET", "vens"))[0] == 401

    rig.run(scene())


SCRIPT = """
- {after: 0s, program: {programName: curtailment}}
- {after: 0s, ven: {venName: my-site, clientID: site, targets: [north]}}
- after: 0.1s
  event:
    eventName: cut
    programID: curtailment
    targets: [north]
    intervalPeriod: {start: now+10s, duration: PT30S}
    payloadDescriptors: [{payloadType: IMPORT_CAPACITY_LIMIT, units: KW}]
    intervals: [{id: 0, payloads: [{type: IMPORT_CAPACITY_LIMIT, values: [9]}]}]
- {after: 0.2s, event: {eventName: refused, programID: none}}
- after: 0.3s
  event: {eventName: cut, programID: curtailment, priority: 1}
- {after: 0.4s, silent: 0.2s}
- {after: 0.5s, delete: cut}
- {after: 0.5s, delete: none}
"""


def test_a_script_plays_the_utility(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text(SCRIPT)

    async def scene() -> None:
        async with rig.vtn() as vtn, asking(vtn, rig.UTILITY) as (utility,):
            url = vtn.url
            playing = asyncio.create_task(play(read_script(file), vtn))
            await rig.until(lambda: len(vtn.objects(ObjectType.EVENT)) == 1, "the event")
            (first,) = vtn.objects(ObjectType.EVENT)
            assert first["intervalPeriod"]["start"] > first["createdDateTime"]
            assert first["programID"] == vtn.objects(ObjectType.PROGRAM)[0]["id"]
            await rig.until(
                lambda: any(one.get("priority") == 1 for one in vtn.objects(ObjectType.EVENT)),
                "its update",
            )
            assert len(vtn.objects(ObjectType.EVENT)) == 1
            await playing
            assert vtn.objects(ObjectType.EVENT) == []
            assert vtn.url == url, "after its silence it is where it was"
            assert (await utility("GET", "programs"))[0] == 200

    rig.run(scene())


@pytest.mark.parametrize(
    "text",
    [
        "- {after: 0s}",
        "- {after: 0s, program: {}, delete: x}",
        "- {after: 2s, delete: x}\n- {after: 1s, delete: x}",
        "- {after: soon, delete: x}",
        "- {after: 0s, explode: now}",
        "{",
        "7",
    ],
)
def test_a_script_that_is_none_is_told_before_anything_is_done(tmp_path: Path, text: str) -> None:
    file = tmp_path / "script.yaml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid, match=r"script\.yaml"):
        read_script(file)


def test_clients_come_from_a_file_or_are_made_up_once(tmp_path: Path) -> None:
    first = made_up(tmp_path / "secrets")
    again = made_up(tmp_path / "secrets")
    assert [one.client.secret for one in first] == [one.client.secret for one in again]
    assert all(one.secret_file.stat().st_mode & 0o077 == 0 for one in first)
    file = tmp_path / "clients.toml"
    file.write_text('[[clients]]\nid = "me"\nrole = "ven"\nsecret_file = "secrets/site.secret"\n')
    (one,) = read_clients(file)
    assert one.client.secret == first[0].client.secret
    assert one.client.secret not in repr(one)
    for text in (
        "",
        "clients = 7",
        '[[clients]]\nid = "me"\nrole = "king"\nsecret_file = "secrets/site.secret"\n',
        '[[clients]]\nid = "me"\nrole = "ven"\nsecret_file = "none"\n',
        file.read_text() * 2,
    ):
        file.write_text(text)
        with pytest.raises(ConfigInvalid):
            read_clients(file)


def test_the_program_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"after": 0, "program": {"programName": "curtailment"}}]))
    command = [sys.executable, "-m", "wattshift_cluster.cli", "emulate", "vtn"]
    options = ["--listen", f"{rig.HOST}:0", "--secrets", str(tmp_path / "s"), "--script"]
    with subprocess.Popen(
        [*command, *options, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["ready"] is True
            assert [one["role"] for one in ready["clients"]] == ["ven", "bl"]
            site = rig.Client("site", rig.Role.VEN, "")
            secret = Path(ready["clients"][0]["secret_file"])
            assert secret.parent == tmp_path / "s"

            async def scene() -> None:
                login = rig.Login(site.id, secret)
                client = rig.VtnClient(ready["vtn"], login, verify=False)
                assert [one.name for one in await client.programs()] == ["curtailment"]
                await client.close()

            rig.run(scene())
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    "options",
    [
        ["--listen", "0.0.0.0:0"],
        ["--listen", "127.7.3.1"],
        ["--mqtt", "http://x"],
        ["--clients", "/none"],
        ["--script", "/none"],
    ],
    ids=" ".join,
)
def test_what_is_invalid_ends_with_3(tmp_path: Path, options: list[str]) -> None:
    from wattshift_cluster.grid.vtn.process import main

    where = [] if "--listen" in options else ["--listen", f"{rig.HOST}:0"]
    assert main([*where, "--secrets", str(tmp_path), *options]) == 3
