"""What is submitted: an id of one's own, what could never run, tenants, logs and draining."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from wattshift_cluster.api.jobspec import parse_job
from wattshift_cluster.cli.explain_compute import why_job
from wattshift_cluster.config import blueprint
from wattshift_cluster.controller.clock import SteadyClock, rfc3339
from wattshift_cluster.controller.feasible import Infeasible
from wattshift_cluster.controller.front import Front
from wattshift_cluster.errors import ConfigInvalid, NotFound, Refused, TryLater
from wattshift_cluster.wire.server import serve
from wattshift_scheduler import events as ev
from wattshift_scheduler import jobs
from wattshift_scheduler.jobs import Job, JobState, Rule

rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("controller_rig.py"))))

SITE = (
    rig.HALL
    + """
limit = "3kW"
[[feeders]]
name = "rack"
parent = "main"
limit = "2.5kW"
[[compute.nodes]]
name = "gpu-1"
feeder = "rack"
max = "1.6kW"
gpus = 2
labels = {{ "ray.io/accelerator-type" = "H100", rack = "a" }}
[[compute.nodes]]
name = "gpu-2"
feeder = "rack"
max = "1.2kW"
gpus = 1
labels = {{ "ray.io/accelerator-type" = "L4", rack = "a" }}
{more}
"""
)
TENANTS = """
[[tenants]]
name = "research"
quota = "1kW"
quota_gpus = 1
borrow = false
[[tenants]]
name = "ops"
"""
SERVICE = {"kind": "service", "name": "chat", "import_path": "a.b:app", "watts_per_replica": "500W"}
BATCH = {"kind": "batch", "name": "b", "callable": "a.b:f", "input": "/i", "output": "/o"}


@contextlib.contextmanager
def opened(folder: Path, more: str = "", port: int = 9) -> Iterator[Front]:
    site = SITE.format(more=more, port=port)
    controller = rig.controller(folder, SteadyClock(), site=site, bridge=rig.BRIDGE_TOKEN)
    yield Front(controller)
    controller.journal.close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with opened(tmp_path) as front:
        yield front


def submit(front: Front, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
    job = parse_job(dict(body), "body")
    return asyncio.run(front.submit_job(job.to_spec(), key, job.id))


def test_an_id_of_ones_own_is_given_once(front: Front) -> None:
    made = submit(front, {**SERVICE, "id": "chat"}, "key-1")
    assert made["id"] == "chat"
    assert submit(front, {**SERVICE, "id": "chat"}, "key-1")["id"] == "chat", "a retry"
    with pytest.raises(Refused, match=r"chat exists: a service named chat, pending \(.*never"):
        submit(front, {**SERVICE, "id": "chat"}, "key-2")
    with pytest.raises(Refused, match="Idempotency-Key"):
        submit(front, {**SERVICE, "id": "chat-2"}, "key-1")
    asyncio.run(front.job_action("chat", "cancel"))
    with pytest.raises(Refused, match="chat exists"):
        submit(front, {**SERVICE, "id": "chat"})
    with pytest.raises(Refused, match="name of a node"):
        submit(front, {**SERVICE, "id": "gpu-1"})
    assert list(front._c.journal.jobs()) == ["chat"]


def test_a_job_that_waits_says_by_which_rule(front: Front) -> None:
    view = submit(front, {**SERVICE, "id": "chat"})
    verdict = view["verdict"]
    assert (verdict["admission"], verdict["rule"]) == ("defer", "cluster-down")
    assert verdict["have_w"] is None, "it is not about watts"
    told = "\n".join(why_job(view))
    assert "defer, by the rule cluster-down" in told
    assert "to give way: Ray must come back" in told


def test_with_its_nodes_up_a_job_is_placed_and_the_unasked_are_named(front: Front) -> None:
    controller = front._c
    for name, most_w, gpus in (("gpu-1", 1600.0, 2.0), ("gpu-2", 1200.0, 1.0)):
        seen = ev.ComputeSeen(
            name, True, most_w, used_w=0.0, unasked_w=40.0, unasked=("actor Foo 4 CPU: 40 W",),
            labels={"ray.io/accelerator-type": "A100"}, gpus=gpus,
        )  # fmt: skip
        controller.inbox.put([seen])
    controller.turn(controller.inbox.take())
    view = submit(front, {**SERVICE, "id": "chat", "gpu_type": "A100"})
    assert (view["units"], sum(view["nodes"].values())) == (1, 1)
    assert view["verdict"]["admission"] in ("fit", "after_shedding")
    (node, _) = front.site()["compute"]
    assert (node["up"], node["unasked_w"], node["gpus"]) == (True, 40.0, 2.0)
    assert node["unasked"] == ["actor Foo 4 CPU: 40 W"]
    assert front.metrics_snapshot()["unasked_w"] == {"gpu-1": 40.0, "gpu-2": 40.0}
    with pytest.raises(Infeasible, match="H100; there are A100"):
        submit(front, {**SERVICE, "name": "other", "gpu_type": "H100"})


def twice_at_once(front: Front, *job: Any) -> tuple[Any, Any]:
    """What comes of a job that is submitted while the disk still takes it from the first call."""
    accept, begun, asked = front._c.journal.accept, asyncio.Event(), asyncio.Event()

    async def slow(*words: Any) -> None:
        begun.set()
        await asked.wait()
        await accept(*words)

    async def both() -> tuple[Any, Any]:
        front._c.journal.accept = slow  # type: ignore[method-assign]
        first = asyncio.create_task(front.submit_job(*job))
        await begun.wait()
        (second,) = await asyncio.gather(front.submit_job(*job), return_exceptions=True)
        asked.set()
        return await first, second

    return asyncio.run(both())


def test_two_at_once_with_one_id_make_one_job(front: Front) -> None:
    first, second = twice_at_once(front, parse_job(SERVICE, "body").to_spec(), None, "chat")
    assert first["id"] == "chat"
    assert isinstance(second, Refused), second
    assert "right now" in str(second)


def test_one_service_answers_at_a_path_until_it_has_ended(tmp_path: Path) -> None:
    llm = {"kind": "service", "name": "llm", "watts_per_replica": "500W"}
    app = {"import_path": "a.b:app", "route_prefix": "/chat"}
    with opened(tmp_path) as front:
        first = submit(front, SERVICE, "key-1")["id"]
        for again in (SERVICE, {**SERVICE, "id": "x"}, {**llm, "serve_app": app}):
            told = rf"/chat is where {first} answers \(a service named chat, pending\).*job cancel"
            with pytest.raises(Refused, match=told):
                submit(front, again)
        assert submit(front, SERVICE, "key-1")["id"] == first, "a retry"
        assert submit(front, {**SERVICE, "serve_app": {**app, "route_prefix": "/c"},
                              "import_path": None})["name"] == "chat"  # fmt: skip
        assert submit(front, {**BATCH, "name": "chat", "watts": 9})["name"] == "chat"
        asyncio.run(front.job_action(first, "cancel"))
        second = submit(front, SERVICE)["id"]
        state = front._c.state
        ending = replace(state.jobs[second], state=JobState.CANCELLING)
        front._c.state = replace(state, jobs={**state.jobs, second: ending})
        with pytest.raises(Refused, match=f"{second} .*cancelling.; the name is free once"):
            submit(front, SERVICE)
    with opened(tmp_path) as front, pytest.raises(Refused, match=f"/chat is where {second}"):
        submit(front, SERVICE)


def test_one_batch_writes_in_a_folder_until_it_has_ended(front: Front) -> None:
    first = submit(front, {**BATCH, "watts": 9, "output": "/out/one"})["id"]
    told = rf"/out/one is where {first} writes \(a batch named .*another output folder"
    with pytest.raises(Refused, match=told):
        submit(front, {**BATCH, "watts": 9, "output": "/out/../out/one/"})
    assert submit(front, {**BATCH, "watts": 9, "output": "/out/two"})["id"] != first
    asyncio.run(front.job_action(first, "cancel"))
    assert submit(front, {**BATCH, "watts": 9, "output": "/out/one"})["id"] != first


def test_two_services_of_one_name_at_once_make_one(front: Front) -> None:
    spec = parse_job(SERVICE, "body").to_spec()

    async def both() -> list[Any]:
        tries = [front.submit_job(spec, "a", None), front.submit_job(spec, "b", None)]
        return await asyncio.gather(*tries, return_exceptions=True)

    first, second = asyncio.run(both())
    assert first["name"] == "chat"
    assert isinstance(second, Refused), second
    assert "a job at /chat is being submitted" in str(second)


def test_a_journal_of_before_may_hold_two_services_of_one_name(tmp_path: Path) -> None:
    """They were accepted when that was allowed, so they go on; the site file's own waits."""
    standing = '[[services]]\nname = "chat"\nimport_path = "a.b:app"\nwatts_per_replica = "9W"\n'
    with opened(tmp_path) as front:
        for job_id in ("one", "two"):
            job = blueprint.job_of(job_id, parse_job(SERVICE, "body").to_spec(), 1.0)
            asyncio.run(front._c.journal.accept(job, None, ""))
    with opened(tmp_path, standing) as front:
        assert [job["id"] for job in front.jobs()] == ["one", "two"]
        for job_id in ("one", "two"):
            asyncio.run(front.job_action(job_id, "cancel"))
    with opened(tmp_path, standing) as front:
        assert [job["id"] for job in front.jobs("pending")] == ["service-chat"]


