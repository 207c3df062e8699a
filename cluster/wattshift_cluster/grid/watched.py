"""A file that people edit while the site runs: read again whenever it changes.

A version that does not parse is reported in `fault` and the last good one stays in force, because
an operator's typing error must not lift a cap.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from wattshift_cluster.errors import ConfigInvalid, Fault

log = structlog.get_logger()

MAX_BYTES = 16 * 1024 * 1024

Content = TypeVar("Content")
_Stamp = tuple[int, int, int]


class WatchedFile(Generic[Content]):
    """The parsed content of a file, as new as its last change.

    Attributes:
        path: the file.
        fault: what is wrong with the newest version; None when it is in force.
    """

    def __init__(self, path: Path, parse: Callable[[str, str], Content]) -> None:
        """Read the file for the first time.

        Args:
            parse: text and file name → content; raises ConfigInvalid.

        Raises:
            ConfigInvalid: the file cannot be read or parsed; there is no good version yet.
        """
        self.path = path
        self.fault: ConfigInvalid | None = None
        self._parse = parse
        self._stamp = self._stat()
        self._content = self._load()

    def read(self) -> Content:
        """The newest good content; looks at the file's stamp first. Does not raise."""
        try:
            stamp = self._stat()
            if stamp != self._stamp:
                self._stamp = stamp
                self._content = self._load()
                self.fault = None
                log.info("file.reloaded", path=str(self.path))
        except ConfigInvalid as fault:
            if str(fault) != str(self.fault):
                log.error("file.invalid", path=str(self.path), reason=str(fault))
            self.fault = fault
        return self._content

    def _stat(self) -> _Stamp:
        try:
            status = self.path.stat()
        except OSError as fault:
            # A file that comes back with the stamp it had must be loaded again to clear the fault.
            self._stamp = (0, 0, 0)
            raise self._unreadable(fault) from fault
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _load(self) -> Content:
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            text = data.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as fault:
            raise self._unreadable(fault) from fault
        if len(data) > MAX_BYTES:
            raise self._unreadable(f"larger than {MAX_BYTES} bytes")
        return self._parse(text, str(self.path))

    def _unreadable(self, fault: object) -> ConfigInvalid:
        reason = getattr(fault, "strerror", None) or fault
        return ConfigInvalid([Fault(str(self.path), "", None, f"cannot be read: {reason}")])
