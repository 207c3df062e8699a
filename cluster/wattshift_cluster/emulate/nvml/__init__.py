"""An emulated NVML: the real binding runs unchanged on a machine without a GPU.

`build` compiles libnvidia-ml.so.1; `EmulatedDriver` owns the cards that it shows; `emulated_here`
does both for this process, `child_environment` for a child. An emulated figure is never a measured
one, and says nothing about a real card.
"""

from wattshift_cluster.emulate.nvml.build import (
    NvmlNotBuilt,
    build,
    child_environment,
    find_compiler,
    load,
)
from wattshift_cluster.emulate.nvml.control import (
    CardFault,
    ComputeProcess,
    EmulatedCard,
    EmulatedDriver,
    Truth,
)
from wattshift_cluster.emulate.nvml.inprocess import emulated_here
from wattshift_cluster.emulate.nvml.models import CardModel

__all__ = [
    "CardFault",
    "CardModel",
    "ComputeProcess",
    "EmulatedCard",
    "EmulatedDriver",
    "NvmlNotBuilt",
    "Truth",
    "build",
    "child_environment",
    "emulated_here",
    "find_compiler",
    "load",
]
