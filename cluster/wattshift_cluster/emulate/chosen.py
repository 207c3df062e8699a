"""Which machines a request of the truth port means: one, some by name, or a share drawn by seed."""

import json
import math
import random
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from wattshift_cluster.emulate.listener import EmulatedMiner

_CHOICES = {"id", "ids", "share"}


class BadRequest(Exception):
    """What is wrong with a request, and the status that says so."""

    def __init__(self, detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(detail)
        self.status = status


class Chosen:
    """Finds machines by what a request says.

    Args:
        miners: all there are.
    """

    def __init__(self, miners: Sequence[EmulatedMiner]) -> None:
        self._miners = {miner.machine.id: miner for miner in miners}

    def one(self, machine_id: object) -> EmulatedMiner:
        """One machine by its id. Raises BadRequest (404) where there is none such."""
        miner = self._miners.get(machine_id) if isinstance(machine_id, str) else None
        if miner is None:
            raise BadRequest(f"no machine {machine_id!r}"[:100], HTTPStatus.NOT_FOUND)
        return miner

    def of(self, body: bytes, fields: set[str]) -> tuple[dict[str, Any], list[EmulatedMiner]]:
        """The request and the machines it means, which exist all of them.

        Args:
            body: JSON with "id", "ids" or "share" (and "seed").
            fields: which else it may hold.

        Raises:
            BadRequest: it is no such request, or a machine does not exist.
        """
        try:
            wanted = json.loads(body)
        except ValueError:
            wanted = None
        if not isinstance(wanted, dict) or len(_CHOICES & set(wanted)) != 1:
            raise BadRequest('wanted a JSON object with "id", "ids" or "share"')
        if unknown := set(wanted) - fields - _CHOICES - {"seed"}:
            raise BadRequest(f"no such field here: {', '.join(sorted(unknown))[:100]}")
        if "id" in wanted:
            return wanted, [self.one(wanted["id"])]
        if "share" in wanted:
            return wanted, self._share(wanted)
        if not isinstance(wanted["ids"], list):
            raise BadRequest('"ids" is a list of names')
        return wanted, [self.one(machine_id) for machine_id in wanted["ids"]]

    def _share(self, wanted: dict[str, Any]) -> list[EmulatedMiner]:
        share = number(wanted, "share", 0.0, 1.0)
        seed = wanted.get("seed", 1)
        if share is None or not isinstance(seed, int):
            raise BadRequest('"share" is a number from 0 to 1, "seed" a whole number')
        everyone = list(self._miners.values())
        return random.Random(seed).sample(everyone, math.ceil(share * len(everyone)))


def number(
    wanted: dict[str, Any], name: str, least: float | None, most: float | None
) -> float | None:
    """A field that is a number within bounds, or absent. Raises BadRequest for anything else."""
    value = wanted.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(f"{name} is a number")
    if (least is not None and value < least) or (most is not None and value > most):
        raise BadRequest(f"{name} is out of range: {least} to {most}")
    return float(value)
