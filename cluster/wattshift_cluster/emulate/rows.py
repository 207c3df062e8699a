"""The truth of many machines as JSON text, written without building it up as objects first.

A meter asks several times a second, on the two cores that the emulator shares with what it tests.
What does not change from one answer to the next is kept as text.
"""

import json
from collections.abc import Sequence
from typing import Any

from wattshift_cluster.emulate.listener import EmulatedMiner


class Row:
    """One machine's row.

    Args:
        miner: whose.
    """

    def __init__(self, miner: EmulatedMiner) -> None:
        self._miner = miner
        named = {
            "id": miner.machine.id,
            "address": miner.address,
            "kind": miner.kind,
            "feeder": miner.feeder,
        }
        self._head = json.dumps(named)[:-1]
        self._commands = -1
        self._times = ""

    def text(self) -> str:
        """The row now."""
        miner, machine = self._miner, self._miner.machine
        if machine.commands != self._commands:
            self._commands = machine.commands
            self._times = json.dumps([round(at_s, 4) for at_s in machine.commands_s])
        return (
            f'{self._head}, "watts_w": {machine.watts_w():.3f}'
            f', "hashrate_h_per_s": {machine.hashrate_h_per_s():.1f}'
            f', "mode": {json.dumps(machine.mode)}, "phase": "{machine.phase.value}"'
            f', "fault": "{miner.fault.value}", "outlet": {"true" if miner.outlet else "false"}'
            f', "pool_writes": {machine.pool_writes}, "commands": {machine.commands}'
            f', "commands_s": {self._times}}}'
        )


def totals(miners: Sequence[EmulatedMiner], now_s: float) -> dict[str, Any]:
    """What all machines together draw and hash, and what those of each feeder do."""
    feeders: dict[str, dict[str, float]] = {}
    whole = {"machines": 0, "watts_w": 0.0, "hashrate_h_per_s": 0.0}
    for miner in miners:
        watts_w, hashrate = miner.machine.watts_w(), miner.machine.hashrate_h_per_s()
        sums = [whole]
        if miner.feeder is not None:
            sums.append(feeders.setdefault(miner.feeder, dict.fromkeys(whole, 0)))
        for total in sums:
            total["machines"] += 1
            total["watts_w"] += watts_w
            total["hashrate_h_per_s"] += hashrate
    return {"at_s": now_s, **whole, "feeders": feeders}
