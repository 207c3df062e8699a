"""What the independent meter adds up: emulated machines, this host's CPU, its GPUs.

None of these reads any figure of a controller or an agent. A source that fails yields a part with
watts None and the reason: the total is then unknown, never smaller.
"""

import asyncio
import json
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from wattshift_cluster.bootclock import boot_s

MAX_BODY_BYTES = 1024 * 1024
MAX_TRUTH_AGE_S = 2.0
MAX_NAMED_MACHINES = 32
CLOCK_TICKS_HZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the site's power, W; None is unknown, and `fault` says why."""

    name: str
    watts_w: float | None
    quality: str
    fault: str | None = None


class PowerSource(Protocol):
    """Something that draws power."""

    async def read(self) -> Sequence[Part]:
        """The power now. Within a deadline; never raises for a failed reading."""
        ...


class TruthSource:
    """The emulators' true power: GET → {"at_s": boot clock, "machines": [{"id", "watts_w"}]}."""

    def __init__(
        self, url: str, *, deadline_s: float = 0.5, clock_s: Callable[[], float] = boot_s
    ) -> None:
        """Raises: ValueError, `url` is not http://host:port/path."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.port is None:
            raise ValueError(f"{url}: wanted http://host:port/path")
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path or "/"
        self._deadline_s = deadline_s
        self._clock_s = clock_s

    async def read(self) -> Sequence[Part]:
        """One part for each machine; a single sum where there are more than 32."""
        try:
            async with asyncio.timeout(self._deadline_s):
                body = await self._get()
            return self._parts(body)
        except TimeoutError:
            fault = f"no answer within {self._deadline_s} s"
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as caught:
            fault = str(caught) or type(caught).__name__
        return [Part("emulated machines", None, "emulated", fault)]

    async def _get(self) -> dict[str, Any]:
        """A GET by hand: an HTTP library would cost most of this process's CPU budget."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            request = (
                f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n"
            )
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(b" ", 2)[1:2] != [b"200"]:
                raise ValueError(f"answered {head[:40]!r}")
            data = await reader.read(MAX_BODY_BYTES)
            while more := await reader.read(MAX_BODY_BYTES):
                data += more
                if len(data) > MAX_BODY_BYTES:
                    raise ValueError(f"answer larger than {MAX_BODY_BYTES} bytes")
        finally:
            writer.close()
        body = json.loads(data)
        if not isinstance(body, dict):
            raise ValueError("the answer is not a JSON object")
        return body

    def _parts(self, body: dict[str, Any]) -> list[Part]:
        age_s = self._clock_s() - _watts(body.get("at_s"), "at_s")
        if abs(age_s) > MAX_TRUTH_AGE_S:
            raise ValueError(f"the truth is {age_s:.1f} s old")
        machines = body.get("machines")
        if not isinstance(machines, list) or not all(isinstance(row, dict) for row in machines):
            raise ValueError("machines is not a list of objects")
        parts = [
            Part(str(row.get("id"))[:64], _watts(row.get("watts_w"), "watts_w"), "emulated")
            for row in machines
        ]
        if len(parts) <= MAX_NAMED_MACHINES:
            return parts
        total_w = math.fsum(part.watts_w or 0.0 for part in parts)  # none is None: _watts raises
        return [Part(f"{len(parts)} emulated machines", total_w, "emulated")]


class HostSource:
    """This host without its GPUs, modelled: idle watts plus busy cores times watts a core.

    Busy time comes from /proc/stat (user, nice, system, irq, softirq; not idle, iowait or steal)
    over a window of about a second, because the kernel counts in ticks of 10 ms.
    """

    def __init__(
        self,
        idle_w: float,
        core_w: float,
        *,
        window_s: float = 1.0,
        clock_s: Callable[[], float] = boot_s,
        busy_s: Callable[[], float] | None = None,
    ) -> None:
        """Take the first reading. Raises: OSError, there is no /proc/stat."""
        self._idle_w, self._core_w = idle_w, core_w
        self._window_s = window_s
        self._clock_s = clock_s
        self._busy_s = busy_s or ProcStat()
        self._cores = math.inf if busy_s is not None else float(os.cpu_count() or math.inf)
        self._past: deque[tuple[float, float]] = deque([(clock_s(), self._busy_s())], maxlen=1024)
        self.window_s: float | None = None

    async def read(self) -> Sequence[Part]:
        """The model's power; unknown while less than 50 ms of history exist."""
        try:
            now_s, busy_s = self._clock_s(), self._busy_s()
        except (OSError, ValueError) as fault:
            return [Part("host cpu", None, "modelled", str(fault))]
        self._past.append((now_s, busy_s))
        while len(self._past) > 2 and self._past[1][0] <= now_s - 0.95 * self._window_s:
            self._past.popleft()
        then_s, was_busy_s = self._past[0]
        self.window_s = now_s - then_s
        if self.window_s < 0.05:
            return [Part("host cpu", None, "modelled", "no window yet")]
        # The ticks of two reads do not lie as their times do: a full host may seem more than full.
        cores = min(max(0.0, busy_s - was_busy_s) / self.window_s, self._cores)
        return [Part("host cpu", self._idle_w + self._core_w * cores, "modelled")]


class ProcStat:
    """CPU seconds this machine has been busy since boot; the file stays open to keep it cheap."""

    def __init__(self) -> None:
        self._file = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        """Read the counters. Raises: OSError, ValueError."""
        words = os.pread(self._file, 512, 0).split(b"\n", 1)[0].split()
        if len(words) < 8 or words[0] != b"cpu":
            raise ValueError("/proc/stat has no cpu line")
        user, nice, system, _idle, _iowait, irq, softirq = map(int, words[1:8])
        return (user + nice + system + irq + softirq) / CLOCK_TICKS_HZ


class GpuSource:
    """NVIDIA GPUs by NVML, measured. Read in a thread, since a driver call may hang."""

    def __init__(self, nvml: Any, handles: Sequence[Any], *, deadline_s: float = 0.5) -> None:
        self._nvml, self._handles, self._deadline_s = nvml, handles, deadline_s
        self._running: asyncio.Future[list[Part]] | None = None

    @classmethod
    def find(cls) -> "GpuSource | None":
        """The GPUs of this machine; None without a driver or without any."""
        try:
            import pynvml

            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except Exception:
            # NVML fails in as many ways as there are drivers; all mean: nothing to measure.
            return None
        return cls(pynvml, handles) if handles else None

    async def read(self) -> Sequence[Part]:
        """One part for each GPU; unknown past the deadline, without piling up threads."""
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(asyncio.to_thread(self._read_all))
        done, _ = await asyncio.wait({self._running}, timeout=self._deadline_s)
        if not done:
            return [Part("gpus", None, "measured", f"NVML silent for {self._deadline_s} s")]
        return self._running.result()

    def _read_all(self) -> list[Part]:
        parts = []
        for index, handle in enumerate(self._handles):
            try:
                watts_w = self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0
                parts.append(Part(f"gpu {index}", watts_w, "measured"))
            except Exception as fault:
                # As above: any failure is an unknown reading, and the meter must go on.
                parts.append(Part(f"gpu {index}", None, "measured", str(fault)))
        return parts


def _watts(value: Any, name: str) -> float:
    """A finite number. Raises: ValueError, also for null: an unknown part makes all unknown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}")
    return float(value)
