"""The gate: two small shared-memory files per device that decide whether its worker may launch.

    DIR/<device>.gate      written by the agent alone: epoch, watts, expiry, intensities, stop
    DIR/<device>.clients   64 slots, one per inference process, each held by a lock
    DIR/<device>.worker    written by the mining worker alone: its seat, heartbeat and counters

Whoever dies, mining stops or inference's claim ends, with no message on the way: an agent's word
expires, and a client's slot counts only as long as the kernel holds its lock. The room needs
nothing but the standard library, so that any server's image can hold it.
"""

from wattshift_cluster.gate.agent_file import AgentGate, GateState, read_gate
from wattshift_cluster.gate.client_gate import ClientGate
from wattshift_cluster.gate.clients import HOLD_OFF_NS, ClientState, ClientsView
from wattshift_cluster.gate.environment import gate_here
from wattshift_cluster.gate.layout import GATE_DIR_VARIABLE, GateInvalid
from wattshift_cluster.gate.readiness import ready
from wattshift_cluster.gate.seat import SeatState, SeatTaken, SeatView, WorkerSeat
from wattshift_cluster.gate.worker_gate import WorkerGate

__all__ = [
    "GATE_DIR_VARIABLE",
    "HOLD_OFF_NS",
    "AgentGate",
    "ClientGate",
    "ClientState",
    "ClientsView",
    "GateInvalid",
    "GateState",
    "SeatState",
    "SeatTaken",
    "SeatView",
    "WorkerGate",
    "WorkerSeat",
    "gate_here",
    "read_gate",
    "ready",
]
