"""The fastest of several kernels: found out by real work, kept, and never a wrong one."""

import json
from pathlib import Path
from typing import Any

import pytest

from wattshift_kernels.autotune import FILE_MOST_BYTES, LAUNCHES_EACH, LEAST_NS, Kept, Tuner
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Kernel

ONE, SIXTEEN = Work(bytes(76), 1), Work(bytes(76), 1, roll_mask=0x1E000)
HASHES = 1_000_000


def kernel(name: str, most_ways: int = 16) -> Kernel:
    return Kernel(name, None, lambda *_: None, serves=lambda work: work.ways <= most_ways)  # type: ignore[arg-type]


def kind_of(work: Work) -> str:
    return "plain" if work.ways == 1 else "rolling"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setenv("WATTSHIFT_CACHE_DIR", str(tmp_path))
    return Kept.of("sha256d", "card", "driver 1", "sources")


def drive(
    tuner: Tuner[Kernel], work: Work, ns_per_hash: dict[str, float], launches: int
) -> list[str]:
    """Launches of real work, two in flight; the names of the kernels that they took."""
    taken: list[Kernel] = []
    flight: list[Kernel] = []
    for _ in range(launches):
        flight.append(tuner.pick(work))
        taken.append(flight[-1])
        if len(flight) == 2:
            done = flight.pop(0)
            tuner.took(work, done, HASHES, round(HASHES * ns_per_hash[done.name]))
    return [one.name for one in taken]


def test_candidates_take_turns_until_the_fastest_is_known(kept: Kept) -> None:
    tuner = Tuner([kernel("a"), kernel("b"), kernel("c")], kind_of, kept)
    speeds = {"a": 0.8, "b": 0.7, "c": 0.9}
    taken = drive(tuner, SIXTEEN, speeds, 3 * (LAUNCHES_EACH + 1) + 10)
    assert taken[:6] == ["a", "b", "c"] * 2
    assert taken[-5:] == ["b"] * 5
    assert (tuner.name, tuner.winners) == ("b", {"rolling": "b"})


def test_the_outcome_is_kept_for_this_card_driver_and_source(kept: Kept) -> None:
    drive(Tuner([kernel("a"), kernel("b")], kind_of, kept), ONE, {"a": 0.8, "b": 0.7}, 100)
    again = Kept.of("sha256d", "card", "driver 1", "sources")
    assert again.read() == {"plain": "b"}
    tuner = Tuner([kernel("a"), kernel("b")], kind_of, again)
    assert tuner.pick(ONE).name == "b", "at once"
    assert tuner.pick(SIXTEEN).name == "a", "of another kind nothing is known"
    for other in (("card", "driver 2", "sources"), ("card", "driver 1", "others")):
        assert Kept.of("sha256d", *other).read() == {}


def test_kinds_compete_apart_and_only_among_those_that_serve_them(kept: Kept) -> None:
    tuner = Tuner([kernel("straight", 1), kernel("loop")], kind_of, kept)
    speeds = {"straight": 0.5, "loop": 0.6}
    assert set(drive(tuner, SIXTEEN, speeds, 10)) == {"loop"}
    assert drive(tuner, ONE, speeds, 100)[-1] == "straight"
    assert drive(tuner, SIXTEEN, speeds, 3) == ["loop"] * 3


def test_a_kept_name_that_is_no_candidate_any_more_is_tried_out_anew(kept: Kept) -> None:
    kept.write({"plain": "refused by its self-test"})
    tuner = Tuner([kernel("a"), kernel("b")], kind_of, kept)
    assert drive(tuner, ONE, {"a": 0.8, "b": 0.7}, 4) == ["a", "b", "a", "b"]


@pytest.mark.parametrize("found", [b"", b"[1]", b"{", b"\xff", b'"' + b"x" * FILE_MOST_BYTES])
def test_a_file_that_says_nothing_is_passed_over(kept: Kept, found: bytes) -> None:
    assert kept.path is not None
    kept.path.write_bytes(found)
    assert kept.read() == {}


def test_launches_cut_short_say_nothing_and_time_does_not_run_away(kept: Kept) -> None:
    tuner = Tuner([kernel("a"), kernel("b")], kind_of, kept)
    for _ in range(1000):
        tuner.took(ONE, tuner.pick(ONE), 1, LEAST_NS - 1)
    assert tuner.winners == {}
    for _ in range(20_000):
        tuner.took(ONE, tuner.pick(ONE), 1, LEAST_NS - 1)
    assert tuner.winners == {"plain": "a"}, "the most promising, after two seconds"


def test_one_slow_launch_decides_nothing(kept: Kept) -> None:
    tuner = Tuner([kernel("a"), kernel("b")], kind_of, kept)
    for number in range(2 * (LAUNCHES_EACH + 1)):
        one = tuner.pick(ONE)
        slow = number % 9 == 1
        tuner.took(ONE, one, HASHES, 50_000_000 if slow else {"a": 800_000, "b": 700_000}[one.name])
    assert tuner.winners == {"plain": "b"}


def test_without_a_folder_each_process_finds_out_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WATTSHIFT_CACHE_DIR", str(tmp_path / "file"))
    kept = Kept.of("sha256d", "card")
    assert kept.path is None
    tuner = Tuner([kernel("a"), kernel("b")], kind_of, kept)
    assert drive(tuner, ONE, {"a": 0.8, "b": 0.7}, 100)[-1] == "b"


def test_the_file_is_whole_or_the_old_one(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write({"plain": "a"})

    def full(found: Any, file: Any) -> None:
        file.write('{"plain": ')
        raise OSError("no space left")

    monkeypatch.setattr(json, "dump", full)
    kept.write({"plain": "b"})
    assert kept.read() == {"plain": "a"}
    assert kept.path is not None
    assert len(list(kept.path.parent.iterdir())) == 1
