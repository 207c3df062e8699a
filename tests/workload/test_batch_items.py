"""A chunk's items through the work: one bad item costs only itself, a broken model the job."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from batch_bench import results, spec_of, write_items, written

from wattshift_cluster.workload.batch import trial
from wattshift_cluster.workload.batch.callables import Called, WrongOutputs, called, imported
from wattshift_cluster.workload.batch.chunk_loop import Chunks
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.formats import InputInvalid, Item
from wattshift_cluster.workload.batch.plans import Outcome
from wattshift_cluster.workload.batch.rows import (
    ITEM_CHARS_MAX,
    as_letter,
    as_result,
    is_dead,
    output_row,
)
from wattshift_cluster.workload.batch.trial import Broken, Health, Stopped, Trial


class Counting:
    """Work that fails as it is told, and notes what it was asked."""

    def __init__(self, fails: Callable[[Any, int], bool]) -> None:
        self.calls: list[list[Any]] = []
        self._fails = fails
        self._alone: dict[Any, int] = {}

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.calls.append(list(items))
        for item in items:
            if len(items) == 1:
                self._alone[item] = self._alone.get(item, 0) + 1
            if self._fails(item, self._alone.get(item, 0)):
                raise ValueError(f"bad {item}")
        return [-item for item in items]

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def through(
    work: Counting | Called, items: Sequence[Item], attempts: int = 3
) -> tuple[list[dict[str, Any]], list[float]]:
    """The rows, and the pauses that were made."""
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        if seconds:
            pauses.append(seconds)
        return False

    rows = Trial(work, attempts, pause, lambda *_: None).rows(100, items)
    return [json.loads(as_result(row)) for row in rows], pauses


ITEMS = [Item(n) for n in range(64)]


def test_of_many_items_only_the_bad_one_has_no_output() -> None:
    work = Counting(lambda item, _: item == 37)
    rows, pauses = through(work, ITEMS)
    bad = {"index": 137, "error": "ValueError: bad 37"}
    assert rows == [bad if n == 37 else {"index": 100 + n, "output": -n} for n in range(64)]
    # Halves of halves: 64 and then two for each of six levels; two more for the bad one.
    assert len(work.calls) == 1 + 2 * 6 + 2
    assert pauses == [0.5, 1.0]


def test_an_item_that_fails_for_a_while_is_tried_again_and_has_its_output() -> None:
    work = Counting(lambda item, alone: item in (3, 5) and alone < 3)
    rows, _ = through(work, ITEMS[:8])
    assert [row["output"] for row in rows] == [-n for n in range(8)]
    rows, _ = through(Counting(lambda item, alone: item == 3 and alone < 3), ITEMS[:8], 2)
    assert "error" in rows[3]


def test_a_stop_between_two_tries_leaves_nothing_of_the_chunk() -> None:
    work = Counting(lambda *_: True)
    with pytest.raises(Stopped):
        Trial(work, 3, lambda _: True, lambda *_: None).rows(0, ITEMS)
    assert len(work.calls) == 1


def test_what_is_no_item_goes_to_the_dead_letters_untried() -> None:
    work = Counting(lambda *_: False)
    rows, _ = through(work, [Item(1), Item("{x", "not JSON"), Item(2)])
    assert work.calls == [[1, 2]]
    assert rows[1] == {"index": 101, "error": "InvalidItem: not JSON"}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (float("nan"), "ValueError"),
        ({1, 2}, "TypeError: a set is no JSON"),
        ("x" * (17 << 20), "ValueError: an output of"),
    ],
)
def test_an_output_that_cannot_be_written_is_its_items_fault(output: Any, words: str) -> None:
    work = Called(lambda items: [output if item == 1 else item for item in items])
    rows, _ = through(work, [Item(0), Item(1), Item(2)], 1)
    assert [row.get("output") for row in rows] == [0, None, 2]
    assert rows[1]["error"].startswith(words)


def test_outputs_of_numpy_become_lists() -> None:
    numpy = pytest.importorskip("numpy")
    row = output_row(7, {"v": numpy.arange(3), "x": numpy.float32(0.5)})
    assert json.loads(row) == {"index": 7, "output": {"v": [0, 1, 2], "x": 0.5}}
    assert not is_dead(output_row(1, {"dead": {"type": "x"}}))


def test_a_dead_letter_is_bounded_and_may_hold_anything() -> None:
    big = "y" * (2 * ITEM_CHARS_MAX)
    work = Called(lambda items: [1 / 0 for _ in items])
    rows = Trial(work, 1, lambda _: False, lambda *_: None).rows(
        0, [Item(big), Item(object()), Item({"ok": b"\x01"})]
    )
    letters = [json.loads(as_letter(row)) for row in rows]
    assert len(rows[0]) < ITEM_CHARS_MAX + 1000
    assert letters[0]["item"].startswith('"yyy')
    assert "object object" in letters[1]["item"]
    assert letters[2]["item"] == {"ok": "AQ=="}
    assert [letter["error"]["type"] for letter in letters] == ["ZeroDivisionError"] * 3


class Doubler:
    """Built once; counts how often."""

    built = 0

    def __init__(self) -> None:
        type(self).built += 1

    def __call__(self, items: list[int]) -> list[int]:
        return [2 * item for item in items]


async def soon(items: list[int]) -> list[int]:
    return [item + 1 for item in items]


class Soon:
    async def __call__(self, items: list[int]) -> list[int]:
        return await soon(items)


def test_functions_classes_and_async_ones_are_work() -> None:
    work = Called(Doubler)
    assert [work([1, 2]), work([3])] == [[2, 4], [6]]
    assert Doubler.built == 1
    for target in (soon, Soon, Soon()):
        work = Called(target)
        assert [work([1]), work([2, 3])] == [[2], [3, 4]]
        work.close()
    assert Called(lambda items: (item for item in items))([1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned NoneType"),
        ("ab", "returned str"),
        ({"a": 1}, "returned dict"),
        ([1], "made 1 outputs of 2 items"),
        ([1, 2, 3, 4], "made more than 2 outputs of 2 items"),
    ],
)
def test_what_is_not_one_output_per_item_is_refused(returned: Any, words: str) -> None:
    with pytest.raises(WrongOutputs, match=words):
        Called(lambda _: returned)([1, 2])


def test_work_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="no_such"):
        imported("wattshift_cluster.workload.samples:no_such")
    with pytest.raises(
        InputInvalid,
        match="No module named 'not_here' on node n1; install it there or name its folder with"
        " python_path",
    ):
        imported("not_here:work", "n1")
    with pytest.raises(InputInvalid, match="which cannot be called"):
        called("wattshift_cluster.workload.batch.plans:NAME_DIGITS")
    more = written(tmp_path, "import missing_below\n", "needs_more")
    outcome = Chunks("j", spec_of(write_items(tmp_path / "items.jsonl", 3).parent, **more)).run()
    assert outcome is not None
    assert "No module named 'missing_below' on node" in str(outcome.error)
    more = written(tmp_path, "1 / 0\n", "breaks")
    outcome = Chunks("k", spec_of(tmp_path, output=str(tmp_path / "out2"), **more)).run()
    assert outcome is not None
    assert "its module fails" in str(outcome.error)
    assert "ZeroDivisionError" in str(outcome.error)
    more = written(tmp_path, "raise SystemExit(3)\n", "leaves")
    outcome = Chunks("l", spec_of(tmp_path, output=str(tmp_path / "out3"), **more)).run()
    assert outcome is not None
    assert "its module fails" in str(outcome.error)


def test_a_model_that_cannot_be_built_fails_the_job_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattshift_cluster.workload.batch.chunk_loop.RETRY_S", 0.01)
    write_items(tmp_path / "items.jsonl", 3)
    code = "class work:\n    def __init__(self):\n        raise MemoryError('no room')\n"
    outcome = Chunks("j", spec_of(tmp_path, **written(tmp_path, code, "unbuilt")), node="n2").run()
    assert outcome == Outcome(
        "failed", "unbuilt:work cannot be built on node n2: MemoryError: no room"
    )
    assert "no room" in (tmp_path / "out/log.txt").read_text()


def test_health_ends_a_job_whose_work_is_broken_and_only_that() -> None:
    health = Health()
    for _ in range(100):
        health.chunk(4, ["ValueError: x"] * 2)
    for _ in range(trial.BROKEN_CHUNKS // 2):
        health.chunk(4, ["ValueError: x"] * 2)
    with pytest.raises(Broken, match="41 of 80 items in a row failed, most with: ValueError: x"):
        health.chunk(4, ["TypeError: y"] * 3)
    first = Health()
    for _ in range(trial.BROKEN_CHUNKS - 1):
        first.chunk(4, ["ValueError: x"] * 4)


BROKEN = """
def work(items):
    raise RuntimeError("no such GPU")
