"""The bridge's book of batch jobs without Ray: what is kept, refused, reported and evicted."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from batch_bench import results, spec_of, write_items, written

from wattshift_cluster.errors import ConfigInvalid, NotFound, Refused, TryLater
from wattshift_cluster.workload.batch import jobs as batch
from wattshift_cluster.workload.batch.chunk_loop import Chunks
from wattshift_cluster.workload.batch.chunks import ChunkStore
from wattshift_cluster.workload.batch.crew import NEVER_MADE, Crew, Fallen, Seat
from wattshift_cluster.workload.batch.job import DEATHS_MAX
from wattshift_cluster.workload.batch.jobs import BatchJobs
from wattshift_cluster.workload.batch.plans import Outcome
from wattshift_cluster.workload.batch.progress import Rate
from wattshift_cluster.workload.batch.shortage import waits
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.specs import BatchSpec, batch_spec

SECRET = "hf_very_secret"


def jobs_in(folder: Path) -> BatchJobs:
    return BatchJobs(folder / "state", None)


def row(jobs: BatchJobs, job: str = "j") -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in jobs.report() if row["job"] == job)
    return found


def wish(jobs: BatchJobs, job: str = "j") -> tuple[str, Any, bool]:
    found = jobs._jobs[job].wish
    return found.wanted, found.nodes, found.hurry


def test_what_was_accepted_is_there_after_a_restart_and_readable_by_its_owner_alone(
    tmp_path: Path,
) -> None:
    spec = spec_of(
        tmp_path, env={"HF_TOKEN": SECRET}, labels={"a": "!b"}, command=("x", "y"), callable=""
    )
    first = jobs_in(tmp_path)
    first.start("j", spec, {"n1": 2, "n2": 0})
    first.start("k", spec_of(tmp_path, output=str(tmp_path / "k")))
    first.pause("k")
    again = jobs_in(tmp_path)
    assert again._jobs["j"].wish.spec == spec
    assert wish(again) == ("run", {"n1": 2}, False)
    assert wish(again, "k") == ("pause", None, False)
    kept = tmp_path / "state/j.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert SECRET not in repr(spec)
    # One of another release: what is unknown is left out, what is missing is usual.
    told = json.loads(kept.read_text())
    told["spec"] |= {"of_tomorrow": 1}
    del told["spec"]["gang"], told["nodes"], told["hurry"]
    kept.write_text(json.dumps(told))
    (tmp_path / "state/broken.json").write_text("{")
    assert jobs_in(tmp_path)._jobs["j"].wish.spec == spec


def test_progress_dead_letters_and_the_end_are_read_from_the_folder(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    write_items(tmp_path / "items.jsonl", 7)
    with (tmp_path / "items.jsonl").open("a") as file:
        file.write("17\n")
    spec = spec_of(tmp_path, item_attempts=1)
    jobs.start("j", spec, {"n1": 1})
    jobs.poll({}, 0.0)
    assert row(jobs) == {
        "job": "j", "state": "starting", "done": None, "total": None,
        "error": "node n1 is not in the cluster", "failed_items": None, "rate_per_s": None,
        "checkpoint_age_s": None, "by_node": {},
    }  # fmt: skip
    outcome = Chunks("j", spec).run()
    assert outcome == Outcome("completed", None, 1)
    jobs.poll({}, 100.0)
    done = row(jobs)
    assert (done["state"], done["done"], done["total"], done["failed_items"]) == (
        "completed", 8, 8, 1,
    )  # fmt: skip
    assert done["error"] == "1 item failed; see dead_letters.jsonl"
    assert 0 <= done["checkpoint_age_s"] < 60
    assert any("TypeError" in line for line in jobs.log_tail("j", 100))
    jobs.cancel("j")
    assert wish(jobs)[0] == "run"
    assert not jobs.moving(100.0)


def test_pause_and_cancel_without_workers_are_done_at_the_next_look(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    jobs.start("j", spec_of(tmp_path), {"n1": 1})
    jobs.pause("j")
    jobs.poll({}, 0.0)
    assert row(jobs)["state"] == "paused"
    jobs.start("j", spec_of(tmp_path), {"n1": 1})
    jobs.poll({}, 0.0)
    assert row(jobs)["state"] == "starting"
    jobs.cancel("j")
    jobs.cancel("unseen")
    jobs.poll({}, 0.0)
    assert [one["state"] for one in jobs.report()] == ["cancelled", "cancelled"]
    for job in ("j", "unseen"):
        with pytest.raises(Refused, match="was cancelled"):
            jobs.start(job, spec_of(tmp_path))
    for asked in (
        jobs.pause,
        lambda job: jobs.log_tail(job, 1),
        lambda job: jobs.evict(job, "n", 1),
    ):
        with pytest.raises(NotFound, match="no batch job none"):
            asked("none")


def test_a_folder_of_another_job_is_refused_and_a_failure_is_forgotten_by_a_start(
    tmp_path: Path,
) -> None:
    jobs = jobs_in(tmp_path)
    write_items(tmp_path / "items.jsonl", 3)
    spec = spec_of(tmp_path)
    Chunks("j", spec).run()
    with pytest.raises(Refused, match="holds the output of job j; name another output"):
        jobs.start("k", spec)
    with pytest.raises(Refused, match=r"holds the output of .*samples:length"):
        jobs.start("j", spec_of(tmp_path, callable="module:other"))
    (tmp_path / "out/outcome.json").unlink()
    ChunkStore(tmp_path / "out").end(Outcome("failed", "no room"))
    jobs.start("j", spec, {"n1": 1})
    jobs.poll({}, 0.0)
    assert row(jobs)["state"] == "starting"
    ChunkStore(tmp_path / "out").end(Outcome("failed", "no room"))
    jobs.poll({}, 0.0)
    assert (row(jobs)["state"], row(jobs)["error"]) == ("failed", "no room")


def test_an_eviction_lowers_the_division_and_the_last_one_pauses(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    jobs.start("j", spec_of(tmp_path), {"n1": 3, "n2": 1})
    assert jobs.evict("j", "n1", 2) == 2
    assert wish(jobs) == ("run", {"n1": 1, "n2": 1}, True)
    assert jobs.evict("j", "n3", 1) == 0
    assert jobs.evict("j", "n1", 9) == 1
    assert wish(jobs) == ("run", {"n2": 1}, True)
    assert jobs.evict("j", "n2", 1) == 1
    assert wish(jobs) == ("pause", {"n2": 1}, True)
    assert jobs.evict("j", "n2", 1) == 0
    jobs.start("j", spec_of(tmp_path), {"n2": 1})
    assert wish(jobs) == ("run", {"n2": 1}, False)
    gang = spec_of(tmp_path, output=str(tmp_path / "g"), gang=True, workers=4)
    jobs.start("g", gang, {"n1": 3, "n2": 1})
    assert jobs.evict("g", "n1", 1) == 4
    assert wish(jobs, "g") == ("pause", {"n1": 3, "n2": 1}, True)


def test_there_are_at_most_so_many_jobs_and_the_oldest_that_ended_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "JOBS_MAX", 2)
    jobs = jobs_in(tmp_path)
    for name in ("a", "b"):
        jobs.start(name, spec_of(tmp_path, output=str(tmp_path / name)), {"n1": 1})
    with pytest.raises(TryLater, match="2 jobs"):
        jobs.start("c", spec_of(tmp_path, output=str(tmp_path / "c")))
    jobs.cancel("a")
    jobs.poll({}, 0.0)
    jobs.start("c", spec_of(tmp_path, output=str(tmp_path / "c")))
    assert jobs.names() == {"b", "c"}
    assert jobs_in(tmp_path).names() == {"b", "c"}


def test_a_job_that_cannot_be_driven_does_not_stop_the_others(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    for name in ("a", "b"):
        jobs.start(name, spec_of(tmp_path, output=str(tmp_path / name)), {"n1": 1})
    (tmp_path / "a").mkdir()
    (tmp_path / "a/job.json").write_text("broken")
    jobs.poll({}, 0.0)
    assert "job.json" in row(jobs, "a")["error"]
    assert row(jobs, "b")["error"] == "node n1 is not in the cluster"


def node(**more: Any) -> Node:
    usual: dict[str, Any] = {
        "id": "00", "name": "n1", "alive": True, "draining": False, "labels": {"type": "A100"},
        "gpus": 2.0, "power_w_total": 300.0, "power_w_available": 100.0,
    }  # fmt: skip
    return Node(**{**usual, **more})


@pytest.mark.parametrize(
    ("more", "workers", "words"),
    [
        ({"watts_w": 101.0}, 1, "n1: 100 W free, its worker asks for 101 W"),
        ({"watts_w": 60.0}, 2, "n1: 100 W free, its 2 workers ask for 120 W"),
        ({"gpus": 3.0}, 1, "n1: 2 GPUs, its worker asks for 3"),
        ({"labels": {"type": "H100"}}, 1, "n1: its label type is A100, the job wants H100"),
        ({"labels": {"type": "!A100"}}, 1, "n1: its label type is A100, the job wants !A100"),
        ({"labels": {"zone": "!x"}, "gpus": 2.0}, 1, None),
    ],
)
def test_what_a_worker_waits_for_is_told(
    tmp_path: Path, more: dict[str, Any], workers: int, words: str | None
) -> None:
    assert waits(spec_of(tmp_path, **more), node(), workers) == words


def test_only_the_deaths_that_nobody_asked_for_fail_a_job(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    jobs.start("j", spec_of(tmp_path), {"n1": 1})
    jobs.poll({}, 0.0)
    job, store = jobs._jobs["j"], ChunkStore(tmp_path / "out")
    here, gone = {"n1": node()}, {"n1": node(alive=False)}

    def falls(nodes: dict[str, Node], reason: str = "SIGSEGV", **seat: Any) -> None:
        job._fell(Fallen(Seat(0, "n1", **seat), reason), store, None, nodes, 0.0)

    (tmp_path / "out/claims").mkdir(parents=True)
    for _ in range(2 * DEATHS_MAX):
        falls(gone)
        falls({})
        falls(here, NEVER_MADE)
        falls(here, stop_by_s=1.0)
        for why in ("idle", "stopped"):
            store.leave(0, why)
            falls(here)
        store.arrive(0)
    assert job.state == "starting"
    for _ in range(DEATHS_MAX - 1):
        falls(here)
    assert job.state == "starting"
    store.leave(0, "ended")  # and yet there is no outcome
    falls(here, "ValueError: no such folder")
    assert job.state == "failed"
    assert job.error == (
        f"{DEATHS_MAX} workers in a row ended with no chunk done: ValueError: no such folder"
    )
    assert store.outcome() == Outcome("failed", job.error)


def test_who_sat_where_is_known_after_a_restart(tmp_path: Path) -> None:
    crew = Crew("j", tmp_path / "j.seats", None)
    assert crew.empty
    crew.seats = {n: Seat(n, f"n{n}") for n in (0, 2)}
    crew._bundles = ("n0", "n1", "n2")
    crew._keep()
    again = Crew("j", tmp_path / "j.seats", None)
    assert {number: seat.node for number, seat in again.seats.items()} == {0: "n0", 2: "n2"}
    assert again.bundles == ("n0", "n1", "n2")
    assert again.free_number() == 1
    again.seats, again._bundles = {}, ()
    again._keep()
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_comes_second_to_a_folder_fails_with_the_name_of_the_first(
    tmp_path: Path,
) -> None:
    write_items(tmp_path / "items.jsonl", 8)
    jobs, spec = jobs_in(tmp_path), spec_of(tmp_path)
    jobs.start("j", spec, {"n1": 1})
    jobs.poll({}, 0.0)
    assert row(jobs)["state"] == "starting"
    Chunks("k", spec).run()
    jobs.poll({}, 100.0)
    words = f"{tmp_path / 'out'} holds the output of job k; name another output"
    assert (row(jobs)["state"], row(jobs)["error"]) == ("failed", words)
    assert ChunkStore(tmp_path / "out").outcome() == Outcome("completed", None, 0)


def test_a_crew_is_looked_at_often_while_a_worker_comes_or_goes(tmp_path: Path) -> None:
    crew = Crew("j", tmp_path / "j.seats", None)
    crew.seats = {0: Seat(0, "n0", since_s=10.0)}
    assert crew.arriving(10.1)
    assert not crew.arriving(100.0), "it waits for watts, and may do so for days"
    crew.seats[0].alive = True
    assert not crew.arriving(10.1)
    assert not crew.leaving
    crew.halt(crew.seats[0], 5.0, 10.1)
    assert crew.leaving


ALONE = """
import os

