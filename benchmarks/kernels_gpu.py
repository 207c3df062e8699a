"""The hashing kernels on a real GPU: rates, what the machine code allows, joules, and stops.

SHA-256d with sixteen versions per nonce for a minute at difficulty 1, then with one; after it the
other algorithms, each for a shorter while. The model is the kernel's own machine code, counted by
pipe, at the clock that was seen meanwhile; where nothing can disassemble it, it is unknown. Hits
are held against what the hashes tried make likely.

Every algorithm runs in a process of its own. `WATTSHIFT_BENCH_SECONDS` shortens the minute.
"""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.cannot import CannotRunHere
from benchmarks.rig import device_facts, gpus

from wattshift_kernels.algorithms import ALGORITHMS

SECONDS_S = 60.0
OTHERS_S = 8.0
ROLL_MASK = 0x0001_E000
DIFFICULTY_1 = 2**224 - 1
"""All that a kernel looks at is the last word; a hit about every 0.4 s of an H200."""

CHILD_S = 240.0
"""After this a child that hangs is given up, beside the seconds that it was told to take."""


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    if not gpus():
        raise CannotRunHere("no GPU here")
    seconds_s = float(os.environ.get("WATTSHIFT_BENCH_SECONDS", SECONDS_S))
    rolling = _child("sha256d", seconds_s, ROLL_MASK, DIFFICULTY_1)
    plain = _child("sha256d", min(seconds_s, OTHERS_S), 0, DIFFICULTY_1)
    if "failed" in rolling:
        raise RuntimeError(rolling["failed"])
    model_gh_per_s = _model(rolling, 1 << ROLL_MASK.bit_count())
    gh_per_s = rolling["h_per_s"] / 1e9
    others = {
        name: _told(_child(name, min(seconds_s, OTHERS_S), 0, 1))
        for name in ALGORITHMS
        if name != "sha256d"
    }
    return {
        **device_facts(),
        "backend": "cuda",
        "gh_per_s": round(gh_per_s, 3),
        "plain_gh_per_s": None if "failed" in plain else round(plain["h_per_s"] / 1e9, 3),
        "model_gh_per_s": None if model_gh_per_s is None else round(model_gh_per_s, 3),
        "ratio_to_model": None if model_gh_per_s is None else round(gh_per_s / model_gh_per_s, 3),
        "watts": rolling["watts"],
        "j_per_gh": None if not rolling["watts"] else round(rolling["watts"] / gh_per_s, 2),
        "stop_ms_p50": rolling["stop_ms_p50"],
        "stop_ms_p99": rolling["stop_ms_p99"],
        "stop_ms_p99_worst": _worst([rolling, plain, *others.values()], "stop_ms_p99"),
        "hits": rolling["hits"],
        "expected_hits": rolling["expected_hits"],
        "hits_sigma_worst": _worst([rolling, *others.values()], "hits_sigma"),
        "algorithms": others,
        "rolling": rolling,
        "plain": plain,
        "ways": 1 << ROLL_MASK.bit_count(),
        "quality": "measured",
    }


def _child(name: str, seconds_s: float, roll_mask: int, target: int) -> dict[str, Any]:
    """The figures of one algorithm, or why there are none."""
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
            timeout=CHILD_S + 2 * seconds_s,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as fault:
        print(f"kernels-gpu: {name}: {fault}", file=sys.stderr)
        return {"failed": f"{name}: {type(fault).__name__}"}
    print(f"kernels-gpu: {name}: {json.dumps(found)}", file=sys.stderr)
    return found


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """In units for people."""
    if "failed" in found:
        return found
    rate, watts = found.pop("h_per_s") / 1e6, found["watts"]
    limit = found.pop("limit_h_per_s")
    return {
        "mh_per_s": round(rate, 2),
        "j_per_mh": None if not watts else round(watts / rate, 4),
        "limit_mh_per_s": None if limit is None else round(limit / 1e6, 2),
        **found,
    }


def _model(found: dict[str, Any], ways: int) -> float | None:
    """What the pipes allow the kernel that was used, GH/s, at the clock that was seen."""
    from wattshift_kernels.nvrtc import NvrtcMissing, compiled
    from wattshift_kernels.sass import DisassemblerMissing, hot_loops, instructions
    from wattshift_kernels.sha256d.source import source
    from wattshift_kernels.sha256d.variants import by_name

    if found["clock_mhz"] is None:
        return None
    variant = by_name(found["kernel"].removeprefix("sha256d-cuda-"))
    try:
        made = compiled(source(variant), found["arch"])
        tally = hot_loops(instructions(made.cubin)).per_hash(ways)
    except (NvrtcMissing, DisassemblerMissing) as why:
        print(f"kernels-gpu: no model: {why}", file=sys.stderr)
        return None
    return float(found["sms"] * found["clock_mhz"] * 1e6 / tally.clocks / 1e9)


def _worst(of: list[dict[str, Any]], figure: str) -> float | None:
    """The largest, whatever its sign; None where one is unknown."""
    values = [one.get(figure) for one in of]
    if any(value is None for value in values):
        return None
    return max(abs(float(value)) for value in values if value is not None)
