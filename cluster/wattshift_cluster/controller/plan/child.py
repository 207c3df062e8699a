"""The planner as a program: `python -m wattshift_cluster.controller.plan.child PARENT_PID`.

A question comes on stdin, its answer goes to stdout (plan_wire), one after the other, until stdin
ends. It shares nothing with the controller: it is niced, has one thread and bounded memory, is
killed by the kernel when its parent ends, and by its parent when it takes too long.
"""

import contextlib
import os
import resource
import signal
import sys
import time
from typing import Any, BinaryIO

from wattshift_cluster.controller.plan import wire as plan_wire
from wattshift_cluster.process import die_with_parent

NICE = 15
MEMORY_MOST_BYTES = 3 << 30
"""Of its own data: a plan of two days in steps of five minutes takes a tenth of that. A machine
short of memory must not end the controller for it."""


def main(argv: list[str]) -> int:
    """Answer until stdin ends; returns the exit code."""
    die_with_parent(signal.SIGKILL, parent_pid=int(argv[1]) if len(argv) > 1 else None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the parent decides when to end
    os.nice(NICE)
    # Who is short of memory kills this first, and the controller last.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = MEMORY_MOST_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_MOST_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    # Whatever a library prints must not stand among our answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)
    return 0


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer each question in turn."""
    warm: Any = None
    while len(header := questions.read(plan_wire.HEADER.size)) == plan_wire.HEADER.size:
        text = questions.read(plan_wire.length_of(header))
        answer, warm = answered(plan_wire.body_of(text), warm)
        answers.write(plan_wire.framed(answer))
        answers.flush()


def answered(question: dict[str, Any], warm: Any) -> tuple[dict[str, Any], Any]:
    """The answer to a question, and what speeds the next one up.

    Args:
        question: `ahead` (scheduler.plan.words.Ahead) and `time_limit_s`.
        warm: of the answer before.

    Returns:
        `plan`, or `failed`: why there is none, with the `item` that was refused.
    """
    from wattshift_scheduler.plan.solve import planned
    from wattshift_scheduler.plan.words import Ahead, PlanInvalid, PlannerMissing

    try:
        ahead = plan_wire.read(Ahead, question["ahead"])
        limit_s = float(question["time_limit_s"])
        plan, warm = planned(ahead, time_limit_s=limit_s, warm=warm, clock=time.perf_counter)
    except PlanInvalid as fault:
        return {"failed": str(fault), "item": fault.item}, warm
    except PlannerMissing as fault:
        return {"failed": str(fault)}, warm
    except MemoryError:
        return {"failed": "the plan needs more memory than it may have"}, None
    return {"plan": plan}, warm


if __name__ == "__main__":
    sys.exit(main(sys.argv))
