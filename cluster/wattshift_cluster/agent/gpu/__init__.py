"""GPUs through NVML: what they are, what they draw, and how much they may draw.

`Library` is the one door to NVML, `find_cards` says what is there, `Sampler` looks at all of it
some twenty times a second, `PowerLimits` sets how much each may draw.
"""

from wattshift_cluster.agent.gpu.cards import Card, find_cards
from wattshift_cluster.agent.gpu.library import FaultKind, GpuFault, Library
from wattshift_cluster.agent.gpu.limits import LimitResult, PowerLimits
from wattshift_cluster.agent.gpu.processes import busy_pids, compute_pids
from wattshift_cluster.agent.gpu.sample import GpuSample
from wattshift_cluster.agent.gpu.sampler import Sampler
from wattshift_cluster.agent.gpu.setters import LimitSetter, NvmlSetter
from wattshift_cluster.agent.gpu.zeusd import ZeusdSetter

__all__ = [
    "Card",
    "FaultKind",
    "GpuFault",
    "GpuSample",
    "Library",
    "LimitResult",
    "LimitSetter",
    "NvmlSetter",
    "PowerLimits",
    "Sampler",
    "ZeusdSetter",
    "busy_pids",
    "compute_pids",
    "find_cards",
]
