"""The hashing kernels on a real GPU: rates, what the machine code allows, joules, and stops.

SHA-256d with sixteen versions per nonce for a minute at difficulty 1, then with one; after it the
other algorithms, each for a shorter while. The model is the kernel's own machine code, counted by
pipe, at the clock that was seen meanwhile; where nothing can disassemble it, it is unknown. Hits
are held against what the hashes tried make likely.

Every algorithm runs in a process of its own; one that fails leaves out its figures and no others.
`WATTSHIFT_BENCH_SECONDS` shortens the minute, `WATTSHIFT_BENCH_WITHIN_S` bounds the whole: what
does not fit is left out, and a figure that is missing misses its bar.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.cannot import CannotRunHere
from benchmarks.rig import device_facts, gpus

from wattshift_kernels.algorithms import ALGORITHMS

SECONDS_S = 60.0
OTHERS_S = 8.0
ROLL_MASK = 0x0001_E000
DIFFICULTY_1 = 2**224 - 1
"""All that a kernel looks at is the last word; a hit about every 0.4 s of an H200."""

CHILD_S = 150.0
"""After this a child that hangs is given up, beside the seconds that it was told to take."""

Figures = dict[str, Any]
Child = Callable[[str, float, int, int], Figures]


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    if not gpus():
        raise CannotRunHere("no GPU here")
    seconds_s = float(os.environ.get("WATTSHIFT_BENCH_SECONDS", SECONDS_S))
    until_s = time.monotonic() + float(os.environ.get("WATTSHIFT_BENCH_WITHIN_S", "inf"))

    def child(name: str, seconds_s: float, roll_mask: int, target: int) -> Figures:
        within_s = min(CHILD_S + 2 * seconds_s, until_s - time.monotonic())
        return _child(name, seconds_s, roll_mask, target, within_s)

    return {**device_facts(), **figures(child, seconds_s)}


def figures(child: Child, seconds_s: float) -> dict[str, object]:
    """All that children find, and what follows from it.

    Args:
        child: (algorithm, seconds, roll mask, target) to its figures, or to why there are none
            under "failed".
        seconds_s: that SHA-256d is measured; the others take OTHERS_S at most.
    """
    less_s = min(seconds_s, OTHERS_S)
    rolling = child("sha256d", seconds_s, ROLL_MASK, DIFFICULTY_1)
    plain = child("sha256d", less_s, 0, DIFFICULTY_1)
    names = [name for name in ALGORITHMS if name != "sha256d"]
    others = {name: _told(child(name, less_s, 0, 1)) for name in names}
    every = [rolling, plain, *others.values()]
    gh_per_s, plain_gh_per_s = _giga(rolling), _giga(plain)
    model_gh_per_s = _model(rolling, 1 << ROLL_MASK.bit_count())
    watts = rolling.get("watts")
    return {
        "backend": "cuda",
        "gh_per_s": _rounded(gh_per_s),
        "plain_gh_per_s": _rounded(plain_gh_per_s),
        "model_gh_per_s": _rounded(model_gh_per_s),
        "ratio_to_model": _rounded(_quotient(gh_per_s, model_gh_per_s)),
        "watts": watts,
        "j_per_gh": _rounded(_quotient(watts, gh_per_s)),
        **{key: rolling.get(key) for key in ("stop_ms_p50", "stop_ms_p99", "hits")},
        "expected_hits": rolling.get("expected_hits"),
        "stop_ms_p99_worst": _worst(every, "stop_ms_p99"),
        "hits_sigma_worst": _worst(every, "hits_sigma"),
        "algorithms": others,
        "rolling": rolling,
        "plain": plain,
        "ways": 1 << ROLL_MASK.bit_count(),
        "quality": "measured",
    }


def _child(name: str, seconds_s: float, roll_mask: int, target: int, within_s: float) -> Figures:
    """The figures of one algorithm, or why there are none."""
    if within_s <= seconds_s:
        return {"failed": f"{name}: not run: {within_s:.0f} s were left"}
    asked = {"name": name, "seconds_s": seconds_s, "roll_mask": roll_mask, "target": target}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "CUDA_VISIBLE_DEVICES": gpus()[0].uuid,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.kernels_gpu_one", json.dumps(asked)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            timeout=within_s,
            check=True,
        )
        found: Figures = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as fault:
        print(f"kernels-gpu: {name}: {fault}", file=sys.stderr)
        return {"failed": f"{name}: {type(fault).__name__}"}
    print(f"kernels-gpu: {name}: {json.dumps(found)}", file=sys.stderr)
    return found


def _told(found: Figures) -> Figures:
    """In units for people."""
    if "failed" in found:
        return found
    rate, watts = found.pop("h_per_s") / 1e6, found["watts"]
    limit = found.pop("limit_h_per_s")
    return {
        "mh_per_s": round(rate, 3),
        "j_per_mh": None if watts is None else round(watts / rate, 4),
        "limit_mh_per_s": None if limit is None else round(limit / 1e6, 3),
        **found,
    }


def _model(found: Figures, ways: int) -> float | None:
    """What the pipes allow the kernel that was used, GH/s, at the clock that was seen."""
    from wattshift_kernels.nvrtc import NvrtcFailed, NvrtcMissing, compiled
    from wattshift_kernels.sass import CodeUnknown, DisassemblerMissing, hot_loops, instructions
    from wattshift_kernels.sha256d.source import source
    from wattshift_kernels.sha256d.variants import by_name

    if found.get("clock_mhz") is None:
        return None
    variant = by_name(found["kernel"].removeprefix("sha256d-cuda-"))
    try:
        made = compiled(source(variant), found["arch"])
        tally = hot_loops(instructions(made.cubin)).per_hash(ways)
    except (
        NvrtcMissing, NvrtcFailed, DisassemblerMissing, CodeUnknown, subprocess.TimeoutExpired,
    ) as why:  # fmt: skip
        print(f"kernels-gpu: no model: {why}", file=sys.stderr)
        return None
    return float(found["sms"] * found["clock_mhz"] * 1e6 / tally.clocks / 1e9)


def _giga(found: Figures) -> float | None:
    return None if "failed" in found else float(found["h_per_s"]) / 1e9


def _quotient(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _worst(of: list[Figures], figure: str) -> float | None:
    """The largest, whatever its sign; None where one is unknown."""
    values = [one.get(figure) for one in of]
    if any(value is None for value in values):
        return None
    return max(abs(float(value)) for value in values if value is not None)
