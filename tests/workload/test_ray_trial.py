"""Whether Ray starts here: a real start, and starts that fail for a reason that can be mended."""

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.cli.findings import Place
from wattshift_cluster.cli.ray_check import elsewhere, judged, ray
from wattshift_cluster.workload.cluster.versions import RELEASES, known

LEFT = """
from wattshift_cluster.workload.cluster.ray_link import QUIET, internal, prepare_environment

prepare_environment(QUIET)
ray = internal("ray")
try:
    ray.get_actor("meter:gone")
except Exception as fault:
    print(ray.is_initialized(), fault)
"""
TRIAL = [sys.executable, "-m", "wattshift_cluster.workload.cluster.ray_trial"]


def broken_ray(folder: Path, line: str) -> dict[str, str]:
    """An environment in which `import ray` finds a package whose start does what `line` says."""
    package = folder / "broken" / "ray"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"def init(**_):\n    {line}\n")
    return {"PYTHONPATH": str(package.parent), "TMPDIR": str(folder)}


def tried(environment: dict[str, str], before: Callable[[], None] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        TRIAL,
        env={**os.environ, **environment},
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["started"] else 1)
    return found


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_ray_that_starts_is_ended_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(Path("/tmp").glob("ws-*"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("WATTSHIFT_URL", "http://127.0.0.1:9")
    found = ray(Place(None))
    assert found.level == "ok", found
    assert found.text.startswith("2.")
    assert "starts here" in found.text
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/tmp").glob("ws-*")) == before


@pytest.mark.parametrize(
    ("line", "reason", "mend"),
    [
        ("import raylet_of_another_version", "raylet_of_another_version", "pip install --force"),
        ("raise OSError(28, 'No space left on device')", "No space left", "df -h /tmp /dev/shm"),
        ("raise OSError(24, 'Too many open files')", "Too many open files", "ulimit -n 65536"),
        ("raise ValueError('nobody knows why')", "nobody knows why", "less "),
    ],
)
def test_a_start_that_fails_says_why_and_how_to_mend_it(
    tmp_path: Path, line: str, reason: str, mend: str
) -> None:
    found = tried(broken_ray(tmp_path, line))
    assert not found["started"]
    assert reason in found["reason"]
    assert found["mend"].startswith(mend)
    assert reason in Path(found["log"]).read_text(), "the log of a failure stays to be read"


def test_too_few_open_files_are_said_before_anything_is_started() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    found = tried({}, few)
    assert (found["started"], found["mend"]) == (False, "ulimit -n 65536")
    assert "256 open files" in found["reason"]


def test_doctor_hands_the_reason_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = broken_ray(tmp_path, "raise OSError(28, 'No space left on device')")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WATTSHIFT_URL", "http://127.0.0.1:9")  # nothing answers there
    found = ray(Place(None))
    assert found.level == "warn"
    assert "No space left on device" in found.text
    assert found.mend == "df -h /tmp /dev/shm"


def test_a_ray_that_somebody_else_runs_is_looked_for_and_its_token_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    gone = elsewhere("127.0.0.1:9")
    assert (gone.level, gone.mend) == ("fail", "ray start --head --port 9")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert "no token is used" in elsewhere(address).text
        token = tmp_path / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("a-secret")
        token.chmod(0o644)
        open_to_all = elsewhere(address)
        assert open_to_all.level == "warn"
        assert open_to_all.mend == f"chmod 600 {token}"
        token.chmod(0o600)
        found = elsewhere(address)
        assert (found.level, "a-secret" in found.text) == ("ok", False)
        assert str(token) in found.text


def test_a_release_nobody_tried_and_one_that_lacks_something_are_told() -> None:
    good = {"version": f"{RELEASES[0].release}.0", "took_s": 4.2, "missing": []}
    assert judged(good).level == "ok"
    untried = judged({**good, "version": "9.9.0"})
    assert (untried.level, untried.mend[:11]) == ("warn", "pip install")
    lacking = judged({**good, "missing": ["node drain"]})
    assert (lacking.level, "lacks: node drain" in lacking.text) == ("warn", True)
    assert known("2.6.1") is None, "2.6 is not 2.60"


def test_in_haste_nothing_is_started() -> None:
    assert "not tried" in ray(Place(None, quick=True)).text


def test_a_call_without_a_cluster_starts_none() -> None:
    """Ray starts one in /tmp/ray by itself; a bridge that ends has threads that may still ask."""
    pytest.importorskip("ray")
    left = [sys.executable, "-c", LEFT]
    done = subprocess.run(left, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("False "), done
