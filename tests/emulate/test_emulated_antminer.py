"""The emulated stock Antminer, driven by the real pyasic and pyasic-rs; and the HTTP it speaks."""

import asyncio
import contextlib
import hashlib
import json
import time
import warnings

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.antminer import RESTART_S, WRITE_S, Antminer
from wattshift_cluster.emulate.antminer_conf import fresh_conf, rewritten
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import Digest, HttpRequest, HttpResponse, http
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import S21
from wattshift_cluster.emulate.wires import REQUEST_LIMIT

SPEED = 100.0
WAIT_S = (RESTART_S + 12.0) / SPEED


def clock():
    return time.monotonic() * SPEED


class Now:
    value_s = 0.0

    def __call__(self):
        return self.value_s


def firmware_of(**more):
    now = Now()
    machine = Machine("m", S21, seed=1, clock=now, full=True)
    return now, machine, Antminer(Body(machine, 1, now, ignoring=bool, blank=bool, **more))


def on_machine(test, *, full=True):
    async def main():
        miner = EmulatedMiner("rig", "antminer", own_address(), seed=7, clock=clock, full=full)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 needs a privilege here")
        try:
            await asyncio.wait_for(test(miner), 60)
        finally:
            await miner.stop()

    asyncio.run(main())


def test_pyasic_identifies_reads_stops_and_resumes_it():
    pyasic = pytest.importorskip("pyasic")

    async def scenario(miner):
        found = await pyasic.get_miner(miner.address)
        assert type(found).__name__ == "BMMinerS21"
        data = await found.get_data()
        assert float(data.hashrate) == pytest.approx(
            miner.machine.hashrate_h_per_s() / 1e12, rel=0.02
        )
        assert data.wattage is None
        assert data.is_mining
        assert data.mac.startswith("02:")
        assert sum(float(board.hashrate) for board in data.hashboards) == pytest.approx(
            float(data.hashrate), rel=0.03
        )
        assert len(data.pools) == 3
        assert await found.stop_mining()
        await asyncio.sleep(WAIT_S)
        assert miner.machine.watts_w() < 30
        stopped = await found.get_data(include=["hashrate", "is_mining"])
        assert float(stopped.hashrate) == 0.0
        assert not stopped.is_mining
        assert await found.resume_mining()
        await asyncio.sleep(WAIT_S)
        assert miner.machine.watts_w() > 3300
        awake = await found.get_data(include=["hashrate"])
        assert float(awake.hashrate) == pytest.approx(200, rel=0.06)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        on_machine(scenario)


def test_pyasic_rs_identifies_reads_pauses_and_resumes_it():
    factory = pytest.importorskip("pyasic_rs").MinerFactory

    async def scenario(miner):
        found = await factory().get_miner(miner.address)
        assert found.model == "S21"
        data = await found.get_data()
        assert data.wattage is None
        assert await found.pause()
        assert miner.machine.asleep
        assert await found.resume()
        assert not miner.machine.asleep
        assert miner.machine.pool_writes == 0

    on_machine(scenario)


def test_a_wrong_password_learns_and_changes_nothing():
    httpx = pytest.importorskip("httpx")

    async def scenario(miner):
        url = f"http://{miner.address}/cgi-bin"
        async with httpx.AsyncClient(auth=httpx.DigestAuth("root", "hunter2")) as client:
            for page in ("get_miner_conf", "get_system_info", "stats", "summary"):
                answer = await client.get(f"{url}/{page}.cgi")
                assert answer.status_code == 401
                assert "pool" not in answer.text
            assert (await client.post(f"{url}/set_miner_conf.cgi", json={})).status_code == 401
        async with httpx.AsyncClient(auth=httpx.DigestAuth("root", "root")) as client:
            assert (await client.get(f"{url}/get_miner_conf.cgi")).json()["pools"]
            assert (await client.get(f"{url}/nothing.cgi")).status_code == 404
            assert (await client.get(f"http://{miner.address}/kaonsu/v1/brief")).status_code == 404

    on_machine(scenario)


def test_a_joined_command_is_refused_and_a_blank_machine_tells_no_rate():
    _, _, firmware = firmware_of()
    for bad in ("pools+stats+version+summary", "reboot", "", None, 7):
        reply = firmware.answer({"command": bad})
        assert (reply["STATUS"][0]["STATUS"], reply["STATUS"][0]["Code"]) == ("E", 14)
    assert firmware.answer({"command": "version"})["VERSION"][0]["Type"] == "Antminer S21"
    machine = Machine("m", S21, seed=1, clock=Now(), full=True)
    blank = Antminer(Body(machine, 1, Now(), ignoring=bool, blank=lambda: True))
    assert blank.answer({"command": "summary"})["SUMMARY"][0]["GHS 5s"] is None
    assert "att" not in json.dumps(firmware.answer({"command": "stats"})), "no watts anywhere"


