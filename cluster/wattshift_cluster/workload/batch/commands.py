"""A command as the work of a batch job: one process group per chunk, JSON lines in and out.

The items stand on its standard input, one per line; it answers with one line of JSON per item, in
order, on its standard output. What it writes to standard error goes to the job's log. It runs in
the folder that holds the output folder. A status other than 0 and a wrong number of lines are
failures of the chunk.

Nothing of it outlives its chunk. A small shell leads its process group and waits on a pipe from the
worker: when the worker dies, the pipe breaks and the shell kills the group, itself with it.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from wattshift_cluster.workload.batch.callables import WrongOutputs
from wattshift_cluster.workload.batch.formats import InputInvalid
from wattshift_cluster.workload.batch.job_log import LINE_CHARS_MAX, JobLog
from wattshift_cluster.workload.batch.rows import OUTPUT_BYTES_MAX, encoded

OUTPUTS_BYTES_MAX = 1 << 30
"""Of one chunk."""

LOOK_S = 0.2
END_S = 5.0
WORDS_CHARS_MAX = 500
LEADER = ("/bin/sh", "-c", "read -r word || kill -KILL 0")


class CommandFailed(Exception):
    """The command ended with a status other than 0, or not at all."""


class Command:
    """A command, as work."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        log: JobLog,
        python_path: Sequence[str] = (),
        outputs_max_b: int = OUTPUTS_BYTES_MAX,
    ) -> None:
        """Prepare; each call runs it once.

        Args:
            command: program and arguments.
            folder: where it runs.
            log: takes what it writes to standard error.
            python_path: put before PYTHONPATH.
            outputs_max_b: the most it may answer to one chunk, bytes.
        """
        self._command = list(command)
        self._folder = folder
        self._log = log
        self._outputs_max_b = outputs_max_b
        self._environment: Mapping[str, str] = os.environ
        if python_path:
            paths = [*python_path, *filter(None, [os.environ.get("PYTHONPATH")])]
            self._environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self._interrupted = threading.Event()

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """Run it once.

        Raises:
            CommandFailed: with its status and its last words.
            WrongOutputs: not one line of JSON per item.
            InputInvalid: there is no such program here.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as answered:
            given.writelines(encoded(item) for item in items)
            given.seek(0)
            last = self._run(given, answered)
            size_b = answered.seek(0, os.SEEK_END)
            if size_b > self._outputs_max_b:
                raise WrongOutputs(f"it answered more than {self._outputs_max_b} bytes")
            answered.seek(0)
            try:
                return _outputs(answered, len(items))
            except WrongOutputs as fault:
                raise WrongOutputs(f"{fault}{last and ': ' + last}") from None

    def interrupt(self) -> None:
        """Kill what runs, and run nothing more."""
        self._interrupted.set()

    def close(self) -> None:
        """Nothing is held between two chunks."""

    def _run(self, given: IO[bytes], answered: IO[bytes]) -> str:
        """Run it to its end; its last words. Raises: CommandFailed, InputInvalid."""
        with subprocess.Popen(LEADER, stdin=subprocess.PIPE, process_group=0) as leader:
            try:
                process = self._start(leader.pid, given, answered)
                words = _Words(process, self._log)
                self._wait(process, answered)
            finally:
                # The leader is not reaped yet, so its number is still the group's.
                with suppress(ProcessLookupError):
                    os.killpg(leader.pid, signal.SIGKILL)
        process.wait(END_S)
        last = words.last()
        if self._interrupted.is_set():
            raise CommandFailed("stopped before its end")
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            raise CommandFailed(f"ended by {name}{last and ': ' + last}")
        if process.returncode > 0:
            raise CommandFailed(f"ended with status {process.returncode}{last and ': ' + last}")
        return last

    def _start(self, group: int, given: IO[bytes], answered: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._command,
                stdin=given,
                stdout=answered,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=self._environment,
                process_group=group,
            )
        except OSError as fault:
            reason = fault.strerror or fault
            raise InputInvalid(f"cannot run {self._command[0]}: {reason}") from fault

    def _wait(self, process: subprocess.Popen[bytes], answered: IO[bytes]) -> None:
        """Until it ends, is interrupted, or has answered far too much."""
        while not self._interrupted.is_set():
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
                return
            if os.fstat(answered.fileno()).st_size > self._outputs_max_b:
                return


class _Words:
    """Copies standard error to the job's log, and keeps the last line."""

    def __init__(self, process: subprocess.Popen[bytes], log: JobLog) -> None:
        self._process = process
        self._log = log
        self._last = ""
        self._thread = threading.Thread(target=self._copy, name="stderr", daemon=True)
        self._thread.start()

    def last(self) -> str:
        """The last line that was not empty; "" if there was none."""
        self._thread.join(END_S)
        return self._last[:WORDS_CHARS_MAX]

    def _copy(self) -> None:
        assert self._process.stderr is not None, "it was started with a pipe"
        with self._process.stderr as stream:
            while line := stream.readline(LINE_CHARS_MAX):
                text = line.decode(errors="replace").rstrip("\r\n")
                self._log.line(text)
                self._last = text.strip() or self._last


def _outputs(answered: IO[bytes], count: int) -> list[Any]:
    """The lines of an answer. Raises: WrongOutputs."""
    outputs: list[Any] = []
    while line := answered.readline(OUTPUT_BYTES_MAX + 1):
        if len(line) > OUTPUT_BYTES_MAX:
            raise WrongOutputs(f"a line longer than {OUTPUT_BYTES_MAX} bytes")
        if not line.strip():
            continue
        if len(outputs) == count:
            raise WrongOutputs(f"it answered more than {count} lines to {count} items")
        try:
            outputs.append(json.loads(line))
        except (ValueError, RecursionError):
            text = line[:80].decode(errors="replace").rstrip()
            raise WrongOutputs(f"a line that is not JSON: {text}") from None
    if len(outputs) != count:
        raise WrongOutputs(f"it answered {len(outputs)} lines to {count} items")
    return outputs
