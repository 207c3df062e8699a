"""Servers under watch: real HTTP on loopback, in the shape of each kind, well and unwell."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wattshift_cluster.agent.observe import KINDS, Kind, Observed, ObservedServer, Others, beside
from wattshift_cluster.agent.observe.prometheus import ObservationFailed, parse
from wattshift_cluster.agent.observe.scrape import NobodyListens, is_loopback, scrape
from wattshift_cluster.agent.observe.servers import read_work
from wattshift_cluster.bootclock import boot_s

WITHIN_S = 20.0
CLEAR = Others(frozenset(), 0.0)
MODEL = '{model_name="meta-llama/Llama-3.1-8B-Instruct"}'
ENGINE = '{engine="0",model_name="Qwen/Qwen3-8B"}'
TRITON = '{model="resnet",version="1"}'

# One idle answer of each kind, the gauge that then shows work, and the counter that then moves.
ANSWERS: dict[Kind, tuple[str, str, str]] = {
    "vllm": (
        f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{ENGINE} 0.0\n"
        f"vllm:num_requests_waiting{ENGINE} 0.0\n# TYPE vllm:prompt_tokens counter\n"
        f"vllm:prompt_tokens_total{ENGINE} 22.0\nvllm:generation_tokens_total{ENGINE} 96.0\n"
        'vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 3.0\n',
        f"vllm:num_requests_waiting{ENGINE} 0.0",
        f"vllm:generation_tokens_total{ENGINE} 96.0",
    ),
    "sglang": (
        f"sglang:num_running_reqs{MODEL} 0.0\nsglang:num_queue_reqs{MODEL} 0.0\n"
        f"sglang:num_grammar_queue_reqs{MODEL} 0.0\nsglang:prompt_tokens_total{MODEL} 8.1e+06\n",
        f"sglang:num_grammar_queue_reqs{MODEL} 0.0",
        f"sglang:prompt_tokens_total{MODEL} 8.1e+06",
    ),
    "triton": (
        f"nv_inference_request_success{TRITON} 7.000000\nnv_inference_exec_count{TRITON} 7\n"
        f'nv_inference_pending_request_count{TRITON} 0\nnv_gpu_utilization{{gpu_uuid="GPU-1"}} 0\n',
        f"nv_inference_pending_request_count{TRITON} 0",
        f"nv_inference_exec_count{TRITON} 7",
    ),
    "tgi": (
        "# TYPE tgi_queue_size gauge\ntgi_queue_size 0\ntgi_batch_current_size 0\n"
        'tgi_batch_inference_count{method="decode"} 12\n',
        "tgi_batch_current_size 0",
        'tgi_batch_inference_count{method="decode"} 12',
    ),
    "llamacpp": (
        "# HELP llamacpp:requests_processing Number of requests processing.\n"
        "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n"
        "llamacpp:n_decode_total 42\n",
        "llamacpp:requests_processing 0",
        "llamacpp:n_decode_total 42",
    ),
}
IDLE = ANSWERS["vllm"][0]


def raised(text: str, line: str) -> str:
    """The same answer with one sample a step higher."""
    head, _, value = line.rpartition(" ")
    assert f"{line}\n" in text
    return text.replace(line, f"{head} {float(value) + 1}")


class Server:
    """A metrics endpoint whose answer a test sets; `hung` holds it once it has accepted."""

    def __init__(self, text: str = IDLE, kind: str = "text/plain; version=0.0.4") -> None:
        self.text, self.kind, self.status, self.hung = text, kind, 200, threading.Event()
        self.chunked, self.ended = False, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if outer.hung.is_set():
                    # No thread outlives its test: it would write to a socket that is gone.
                    outer.ended.wait(30)
                    return
                body = outer.text.encode()
                self.send_response(outer.status)
                self.send_header("Content-Type", outer.kind)
                if outer.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                    parts = (body[at : at + 70] for at in range(0, len(body), 70))
                    body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
                else:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/metrics"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.end()


@contextlib.contextmanager
def raw(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server that answers its first connection as it likes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"


class Gate:
    """Records a gate's busy mark, and that its calls alternate."""

    def __init__(self) -> None:
        self.busy = False

    def enter(self) -> None:
        assert not self.busy
        self.busy = True

    def leave(self) -> None:
        assert self.busy
        self.busy = False


def watch(
    url: str, seen: Others = CLEAR, kind: Kind = "vllm", **more: float | bool
) -> tuple[Observed, Gate]:
    gate = Gate()
    terms = {"opt_in": True, "period_s": 0.1, "quiet_s": 0.2, "stale_s": 5.0, **more}
    settings = ObservedServer("chat", kind, url, ("gpu0",), **terms)  # type: ignore[arg-type]
    return Observed(settings, (gate,), lambda: seen), gate