def test_a_repeat_with_its_key_is_the_first_job_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = {**BATCH, "watts": "60W", "deadline": "2h"}
    with opened(tmp_path) as front:
        first = submit(front, night, "night")
    later_s = time.time() + 3 * 3600
    monkeypatch.setattr("wattshift_cluster.api.jobfields.time.time", lambda: later_s)
    with opened(tmp_path) as front:
        again = submit(front, {**night, "deadline": "120m"}, "night")
        assert (again["id"], again["deadline_at"]) == (first["id"], first["deadline_at"])
        assert len(front.jobs()) == 1
        for other in ("3h", rfc3339(first["spec"]["deadline_at_s"] + 7200), None):
            with pytest.raises(Refused, match="Idempotency-Key"):
                submit(front, {**night, "deadline": other}, "night")


def test_a_key_that_is_being_written_down_waits(front: Front) -> None:
    spec = parse_job({**BATCH, "watts": "60W"}, "body").to_spec()
    first, second = twice_at_once(front, spec, "k", None)
    assert first["name"] == "b"
    assert isinstance(second, TryLater), second
    assert len(front.jobs()) == 1


@pytest.mark.parametrize(
    ("changes", "rule", "says"),
    [
        ({"watts_per_replica": "1.7kW"}, Rule.NODE, "nearest: watts_per_replica 1.6kW"),
        ({"watts_per_replica": "2.6kW"}, Rule.NODE, "1,600 W (gpu-1)"),
        ({"gpus": 4}, Rule.NODE, "4 GPUs; the most that any node has is 2 (gpu-1)"),
        ({"gpu_type": "A100"}, Rule.NO_SUCH_NODE, "=A100; there are H100, L4"),
        ({"labels": {"rack": "!a"}}, Rule.NO_SUCH_NODE, "rack=!a"),
        ({"gpu_type": "L4", "watts_per_replica": "1.5kW"}, Rule.NODE, "replica 1.2kW"),
        ({"min_replicas": 6, "max_replicas": 6}, Rule.GANG, "nearest: min_replicas 5"),
        ({"min_replicas": 3, "max_replicas": 4, "gpu_type": "L4"}, Rule.GANG, "min_replicas 2"),
    ],
)  # fmt: skip
def test_a_service_that_could_never_run_is_refused_with_the_nearest(
    front: Front, changes: dict[str, Any], rule: Rule, says: str
) -> None:
    with pytest.raises(Infeasible) as caught:
        submit(front, {**SERVICE, **changes})
    assert caught.value.verdict.rule is rule
    assert says in str(caught.value)
    assert front._c.journal.jobs() == {}, "refused before it was written down"