def work(items):
    import numpy
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "WATTSHIFT_GATE_DIR", "HIS")
    return [[os.environ.get(name) for name in names] for _ in items]
"""

WORKER = """
import json, sys, time
from wattshift_cluster.workload.batch.worker import BatchWorker
assert "numpy" not in sys.modules, "its threads would be fixed before the worker sets them"
BatchWorker("j", *json.loads(sys.argv[1]))
time.sleep(60)
"""


def test_a_worker_sets_its_threads_and_gates_before_numpy_is_loaded(tmp_path: Path) -> None:
    """In whatever process Ray had ready: nothing of it comes from Ray's runtime environments."""
    write_items(tmp_path / "items.jsonl", 3)
    crew = Crew("j", tmp_path / "j.seats", str(tmp_path / "gates"))
    spec = spec_of(tmp_path, env={"HIS": "own"}, **written(tmp_path, ALONE, "alone_work"))
    told = [asdict(spec), 0, 1, "n0", crew.environment(spec)]
    bare = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    bare["RAY_ENABLE_AUTO_CONNECT"] = "0"  # no Ray here, and none shall be started for it
    done = subprocess.run(
        [sys.executable, "-c", WORKER, json.dumps(told)],
        env=bare, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "batch.threads" not in done.stdout + done.stderr
    wanted = ["1", "1", str(tmp_path / "gates"), "own"]
    assert [row["output"] for row in results(tmp_path)] == [wanted] * 3


def test_a_rate_is_right_from_the_first_figure_on_and_follows_within_minutes() -> None:
    rate = Rate()
    assert rate.per_s is None
    rate.seen(100, 0.0)
    assert rate.per_s is None
    for second in range(1, 20):
        rate.seen(100 + 5 * second, float(second))
        assert rate.per_s == pytest.approx(5.0)
    for second in range(20, 260):
        rate.seen(195 + 10 * (second - 19), float(second))
    assert rate.per_s == pytest.approx(10.0, rel=0.05)
    rate.seen(rate._last[0], 1e4)  # type: ignore[index]
    assert rate.per_s == pytest.approx(0.0, abs=0.01)
    rate.forget()
    assert rate.per_s is None


FULL: dict[str, Any] = {
    "kind": "batch", "name": "full", "callable": "module:work", "input": "items", "output": "out",
    "watts_w": 60, "workers": 3, "gang": True, "chunk_items": 8, "item_attempts": 2,
    "format": "csv", "gpus": 0.5, "labels": {"type": "A100"}, "env": {"A": "b"},
    "python_path": ["code"], "pause_within_s": 30, "num_cpus": 2, "priority": 5,
    "deadline_at_s": None, "min_run_s": 600,
}  # fmt: skip


def test_a_specification_is_taken_with_all_its_keys_and_made_absolute() -> None:
    spec = batch_spec("j", FULL)
    assert (spec.workers, spec.gang, spec.item_attempts, spec.format) == (3, True, 2, "csv")
    assert (spec.gpus, spec.labels, spec.env) == (0.5, {"type": "A100"}, {"A": "b"})
    assert all(Path(path).is_absolute() for path in (spec.input, spec.output, *spec.python_path))
    assert (spec.pause_within_s, spec.num_cpus, spec.work) == (30.0, 2.0, "module:work")
    usual = batch_spec("j", {**FULL, **dict.fromkeys(("gpus", "workers", "pause_within_s"))})
    assert (usual.gpus, usual.workers, usual.pause_within_s) == (0.0, 1, 10.0)
    command = {**FULL, "callable": None, "command": ["infer", "--model", "a b"]}
    assert batch_spec("j", command).work == "infer --model 'a b'"
    assert batch_spec("j", command).callable == ""


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"command": ["x"]}, "command"),
        ({"command": "x", "callable": None}, "command"),
        ({"callable": None}, "callable"),
        ({"format": "xml"}, "format"),
        ({"gpus": 1.5}, "gpus"),
        ({"workers": 0}, "workers"),
        ({"item_attempts": 21}, "item_attempts"),
        ({"python_path": "code"}, "python_path"),
        ({"env": {"A": 1}}, "env"),
        ({"pause_within_s": 1e9}, "pause_within_s"),
        ({"watts_w": 10**400}, "watts_w"),
    ],
)
def test_a_wrong_value_is_named_and_no_environment_is_shown(
    more: dict[str, Any], path: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        batch_spec("j", {**FULL, "env": {"TOKEN": SECRET}, **more})
    assert [fault.path for fault in caught.value.faults if not isinstance(fault, str)] == [path]
    with pytest.raises(ConfigInvalid) as caught:
        batch_spec("j", {**FULL, "env": {"TOKEN": [SECRET]}})
    assert SECRET not in str(caught.value)


def test_a_kept_specification_needs_its_first_fields() -> None:
    with pytest.raises(TypeError):
        BatchSpec.kept({"callable": "a:b"})
