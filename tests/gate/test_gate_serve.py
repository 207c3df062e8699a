"""The Ray Serve hook: replicas of every shape, without Ray; and its way through a pickle."""

import asyncio
import importlib.util
import inspect
import os
import runpy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse

from wattshift_cluster.gate import environment
from wattshift_cluster.gate.hooks.serve import busy_replica
from wattshift_cluster.gate.readiness import ReadyListener

SERVE_BUSY = Path(__file__).parents[2] / "examples" / "serve_busy.py"


@pytest.fixture
def here(gates: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This process as a replica: its gate is found through the environment."""
    monkeypatch.setenv("WATTSHIFT_GATE_DIR", str(gates.folder))
    monkeypatch.setattr(environment, "_asked", False)
    yield gates
    gate = environment.gate_here()
    assert gate is not None
    gate.close()
    monkeypatch.setattr(environment, "_asked", False)
    assert gates.in_flight() == 0


def test_a_replica_is_busy_while_it_loads_and_answers(here: Any) -> None:
    @busy_replica
    class Model:
        def __init__(self, name: str) -> None:
            self.name = name
            self.loading = here.in_flight()

        def __call__(self, request: str) -> tuple[str, int]:
            return self.name + request, here.in_flight()

        def other(self) -> int:
            return int(here.in_flight())

    listener = ReadyListener()
    model = Model("m")
    assert listener.heard(1)
    listener.close()
    assert model.loading == 1
    assert model("?") == ("m?", 1)
    assert model.other() == 0, "not named"
    assert Model.__name__ == "Model"


def test_methods_keep_their_kind(here: Any) -> None:
    @busy_replica(methods=("embed", "stream", "tokens"))
    class Model:
        async def __init__(self) -> None:  # type: ignore[misc]
            await asyncio.sleep(0)
            self.loading = here.in_flight()

        async def embed(self) -> int:
            await asyncio.sleep(0)
            return int(here.in_flight())

        async def stream(self) -> AsyncIterator[int]:
            yield here.in_flight()

        def tokens(self) -> Iterator[int]:
            yield here.in_flight()

    async def scene() -> None:
        model = Model.__new__(Model)
        await model.__init__()  # type: ignore[misc] # as Serve does
        assert model.loading == 1
        assert await model.embed() == 1
        assert [one async for one in model.stream()] == [1]
        stream = model.stream()
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        assert here.in_flight() == 0

    asyncio.run(scene())
    assert inspect.iscoroutinefunction(Model.embed)
    assert inspect.isasyncgenfunction(Model.stream)
    assert inspect.isgeneratorfunction(Model.tokens)
    assert inspect.iscoroutinefunction(Model.__init__)


def test_a_streaming_response_is_busy_until_its_last_part(here: Any) -> None:
    ended: list[int] = []

    @busy_replica
    class Model:
        async def tokens(self) -> AsyncIterator[str]:
            try:
                for _ in range(2):
                    yield f"{here.in_flight()} "
            finally:
                ended.append(here.in_flight())

        async def __call__(self, how: str) -> Any:
            answers = {"response": StreamingResponse(self.tokens()), "bare": self.tokens()}
            return answers.get(how) or PlainTextResponse("x")

    async def scene() -> None:
        response = await Model()("response")
        assert here.in_flight() == 0, "nothing is computed before it is asked for"
        assert [part async for part in response.body_iterator] == ["1 ", "1 "]
        dropped = await Model()("response")
        await anext(dropped.body_iterator)
        assert here.in_flight() == 1
        await dropped.body_iterator.aclose()
        assert ended == [1, 1], "the body itself was ended, within the span"
        assert here.in_flight() == 0
        assert (await Model()("whole")).body == b"x"
        assert [part async for part in await Model()("bare")] == ["1 ", "1 "]

    asyncio.run(scene())


def test_a_class_of_a_script_travels_to_another_process(
    here: Any, script: Any, tmp_path: Path
) -> None:
    """Serve sends classes of `__main__` by value; what marks must be looked up where it runs."""
    ray = importlib.util.find_spec("ray")  # it brings the pickler that Serve uses
    if ray is None:
        pytest.skip("Ray is not installed")
    pickler = Path(str(ray.origin)).parent / "cloudpickle"
    pickled = tmp_path / "model"
    sender = f"""
import sys
sys.path.append({str(pickler)!r})
import cloudpickle
from wattshift_cluster.gate.hooks.serve import busy_replica
@busy_replica
class Model:
    def __call__(self):
        from wattshift_cluster.gate.clients import ClientsView
        view = ClientsView({str(here.folder / "gpu0.clients")!r})
        return [one.in_flight for one in view.clients()]
Model()()
open({str(pickled)!r}, "wb").write(cloudpickle.dumps(Model))
print("sent", flush=True)
"""
    receiver = f"""
import pickle, sys
sys.path.append({str(pickler)!r})
print(pickle.load(open({str(pickled)!r}, "rb"))()(), flush=True)
"""
    assert script(sender, env={**os.environ, "WATTSHIFT_GATE_DIR": ""}).line() == "sent"
    assert script(receiver).line() == "[1]"


def test_the_example_answers_and_marks(here: Any) -> None:
    example = runpy.run_path(str(SERVE_BUSY))

    class Request:
        async def body(self) -> bytes:
            assert here.in_flight() == 1
            return b"a prompt"

    assert asyncio.run(example["Model"]()(Request())) == "a prompt, answered"
