"""Power limits of GPUs and of ASICs are two different things, set here by one command.

A GPU's is enforced by its board and read back; an ASIC's bounds the points that it is offered.
"""

from collections.abc import Sequence
from typing import Any

from wattshift_cluster.cli.fleet_asics import ordered
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import Refused, Unreachable

Row = dict[str, Any]
NO_OFF = "off is for ASICs; fleet release gives a GPU its first limit back"
ONCE = 1000
"""GPUs in one request, as the controller takes them."""


def limit_rows(
    controller: ControllerClient,
    found: Sequence[Row],
    watts_w: float | None,
    reason: str | None,
    dry_run: bool,
) -> list[Row]:
    """Set limits and return a row per device: {device, asked_w, enforced_w, error, took_s, …}.

    Args:
        found: device views; those that are neither GPU nor ASIC are left out beside others.
        watts_w: None lifts the limit.
        reason: kept on record, for ASICs.
        dry_run: only say what would be done.

    Raises:
        WattshiftError: nothing of it was done.
    """
    asics = [one["id"] for one in found if one["kind"] == "asic"]
    gpus = [one["id"] for one in found if one["kind"] == "gpu"]
    # With neither among them it is asked all the same: the refusal says why.
    gpus = gpus if gpus or asics else [one["id"] for one in found]
    rows = _gpu_rows(controller, gpus, watts_w, dry_run, alone=not asics) if gpus else []
    if asics:
        body = {"devices": asics, "watts": watts_w, "reason": reason, "dry_run": dry_run}
        for row in ordered(controller, "limit", body):
            rows.append({**row, "asked_w": watts_w, "enforced_w": None, "took_s": None})
    return rows


def _gpu_rows(
    controller: ControllerClient,
    gpus: Sequence[str],
    watts_w: float | None,
    dry_run: bool,
    *,
    alone: bool,
) -> list[Row]:
    blank = {"asked_w": watts_w, "enforced_w": None, "error": None, "took_s": None}
    if watts_w is None:
        if alone:
            raise Refused(NO_OFF)
        return [{"device": one, **blank, "error": NO_OFF} for one in gpus]
    if dry_run:
        return [{"device": one, **blank, "state": "would be limited"} for one in gpus]
    rows: list[Row] = []
    for start in range(0, len(gpus), ONCE):
        batch = gpus[start : start + ONCE]
        try:
            asked = {"limits": dict.fromkeys(batch, watts_w)}
            rows += controller.post("/v1/limits", asked)["limits"]
        except (Refused, Unreachable) as fault:
            if alone and not rows:
                raise
            kind = "unreachable" if isinstance(fault, Unreachable) else "refused"
            failed = {**blank, "error": str(fault), "fault": kind}
            rows += [{"device": one, **failed} for one in batch]
    return rows