async def becomes(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


async def until(watched: Observed, *, busy: bool) -> None:
    """Look until the verdict is this."""
    deadline_s = time.monotonic() + WITHIN_S
    while (await watched.look()).busy is not busy:
        assert time.monotonic() < deadline_s, watched.verdict()
        await asyncio.sleep(0.05)


def test_each_kind_is_quiet_when_idle_and_busy_by_its_gauges_and_counters() -> None:
    async def scenario(kind: Kind, server: Server) -> None:
        text, gauge, counter = ANSWERS[kind]
        watched, gate = watch(server.url, kind=kind)
        await until(watched, busy=False)
        assert not gate.busy
        server.text = raised(text, gauge)
        said = await watched.look()
        assert said.busy, "one look is enough"
        assert said.why == "1 requests run or wait"
        assert gate.busy
        server.text = text
        await until(watched, busy=False)
        server.text = raised(text, counter)
        assert (await watched.look()).why == "its counters moved"
        assert gate.busy
        await until(watched, busy=False)

    async def every_kind() -> None:
        await asyncio.gather(*(scenario(kind, server) for kind, server in servers.items()))

    servers = {kind: Server(ANSWERS[kind][0]) for kind in KINDS}
    try:
        asyncio.run(every_kind())
    finally:
        for server in servers.values():
            server.end()


def test_quiet_takes_an_unbroken_row_of_looks(server: Server) -> None:
    async def scenario() -> None:
        watched, gate = watch(server.url, quiet_s=0.5)
        assert watched.verdict().busy
        assert gate.busy, "what was never seen is not idle"
        assert watched.verdict().age_s is None
        first_s = boot_s()
        said = await watched.look()
        assert said.busy, "one idle look is no row"
        assert "quiet for" in said.why
        assert said.age_s is not None
        await until(watched, busy=False)
        assert boot_s() - first_s >= 0.5
        server.status = 503
        assert (await watched.look()).why == "it cannot be observed: HTTP status 503"
        server.status = 200
        assert (await watched.look()).busy, "the row begins anew"

    asyncio.run(scenario())


def test_looks_too_far_apart_are_no_row(server: Server) -> None:
    async def scenario() -> None:
        watched, _ = watch(server.url, stale_s=0.3, quiet_s=0.4)
        await watched.look()
        await asyncio.sleep(0.5)
        assert (await watched.look()).busy

    asyncio.run(scenario())


def test_a_stale_look_counts_as_work(server: Server) -> None:
    async def scenario() -> None:
        watched, _ = watch(server.url, stale_s=0.8)
        await until(watched, busy=False)
        await asyncio.sleep(0.9)
        said = watched.verdict()
        assert said.busy
        assert said.age_s is not None
        assert said.age_s > 0.8
        assert "older than 0.8 s" in said.why

    asyncio.run(scenario())


def test_a_server_that_hangs_or_ends_the_watch_is_marked_busy(server: Server) -> None:
    async def scenario() -> None:
        watched, gate = watch(server.url, stale_s=0.6)
        running = asyncio.create_task(watched.run())
        await becomes(lambda: not gate.busy)
        server.hung.set()
        await becomes(lambda: gate.busy)
        assert "no answer within 0.5 s" in watched.verdict().why
        server.hung.clear()
        await becomes(lambda: not gate.busy)
        running.cancel()
        await asyncio.wait([running])
        assert gate.busy
        assert watched.verdict().busy

    asyncio.run(scenario())


def test_without_its_owners_word_nothing_is_mined_beside_even_an_idle_server(
    server: Server,
) -> None:
    async def scenario() -> None:
        watched, gate = watch(server.url, opt_in=False)
        assert beside(watched.server) == "never"
        await watched.look()
        await asyncio.sleep(0.3)
        for _ in range(3):
            said = await watched.look()
            assert (said.busy, said.why) == (True, "its owner did not opt in")
        assert gate.busy
        server.end()
        await until(watched, busy=False)
        held, _ = watch(server.url, Others(frozenset({77}), 0.0), opt_in=False)
        await held.look()
        await asyncio.sleep(0.3)
        said = await held.look()
        assert said.busy, "no endpoint, but its process holds the GPU"
        assert "did not opt in" in said.why

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Others(None, None), "the driver does not say whether it holds the GPU"),
        (Others(frozenset({77}), 0.0), "it starts or ends"),
    ],
)
def test_a_server_that_is_gone_may_still_hold_its_gpu(seen: Others, why: str) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            url = f"http://127.0.0.1:{held.getsockname()[1]}/metrics"
        watched, gate = watch(url, seen)
        said = await watched.look()
        assert said.busy
        assert why in said.why
        assert gate.busy

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "sm_pct", "why"),
    [
        ("vllm", 3.0, "it uses 3 % of its GPU"),
        ("triton", None, "Triton does not show what it runs"),
        ("vllm", None, None),
    ],
)
def test_the_drivers_word_is_added_to_the_servers(
    kind: Kind, sm_pct: float | None, why: str | None
) -> None:
    server = Server(ANSWERS[kind][0])

    async def scenario() -> None:
        watched, _ = watch(server.url, Others(frozenset({77}), sm_pct), kind)
        if why is None:
            await until(watched, busy=False)
            return
        said = await watched.look()
        assert said.busy
        assert why in said.why

    try:
        asyncio.run(scenario())
    finally:
        server.end()


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("<html>\n", "text/html", "not Prometheus text but text/html"),
        ('{"running": 0}\n', "text/plain", "no Prometheus sample"),
        ("", "text/plain", "num_requests_running is missing"),
        (IDLE.replace("_waiting", "_hoping"), "text/plain", "num_requests_waiting is missing"),
        (IDLE.replace("waiting" + ENGINE + " 0.0", "waiting NaN"), "text/plain", "not a number"),
        (IDLE.replace("waiting" + ENGINE + " 0.0", "waiting -1"), "text/plain", "not a number"),
        (IDLE[:-9], "text/plain", "cut off"),
    ],
)
def test_a_wrong_answer_is_no_observation(
    server: Server, text: str, kind: str, reason: str
) -> None:
    server.text, server.kind = text, kind

    async def scenario() -> None:
        watched, gate = watch(server.url)
        said = await watched.look()
        assert said.busy
        assert reason in said.why
        assert gate.busy

    asyncio.run(scenario())