"""


def test_a_broken_model_is_not_a_million_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "RETRY_S", 0.001)
    write_items(tmp_path / "items.jsonl", 200)
    spec = spec_of(tmp_path, item_attempts=2, **written(tmp_path, BROKEN, "broken"))
    outcome = Chunks("job", spec).run()
    assert outcome is not None
    assert outcome.state == "failed"
    assert "80 of 80 items in a row failed, most with: RuntimeError: no such GPU" in str(
        outcome.error
    )
    assert outcome.items_failed == 80
    assert len(ChunkStore(tmp_path / "out").committed()) == trial.BROKEN_CHUNKS
    assert len(results(tmp_path, "dead_letters.jsonl")) == 80
    assert "Traceback" in (tmp_path / "out/log.txt").read_text()


def test_a_job_none_of_whose_items_has_an_output_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "RETRY_S", 0.001)
    (tmp_path / "items.jsonl").write_text("17\n18\n")
    outcome = Chunks("job", spec_of(tmp_path)).run()
    assert outcome is not None
    assert outcome.state == "failed"
    assert "all 2 items failed, first: TypeError" in str(outcome.error)
    assert Chunks("job", spec_of(tmp_path)).run() == outcome
    ChunkStore(tmp_path / "out").reopen()
    (tmp_path / "items.jsonl").write_text("17\n18\n")
    assert ChunkStore(tmp_path / "out").committed() == set()


def test_python_path_comes_first_and_stands_once(tmp_path: Path) -> None:
    from wattshift_cluster.workload.batch.callables import look_in

    before = list(sys.path)
    try:
        look_in([str(tmp_path / "a"), str(tmp_path / "b")])
        look_in([str(tmp_path / "a"), str(tmp_path / "b")])
        assert sys.path[:3] == [str(tmp_path / "a"), str(tmp_path / "b"), before[0]]
    finally:
        sys.path[:] = before