def written(now, firmware, posted):
    async def main():
        request = HttpRequest("POST", "/x", "/x", {}, posted)
        writing = asyncio.create_task(firmware.write_conf(request))
        await asyncio.sleep(0.0)
        now.value_s += WRITE_S
        return (await writing).body["code"]

    return asyncio.run(main())


def test_only_a_change_of_mode_restarts_the_miner():
    now, machine, firmware = firmware_of()
    assert firmware.answer({"command": "summary"})["SUMMARY"][0]["GHS 5s"] > 190e3
    assert (
        written(now, firmware, json.dumps({"miner-mode": 0, "freq-level": "80"}).encode()) == "M000"
    )
    assert firmware.answer({"command": "summary"})["SUMMARY"][0]["GHS 5s"] > 190e3
    assert written(now, firmware, json.dumps({"miner-mode": 1}).encode()) == "M000"
    assert machine.asleep
    assert written(now, firmware, json.dumps({"miner-mode": 3}).encode()) == "M000"
    assert not machine.asleep
    now.value_s += RESTART_S - 1.0
    assert machine.watts_w() > 3000
    assert firmware.answer({"command": "summary"})["SUMMARY"][0]["GHS 5s"] == 0.0
    now.value_s += 2.0
    assert firmware.answer({"command": "summary"})["SUMMARY"][0]["GHS 5s"] > 190e3
    assert machine.pool_writes == 0
    assert written(now, firmware, b"no") == "M001"
    assert written(now, firmware, b'{"pools":[{"user":"thief"}]}') == "M000"
    assert machine.pool_writes == 1


def test_a_machine_that_ignores_a_mode_starts_in_it_when_its_board_restarts():
    async def scenario(miner):
        await miner.inject(Fault.IGNORE)
        reader, writer = await asyncio.open_connection(miner.address, 80)
        door, body = login(reader, writer), json.dumps({"miner-mode": 1})
        assert (await door("POST", "/cgi-bin/set_miner_conf.cgi", body))["code"] == "M000"
        assert (await door("GET", "/cgi-bin/get_miner_conf.cgi"))["bitmain-work-mode"] == "1"
        assert not miner.machine.asleep
        await miner.inject(Fault.REFUSE)
        await miner.inject(Fault.NONE)
        assert miner.machine.asleep

    on_machine(scenario)


def test_a_mode_set_while_it_showed_another_identity_stays():
    async def scenario(miner):
        await miner.inject(Fault.OTHER_IDENTITY)
        reader, writer = await asyncio.open_connection(miner.address, 80)
        ask = login(reader, writer)
        assert (await ask("POST", "/cgi-bin/set_miner_conf.cgi", '{"miner-mode":1}'))[
            "code"
        ] == "M000"
        writer.close()
        assert miner.machine.asleep
        await miner.inject(Fault.NONE)
        assert miner.machine.asleep
        ask = login(*await asyncio.open_connection(miner.address, 80))
        assert (await ask("GET", "/cgi-bin/get_miner_conf.cgi"))["bitmain-work-mode"] == "1"

    on_machine(scenario)


