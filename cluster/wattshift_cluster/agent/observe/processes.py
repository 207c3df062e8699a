"""Who else computes on a GPU, as NVML says, and whether the miner may run beside them.

A process that neither marks a gate nor belongs to an observed server gets no promise, so nothing is
mined beside it unless the owner opts in; then its measured use of the GPU has to be nil. The two
readings behind this are those of `nvmlDeviceGetComputeRunningProcesses` (who has a context) and
`nvmlDeviceGetProcessUtilization` (share of time with a kernel on the GPU, sampled a few times per
second). Process ids are those of the driver's namespace: in a container without the host's, NVML
lists nobody, so a list without our own worker is not believed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Beside = Literal["free", "when_quiet", "never"]


@dataclass(frozen=True, slots=True)
class GpuUsers:
    """One look at a GPU's processes.

    Attributes:
        compute_pids: processes with a compute context on it; None where the driver does not say.
        sm_pct: each process's share of the GPU's time, %; None where the driver does not say.
    """

    compute_pids: frozenset[int] | None
    sm_pct: Mapping[int, float] | None


@dataclass(frozen=True, slots=True)
class Others:
    """Processes on a GPU, or on several, that are neither ours nor a gate's clients.

    Attributes:
        pids: who they are; None is unknown.
        sm_pct: the sum of their shares of the GPU's time, %; None is unknown.
    """

    pids: frozenset[int] | None
    sm_pct: float | None


UNKNOWN = Others(None, None)


def others(
    users: GpuUsers,
    ours: frozenset[int],
    clients: frozenset[int] = frozenset(),
    present: frozenset[int] = frozenset(),
) -> Others:
    """Sort a look's processes.

    Args:
        users: the look.
        ours: processes of this agent.
        clients: processes that mark this GPU's gate themselves.
        present: those of ours that hold a context for sure; a list without them is not believed.
    """
    if users.compute_pids is None and users.sm_pct is None:
        return UNKNOWN
    if users.compute_pids is not None and not present <= users.compute_pids:
        return UNKNOWN
    known = ours | clients
    busy = dict(users.sm_pct or {})
    pids = None
    if users.compute_pids is not None:
        # A context may open between the two readings; either one is proof of a process.
        pids = (users.compute_pids | busy.keys()) - known
    elif busy.keys() - known:
        pids = frozenset(busy.keys() - known)
    sm_pct = None
    if users.sm_pct is not None:
        sm_pct = float(sum(share for pid, share in busy.items() if pid not in known))
    return Others(pids, sm_pct)


def together(several: Sequence[Others]) -> Others:
    """The same for several GPUs: one unknown makes the whole unknown, unless somebody was seen.

    Of no GPU at all nothing is known.
    """
    if not several:
        return UNKNOWN
    pids: frozenset[int] = frozenset().union(*(one.pids or frozenset() for one in several))
    known = all(one.pids is not None for one in several)
    shares = [one.sm_pct for one in several]
    sm_pct = None if None in shares else float(sum(share or 0.0 for share in shares))
    return Others(pids if known or pids else None, sm_pct)


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether the miner may run beside unmarked processes, and why."""

    beside: Beside
    why: str


def judge(found: Others, *, observed: bool, opt_in: bool, exclusive: bool) -> Ruling:
    """Rule on a GPU's processes that mark no gate.

    Args:
        found: they.
        observed: a server with an observer runs on this GPU; its observer answers for all of them,
            since nobody knows which process is the server's.
        opt_in: the owner allows mining beside processes that mark no gate.
        exclusive: the owner's word that nothing but declared servers uses this GPU. It counts only
            where the driver does not say who does, so that such a card is not shut for ever; it
            never outweighs a process that was seen.
    """
    if found.pids is None:
        if exclusive:
            return Ruling("free", "its owner says that no stranger uses this GPU")
        return Ruling("never", "the driver does not say who uses this GPU")
    if not found.pids:
        return Ruling("free", "nothing else uses this GPU")
    if observed:
        return Ruling("free", "its users are left to the observer of their server")
    who = f"process {min(found.pids)}" + (
        f" and {len(found.pids) - 1} more" if len(found.pids) > 1 else ""
    )
    if not opt_in:
        return Ruling("never", f"a process that marks no gate uses this GPU: {who}")
    return Ruling("when_quiet", f"{who} marks no gate; its owner opted in")


def needs_gpu(ruling: Ruling, found: Others) -> str | None:
    """Why nothing may be mined now; None when it may. Unknown use is use."""
    if ruling.beside == "never":
        return ruling.why
    if ruling.beside == "when_quiet":
        if found.sm_pct is None:
            return "the driver does not say how much a process that marks no gate uses this GPU"
        if found.sm_pct > 0:
            return f"a process that marks no gate uses {found.sm_pct:g} % of this GPU"
    return None
