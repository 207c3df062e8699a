"""The gate that a process finds through WATTSHIFT_GATE_DIR: what the hooks of servers mark.

Without the variable there is nothing to mark; that is said once and fails nothing.
"""

import logging
import os
import threading
from contextlib import AbstractContextManager, nullcontext

from wattshift_cluster.gate.client_gate import ClientGate
from wattshift_cluster.gate.layout import GATE_DIR_VARIABLE

log = logging.getLogger("wattshift.gate")

_lock = threading.Lock()
_asked = False
_gate: ClientGate | None = None
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def gate_here() -> ClientGate | None:
    """This process's gate, joined at the first call; None when there is none."""
    global _asked, _gate
    if not _asked:
        with _lock:
            if not _asked:
                _gate = _open()
                _asked = True
    return _gate


def busy_here() -> AbstractContextManager[None]:
    """A span of being busy at this process's gate; one that does nothing where there is none."""
    gate = gate_here()
    return nullcontext() if gate is None else gate.busy()


def _open() -> ClientGate | None:
    folder = os.environ.get(GATE_DIR_VARIABLE)
    if not folder:
        log.warning(
            "gate: %s is not set, so mining does not yield to this process", GATE_DIR_VARIABLE
        )
        return None
    return ClientGate(folder)
