"""What a kHeavyHash kernel needs of a job, worked out once on the host."""

import numpy as np

from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Job
from wattshift_kernels.kheavyhash.keccak import absorbed, domain, mixed, padded
from wattshift_kernels.kheavyhash.reference import HASH_BYTES, INNER_DOMAIN, header, matrix

JOB = np.dtype(
    [("first", "<u4", 50), ("matrix", "<u4", 512), ("power", "<u4", 32), ("target", "<u4", 8)]
)
"""WsJob of kheavyhash.cuh, passed by value: 2,408 bytes of the 4,096 that any driver takes."""


def job_of(work: Work, table: int = 0) -> Job:
    """What a launch needs of its work."""
    job = np.zeros(1, dtype=JOB)
    sponge = absorbed(domain(INNER_DOMAIN), padded(header(work.message, 0)))
    job["first"] = np.array(mixed(sponge), dtype="<u8").view("<u4")
    numbers = matrix(work.message[:HASH_BYTES]).astype(np.uint8)
    job["matrix"] = (numbers[:, 0::2] | numbers[:, 1::2] << 4).reshape(-1).view("<u4")
    job["power"] = 1 << np.arange(32, dtype=np.uint64)
    job["target"] = np.frombuffer(work.target.to_bytes(32, "big"), dtype=">u4")
    return job
