"""The wire of OpenADR alone: from a utility's POST of an event to the site's `on_notice`.

The VTN and the broker are processes of their own; utility and site share this one, so that one
clock sees both ends. By webhook and by MQTT, each event after the one before was heard. A part of
the benchmark `signals`, which puts a controller behind it; by itself:

    python -m benchmarks.signals_wire
"""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere
from benchmarks.rig import ranked

from wattshift_cluster.grid.openadr.callback import Callback
from wattshift_cluster.grid.openadr.client import VtnClient
from wattshift_cluster.grid.openadr.exchange import Exchange, Request
from wattshift_cluster.grid.openadr.listener import Listener
from wattshift_cluster.grid.openadr.login import Login
from wattshift_cluster.grid.openadr.words import Notification, SubscriptionWish

HOST = "127.7.9.1"
EVENTS = 100
WAIT_S = 20.0
BEARER = "a bearer of this benchmark alone"
PROGRAM = "curtailment"
BROKERS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


@dataclass(frozen=True, slots=True)
class Vtn:
    """A VTN that runs: where it is, whose secrets lie where, and how it dies."""

    url: str
    secrets: dict[str, Path]
    end: Callable[[], None]

    def login(self, name: str) -> Login:
        """A login of "site" or "utility"."""
        return Login(name, self.secrets[name], scopes=() if name == "utility" else None)


class Utility:
    """The business logic: posts events over HTTP as its own systems would."""

    def __init__(self, vtn: Vtn) -> None:
        self._exchange = Exchange(vtn.url, False, WAIT_S)
        self._login = vtn.login("utility")

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object; what the VTN made of it."""
        headers = {"Authorization": f"Bearer {await self._login.token(self._exchange)}"}
        made = await self._exchange.send(Request("POST", path, body=body, headers=headers))
        assert isinstance(made, dict), "an object is created"
        return made

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()


@contextlib.contextmanager
def vtn_process(folder: Path, *options: str) -> Iterator[Vtn]:
    """A loopback VTN in a process of its own."""
    command = [sys.executable, "-m", "wattshift_cluster.grid.vtn.process"]
    command += ["--listen", f"{HOST}:0", "--secrets", str(folder / "secrets"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None, "it was asked for"
            ready = json.loads(process.stdout.readline() or "{}")
            if not ready:
                raise CannotRunHere("the VTN did not start")
            files = {one["id"]: Path(one["secret_file"]) for one in ready["clients"]}
            yield Vtn(ready["vtn"], files, process.kill)
        finally:
            process.terminate()


@contextlib.contextmanager
def broker_process(folder: Path) -> Iterator[str]:
    """A mosquitto of its own; its address. Raises CannotRunHere where there is none."""
    program = shutil.which("mosquitto", path=BROKERS)
    if program is None:
        raise CannotRunHere("no mosquitto broker is installed")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    file = folder / "mosquitto.conf"
    lines = (f"listener {port} {HOST}", "allow_anonymous true", "set_tcp_nodelay true")
    file.write_text("\n".join([*lines, "log_type none", ""]))
    with subprocess.Popen([program, "-c", str(file)]) as process:
        try:
            deadline_s = time.monotonic() + WAIT_S
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection((HOST, port), 1.0).close()
                    break
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise CannotRunHere("mosquitto did not start")
                time.sleep(0.02)
            yield f"mqtt://{HOST}:{port}"
        finally:
            process.kill()


async def notice_ms(utility: Utility, program: str, heard: asyncio.Queue[str]) -> list[float]:
    """Times from the POST of an event to its notice, ms, ascending."""
    took = []
    for number in range(EVENTS):
        name = f"event-{number}"
        began_s = time.perf_counter()
        post = asyncio.create_task(
            utility.post("events", {"programID": program, "eventName": name})
        )
        async with asyncio.timeout(WAIT_S):
            while await heard.get() != name:
                pass
        took.append((time.perf_counter() - began_s) * 1e3)
        await post
    return sorted(took)


async def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds by way. Raises CannotRunHere."""
    found = {}
    for way, listen in (("webhook", _webhook), ("mqtt", _mqtt)):
        with broker_process(folder) as broker, vtn_process(folder, "--mqtt", broker) as vtn:
            utility = Utility(vtn)
            client = VtnClient(vtn.url, vtn.login("site"), verify=False)
            program = (await utility.post("programs", {"programName": PROGRAM}))["id"]
            heard: asyncio.Queue[str] = asyncio.Queue()

            def on_notice(told: Notification, heard: asyncio.Queue[str] = heard) -> None:
                heard.put_nowait(str(told.object.get("eventName")))

            stop = await listen(client, program, on_notice)
            times = await notice_ms(utility, program, heard)
            found[way] = {
                "p50": ranked(times, 0.5),
                "p99": ranked(times, 0.99),
                "most": round(times[-1], 3),
            }
            await stop()
            await client.close()
            await utility.close()
    return found


OnNotice = Callable[[Notification], None]
Stop = Callable[[], Awaitable[None]]


async def _webhook(client: VtnClient, program: str, on_notice: OnNotice) -> Stop:
    callback = Callback(BEARER, on_notice)
    url = await callback.start(HOST, 0)
    wish = SubscriptionWish(client_name="bench", callback_url=url, bearer=BEARER)
    await client.subscribe(wish)
    return callback.close


async def _mqtt(client: VtnClient, program: str, on_notice: OnNotice) -> Stop:
    topics = await client.topics(program_ids=[program])
    assert topics is not None, "this VTN has a broker"
    connected = asyncio.Event()
    listener = Listener(topics, on_notice, on_connected=connected.set, verify=False)
    task = asyncio.create_task(listener.run())
    async with asyncio.timeout(WAIT_S):
        await connected.wait()

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return stop


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="wattshift-wire-") as place:
        sys.stdout.write(json.dumps(asyncio.run(measure(Path(place)))) + "\n")
