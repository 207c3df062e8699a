"""What is asked and what is made of the answers: templates, times in queue, streams of tokens."""

import json
from pathlib import Path

import pytest

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.inference.arrivals import Arrival, from_trace
from wattshift_cluster.inference.asking import (
    LINE_BYTES_MAX,
    Model,
    TokenStream,
    fault_of,
    filled,
    queue_ms_of,
)
from wattshift_cluster.inference.httplink import Answer, BadAnswer
from wattshift_cluster.inference.traces import TRACE_ROWS_MAX
from wattshift_cluster.inference.user_load import Rhythm, located


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(**said: object) -> bytes:
    return event({"choices": [{"delta": said}]})


def test_templates_are_filled() -> None:
    body = filled(b'{"id": {n}, "text": "{text}"}', 12, Arrival(0.0, 3), seed=1)
    assert json.loads(body)["id"] == 12
    assert len(json.loads(body)["text"].split()) == 3
    assert body == filled(b'{"id": {n}, "text": "{text}"}', 12, Arrival(0.0, 3), seed=1)


def test_a_model_is_asked_for_as_many_tokens_as_the_trace_says() -> None:
    chat = json.loads(Model("m", answer_tokens=9).body(0, Arrival(0.0, 4)))
    assert (chat["model"], chat["stream"], chat["max_tokens"]) == ("m", True, 9)
    assert len(chat["messages"][0]["content"].split()) == 4
    plain = json.loads(Model("m", chat=False).body(0, Arrival(0.0, 4, answer_tokens=77)))
    assert plain["max_tokens"] == 77
    assert len(plain["prompt"].split()) == 4


def test_a_stream_is_timed_at_the_parts_that_carry_text() -> None:
    stream = TokenStream()
    whole = (
        b": a comment\n\n"
        + delta(role="assistant", content="")
        + delta(content="Hel")
        + delta(reasoning_content="hm")
        + event({"choices": [{"text": "lo"}]})
        + event({"choices": [], "usage": {"completion_tokens": 5}})
        + b"data: not json\n\ndata: [1]\n\n"
    )
    for at in range(0, len(whole), 7):  # parts need not be events
        stream.feed(whole[at : at + 7])
    assert len(stream.text_s) == 3
    assert stream.tokens == 5
    assert stream.fault[0] == "stream cut"
    stream.feed(b"data: [DONE]\n\n")
    assert stream.fault == (None, None)


def test_a_stream_with_an_error_or_without_an_end_is_no_answer() -> None:
    stream = TokenStream()
    stream.feed(event({"error": {"message": "preempted"}}) + b"data: [DONE]\n\n")
    assert stream.fault[0] == "error in stream"
    assert "preempted" in str(stream.fault[1])
    finished = TokenStream()
    finished.feed(event({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    assert finished.fault == (None, None)
    with pytest.raises(BadAnswer, match="too long"):
        TokenStream().feed(b"x" * (LINE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("headers", "body", "queue_ms"),
    [
        ({"server-timing": "total;dur=12, queue;dur=3.5"}, b'{"queue_ms": 1}', 3.5),
        ({"server-timing": 'queue;desc="in line";dur=4'}, b"", 4.0),
        ({"server-timing": "queue;dur=1.2.3"}, b"", None),
        ({"server-timing": f"queue;dur={'9' * 400}"}, b"", None),
        ({}, b'{"a": [1], "queue_ms" : 7.25}', 7.25),
        ({}, b'{"queue_ms": null}', None),
        ({}, b"", None),
    ],
)
def test_the_time_in_queue_is_what_the_server_says(
    headers: dict[str, str], body: bytes, queue_ms: float | None
) -> None:
    assert queue_ms_of(Answer(200, headers, body)) == queue_ms


def test_only_2xx_is_an_answer() -> None:
    assert fault_of(Answer(204, {}, b"")) == (None, None)
    assert fault_of(Answer(302, {}, b""))[0] == "HTTP 302"
    assert "not followed" in str(fault_of(Answer(302, {}, b""))[1])
    assert fault_of(Answer(503, {}, b"full" * 100)) == ("HTTP 503", ("full" * 100)[:200])


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def first(rhythm: Rhythm, count: int) -> list[Arrival]:
    arrivals = rhythm.arrivals()
    return [next(arrivals) for _ in range(count)]


def test_traces_of_requests_bring_their_times_and_lengths(tmp_path: Path) -> None:
    azure = written(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:00:00.0000000,100,7\n2023-11-16 18:00:01.5000000,8,9\n",
    )
    found = first(Rhythm("trace", None, trace=azure), 3)
    assert [(a.at_s, a.words, a.answer_tokens) for a in found] == [
        (0.0, 75, 7), (1.5, 6, 9), (3.0, 75, 7)
    ]  # fmt: skip
    assert first(Rhythm("trace", None, trace=azure, speed=3.0), 2)[1].at_s == pytest.approx(0.5)
    assert first(Rhythm("trace", None, trace=azure, words_max=50), 1)[0].words == 50
    mooncake = written(
        tmp_path, "timestamp_ms,input_length,output_length,n_blocks\n0,4,5,1\n250,8,6,1\n"
    )
    found = first(Rhythm("trace", 8.0, trace=mooncake), 3)
    assert [a.at_s for a in found] == pytest.approx([0.0, 0.125, 0.25])


SERVEGEN = (
    "model,t_s,total_rate_rps,active_clients\n"
    "a,0,10,1\na,600,30,1\na,1200,0,1\nb,0,1,1\nb,600,1,1\n"
)


def test_a_trace_of_rates_becomes_a_poisson_process(tmp_path: Path) -> None:
    path = written(tmp_path, SERVEGEN)
    arrivals = Rhythm("trace", 20.0, trace=path, trace_model="a", speed=6.0).arrivals()
    times = []
    for arrival in arrivals:
        if arrival.at_s > 300:  # one lap of 1800 s, six times faster
            break
        times.append(arrival.at_s)
    thirds = [sum(low <= at < low + 100 for at in times) for low in (0, 100, 200)]
    # Scaled to a mean of 20/s: 15, 45 and 0 per second; 6 sigma of Poisson.
    assert thirds[0] == pytest.approx(1500, abs=240)
    assert thirds[1] == pytest.approx(4500, abs=410)
    assert thirds[2] == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SERVEGEN, "a, b"),
        ("a,b\n1,2\n", "columns"),
        ("timestamp_ms,input_length\n1,2\nnan,2\n", "no time"),
        ("timestamp_ms,input_length\n1,2\n1,2\n", "two different times"),
        ("timestamp_ms,input_length\n1,2\n2\n", "not a trace"),
        ("ContextTokens,TIMESTAMP\n5\n6\n", "not a trace"),
        ("t_s,total_rate_rps\n0,0\n600,0\n", "never above 0"),
        ("t_s,total_rate_rps\n0,nan\n600,1\n", "no rate"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        from_trace(written(tmp_path, text))


def test_a_model_that_the_trace_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"no model c; it has a, b"):
        from_trace(written(tmp_path, SERVEGEN), model="c")
    assert TRACE_ROWS_MAX > 0


def test_traces_are_found_below_the_folder_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workload").mkdir()
    (tmp_path / "workload" / "t.csv").write_text("x")
    monkeypatch.delenv("WATTSHIFT_DATA", raising=False)
    with pytest.raises(ConfigInvalid, match="WATTSHIFT_DATA names no folder"):
        located("t.csv#m")
    monkeypatch.setenv("WATTSHIFT_DATA", str(tmp_path))
    assert located("t.csv#m") == (tmp_path / "workload" / "t.csv", "m")
    assert located("t.csv")[1] is None