@pytest.mark.parametrize(
    "changes",
    [
        {"watts_per_replica": "1.6kW"},
        {"gpus": 2},
        {"gpu_type": "H100", "labels": {"rack": "a"}},
        {"min_replicas": 5, "max_replicas": 9},
        {"labels": {"nobody-told": "x"}},
    ],
    ids=str,
)
def test_what_may_run_one_day_waits(front: Front, changes: dict[str, Any]) -> None:
    """Nodes that Ray never told of may have any label that the site file does not name."""
    assert submit(front, {**SERVICE, **changes})["state"] == "pending"


def test_a_gang_larger_than_the_site_is_refused(front: Front) -> None:
    gang = {**BATCH, "watts": "1kW", "gang": True}
    with pytest.raises(Infeasible, match="nearest: workers 2") as caught:
        submit(front, {**gang, "workers": 3})
    assert caught.value.verdict.rule is Rule.GANG
    assert submit(front, {**gang, "workers": 2})["state"] == "pending"
    assert (
        submit(front, {**gang, "workers": 3, "gang": False, "output": "/p"})["state"] == "pending"
    )


def test_tenants_are_known_and_hold_no_more_than_their_quota(tmp_path: Path) -> None:
    with opened(tmp_path, TENANTS) as front:
        with pytest.raises(Refused, match="no tenant 'default' here; give one of ops, research"):
            submit(front, SERVICE)
        mine = {**SERVICE, "tenant": "research"}
        with pytest.raises(Infeasible, match="nearest: watts_per_replica 1kW") as caught:
            submit(front, {**mine, "watts_per_replica": "1.1kW"})
        assert caught.value.verdict.rule is Rule.QUOTA_WATTS
        with pytest.raises(Infeasible, match="GPUs"):
            submit(front, {**mine, "gpus": 2})
        with pytest.raises(Infeasible, match="nearest: watts_per_replica 333W"):
            submit(front, {**mine, "min_replicas": 3, "max_replicas": 3})
        assert submit(front, {**mine, "tenant": "ops", "gpus": 2})["tenant"] == "ops"
        assert submit(front, {**BATCH, "watts": "1kW", "tenant": "research"})["state"] == "pending"


