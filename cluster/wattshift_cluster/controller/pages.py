"""Memory of large columns that stays with the process from one decision to the next.

By default glibc asks the kernel for every block above 128 kB and gives it back when it is freed, so
that each new column of a large site costs a page fault for every 4 kB: a quarter of the time of a
replan at 100,000 devices. Once a larger block was freed, glibc keeps blocks up to that size for
what comes next (mallopt(3), M_MMAP_THRESHOLD: the threshold is dynamic, up to 32 MB).
"""

import numpy as np

KEPT_BYTES = 31 * 2**20
"""Just below the highest threshold that glibc sets by itself."""


def keep_pages() -> None:
    """Keep freed columns' memory, up to about 60 MB of it; once, when a process starts.

    Where the C library is another than glibc this does nothing.
    """
    np.empty(KEPT_BYTES, dtype=np.uint8)
