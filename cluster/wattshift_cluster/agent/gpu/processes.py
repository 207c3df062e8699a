"""Which processes compute on a card, and how much of its time each takes.

Process ids are those of the driver's namespace. Calls block for a moment: ask from a thread.
"""

from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.gpu.library import NOT_FOUND, SUCCESS, GpuFault, Library


def compute_pids(library: Library, card: Card) -> frozenset[int] | None:
    """Processes with a compute context; None where the driver does not say."""
    try:
        handle = library.handle(card.uuid)
        rows = library.ask("nvmlDeviceGetComputeRunningProcesses", handle)
    except GpuFault:
        return None
    return frozenset(int(row.pid) for row in rows)


def busy_pids(library: Library, card: Card, since_s: float) -> dict[int, float] | None:
    """Share of time that each process kept the card at work, %: its highest since then.

    Args:
        since_s: Unix time, s; the driver keeps some seconds of a few samples each.

    None where the driver does not say, as for a card that is cut into slices.
    """
    try:
        handle = library.handle(card.uuid)
        rows = library.ask("nvmlDeviceGetProcessUtilization", handle, round(since_s * 1e6))
    except GpuFault as fault:
        # No sample since then, or no process at all: nobody is busy.
        return {} if fault.code in (NOT_FOUND, SUCCESS) else None
    shares_pct: dict[int, float] = {}
    for row in rows:
        pid = int(row.pid)
        if pid:  # the driver's buffer may hold unused rows
            shares_pct[pid] = max(shares_pct.get(pid, 0.0), float(row.smUtil))
    return shares_pct
