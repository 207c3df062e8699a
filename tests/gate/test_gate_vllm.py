"""The vLLM plugin, driven as vLLM drives it: real processes in its order, without vLLM itself."""

import os
import signal
from collections.abc import Callable
from typing import Any

SERVER = """
import asyncio, multiprocessing, os, sys, time
from wattshift_cluster.gate.hooks import vllm

def engine(pipe, other):
    other.close()                      # else its own copy would keep it waiting for ever
    vllm.register()                    # EngineCore and its workers load plugins too
    vllm.register()
    pipe.send("loaded")
    try:
        pipe.recv()                    # and live as long as the server
    except EOFError:
        pass

def serve():
    from wattshift_cluster.gate.hooks.asgi import BusyMiddleware
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
    async def send(message):
        pass
    # The application is built when the engine is up; its first message is of its lifespan.
    asyncio.run(BusyMiddleware(app)({"type": "lifespan"}, None, send))

if __name__ == "__main__":
    how, loading_max_s = sys.argv[1], float(sys.argv[2])
    processes = multiprocessing.get_context("fork" if how == "fork" else "spawn")
    vllm.register(loading_max_s)       # as the engine's arguments are read
    vllm.register(loading_max_s)
    ours, theirs = processes.Pipe()
    child = processes.Process(target=engine, args=(theirs, ours), daemon=True)
    child.start()
    assert ours.recv() == "loaded"
    print("loaded", flush=True)
    for line in sys.stdin:
        if line == "serve\\n":
            serve()
        elif line == "serve elsewhere\\n":      # several API servers are processes of their own
            api = processes.Process(target=serve)
            api.start(); api.join()
        elif line == "again\\n":
            vllm.register()
        print("done", flush=True)
"""


def start(script: Callable[..., Any], gates: Any, tmp_path: Any, how: str, max_s: str) -> Any:
    file = tmp_path / "server.py"  # spawned children need a file to come from
    file.write_text(SERVER)
    env = {**os.environ, "WATTSHIFT_GATE_DIR": str(gates.folder)}
    env.pop("WATTSHIFT_READY", None)
    return script(file, how, max_s, env=env)


def test_loading_is_busy_until_the_server_in_the_same_process_is_ready(
    gates: Any, script: Callable[..., Any], tmp_path: Any, eventually: Callable[..., bool]
) -> None:
    server = start(script, gates, tmp_path, "fork", "60")
    assert server.line() == "loaded"
    assert gates.in_flight() == 1, "one process marks; the engine leaves it at that"
    server.tell("serve")
    assert eventually(lambda: gates.in_flight() == 0)
    server.tell("again")
    assert gates.in_flight() == 0, "a plugin that is called again begins nothing"


def test_an_api_server_in_a_process_of_its_own_ends_the_loading(
    gates: Any, script: Callable[..., Any], tmp_path: Any, eventually: Callable[..., bool]
) -> None:
    server = start(script, gates, tmp_path, "spawn", "60")
    assert server.line() == "loaded"
    assert gates.in_flight() == 1
    server.tell("serve elsewhere")
    assert eventually(lambda: gates.in_flight() == 0)


def test_loading_ends_with_its_process_or_its_bound(
    gates: Any, script: Callable[..., Any], tmp_path: Any, eventually: Callable[..., bool]
) -> None:
    killed = start(script, gates, tmp_path, "fork", "60")
    assert killed.line() == "loaded"
    assert gates.in_flight() == 1
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    assert eventually(lambda: gates.in_flight() == 0)
    without_middleware = start(script, gates, tmp_path, "fork", "1.0")
    assert without_middleware.line() == "loaded"
    assert eventually(lambda: gates.in_flight() == 0)
