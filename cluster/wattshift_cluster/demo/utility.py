"""The demo's utility: it makes its program and its event at the loopback VTN, as any utility does.

Nothing of this reaches the controller but by OpenADR: the site polls that VTN, as it would poll a
real one.
"""

from pathlib import Path
from typing import Any

import httpx2

from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.errors import TryLater
from wattshift_cluster.grid.openadr.login import read_secret

PROGRAM = "curtailment"
EVENT = "evening peak"
CLIENT = "utility"
"""Name of its login; the VTN makes up the secret."""

ANSWER_S = 10.0
LIMIT = "IMPORT_CAPACITY_LIMIT"


def cut_event(program_id: str, starts_s: float, ends_s: float, cap_w: float) -> dict[str, Any]:
    """An event that limits the site's power between two Unix times."""
    lasts_s = ends_s - starts_s
    return {
        "objectType": "EVENT",
        "programID": program_id,
        "eventName": EVENT,
        "intervalPeriod": {"start": rfc3339(starts_s), "duration": f"PT{lasts_s:.3f}S"},
        "payloadDescriptors": [
            {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": LIMIT, "units": "KW"}
        ],
        "intervals": [{"id": 0, "payloads": [{"type": LIMIT, "values": [cap_w / 1e3]}]}],
    }


async def announce(
    vtn: str, secret_file: Path, *, starts_s: float, ends_s: float, cap_w: float
) -> None:
    """Log in, make the program, and announce a cut in it.

    Args:
        vtn: host:port of the VTN.
        secret_file: of the utility's login.
        starts_s, ends_s: Unix times, s.
        cap_w: the most that the site may take meanwhile, W.

    Raises:
        TryLater: the VTN does not answer, or refuses.
    """
    secret = read_secret(secret_file)
    login = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": secret}
    try:
        async with httpx2.AsyncClient(base_url=f"http://{vtn}", timeout=ANSWER_S) as http:
            token = (await _made(http, "/auth/token", data=login))["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            body = {"objectType": "PROGRAM", "programName": PROGRAM}
            program = await _made(http, "/programs", json=body)
            event = cut_event(program["id"], starts_s, ends_s, cap_w)
            await _made(http, "/events", json=event)
    except httpx2.HTTPError as fault:
        told = str(fault) or type(fault).__name__
        raise TryLater(f"the utility's VTN: {told}; see demo-report/logs/vtn.log") from None


async def _made(http: httpx2.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await http.post(path, **body)
    answer.raise_for_status()
    row: dict[str, Any] = answer.json()
    return row
