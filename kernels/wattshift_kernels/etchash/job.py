"""What Etchash's kernels are given: their text, and a work as the struct that they take."""

import numpy as np

from wattshift_kernels.etchash import epochs
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Job
from wattshift_kernels.tables import Slice
from wattshift_kernels.texts import text

JOB = np.dtype(
    [
        ("table", "<u8"), ("cache", "<u8"), ("header", "<u8", 4), ("target", "<u4", 8),
        ("nonce_high", "<u4"), ("pages", "<u4"), ("pages_reciprocal", "<u4"), ("rows", "<u4"),
        ("rows_reciprocal", "<u4"), ("unused", "<u4"),
    ]
)  # fmt: skip
"""WsJob of etchash.cuh."""

HEADER_BYTES = 32


def source(name: str = "etchash.cu") -> str:
    """One text, its headers written in.

    Args:
        name: "etchash.cu" searches on a GPU, "build.cu" makes rows there, "search.cpp" is a CPU's.
    """
    return text("etchash", name)


def job_of(work: Work, table: int, cache: int | None = None) -> Job:
    """The struct for a work.

    Args:
        table: address of the pages, or 0 without them.
        cache: address of the cache; behind the pages if None.
    """
    job = _of_epoch(epochs.epoch_of(work.height), table, cache)
    job["header"] = np.frombuffer(work.message[:HEADER_BYTES], dtype="<u8")
    job["nonce_high"] = int.from_bytes(work.message[HEADER_BYTES:], "big")
    job["target"] = np.frombuffer(work.target.to_bytes(32, "big"), dtype=">u4")
    return job


def job_of_slice(piece: Slice) -> Job:
    """The struct for rows of a table, whose plan's key is its epoch's first height."""
    return _of_epoch(epochs.epoch_of(piece.plan.key), piece.address, None)


def _of_epoch(epoch: epochs.Epoch, table: int, cache: int | None) -> Job:
    job = np.zeros(1, dtype=JOB)
    job["table"] = table
    job["cache"] = table + epoch.table_bytes if cache is None else cache
    job["pages"], job["pages_reciprocal"] = epoch.pages, (2**32 - 1) // epoch.pages
    job["rows"], job["rows_reciprocal"] = epoch.cache_rows, (2**32 - 1) // epoch.cache_rows
    return job
