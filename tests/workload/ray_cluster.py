"""A real Ray cluster of several nodes on loopback, in a process of its own, and a bridge on it.

    python -m tests.workload.ray_cluster FOLDER [number of nodes]

The process starts a head and further raylets, with token, labels `wattshift.io/node` = n0, n1, …
and 300 W of `power_w` each. It takes one JSON object a line on standard input and answers each with
one on standard output; when its input ends, so does the cluster. Nobody who uses it has to import
Ray. Tests get it as the fixture `ray_cluster` of conftest.py.

    {"op": "add", "name": "n3", "power_w": 300, "labels": {}, "gpus": 0}   a new node
    {"op": "kill", "name": "n1"}      its raylet by SIGKILL; Ray ends its workers
    {"op": "hang", "name": "n1"}      its raylet stopped by SIGSTOP      {"op": "wake", …}
    {"op": "restart_gcs"}             SIGKILL of the control store, and a new one on the same data
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.ports import free_port

from wattshift_cluster.wire.link import Link, LinkError
from wattshift_cluster.wire.token import create_token
from wattshift_cluster.workload.cluster.ray_link import internal, local_environment
from wattshift_cluster.workload.cluster.versions import known

POWER_W = 300.0
CPUS = 4
STORE_BYTES = 78 << 20
START_S = 120.0
ANSWER_S = 60.0
END_S = 20.0
HEALTH = {
    # A node that is gone is noticed within seconds; still patient enough for a loaded machine.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


def gcs_on_disk() -> bool:
    """Whether the Ray here can keep its control store on disk, and so lose it for a moment."""
    release = known(metadata.version("ray"))
    return release is not None and release.gcs_on_disk


def _on_disk(storage: Path) -> dict[str, str]:
    storage.mkdir(exist_ok=True)
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage)}


class RayCluster:
    """The cluster from outside. A context manager.

    Attributes:
        address: host:port of its GCS.
        environment: what a process needs to be its driver: token, loopback.
        ids, pids: of its nodes by name: Ray's NodeID and the raylet's process id.
    """

    def __init__(
        self, folder: Path, nodes: int = 3, extra: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait. `extra` is environment for Ray's own processes."""
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / "ray.token"
        create_token(token)
        # Short: Ray's sockets live under it.
        self.temp = Path(tempfile.mkdtemp(prefix="wsc-", dir="/tmp"))
        self.environment = local_environment(token) | {"RAY_TMPDIR": str(self.temp)}
        store = _on_disk(folder / "gcs") if gcs_on_disk() else {}
        self._log = folder / "cluster.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.workload.ray_cluster", str(folder), str(nodes)],
                cwd=Path(__file__).absolute().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | self.environment | HEALTH | store | dict(extra or {}),
                start_new_session=True,
            )
        self.ids: dict[str, str] = {}
        self.pids: dict[str, int] = {}
        try:
            self.address: str = self._answer(START_S)["address"]
        except BaseException:
            self.close()
            raise

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Do one of the operations of the module's docstring, and wait for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(ANSWER_S)

    def close(self) -> None:
        """End the cluster and everything on it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        for name in self.pids.values():
            _signal(name, signal.SIGCONT)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
        shutil.rmtree(self.temp, ignore_errors=True)

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        until, got = time.monotonic() + seconds, b""
        while not got.endswith(b"\n"):
            assert time.monotonic() < until, f"no answer: {self._words()}"
            assert self._process.poll() is None, f"the cluster ended: {self._words()}"
            got += self._process.stdout.read() or b""
            time.sleep(0.02)
        answer: dict[str, Any] = json.loads(got.splitlines()[-1])
        assert "error" not in answer, answer
        self.ids, self.pids = answer["ids"], answer["pids"]
        return answer

    def _words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class BridgeProcess:
    """A bridge as a process of its own, and a line to it."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare one; its files lie in `folder`. `arguments` go to the bridge as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.token = create_token(folder / "token")
        self.port = free_port()
        self.serve_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._number = 0

    def start(self) -> None:
        """Start the process; `until` waits for what it says."""
        command = [sys.executable, "-m", "wattshift_cluster.workload.bridge"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--name", "host"]
        command += ["--token-file", str(self.folder / "token")]
        command += ["--state-dir", str(self.folder / "state")]
        command += ["--serve-port", str(self.serve_port), *self._arguments]
        environment = os.environ | self._environment
        with (self.folder / "bridge.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def stop(self) -> None:
        """End it as an operator would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()

    def call(self, op: str, within_s: float = 3.0, **fields: Any) -> dict[str, Any]:
        """One request of the wire."""

        async def once() -> dict[str, Any]:
            link = Link("127.0.0.1", self.port, self.token)
            try:
                return await link.call(op, **fields)
            finally:
                await link.close()

        start = time.monotonic()
        answer = asyncio.run(once())
        assert time.monotonic() - start < within_s
        return answer

    def command(self, kind: str, **fields: Any) -> dict[str, Any]:
        """One command; its result."""
        self._number += 1
        command = {"id": self._number, "kind": kind, **fields}
        row: dict[str, Any] = self.call("apply", commands=[command])["results"][0]
        return row

    def until(self, check: Callable[[dict[str, Any]], object], seconds: float) -> dict[str, Any]:
        """The first report that passes `check`."""
        ends = time.monotonic() + seconds
        report: dict[str, Any] = {}
        while time.monotonic() < ends:
            try:
                report = self.call("report")
                if check(report):
                    return report
            except LinkError:
                assert self.process is not None
                assert self.process.poll() is None, "the bridge ended"
            time.sleep(0.1)
        log = (self.folder / "bridge.log").read_text()[-3000:]
        raise AssertionError(f"not within {seconds} s: {report}\n{log}")


def node(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A node's row of a report; empty if it is not there."""
    return next((row for row in report["nodes"] if row["name"] == name), {})


class _Held:
    """The cluster from inside its process."""

    def __init__(self) -> None:
        self.cluster: Any = internal("ray.cluster_utils").Cluster()
        self.nodes: dict[str, Any] = {}

    def add(self, name: str, power_w: float | None, labels: Mapping[str, str], gpus: int) -> None:
        """Start a node; the first is the head."""
        self.nodes[name] = self.cluster.add_node(
            num_cpus=CPUS,
            num_gpus=gpus,
            resources={} if power_w is None else {"power_w": power_w},
            labels={"wattshift.io/node": name, **labels},
            object_store_memory=STORE_BYTES,
            node_ip_address="127.0.0.1",
            include_dashboard=False,
        )

    def raylet(self, name: str) -> int:
        """Process id of a node's raylet."""
        pid: int = self.nodes[name].all_processes["raylet"][0].process.pid
        return pid

    def do(self, asked: Mapping[str, Any]) -> None:
        """One operation."""
        op, name = asked["op"], asked.get("name", "")
        if op == "add":
            power_w, gpus = asked.get("power_w", POWER_W), asked.get("gpus", 0)
            self.add(name, power_w, asked.get("labels", {}), gpus)
        elif op == "kill":
            os.kill(self.raylet(name), signal.SIGKILL)
            self.nodes.pop(name)
        elif op in ("hang", "wake"):
            os.kill(self.raylet(name), signal.SIGSTOP if op == "hang" else signal.SIGCONT)
        elif op == "restart_gcs":
            self.nodes["n0"].kill_gcs_server()
            self.nodes["n0"].start_gcs_server()
        elif op != "tell":
            raise ValueError(op)

    def told(self) -> dict[str, Any]:
        """Address and nodes."""
        pids = {name: self.raylet(name) for name in self.nodes}
        ids = {name: node.node_id for name, node in self.nodes.items()}
        return {"address": self.cluster.address, "ids": ids, "pids": pids}


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def hold(count: int) -> None:
    """The process: start, obey, end."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is not an answer
    held = _Held()
    try:
        for number in range(count):
            held.add(f"n{number}", POWER_W, {}, 0)
        print(json.dumps(held.told()), file=out, flush=True)
        for line in sys.stdin:
            try:
                held.do(json.loads(line))
                answer = held.told()
            except Exception as fault:
                answer = {"error": f"{type(fault).__name__}: {fault}"}
            print(json.dumps(answer), file=out, flush=True)
    finally:
        held.cluster.shutdown()


if __name__ == "__main__":
    hold(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
