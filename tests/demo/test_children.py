"""Children are started, watched, started again, and ended with everything they started."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from wattshift_cluster.demo.children import Child, ChildFailed, ChildInvalid, Children

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


async def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.1)
    return False


def test_a_killed_child_is_started_again_and_all_end(tmp_path: Path) -> None:
    async def play() -> None:
        children = Children(tmp_path)
        await children.start(Child("sleeper", SLEEPER))
        first = children.pid("sleeper")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        for _ in range(50):
            await asyncio.sleep(0.1)
            if children.pid("sleeper") not in (None, first):
                break
        second = children.pid("sleeper")
        assert second not in (None, first)
        assert children.restarts == {"sleeper": 1}
        await children.stop()
        assert second is not None
        assert await _gone(second)

    asyncio.run(play())


def test_a_child_that_never_gets_ready_is_told_with_its_log(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async def play() -> None:
        children = Children(tmp_path)
        code = "import sys, time; print('cannot find my keys', flush=True); time.sleep(60)"
        try:
            await children.start(
                Child("keys", (sys.executable, "-c", code), ready=never), deadline_s=2.0
            )
        finally:
            await children.stop()

    with pytest.raises(ChildFailed, match="cannot find my keys"):
        asyncio.run(play())


def test_a_child_that_ends_before_it_is_ready_is_told_at_once(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async def play() -> None:
        children = Children(tmp_path)
        code = "import sys; sys.exit('port 1 is in use')"
        try:
            await children.start(Child("port", (sys.executable, "-c", code), ready=never))
        finally:
            await children.stop()

    with pytest.raises(ChildFailed, match="port 1 is in use"):
        asyncio.run(play())


def test_what_an_earlier_run_said_is_not_told_again(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async def play(words: str) -> None:
        children = Children(tmp_path)
        try:
            program = f"import sys; sys.exit({words!r})"
            await children.start(Child("one", (sys.executable, "-c", program), ready=never))
        finally:
            await children.stop()

    with pytest.raises(ChildFailed, match="the first fault"):
        asyncio.run(play("the first fault"))
    with pytest.raises(ChildFailed, match="another") as failed:
        asyncio.run(play("another"))
    assert "the first fault" not in str(failed.value)
    assert (tmp_path / "one.log").read_text() == "the first fault\nanother\n"


@pytest.mark.parametrize(("code", "kind"), [(3, ChildInvalid), (1, ChildFailed)])
def test_a_child_that_refuses_its_file_ends_the_start_as_such(
    tmp_path: Path, code: int, kind: type[ChildFailed]
) -> None:
    async def never() -> bool:
        return False

    async def play() -> None:
        children = Children(tmp_path)
        program = f"import sys; print('prices.csv:2: not a price'); sys.exit({code})"
        try:
            await children.start(Child("picky", (sys.executable, "-c", program), ready=never))
        finally:
            await children.stop()

    with pytest.raises(ChildFailed, match=r"prices\.csv:2: not a price") as refused:
        asyncio.run(play())
    assert type(refused.value) is kind
    assert refused.value.exit_code == code


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "kid = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(kid.pid))\n"
        "time.sleep(60)\n"
    )

    async def play() -> None:
        children = Children(tmp_path)
        await children.start(Child("stubborn", (sys.executable, "-c", code), stop_s=0.5))
        for _ in range(100):
            await asyncio.sleep(0.1)
            if note.exists() and note.read_text():
                break
        await children.stop()
        assert await _gone(int(note.read_text()))

    asyncio.run(play())
