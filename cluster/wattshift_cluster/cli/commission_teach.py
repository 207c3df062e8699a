"""Hand what a commissioning found to the agents: they lease by it, and keep it over restarts."""

from typing import Any

from wattshift_cluster.cli.output import talk
from wattshift_cluster.client import ControllerClient
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.fleet.commission import Record
from wattshift_cluster.fleet.pulses import Kind

BATCH = 500
GOOD = (Kind.CONFIRMED, Kind.PARTLY)
METERED = ("measured", "emulated")
"""A meter whose figures are modelled teaches nobody what a machine draws."""


def teach(controller: ControllerClient, record: Record, name: str) -> None:
    """Hand the findings over, and say what came of it. What fails is said, and the record stays.

    Args:
        controller: where the machines' agents are known.
        record: of the commissioning.
        name: of its file, for the journal.
    """
    try:
        findings = _findings(record, controller.get("/v1/site"))
        rows: list[dict[str, Any]] = []
        for start in range(0, len(findings), BATCH):
            part = dict(list(findings.items())[start : start + BATCH])
            body = {"devices": part, "reason": f"commissioning, {name}"[:200]}
            rows += controller.post("/v1/fleet/learnt", body)["rows"]
    except WattshiftError as fault:
        talk(f"nothing was handed to the agents: {fault}")
        return
    taken = sum(row["ok"] for row in rows)
    if rows:
        talk(f"{taken} of {len(rows)} machines are leased by what was found; fleet show tells how")
    for row in rows:
        if not row["ok"]:
            talk(f"  {row['device']}: {row['error']}")


def _findings(record: Record, site: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was learnt by device, where a meter that measures showed it."""
    own = {one["id"]: one.get("power_quality") for one in site["feeders"]}
    return {
        row.device: row.learnt.to_dict()
        for row in record.rows
        if row.learnt
        and row.verdict.kind in GOOD
        and (own.get(row.verdict.meter or "") or site["power_quality"]) in METERED
    }
