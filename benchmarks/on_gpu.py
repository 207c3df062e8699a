"""Every benchmark that a GPU is needed for, one after the other, on a machine that has one.

    python benchmarks/on_gpu.py FOLDER [--seconds 540] [--only gate,response] [--anyway]

Each runs as `benchmarks/run.py NAME` within what is left of the time, and leaves in FOLDER

    NAME.json    device, driver, date (UTC), exit code, whether all bars held, and its figures
    NAME.log     what it said on the way
    plots/       series of power against time, and pictures where matplotlib is installed

It needs CuPy with NVRTC, nvidia-ml-py, numpy, numba, click, pydantic and structlog, for the model
of `kernels-gpu` nvdisasm, and for `interference` tokenizers, safetensors and the model's weights;
no Ray, no pyasic, no root. All of it takes some 13 minutes, which two calls can share:

    python benchmarks/on_gpu.py FOLDER --only kernels-gpu,gate --seconds 400
    python benchmarks/on_gpu.py FOLDER --only interference,response,steady-draw --seconds 360

Without a GPU it ends with 3; `--anyway` is for a rehearsal. Exit codes otherwise: 0 all ran and all
bars held, 1 not so.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("scheduler", "kernels", "cluster")
RUN = ROOT / "benchmarks" / "run.py"
CANNOT, NEVER_RAN = 3, None


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark.

    Attributes:
        least_s: with less time left it is not begun.
        most_s: after this it is ended.
        seconds: what it is told to take, for those that can be told.
    """

    name: str
    least_s: float
    most_s: float
    seconds: float | None = None


PARTS = (
    Part("gate", 30, 90),
    Part("interference", 80, 160, 85),
    Part("response", 60, 140, 60),
    Part("steady-draw", 60, 180),
    Part("kernels-gpu", 120, 330),
)
"""What nothing else can tell comes first. `kernels-gpu` takes about 230 s (estimated); with less it
leaves out the algorithms that come last."""

ENDING_S = 5.0
"""Before a part is ended it has to have said what it found."""


def main(arguments: Sequence[str]) -> int:
    """See the module's docstring."""
    options = _options(arguments)
    sys.path[0] = str(ROOT)
    sys.path[1:1] = [str(ROOT / root) for root in ROOTS]
    from benchmarks.rig import device_facts, gpus
    from benchmarks.run import available

    if not gpus() and not options.anyway:
        print("on_gpu: no GPU here", file=sys.stderr)
        return CANNOT
    options.folder.mkdir(parents=True, exist_ok=True)
    until_s = time.monotonic() + options.seconds
    facts, known, good = device_facts(), available(), True
    for part in PARTS:
        if options.only is not None and part.name not in options.only:
            continue
        if part.name not in known:
            print(f"on_gpu: {part.name}: there is no such benchmark yet", file=sys.stderr)
            continue
        left_s = until_s - time.monotonic()
        result = {**facts, **_run(part, options.folder, left_s)}
        path = options.folder / f"{part.name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        good = good and result["exit_code"] == 0
        print(
            f"on_gpu: {part.name}: {result['outcome']}, {result['wall_s']:.0f} s", file=sys.stderr
        )
    return 0 if good else 1


def _run(part: Part, folder: Path, left_s: float) -> dict[str, Any]:
    """Run one benchmark and say what came of it."""
    began = {"bench": part.name, "date_utc": datetime.now(UTC).isoformat(timespec="seconds")}
    if left_s < part.least_s:
        why = f"not run: {left_s:.0f} s were left of the time"
        return {**began, "exit_code": NEVER_RAN, "outcome": why, "wall_s": 0.0, "figures": None}
    started_s = time.monotonic()
    within_s = min(part.most_s, left_s)
    figures, code = None, None
    with (folder / f"{part.name}.log").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                [sys.executable, str(RUN), part.name, "-o", "json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(part, folder, within_s),
                timeout=within_s,
                check=False,
            )
            code = done.returncode
            lines = done.stdout.splitlines()
            figures = json.loads(lines[-1]) if code in (0, 1) and lines else None
            outcome = {0: "all bars held", 1: "a bar missed", CANNOT: "cannot run here"}.get(
                code, "failed"
            )
            if code == 1 and figures is None:
                outcome = "failed"
        except subprocess.TimeoutExpired as late:
            outcome = f"not ended within {late.timeout:.0f} s"
    wall_s = round(time.monotonic() - started_s, 1)
    return {**began, "exit_code": code, "outcome": outcome, "wall_s": wall_s, "figures": figures}


def _environment(part: Part, folder: Path, within_s: float) -> dict[str, str]:
    paths = [str(ROOT / root) for root in ROOTS]
    more = {
        "WATTSHIFT_PLOT_DIR": str(folder / "plots"),
        "WATTSHIFT_BENCH_WITHIN_S": str(within_s - ENDING_S),
    }
    if part.seconds is not None:
        more["WATTSHIFT_BENCH_SECONDS"] = str(part.seconds)
    before = os.environ.get("PYTHONPATH")
    more["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, before]))
    return {**os.environ, **more}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    summary = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="benchmarks/on_gpu.py", description=summary)
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all of them together")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names, with commas")
    parser.add_argument("--anyway", action="store_true", help="run without a GPU, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