def test_a_deadline_that_no_speed_seen_can_meet_is_warned_of(front: Front) -> None:
    seen = submit(front, {**BATCH, "watts": "100W", "id": "before"})
    state = front._c.state
    known: Job = replace(state.jobs["before"], total=7_200, rate_per_s=1.0, units=1)
    front._c.state = replace(state, jobs={seen["id"]: known})
    again = {**BATCH, "watts": "100W", "output": "/p", "deadline": "1h"}
    (warning,) = submit(front, again)["warnings"]
    assert "(before) it needs 7,200 s with 1 workers" in warning
    assert submit(front, {**again, "workers": 3, "output": "/q"})["warnings"] == []
    assert submit(front, {**again, "input": "/other", "output": "/r"})["warnings"] == []


def test_values_of_the_environment_are_never_shown(front: Front) -> None:
    app = {"import_path": "m:a", "runtime_env": {"env_vars": {"KEY": "hush"}}}
    body = {"kind": "service", "name": "n", "serve_app": app, "watts_per_replica": 9}
    view = submit(front, {**body, "env": {"TOKEN": "hush"}})
    assert "hush" not in str([view, front.jobs(), front.site()])
    assert view["spec"]["env"] == {"TOKEN": "(hidden)"}
    job = front._c.state.jobs[view["id"]]
    assert job.spec["env"] == {"TOKEN": "hush"}, "the bridge gets it"
    assert "hush" not in repr([job, front._c.state])


def test_texts_that_are_named_as_secrets_are_never_shown(front: Front) -> None:
    secret = {"hf_token": "hush", "apiKey": "hush", "deep": [{"PASSWORD": ["hush"]}]}
    plain = {"max_tokens": 8, "tokenizer": "qwen", "key": 3, "keyword": "k", "": "e"}
    view = submit(front, {**SERVICE, "args": {**secret, **plain}})
    assert "hush" not in str(view)
    assert view["spec"]["args"].items() >= plain.items()


@pytest.mark.parametrize("key", ["input", "output", "python_path"])
def test_a_relative_path_means_nothing_on_a_worker(front: Front, key: str) -> None:
    path: Any = ["code"] if key == "python_path" else "x/../y"
    with pytest.raises(ConfigInvalid, match=f"{key} = .*: allowed: a path from the root"):
        submit(front, {**BATCH, "watts": "60W", key: path})
    assert front.jobs() == []


