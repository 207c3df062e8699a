"""An inference replica for the benchmark `interference`: MiniLM in a process of its own.

It answers requests at the times they are due, one at a time, whatever has queued up meanwhile, and
marks the gate from the moment the first is due until none is left: what a server does from
admission to answer. One JSON object per line:

    in   {"op": "measure", "seconds": s}
    out  {"service_s": mean time of a request with nothing else to do}
    in   {"op": "serve", "arrivals": [[s from the start, words], …], "seconds": s}
    out  {"began_ns": …, "ended_ns": …, "due_ns": […], "done_ns": […], "worker": [[…], […]]}

    python -m benchmarks.embedder --gates DIR --arrays numpy|cupy --seed N
"""

import argparse
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere
from benchmarks.rig import DEVICE, ROOT, on_core

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.errors import NotFound
from wattshift_cluster.gate import ClientGate, SeatView
from wattshift_cluster.inference import minilm
from wattshift_cluster.inference.arrivals import Arrival, text_of
from wattshift_cluster.process import die_with_parent

WORDS = 12
"""Mean length of a text, words."""

LEAD_NS = 50_000_000
"""From a block's start to its time 0: room to get ready."""

START_S = 120.0
"""On a GPU the first product of each kind compiles a kernel."""


@dataclass(frozen=True, slots=True)
class Served:
    """One block as the replica saw it; boot clock, ns.

    Attributes:
        began_ns, ended_ns: time 0 of the arrivals, and when the block was over.
        due_ns, done_ns: of each request, in the order of arrival.
        worker: the mining worker's hashes, and its ns in launches, at both times.
    """

    began_ns: int
    ended_ns: int
    due_ns: Sequence[int]
    done_ns: Sequence[int]
    worker: Sequence[Sequence[int]]


class Embedder:
    """The parent's end."""

    def __init__(
        self, folder: Path, arrays: str, seed: int, environment: Mapping[str, str], core: int | None
    ) -> None:
        """Start the replica and wait until its model is warm.

        Raises:
            CannotRunHere: no weights, no tokenizer, no array module.
        """
        options = [f"--gates={folder}", f"--arrays={arrays}", f"--seed={seed}"]
        command = [sys.executable, "-m", "benchmarks.embedder", *options]
        with on_core(core):
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=dict(environment),
            )
        said = self._answer(START_S)
        if "refused" in said:
            self.end()
            raise CannotRunHere(said["refused"])

    def service_s(self, seconds: float) -> float:
        """Mean time of a request, measured for so long, s."""
        return float(self._ask({"op": "measure", "seconds": seconds}, seconds + 30)["service_s"])

    def serve(self, arrivals: Sequence[Arrival], seconds: float) -> Served:
        """Serve one block: at least so long, and until all is answered.

        Raises:
            RuntimeError: it took ten times as long, or the replica died.
        """
        pairs = [(arrival.at_s, arrival.words) for arrival in arrivals]
        message = {"op": "serve", "arrivals": pairs, "seconds": seconds}
        return Served(**self._ask(message, 10 * seconds + 30))

    def end(self) -> None:
        """End the replica."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, message: dict[str, Any], within_s: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer(within_s)

    def _answer(self, within_s: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            raise RuntimeError(f"the replica did not answer within {within_s:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the replica died")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Replica:
    """The child's side."""

    def __init__(self, gates: Path, arrays: str, seed: int) -> None:
        """Load the model, busy at the gate meanwhile, and warm it up at every length of the mix.

        Raises:
            NotFound: no weights.
            ImportError: no array module, tokenizer or reader of weights.
        """
        self._gate = ClientGate(gates)
        self._seat = SeatView(gates / f"{DEVICE}.worker")
        self._seed = seed
        with self._gate.busy():
            self._xp = importlib.import_module(arrays)
            self._model = minilm.load(self._xp)
            for words in range(1, 3 * WORDS // 2 + 1):
                self._encode(text_of(Arrival(0.0, words), words, seed))

    def service_s(self, seconds: float) -> float:
        """Mean over requests of the mix, one after the other, s."""
        began_s, count = time.monotonic(), 0
        while time.monotonic() - began_s < seconds or count < 10:
            words = WORDS // 2 + count % (WORDS + 1)
            text = text_of(Arrival(0.0, words), count, self._seed)
            with self._gate.busy():
                self._encode(text)
            count += 1
        return (time.monotonic() - began_s) / count

    def serve(self, pairs: Sequence[tuple[float, int]], seconds: float) -> dict[str, Any]:
        """Answer each request when it is due, or when its turn comes."""
        arrivals = [Arrival(at_s, words) for at_s, words in pairs]
        texts = [text_of(arrival, number, self._seed) for number, arrival in enumerate(arrivals)]
        gc.collect()
        began_ns = boot_ns() + LEAD_NS
        due_ns = [began_ns + int(arrival.at_s * 1e9) for arrival in arrivals]
        done_ns: list[int] = []
        _sleep_until(began_ns)
        before = self._mined()
        while len(done_ns) < len(due_ns):
            _sleep_until(due_ns[len(done_ns)])
            with self._gate.busy():
                while len(done_ns) < len(due_ns) and due_ns[len(done_ns)] <= boot_ns():
                    self._encode(texts[len(done_ns)])
                    done_ns.append(boot_ns())
        _sleep_until(began_ns + int(seconds * 1e9))
        times = {"began_ns": began_ns, "ended_ns": boot_ns(), "due_ns": due_ns, "done_ns": done_ns}
        return {**times, "worker": [before, self._mined()]}

    def _mined(self) -> tuple[int, int]:
        state = self._seat.read()
        return state.hashes, state.launching_ns

    def _encode(self, text: str) -> list[float]:
        """The answer as a server would send it: numbers of this process, not of the device."""
        vector: list[float] = self._model.encode([text])[0].tolist()
        return vector


def main() -> int:
    """The child: answer on standard output until standard input ends."""
    parser = argparse.ArgumentParser(prog="benchmarks.embedder", description=__doc__)
    parser.add_argument("--gates", type=Path, required=True)
    parser.add_argument("--arrays", choices=("numpy", "cupy"), required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    die_with_parent()
    # Native libraries write to descriptor 1; the answers go to a copy of the real one.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        replica = Replica(options.gates, options.arrays, options.seed)
    except (NotFound, ImportError) as fault:
        print(json.dumps({"refused": str(fault)}), file=out, flush=True)
        return 3
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = (
            replica.serve(request["arrivals"], request["seconds"])
            if request["op"] == "serve"
            else {"service_s": replica.service_s(request["seconds"])}
        )
        print(json.dumps(answer), file=out, flush=True)
    return 0


def _sleep_until(at_ns: int) -> None:
    while (left_ns := at_ns - boot_ns()) > 0:
        time.sleep(left_ns / 1e9)


if __name__ == "__main__":
    sys.exit(main())
