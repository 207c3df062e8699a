"""The process that a foreign program and all its children end with.

    python -m wattshift_cluster.agent.external.jail -- PROGRAM ARGUMENT…

The program runs in a process space of its own wherever the kernel allows that (as root, or where
users may make name spaces): when the first process of that space ends, the kernel ends every other
one, however it hid. Elsewhere its descendants are found by descent, and what they leave when they
are orphaned comes to this process; if that is killed, to its parent. The first line of output says
which it is: {"contained": true} or false. All further output is thrown away.

SIGTERM, SIGUSR1 (stop) and SIGUSR2 (go on) are for the program and all its children. This process
ends with the program's exit code, and is killed with its parent.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from wattshift_cluster.process import die_with_parent

CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
PR_SET_CHILD_SUBREAPER = 36
"""From linux/sched.h and linux/prctl.h."""

FORWARDED = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGSTOP,
    signal.SIGUSR2: signal.SIGCONT,
}
CANNOT_RUN = 127
MOST_PROCESSES = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program to its end. Exit code: the program's, 128 + n where signal n ended it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] != "--" or len(words) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    parent = os.getppid()
    os.setsid()
    contained = _own_space()
    die_with_parent(signal.SIGKILL, parent_pid=parent)  # a new user space would undo it before
    print(json.dumps({"contained": contained}), flush=True)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # programs print accounts and addresses
    if not contained:
        be_reaper()
        return _keep(words[1:], lambda number: _by_descent(number, os.getpid()))
    first = os.fork()
    if first == 0:
        die_with_parent(signal.SIGKILL)
        os._exit(_keep(words[1:], _everybody))
    _forward(lambda number: _kill(first, number), {number: number for number in FORWARDED})
    return _code(_wait(first))


def _keep(command: Sequence[str], tell: Callable[[int], None]) -> int:
    """Start the program, pass signals on, reap whatever ends; its exit code."""
    program = os.fork()
    if program == 0:
        _become(command)
    _forward(tell, FORWARDED)
    code = _code(_wait(program))
    tell(signal.SIGKILL)  # children that it left behind
    return code


def _become(command: Sequence[str]) -> NoReturn:
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    with suppress(OSError):
        die_with_parent(signal.SIGKILL)
        os.execv(command[0], list(command))
    os._exit(CANNOT_RUN)


def _own_space() -> bool:
    """Whether our next child begins a process space of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWPID) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0:
        return False
    with suppress(OSError):  # unmapped we are nobody there, and our files stay ours by their number
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def be_reaper() -> None:
    """What is orphaned below us becomes our child."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _forward(tell: Callable[[int], None], numbers: dict[signal.Signals, signal.Signals]) -> None:
    def passed(number: int, _frame: FrameType | None) -> None:
        tell(numbers[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, passed)


def _everybody(number: int) -> None:
    """All of this process space but its first process, which we are."""
    assert os.getpid() == 1, "elsewhere this would be everybody's processes"
    with suppress(ProcessLookupError):
        os.kill(-1, number)


def _by_descent(number: int, ancestor: int) -> None:
    """All descendants of `ancestor`, again until no new one is found."""
    told: set[int] = set()
    while fresh := descendants(ancestor) - told:
        for pid in fresh:
            _kill(pid, number)
        told |= fresh


def descendants(ancestor: int) -> set[int]:
    """Process ids below `ancestor`, as /proc tells them (proc_pid_stat(5), field 4)."""
    children: dict[int, list[int]] = {}
    for entry in list(Path("/proc").iterdir())[: 64 * MOST_PROCESSES]:
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                text = (entry / "stat").read_text(encoding="ascii", errors="replace")
                parent = int(text.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = [ancestor]
    while waiting and len(found) < MOST_PROCESSES:
        below = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(below)
        waiting.extend(below)
    return found


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _wait(program: int) -> int:
    """Reap until the program has ended; its wait status."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == program:
            return status


def _code(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    raise SystemExit(main())
