"""A replica without Ray: its answers, its limits, and what it tells the gates."""

import asyncio
import json
from pathlib import Path

import pytest

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate.clients import ClientsView, create_clients_file
from wattshift_cluster.inference import app

LONG = json.dumps({"texts": ["words and more words " * 20] * 4}).encode()
"""None of three is answered before the last one is taken."""


@pytest.fixture(scope="module")
def gate_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    create_clients_file(folder / "cpu0.clients")
    return folder


@pytest.fixture(scope="module")
def replica(gate_dir: Path) -> app.Embed:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WATTSHIFT_GATE_DIR", str(gate_dir))
        return app.Embed()


def ask(replica: app.Embed, document: object) -> tuple[int, dict[str, object]]:
    return asyncio.run(replica.answer(json.dumps(document).encode()))


def test_answers_one_vector_per_text(replica: app.Embed) -> None:
    status, document = ask(replica, {"texts": ["one", "two words"]})
    assert status == 200
    embeddings = document["embeddings"]
    assert isinstance(embeddings, list)
    assert [len(vector) for vector in embeddings] == [384, 384]
    assert float(document["compute_ms"]) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "document",
    [{}, [], {"texts": []}, {"texts": "one"}, {"texts": [1]}, {"texts": ["a"] * 65},
     {"texts": ["a" * 8193]}],
)  # fmt: skip
def test_refuses_what_is_beyond_its_limits(replica: app.Embed, document: object) -> None:
    status, answer = ask(replica, document)
    assert status == 400
    assert "allowed" in str(answer["error"])


def test_a_body_that_is_not_json_is_a_bad_request(replica: app.Embed) -> None:
    assert asyncio.run(replica.answer(b"\xff{"))[0] == 400


def test_the_gate_is_busy_during_a_request_and_free_after_the_hold_off(
    replica: app.Embed, gate_dir: Path
) -> None:
    async def watch() -> list[bool]:
        view = ClientsView(gate_dir / "cpu0.clients")
        await asyncio.sleep(0.1)
        seen = [view.busy(boot_ns())]
        asked = [asyncio.create_task(replica.answer(LONG)) for _ in range(3)]
        async with asyncio.timeout(5.0):
            while replica.wattshift_stats()["ongoing"] < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        seen.append(view.busy(boot_ns()))
        await asyncio.gather(*asked)
        seen.append(view.busy(boot_ns()))
        await asyncio.sleep(0.05)
        seen.append(view.busy(boot_ns()))
        return seen

    assert asyncio.run(watch()) == [False, True, True, False]
    stats = replica.wattshift_stats()
    assert stats["ongoing"] == stats["queued"] == 0
    assert stats["recent_ms"]
    assert stats["gates"] == ["cpu0"]


def test_old_latencies_leave_the_report() -> None:
    window = app.Latencies()
    window.add(100.0, 5.0)
    window.add(125.0, 7.0)
    assert window.recent_ms(131.0) == [7.0]
