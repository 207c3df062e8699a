"""Mapped files of 64-bit words, and the byte-range locks that a dead process cannot keep.

A word is read and written through a memory view of unsigned 64-bit items, which CPython carries out
as one aligned 8-byte load or store, so no reader sees half a word. Every file starts with

    word 0  what it is (8 letters)     word 1  layout version     word 2  boot it belongs to

Locks are open file description locks (Linux 3.15; struct flock in fcntl(2)): unlike classic POSIX
locks they stay when the process closes another descriptor of the same file, and threads do not
share them by accident. The kernel drops them with the last descriptor, however the process ended.
"""

import fcntl
import mmap
import os
import struct
import uuid
from pathlib import Path

from wattshift_cluster.bootclock import boot_id
from wattshift_cluster.errors import WattshiftError

GATE_DIR_VARIABLE = "WATTSHIFT_GATE_DIR"
LAYOUT_VERSION = 2
WORD_BYTES = 8
HEADER_WORDS = 3

_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock on 64-bit Linux: type, whence, start, length, pid (zero for these locks)."""


class GateInvalid(WattshiftError):
    """A gate file is missing, short, or of another version; nobody launches behind it."""


class MappedWords:
    """A file mapped as an array of 64-bit words.

    Attributes:
        path: the file.
        fd: its descriptor, which holds the locks taken through it.
        words: the words; assignment is visible to all who mapped the file.
    """

    def __init__(self, path: Path, fd: int, count: int, *, writable: bool) -> None:
        """Map `count` words of an open file and own its descriptor.

        Raises:
            GateInvalid: the file is shorter.
        """
        self.path = path
        self.fd = fd
        length = count * WORD_BYTES
        try:
            if os.fstat(fd).st_size < length:
                raise GateInvalid(f"{path} is shorter than {length} bytes")
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(fd, length, access=access)
        except BaseException:
            os.close(fd)
            raise
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")

    @classmethod
    def create(cls, path: Path, count: int, *, mode: int) -> "MappedWords":
        """Open a file for writing and make it at least `count` words long, keeping its content.

        Raises:
            GateInvalid: it cannot be made; the message names the file and the reason.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            if os.fstat(fd).st_size < count * WORD_BYTES:
                # Allocated now: on a full tmpfs a mapped page would otherwise kill the process.
                os.posix_fallocate(fd, 0, count * WORD_BYTES)
        except OSError as fault:
            raise GateInvalid(f"{path}: {fault.strerror}") from fault
        return cls(path, fd, count, writable=True)

    @classmethod
    def open(cls, path: Path, count: int, *, writable: bool) -> "MappedWords":
        """Map a file that exists. Raises: GateInvalid."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags)
        except OSError as fault:
            raise GateInvalid(f"{path}: {fault.strerror}") from fault
        return cls(path, fd, count, writable=writable)

    def close(self) -> None:
        """Unmap and close; locks held through this file end."""
        self.words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.fd)

    def write_header(self, magic: bytes) -> None:
        """Say what the file is; the magic comes last, so a half-written header is no header."""
        self.words[1] = LAYOUT_VERSION
        self.words[2] = boot_mark()
        self.words[0] = magic_word(magic)

    def has_header(self, magic: bytes) -> bool:
        """Whether the file is of this kind, this version and this boot."""
        words = self.words
        return (
            words[0] == magic_word(magic) and words[1] == LAYOUT_VERSION and words[2] == boot_mark()
        )


def magic_word(magic: bytes) -> int:
    """Eight letters as a word."""
    assert len(magic) == WORD_BYTES
    return int.from_bytes(magic, "little")


def boot_mark() -> int:
    """64 bits of the boot id: boot clock times in a file of an earlier boot mean nothing."""
    return uuid.UUID(boot_id()).int >> 64


def try_lock(fd: int, start: int) -> bool:
    """Take the write lock of one byte for this open file; False when another holds it."""
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock(fd: int, start: int) -> None:
    """Give the lock of one byte back."""
    fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, 1, 0))


def is_locked(fd: int, start: int) -> bool:
    """Whether some other open file holds the write lock of one byte."""
    asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, 1, 0)
    answer = fcntl.fcntl(fd, _F_OFD_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
