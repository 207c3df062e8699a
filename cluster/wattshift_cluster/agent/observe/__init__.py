"""Observers for inference servers that know no gate, and for processes that nobody declared.

A gate's client says itself when it is busy; these servers are asked, seconds late. So a device with
such a server, or with a stranger's process, is not mined on unless its owner opts in.
"""

from wattshift_cluster.agent.observe.mark import HeldMark, Marker, Verdict
from wattshift_cluster.agent.observe.neighbours import Neighbours, NeighbourTerms
from wattshift_cluster.agent.observe.processes import (
    UNKNOWN,
    GpuUsers,
    Others,
    others,
    together,
)
from wattshift_cluster.agent.observe.prometheus import ObservationFailed
from wattshift_cluster.agent.observe.servers import KINDS, Kind
from wattshift_cluster.agent.observe.watch import Observed, ObservedServer, beside

__all__ = [
    "KINDS",
    "UNKNOWN",
    "GpuUsers",
    "HeldMark",
    "Kind",
    "Marker",
    "NeighbourTerms",
    "Neighbours",
    "ObservationFailed",
    "Observed",
    "ObservedServer",
    "Others",
    "Verdict",
    "beside",
    "others",
    "together",
]
