"""Holds a Ray of our own: one node on loopback, alive as long as somebody needs it.

It is apart from the bridge so that a killed bridge finds its actors again. It ends Ray on SIGTERM,
and by itself when nobody has held the bridge's lock for a minute: an orphan must not keep drawing.
If this process is killed, the kernel ends Ray's processes with it, as Ray asks at their start.

The end is a SIGKILL of all processes of this session. Nothing of that Ray is used again, and its
own shutdown is not quick: it ends one kind of process after the other, each with a second to go and
one more to be killed. Where no bridge is there to do it, the folder of that Ray is removed, too.

With `--gcs-storage` Ray's control store keeps its state on disk, and one that dies is started again
from there: nodes and workers wait for it for two minutes and nothing of theirs is lost (Ray 2.60,
where that storage is new; measured: back within 2 s). The folder is emptied first, because a Ray
that starts anew must not find the actors of one that is gone.

    python -m wattshift_cluster.workload.cluster.ray_host --state-dir D --temp-dir T --num-cpus 2 …
"""

import argparse
import fcntl
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog

from wattshift_cluster.workload.cluster.session import end_all

log = structlog.get_logger()

ADDRESS_FILE = "ray.json"
LOCK_FILE = "bridge.lock"
ORPHAN_S = 60.0
LOOK_S = 1.0
RECONNECT_S = 120
"""Ray's processes end when the control store has been gone for so long."""

KILLED_S = 2.0
"""For killed processes to be gone; one may hang in the kernel, writing."""


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock file."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def write_address(path: Path, address: str) -> None:
    """Tell bridges where Ray is, all or nothing."""
    attempt = path.with_suffix(f".{os.getpid()}")
    attempt.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    attempt.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="wattshift_cluster.workload.cluster.ray_host")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--temp-dir", type=Path, required=True)
    parser.add_argument("--num-cpus", type=int, required=True)
    parser.add_argument("--power-w", type=float, required=True)
    parser.add_argument("--object-store-bytes", type=int, required=True)
    parser.add_argument("--gcs-storage", type=Path)
    parser.add_argument("--orphan-s", type=float, default=ORPHAN_S)
    options = parser.parse_args(arguments)
    if os.getsid(0) != os.getpid():
        log.error("ray_host.failed", reason="start it in a session of its own: all of that ends")
        return 3
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    if options.gcs_storage is not None:
        _keep_on_disk(options.gcs_storage)
    import ray

    if options.gcs_storage is not None and not _knows_disk():
        log.error("ray_host.failed", reason=f"Ray {ray.__version__} keeps no control store on disk")
        return 3
    ray.init(
        address="local",
        num_cpus=options.num_cpus,
        resources={"power_w": options.power_w},
        object_store_memory=options.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        namespace="wattshift",
        _temp_dir=str(options.temp_dir),
        _node_ip_address="127.0.0.1",
    )
    # After ray.init, which sets handlers of its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    address_file = options.state_dir / ADDRESS_FILE
    write_address(address_file, ray.get_runtime_context().gcs_address)
    log.info("ray_host.ready", address=ray.get_runtime_context().gcs_address)
    mend = _revive_gcs if options.gcs_storage is not None else None
    _hold(options.state_dir / LOCK_FILE, stop, options.orphan_s, mend)
    _end(options.state_dir, options.temp_dir)
    return 0


def _end(state_dir: Path, temp_dir: Path) -> None:
    """End Ray. Meanwhile no new bridge can begin, nor remove what is its own."""
    lock = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False  # a bridge ends us, and removes the folder when we are gone
    (state_dir / ADDRESS_FILE).unlink(missing_ok=True)
    left = end_all(os.getpid(), KILLED_S, spare=os.getpid())
    if left:
        log.warning("ray_host.left", pids=left)
    if alone:
        shutil.rmtree(temp_dir, ignore_errors=True)
    os.close(lock)


def _keep_on_disk(storage: Path) -> None:
    """Settings that Ray reads when it is imported."""
    own = storage.absolute() / "ray-gcs"  # the folder itself may hold what is not ours to empty
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True, mode=0o700)
    settings = {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(own),
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S),
    }
    os.environ.update(settings)


def _knows_disk() -> bool:
    return hasattr(importlib.import_module("ray._private.node").Node, "_is_rocksdb_gcs")


def _revive_gcs() -> None:
    """Start the control store again if it has died. Internal to Ray: checked with 2.60."""
    worker = importlib.import_module("ray._private.worker")
    node = worker._global_node
    held = node.all_processes.get("gcs_server", [])
    if held and held[0].process.poll() is not None:
        log.warning("ray_host.gcs_died", code=held[0].process.returncode)
        node.kill_gcs_server(check_alive=False)
        node.start_gcs_server()


def _hold(
    lock: Path, stop: threading.Event, orphan_s: float, mend: Callable[[], None] | None = None
) -> None:
    needed_s = time.monotonic()
    while not stop.wait(LOOK_S):
        if mend is not None:
            mend()
        if is_locked(lock):
            needed_s = time.monotonic()
        elif time.monotonic() - needed_s > orphan_s:
            log.warning("ray_host.orphaned", seconds=orphan_s)
            return


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # at its exit Ray's client library would look for the Ray that has just ended