Answer = Callable[[str, dict[str, Any]], dict[str, Any]]


@contextlib.asynccontextmanager
async def bridge(answer: Answer) -> AsyncIterator[int]:
    """A bridge on a real socket."""

    async def handle(op: str, fields: dict[str, Any]) -> dict[str, Any]:
        return answer(op, fields)

    server = await serve("127.0.0.1", 0, name="bridge", token=rig.BRIDGE_TOKEN, handler=handle)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_a_log_holds_decisions_and_what_the_code_printed(tmp_path: Path) -> None:
    def answer(op: str, fields: dict[str, Any]) -> dict[str, Any]:
        assert (op, fields["job"]) == ("log", "night")
        return {"lines": [f"line {n}" for n in range(fields["lines"])]}

    async def ask() -> Any:
        async with bridge(answer) as port:
            with opened(tmp_path, port=port) as front:
                await front.submit_job(
                    parse_job({**BATCH, "watts": 9}, "b").to_spec(), None, "night"
                )
                told = await front.job_logs("night", 3)
                await front._c.compute_link.close()  # type: ignore[union-attr]
                with pytest.raises(NotFound):
                    await front.job_logs("nobody", 3)
                return told

    told = asyncio.run(ask())
    assert told["printed"] == ["line 0", "line 1", "line 2"]
    assert told["trouble"] is None


def test_a_log_without_its_bridge_still_holds_the_decisions(front: Front) -> None:
    submit(front, {**BATCH, "watts": "100W", "id": "night"})
    told = asyncio.run(front.job_logs("night", 10))
    assert told["printed"] is None
    assert "127.0.0.1:9" in told["trouble"]


def test_a_node_is_drained_through_the_bridge(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(op: str, fields: dict[str, Any]) -> dict[str, Any]:
        asked.append({"op": op, "node": fields.get("node")})
        return {"note": "Ray has no way back"}

    async def ask() -> Any:
        async with bridge(answer) as port:
            with opened(tmp_path, port=port) as front:
                with pytest.raises(NotFound, match="there are: gpu-1, gpu-2"):
                    await front.drain_node("gpu-9", by="ann")
                view = await front.drain_node("gpu-1", by="ann")
                return view, [one for one in front._c.recent if one.subject == "gpu-1"]

    view, told = asyncio.run(ask())
    assert asked == [{"op": "drain", "node": "gpu-1"}]
    assert (view["node"], view["note"]) == ("gpu-1", "Ray has no way back")
    assert [one.action for one in told] == ["drain"]
    assert "by ann" in told[0].reason


def test_the_site_shows_its_nodes_and_what_each_is_said_to_have(front: Front) -> None:
    submit(front, {**SERVICE, "id": "chat"})
    chat = replace(
        front._c.state.jobs["chat"], state=JobState.RUNNING, units=1, by_node={"gpu-2": 1}
    )
    front._c.state = replace(front._c.state, jobs={"chat": chat})
    first, second = front.site()["compute"]
    assert (first["node"], first["up"], first["max_w"]) == ("gpu-1", False, 1600.0)
    assert first["used_w"] is None, "unknown is not zero"
    assert first["labels"]["ray.io/accelerator-type"] == "H100"
    assert (first["units"], second["units"]) == ({}, {"chat": 1})
    figures = front.metrics_snapshot()
    assert figures["job_units"] == [("chat", "gpu-2", 1)]
    assert ("gpu-1", "max", 1600.0) in figures["node_power_w"]
    assert figures["unasked_w"] == {"gpu-1": None, "gpu-2": None}


def test_a_job_long_ended_is_still_shown_and_its_id_is_never_given_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "FINAL_KEPT", 1)
    body = {**BATCH, "watts": "100W"}
    for number in range(4):
        submit(front, {**body, "id": f"b{number}"})
        asyncio.run(front.job_action(f"b{number}", "cancel"))
    submit(front, {**body, "id": "last"})
    assert {one["id"] for one in front.jobs()} == {"b3", "last"}
    assert front.job("b0")["state"] == "cancelled"
    with pytest.raises(Refused, match="b0 exists"):
        submit(front, {**body, "id": "b0"})