def test_an_old_triton_is_read_by_its_counters_and_one_without_models_is_unknown() -> None:
    old = "".join(f"{line}\n" for line in ANSWERS["triton"][0].split("\n")[:2])
    work = read_work("triton", parse(old.encode(), KINDS["triton"].wanted))
    assert work.requests == 0
    assert len(work.counters) == 2
    with pytest.raises(ObservationFailed, match="Triton's nv_inference_count is missing"):
        read_work("triton", {})


def test_chunks_are_put_together_and_a_large_answer_is_read(server: Server) -> None:
    server.chunked = True
    server.text = IDLE + "".join(f'other{{i="{i}"}} 1\n' for i in range(6000))
    row = KINDS["vllm"]
    samples = asyncio.run(scrape(server.url, row.wanted, 10.0))
    assert list(samples["vllm:num_requests_waiting"].values()) == [0.0]
    assert list(samples["vllm:prompt_tokens_total"].values()) == [22.0]


def _endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"# \n" * 21845 + b"\n\r\n"
    while True:
        connection.sendall(chunk)


def _head_without_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"X-Long: " + b"x" * 4096)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_endless, "a body of more than"),
        (_head_without_end, "broke off or is not HTTP"),
        (lambda c: c.sendall(b"SSH-2.0-x\r\n\r\n"), "not HTTP/1"),
        (
            lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"),
            "a body of",
        ),
        (lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nx 1\n"), "broke off"),
        (lambda c: c.sendall(b"HTTP/1.1 200 OK\r\n\r\nx 0\n"), "has no length"),
        (lambda c: c.sendall(b"HTTP/1.1 307 Temporary Redirect\r\n\r\n"), "HTTP status 307"),
        (
            lambda c: c.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
            ),
            "compressed",
        ),
        (
            lambda c: c.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nx 0\nXX0\r\n\r\n"
            ),
            "no end",
        ),
        (lambda c: c.close(), "broke off"),
    ],
)
def test_a_broken_answer_ends_the_look(
    answer: Callable[[socket.socket], None], reason: str
) -> None:
    with raw(answer) as url, pytest.raises(ObservationFailed, match=reason):
        asyncio.run(scrape(url, ("x",), 10.0))


def test_drops_of_an_answer_do_not_stretch_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.sendall(b"#")
            time.sleep(0.05)

    with raw(drip) as url, pytest.raises(ObservationFailed, match="no answer within"):
        asyncio.run(asyncio.wait_for(scrape(url, ("x",), 0.3), WITHIN_S))


def test_only_a_refusal_of_this_machine_says_that_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(NobodyListens):
            asyncio.run(scrape(f"http://{host}:{port}/metrics", ("x",), 5.0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        with contextlib.suppress(OSError):  # no packet is sent, only a way is looked up
            route.connect(("192.0.2.1", 9))
        address = route.getsockname()[0]
    if address != "0.0.0.0":
        with pytest.raises(ObservationFailed, match="nothing listens") as refused:
            asyncio.run(scrape(f"http://{address}:{port}/metrics", ("x",), 5.0))
        assert not isinstance(refused.value, NobodyListens)
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("127.0.0.1.example")
    with pytest.raises(ObservationFailed, match="URL is not"):
        asyncio.run(scrape("unix:/run/x", ("x",), 5.0))
