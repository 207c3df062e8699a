"""The hand-over of devices to a server that starts: what mining holds of them is given back first.

Every chosen gate is marked busy and its memory asked for. A device is free when nobody sits in its
worker's seat and the last worker's process is gone, so that the driver has taken back all it held.
"""

import time
from collections.abc import Callable
from pathlib import Path

from wattshift_cluster.errors import TryLater
from wattshift_cluster.gate import seat
from wattshift_cluster.gate.client_gate import ClientGate
from wattshift_cluster.gate.layout import GateInvalid, MappedWords, is_locked

RELEASE_S = 15.0
"""A worker gives back within milliseconds, but one that compiles its kernel only listens after."""

POLL_S = 0.02


class NotReleased(TryLater):
    """Mining still holds a device. `devices` names each with the reason."""

    def __init__(self, devices: dict[str, str]) -> None:
        self.devices = devices
        listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(devices.items()))
        super().__init__(f"mining did not give back {listed}")


def held(gate_dir: Path, device: str) -> str | None:
    """Why a device is not free; None when it is."""
    path = gate_dir / f"{device}{seat.SUFFIX}"
    if not path.exists():
        return None
    try:
        view = seat.SeatView(path)
    except GateInvalid:
        return _held_unread(path)
    try:
        return None if view.gone else f"worker {view.read().pid} has not ended"
    finally:
        view.close()


def _held_unread(path: Path) -> str | None:
    """A seat of another version or boot, or one that is just being taken: its lock still tells."""
    try:
        file = MappedWords.open(path, 1, writable=False)
    except GateInvalid as fault:
        return str(fault)
    try:
        return "a worker of another version sits there" if is_locked(file.fd, 0) else None
    finally:
        file.close()


def take(
    gate: ClientGate,
    gate_dir: Path,
    *,
    within_s: float = RELEASE_S,
    pause: Callable[[float], bool] | None = None,
) -> bool:
    """Wait until mining holds nothing of the gate's devices; the memory must be asked for already.

    Args:
        gate: joined to the devices.
        gate_dir: where the gates lie.
        within_s: the longest wait, s.
        pause: waits so many seconds; True: give up. None to sleep.

    Returns:
        Whether all is free; False when `pause` said to give up.

    Raises:
        NotReleased: a device was not free in time.
    """
    end_s = time.monotonic() + within_s
    while True:
        troubles = gate.troubles
        left = {} if gate.chosen else dict(troubles)
        for name in gate.chosen:
            reason = held(gate_dir, name)
            if reason is not None:
                left[name] = f"{reason} ({troubles[name]})" if name in troubles else reason
        if not left:
            return True
        if time.monotonic() >= end_s:
            raise NotReleased(left)
        if pause is None:
            time.sleep(POLL_S)
        elif pause(POLL_S):
            return False
