"""What a marked replica tells of its answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from wattshift_cluster.gate.hooks import recorder
from wattshift_cluster.gate.hooks.recorder import FIGURES_MAX, WINDOW_S, Recorder
from wattshift_cluster.gate.hooks.serve import busy_replica


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of this process's recorder, which is a new one."""
    clock = Clock()
    monkeypatch.setattr(recorder, "_recorder", Recorder(clock))
    return clock


def test_an_answer_is_timed_and_one_that_raised_is_not(clock: Clock) -> None:
    @busy_replica
    class Model:
        def __call__(self, took_s: float) -> str:
            inside.append(self.wattshift_stats()["ongoing"])  # type: ignore[attr-defined]
            clock.now_s += took_s
            if took_s > 9:
                raise ValueError("too much")
            return "done"

    inside: list[int] = []
    model: Any = Model()
    model(0.25)
    with pytest.raises(ValueError, match="too much"):
        model(10.0)
    stats = model.wattshift_stats()
    assert inside == [1, 1]
    assert (stats["ongoing"], stats["queued"]) == (0, None)
    assert stats["recent_ms"] == [250.0]
    assert stats["rate_per_s"] == pytest.approx(1 / 10.25, abs=1e-3)


def test_a_streamed_answer_tells_its_first_part_and_the_gaps(clock: Clock) -> None:
    async def tokens() -> AsyncIterator[str]:
        for wait_s in (0.5, 0.1, 0.2):
            clock.now_s += wait_s
            yield "t"

    @busy_replica(methods=("__call__", "stream", "plain"))
    class Model:
        async def __call__(self) -> Any:
            return StreamingResponse(tokens())

        async def stream(self) -> AsyncIterator[str]:
            async for item in tokens():
                yield item

        def plain(self) -> Iterator[str]:
            clock.now_s += 0.3
            yield "t"

    async def scene() -> dict[str, Any]:
        model: Any = Model()
        response = await model()
        assert model.wattshift_stats()["ongoing"] == 1, "until the last part"
        async for _ in response.body_iterator:
            pass
        async for _ in model.stream():
            pass
        list(model.plain())
        stats: dict[str, Any] = model.wattshift_stats()
        return stats

    stats = asyncio.run(scene())
    assert stats["ttft_ms"] == [500.0, 500.0, 300.0]
    assert stats["itl_ms"] == [100.0, 200.0, 100.0, 200.0]
    assert stats["recent_ms"] == [800.0, 800.0, 300.0]
    assert stats["ongoing"] == 0


def test_a_stream_that_nobody_reads_does_not_count_for_ever(clock: Clock) -> None:
    @busy_replica
    class Model:
        async def __call__(self) -> Any:
            async def one() -> AsyncIterator[str]:
                yield "t"

            return one()

    async def scene() -> dict[str, Any]:
        model: Any = Model()
        dropped = await model()
        begun = await model()
        await anext(begun)
        await begun.aclose()
        del dropped, begun
        stats: dict[str, Any] = model.wattshift_stats()
        return stats

    stats = asyncio.run(scene())
    assert stats["ongoing"] == 0
    assert stats["recent_ms"] == []


def test_figures_are_few_and_young(clock: Clock) -> None:
    one = Recorder(clock)
    for _ in range(FIGURES_MAX + 10):
        clock.now_s += 0.001
        with one.answer():
            pass
    assert len(one.stats()["recent_ms"]) == FIGURES_MAX
    assert one.stats()["rate_per_s"] == pytest.approx(1000, rel=0.01)
    clock.now_s += WINDOW_S + 1
    assert one.stats()["recent_ms"] == []
    assert one.stats()["rate_per_s"] == 0


def test_a_class_that_tells_by_itself_is_left_alone() -> None:
    @busy_replica
    class Model:
        def __call__(self) -> None: ...

        def wattshift_stats(self) -> dict[str, Any]:
            return {"own": True}

    assert Model().wattshift_stats() == {"own": True}
