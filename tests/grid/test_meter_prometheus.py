"""Meters behind Prometheus' HTTP API, over a real HTTP server that answers as Prometheus does."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from wattshift_cluster.grid.meters.prometheus import PrometheusMeter, Queries, Query, is_selector

NOW_S = 1_800_000_000.0
HOST = "127.8.6.1"
SITE = Queries(Query("site_watts", scale=1000.0))


class Server:
    """Holds series of raw samples; answers instant queries at NOW_S."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[float, str]]] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.headers = ""
        self.port = 0

    def answer(self, query: str) -> Any:
        if query in self.answers:
            return self.answers[query]
        ranged = re.fullmatch(r"(.*)\[(\d+)s\]", query)
        name = ranged[1] if ranged else query
        samples = self.series.get(name, [])
        if ranged:
            since_s = NOW_S - int(ranged[2])
            inside: list[list[object]] = [
                [at_s, text] for at_s, text in samples if since_s < at_s <= NOW_S
            ]
            rows: list[Any] = [{"metric": {}, "values": inside}] if inside else []
            return {"status": "success", "data": {"resultType": "matrix", "result": rows}}
        # An instant vector has the last value of five minutes, at the time of the evaluation.
        value = [NOW_S, samples[-1][1]] if samples else []
        rows = [{"metric": {}, "value": value}] if samples else []
        return {"status": "success", "data": {"resultType": "vector", "result": rows}}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            self.headers = head.lower()
            at = urlsplit(head.split(" ")[1])
            query = parse_qs(at.query).get("query", [""])[0]
            self.asked.append(query)
            known = at.path == "/prom/api/v1/query"
            body = json.dumps(self.answer(query)).encode() if known else b"{}"
            status = "200 OK" if known else "404 No"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
        writer.close()


@asynccontextmanager
async def prometheus(
    queries: Queries, **more: Any
) -> AsyncIterator[tuple[Server, PrometheusMeter]]:
    held = Server()
    server = await asyncio.start_server(held.serve, HOST, 0)
    held.port = server.sockets[0].getsockname()[1]
    settings = {"deadline_s": 10.0, "stale_after_s": 30.0, "wall_s": lambda: NOW_S, **more}
    meter = PrometheusMeter(f"http://{HOST}:{held.port}/prom/", queries, **settings)
    try:
        yield held, meter
    finally:
        await meter.close()
        server.close()


def run(queries: Queries, body: Callable[[Server, PrometheusMeter], Any], **more: Any) -> None:
    async def scene() -> None:
        async with prometheus(queries, **more) as (server, meter):
            await body(server, meter)

    asyncio.run(scene())


def test_a_selector_gives_the_last_raw_sample_with_its_own_time() -> None:
    async def body(server: Server, meter: PrometheusMeter) -> None:
        server.series["site_watts"] = [(NOW_S - 22, "9.25"), (NOW_S - 12, "9.5")]
        reading = await meter.poll()
        assert (reading.watts_w, reading.at_s, reading.fault) == (9500.0, NOW_S - 12, None)
        assert reading.age_s == pytest.approx(12, abs=1)
        server.series["site_watts"] = [(NOW_S - 200, "9.5")]
        assert "0 series" in str((await meter.poll()).fault), "no sample lately is no sample"

    run(SITE, body)


def test_an_expression_has_the_time_of_what_it_rests_on() -> None:
    async def body(server: Server, meter: PrometheusMeter) -> None:
        server.answers["min(timestamp(rack_watts))"] = {
            "status": "success",
            "data": {"resultType": "scalar", "result": [NOW_S, str(NOW_S - 20)]},
        }
        server.series["sum(rack_watts)"] = [(NOW_S, "9500")]
        reading = await meter.poll()
        assert (reading.watts_w, reading.at_s) == (9500.0, NOW_S - 20)
        assert server.asked == ["min(timestamp(rack_watts))", "sum(rack_watts)"], "time first"
        server.answers["min(timestamp(rack_watts))"]["data"]["result"][1] = str(NOW_S - 40)
        assert (await meter.poll()).watts_w is None, "stale, although it answers"

    run(Queries(Query("sum(rack_watts)", "min(timestamp(rack_watts))")), body)


def test_values_beside_the_watts_spoil_nothing() -> None:
    queries = Queries(
        Query('w{phase="all"}'),
        energy=Query("wh", scale=1000.0),
        frequency=Query("hz"),
        voltages=(Query("va"), Query("vb")),
    )

    async def body(server: Server, meter: PrometheusMeter) -> None:
        for name, text in (('w{phase="all"}', "9500"), ("wh", "7"), ("va", "231"), ("vb", "229")):
            server.series[name] = [(NOW_S - 1, text)]
        reading = await meter.poll()
        assert (reading.watts_w, reading.energy_wh, reading.hz) == (9500.0, 7000.0, None)
        assert reading.volts_v == 229.0
        del server.series["va"]
        assert (await meter.poll()).volts_v is None

    run(queries, body)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": "error", "errorType": "bad_data", "error": "parse"}, "bad_data"),
        ({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}, "neither"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{}, {}]}}, "2 series"),
        ({"status": "success", "data": {"resultType": "matrix", "result": [{}]}}, "no sample"),
        (
            {"status": "success", "data": {"resultType": "scalar", "result": [NOW_S, "many"]}},
            "no number",
        ),
        (
            {"status": "success", "data": {"resultType": "scalar", "result": ["nan", "1"]}},
            "no time",
        ),
        ([], "not a JSON object"),
    ],
)
def test_what_is_no_single_sample_is_told(answer: Any, words: str) -> None:
    async def body(server: Server, meter: PrometheusMeter) -> None:
        server.answers["site_watts[31s]"] = answer
        reading = await meter.poll()
        assert reading.watts_w is None
        assert words in str(reading.fault)

    run(SITE, body)


def test_no_number_is_handed_to_the_guard() -> None:
    async def body(server: Server, meter: PrometheusMeter) -> None:
        server.series["site_watts"] = [(NOW_S - 1, "NaN")]
        reading = await meter.poll()
        assert reading.watts_w is not None
        assert reading.watts_w != reading.watts_w

    run(SITE, body)


def test_a_token_is_sent_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    file.chmod(0o644)

    async def body(server: Server, meter: PrometheusMeter) -> None:
        server.series["site_watts"] = [(NOW_S - 1, "1")]
        told = str((await meter.poll()).fault)
        assert "others may use it" in told
        assert "s3cret" not in told
        assert server.asked == []
        file.chmod(0o600)
        assert (await meter.poll()).watts_w == 1000.0
        assert "authorization: bearer s3cret\r\n" in server.headers

    run(SITE, body, token_file=file)


def test_a_selector_is_told_from_an_expression() -> None:
    for text in ("up", "a:b_c", 'w{site="x", rack=~"a{2}\\"}"}', '{__name__="w"}', " w "):
        assert is_selector(text), text
    for text in ("sum(w)", "w + 1", "rate(w[5m])", "w offset 5m", "w{a='b'}[5m]", "", "w{"):
        assert not is_selector(text), text
