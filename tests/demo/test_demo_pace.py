"""The demo asks of a machine what it can do, and still enough to be judged."""

import asyncio
import time
from collections.abc import Callable

import pytest

from wattshift_cluster.demo import pace
from wattshift_cluster.demo.scenario import SHORTEST_S, Scenario
from wattshift_cluster.demo.stage import SEED
from wattshift_cluster.demo.verdict import REQUESTS_MIN
from wattshift_cluster.errors import TryLater
from wattshift_cluster.inference.arrivals import bursts


def test_a_quick_machine_gets_the_scenario_as_it_stands() -> None:
    play = Scenario(120.0)
    assert pace.paced(play, 0.005) == play


def test_a_slow_machine_is_asked_less_and_never_too_little_to_judge() -> None:
    play = Scenario(120.0)
    slow, slower = pace.paced(play, 0.022), pace.paced(play, 0.5)
    assert pace.least_rate_per_s(play) < slow.rate_per_s < play.rate_per_s
    assert slow.rate_per_s * 0.022 == pytest.approx(pace.BUSY_SHARE, rel=0.01)
    assert slower.rate_per_s == pytest.approx(pace.least_rate_per_s(play), abs=0.01)
    assert slower.batch_items * 0.5 <= pace.BATCH_SHARE * play.seconds
    assert 1 <= slower.batch_items < slow.batch_items <= play.batch_items


def test_a_scenario_s_own_rate_is_the_most() -> None:
    gentle = Scenario(32.0, rate_per_s=7.0)
    assert pace.paced(gentle, 0.5).rate_per_s == 7.0
    assert pace.paced(Scenario(SHORTEST_S), 0.5).rate_per_s <= Scenario(SHORTEST_S).rate_per_s


@pytest.mark.parametrize("settled_after_s", [8.0, 15.0, 25.0, 40.0, 60.0])
def test_at_the_least_rate_every_phase_has_requests_enough(settled_after_s: float) -> None:
    play = Scenario(120.0)
    moments = [settled_after_s + play.seconds * at for at in (0, play.cut_at, play.restore_at, 1)]
    counts = [0, 0, 0]
    for arrival in bursts(pace.least_rate_per_s(play), SEED):
        if arrival.at_s >= moments[-1]:
            break
        for phase in range(3):
            counts[phase] += moments[phase] <= arrival.at_s < moments[phase + 1]
    assert min(counts) >= REQUESTS_MIN


def asked(answer: Callable[[], bytes | None], wait_s: float = 0.0) -> float:
    """What `answer_s` makes of a server that gives these answers; None is silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                await asyncio.sleep(wait_s)
                if (said := answer()) is not None:
                    writer.write(said)
        except asyncio.IncompleteReadError:
            writer.close()

    async def ask() -> float:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            return await pace.answer_s(f"http://{host}:{port}/embed", SEED)
        finally:
            server.close()

    return asyncio.run(ask())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def test_an_answer_is_timed_as_a_lone_client_sees_it() -> None:
    began_s = time.monotonic()
    one_s = asked(lambda: OK, wait_s=0.02)
    assert 0.02 <= one_s <= time.monotonic() - began_s


def test_a_service_that_refuses_or_keeps_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TryLater, match="HTTP 503"):
        asked(lambda: FULL)
    monkeypatch.setattr(pace, "ASKING_S", 0.3)
    with pytest.raises(TryLater, match=r"0 answers in 0\.3 s"):
        asked(lambda: None)
