"""The reader of Prometheus text, against an independent writer and reader, and against rubbish."""

import math
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from wattshift_cluster.agent.observe import prometheus
from wattshift_cluster.agent.observe.prometheus import ObservationFailed, Samples, parse

WANTED = ("vllm:num_requests_running", "vllm:prompt_tokens_total")

values = st.floats(allow_nan=False) | st.integers(0, 2**60).map(float)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
label_sets = st.dictionaries(names, texts, max_size=4).map(lambda d: tuple(sorted(d.items())))
series = st.dictionaries(label_sets, values, max_size=4)
samples = st.dictionaries(st.sampled_from([*WANTED, "other", "vllm:num_requests"]), series)


def written(all_samples: Samples) -> bytes:
    """The same as text, by a writer of our own."""
    lines = []
    for name, rows in all_samples.items():
        lines += [f"# HELP {name} said \\ \\n twice", f"# TYPE {name} gauge", ""]
        for labels, value in rows.items():
            escaped = (
                (key, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
                for key, text in labels
            )
            inside = ",".join(f'{key}="{text}"' for key, text in escaped)
            number = str(value).replace("inf", "Inf")
            lines.append(
                f"{name}{{{inside}}} {number} 1764000000000" if inside else f"{name} {number}"
            )
    return "".join(f"{line}\n" for line in lines).encode()


@given(samples)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_as_an_independent_reader_reads_it(all_samples: Samples) -> None:
    text = written(all_samples)
    expected = {name: rows for name, rows in all_samples.items() if rows and name in WANTED}
    assert parse(text, WANTED) == expected
    theirs: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name in WANTED:
                labels = tuple(sorted(sample.labels.items()))
                theirs.setdefault(sample.name, {})[labels] = sample.value
    assert parse(text, WANTED) == theirs


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b'vllm:num_requests_running{a="\xff"} 1\n')
@settings(max_examples=120, deadline=None)
def test_rubbish_is_read_or_refused_and_nothing_else(rubbish: bytes) -> None:
    for body in (rubbish, rubbish + b"\n", b"vllm:num_requests_running" + rubbish + b"\n"):
        with suppress(ObservationFailed):
            parse(body, WANTED)


def test_the_client_library_of_these_servers_is_read() -> None:
    registry = CollectorRegistry()
    labels = {"model_name": 'a "b"\\c\nd', "engine": "0"}
    running = Gauge("vllm:num_requests_running", "now", tuple(labels), registry=registry)
    running.labels(**labels).set(3)
    tokens = Counter("vllm:prompt_tokens", "so far", tuple(labels), registry=registry)
    tokens.labels(**labels).inc(8.128902e06)
    Histogram("vllm:iteration_tokens_total", "per step", registry=registry).observe(5)
    key = tuple(sorted(labels.items()))
    assert parse(generate_latest(registry), WANTED) == {
        "vllm:num_requests_running": {key: 3.0},
        "vllm:prompt_tokens_total": {key: 8128902.0},
    }


@pytest.mark.parametrize(
    ("number", "value"),
    [("+Inf", math.inf), ("-Inf", -math.inf), ("1e3", 1000.0), (".5", 0.5), ("-0", 0.0)],
)
def test_numbers_of_the_format_are_read(number: str, value: float) -> None:
    assert parse(f"x {number}\n".encode(), ("x",)) == {"x": {(): value}}


def test_nan_is_read_as_nan_and_blanks_do_not_matter() -> None:
    assert math.isnan(parse(b"x NaN\n", ("x",))["x"][()])
    assert parse(b' x\t{ a = "b" , }  1  \n\n', ("x",)) == {"x": {(("a", "b"),): 1.0}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"x 1", "cut off"),
        (b"x 1_000\n", "no proper value"),
        (b"x 0x10\n", "no proper value"),
        (b"x infinity\n", "no proper value"),
        (b"x\n", "no Prometheus sample"),
        (b"x \n", "no Prometheus sample"),
        (b"x 1 2 3\n", "no proper value"),
        (b"x 1\r\n", "no proper value"),
        (b"<html>\n", "no Prometheus sample"),
        (b'{"requests": 0}\n', "no Prometheus sample"),
        (b"unwanted-name 1\n", "no Prometheus sample"),
        (b'x{a="b" 1\n', "malformed labels"),
        (b'x{a="b}" 1\n', "malformed labels"),
        (b'x{a="b" c="d"} 1\n', "malformed labels"),
        (b'x{a="\\t"} 1\n', "malformed labels"),
        (b'x{a="b",a="c"} 1\n', "label a twice"),
        (b'x{a="\xff"} 1\n', "UTF-8"),
        (b'x{a="1",b="2"} 1\nx{b="2",a="1"} 0\n', "series of x twice"),
        (b"x 1\n" + b"y" * (prometheus.MAX_LINE_BYTES + 1) + b"\n", "longer"),
        (b"# \n" * (prometheus.MAX_BODY_BYTES // 3 + 1), "bytes of metrics"),
        (b"".join(b'x{i="%d"} 0\n' % i for i in range(prometheus.MAX_SERIES + 1)), "more than"),
    ],
)
def test_what_does_not_fit_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ObservationFailed, match=reason) as refused:
        parse(text, ("x",))
    assert refused.value.reason == str(refused.value)
