"""One controller at a time (I6): the bridge takes raises from the newest one alone.

A controller takes an epoch at its start that is higher than any before it, and sends it with its
commands. The bridge keeps the highest on disk. What comes from an older controller, which may not
know that it was replaced, is taken only where it lowers: fewer watts, fewer replicas, a pause.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import ConfigInvalid, Refused
from wattshift_cluster.wire.epochs import EpochFile

EPOCH_MAX = 2**53
LOWERING = frozenset({"pause_job", "evict_units"})


class Fence:
    """The epochs of one bridge's controllers."""

    def __init__(
        self,
        state_dir: Path,
        watts_w: Callable[[str | None], float | None],
        replicas: Callable[[str], int | None],
    ) -> None:
        """Read the highest epoch.

        Args:
            state_dir: of the bridge.
            watts_w: what a node was last told, W; None of the own node's name, or if nothing.
            replicas: what a service was last told; None if nothing.

        Raises:
            EpochDamaged, OSError: it cannot be known.
        """
        self._epochs = EpochFile(state_dir)
        self._watts_w = watts_w
        self._replicas = replicas
        self._lock = threading.Lock()

    def older(self, epoch: object) -> int | None:
        """The newest epoch if these commands are of an older one; else None, and theirs is kept.

        Args:
            epoch: as sent; None of somebody who knows of none, who is older than all that do.

        Raises:
            ConfigInvalid: it is none.
            OSError: a newer one cannot be kept; nothing may be done in its name.
        """
        if epoch is not None and (
            isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 < epoch <= EPOCH_MAX
        ):
            raise ConfigInvalid(["epoch: allowed: a whole number above 0"])
        with self._lock:
            self._epochs.raise_to(epoch or 0)
            return self._epochs.highest if (epoch or 0) < self._epochs.highest else None

    def check(self, command: Mapping[str, Any], newest: int | None) -> None:
        """Let a command through. Raises: Refused for one of an older controller that may raise."""
        if newest is None or self._lowers(command):
            return
        raise Refused(f"a newer controller commands here (epoch {newest}): only lowering is taken")

    def _lowers(self, command: Mapping[str, Any]) -> bool:
        kind = command.get("kind")
        if kind == "set_node_power":
            return _below(command.get("watts_w"), self._watts_w(command.get("node")))
        if kind == "set_replicas":
            return _below(command.get("replicas"), self._replicas(str(command.get("service"))))
        return kind in LOWERING


def _below(asked: object, told: float | None) -> bool:
    return isinstance(asked, int | float) and told is not None and asked <= told