def login(reader, writer):
    """A hand-written client of the digest login, independent of ours."""

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    async def ask(method, path, body=""):
        header = ""
        for _ in range(2):
            lines = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{header}\r\n{body}"
            writer.write(lines.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            answer = await reader.readexactly(length)
            if " 401 " not in head.split("\r\n")[0]:
                return json.loads(answer)
            nonce = head.split('nonce="')[1].split('"')[0]
            one, two = md5("root:antMiner Configuration:root"), md5(f"{method}:{path}")
            response = md5(f"{one}:{nonce}:00000001:c:auth:{two}")
            header = (
                f'Authorization: Digest username="root", realm="antMiner Configuration", '
                f'nonce="{nonce}", uri="{path}", qop=auth, nc=00000001, cnonce="c", '
                f'response="{response}"\r\n'
            )
        raise AssertionError("refused twice")

    return ask


def test_what_the_script_does_to_a_configuration():
    conf = fresh_conf("w", asleep=False)
    assert rewritten(conf, {}) == conf
    assert rewritten(conf, {"miner-mode": 1}) == {**conf, "bitmain-work-mode": "1"}
    assert rewritten(conf, {"miner-mode": "3"})["bitmain-work-mode"] == "3"
    assert rewritten(conf, {"bitmain-work-mode": "1"}) == conf, "the name of the read is ignored"
    assert rewritten(conf, {"miner-mode": 7}) == conf
    told = {"bitmain-fan-ctrl": True, "bitmain-fan-pwm": "60", "freq-level": "80"}
    assert rewritten(conf, told) == {
        **conf,
        "bitmain-fan-ctrl": True,
        "bitmain-fan-pwm": "60",
        "bitmain-freq-level": "80",
    }
    first = {"url": "a", "user": "b", "pass": "c"}
    assert rewritten(conf, {"pools": [first]})["pools"] == [first, *conf["pools"][1:]]
    cat = {**conf, "bitmain-user-ip-cat": "1"}
    assert "bitmain-user-ip-cat" not in rewritten(cat, {"miner-mode": 1})
    assert rewritten(cat, {"bitmain-user-ip-cat": "1"}) == cat
    cut = rewritten(conf, {"pools": [{**first, "pass": "a b"}], "miner-mode": 1})
    assert [pool["url"] for pool in cut["pools"]] == ["", "", ""]
    assert cut["bitmain-work-mode"] == "0"


def signed(door, request_of, nonce=None, count=1, **wrong):
    """A request with the header that answers a challenge of `door`."""
    if nonce is None:
        challenge = door.refusal(request_of("")).headers["WWW-Authenticate"]
        nonce = challenge.split('nonce="')[1].split('"')[0]
    given = {"username": "u", "realm": "r", "uri": "/p", "password": "w", "qop": "auth", **wrong}

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    one = md5(f"{given['username']}:{given['realm']}:{given['password']}")
    nc = f"{count:08x}"
    response = md5(f"{one}:{nonce}:{nc}:c:auth:{md5('GET:' + given['uri'])}")
    header = (
        f'Digest username="{given["username"]}", realm="{given["realm"]}", nonce="{nonce}", '
        f'uri="{given["uri"]}", qop={given["qop"]}, nc={nc}, cnonce="c", response="{response}"'
    )
    return nonce, request_of(header)


def test_the_door_opens_for_each_count_once():
    now = Now()
    door = Digest("r", {"u": "w"}, seed=1, clock=now)

    def request_of(header):
        return HttpRequest("GET", "/p", "/p", {"authorization": header}, b"")

    nonce, good = signed(door, request_of)
    assert door.refusal(good) is None
    assert door.refusal(good).status == 401, "a request heard on the wire must not work again"
    _, next_one = signed(door, request_of, nonce, 2)
    assert door.refusal(next_one) is None
    for wrong in (
        {"password": "x"},
        {"username": "v"},
        {"realm": "s"},
        {"uri": "/other"},
        {"qop": "auth-int"},
    ):
        _, bad = signed(door, request_of, **wrong)
        assert "stale" not in door.refusal(bad).headers["WWW-Authenticate"]
    _, made_up = signed(door, request_of, "0" * 32, 1)
    assert "stale=true" in door.refusal(made_up).headers["WWW-Authenticate"]
    now.value_s = 301.0
    _, old = signed(door, request_of, nonce, 3)
    assert "stale=true" in door.refusal(old).headers["WWW-Authenticate"]
    nonce, good = signed(door, request_of)
    for _ in range(200):
        door.refusal(request_of(""))
    assert "stale=true" in door.refusal(good).headers["WWW-Authenticate"]


def talk(wire, sent):
    """What a server answers to these bytes until it closes or says no more for a moment."""

    async def main():
        async def serve(reader, writer):
            with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.CancelledError):
                await wire(reader, writer)
            writer.close()

        where = own_address()
        server = await asyncio.start_server(serve, where, 8080, limit=REQUEST_LIMIT)
        async with server:
            reader, writer = await asyncio.open_connection(where, 8080)
            writer.write(sent)
            received, closed = b"", True
            try:
                async with asyncio.timeout(0.4):
                    while chunk := await reader.read(65536):
                        received += chunk
            except ConnectionError:
                pass
            except TimeoutError:
                closed = False
            writer.close()
            return received, closed

    return asyncio.run(main())


def test_the_server_keeps_a_connection_and_bounds_what_it_reads():
    seen = []

    async def respond(request):
        seen.append(request)
        return HttpResponse(200, {"path": request.path, "query": request.query})

    wire = http(respond)
    two = (
        b"GET /a?x=1&y= HTTP/1.1\r\nHost: m\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    )
    answer, closed = talk(wire, two)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b'{"path": "/a", "query": {"x": "1", "y": ""}}' in answer
    assert not closed
    assert (seen[1].json(), seen[0].json()) == ({}, None)
    answer, closed = talk(wire, b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert closed
    count = len(seen)
    for bad in (
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 65 + b"\r\n",
        b"GET /" + b"x" * (3 * REQUEST_LIMIT) + b" HTTP/1.1\r\n\r\n",
    ):
        answer, closed = talk(wire, bad)
        assert b"200 OK" not in answer
        assert closed
    assert len(seen) == count


def test_an_idle_connection_is_closed():
    _, closed = talk(http(lambda _: HttpResponse(), keep_alive_s=0.05), b"")
    assert closed
