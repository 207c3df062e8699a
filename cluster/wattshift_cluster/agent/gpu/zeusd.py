"""Power limits through a running zeusd: the daemon holds the privilege, this process needs none.

zeusd 0.5 serves HTTP on a Unix socket. `GET /discover` names its GPUs (since then with their PCI
addresses) and the groups of calls that are switched on; `POST /gpu/set_power_limit` takes
`gpu_ids`, `power_limit_mw` and `block` in the query and answers an empty 200, or errors as JSON.
A token goes along as a bearer where the daemon asks for one (zeusd/src/routes/gpu.rs, auth.rs).
"""

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from wattshift_cluster.agent.gpu.cards import Card
from wattshift_cluster.agent.gpu.library import FaultKind, GpuFault

LOOK_DEADLINE_S = 1.0
"""It sits on the same machine and answers within a millisecond."""

ANSWER_BYTES = 256 * 1024
CONTROL = "gpu-control"
_KIND_OF = {
    400: FaultKind.INVALID,
    401: FaultKind.NO_PERMISSION,
    403: FaultKind.NO_PERMISSION,
    404: FaultKind.NOT_SUPPORTED,
}


class ZeusdSetter:
    """Through zeusd. See `LimitSetter`."""

    def __init__(self, socket_path: Path, token_file: Path | None = None) -> None:
        """Nothing is asked yet.

        Args:
            token_file: holds the JSON web token; None where the daemon asks for none.
        """
        self._socket_path = socket_path
        self._token_file = token_file

    def refusal(self) -> str | None:
        """See `LimitSetter`; takes at most `LOOK_DEADLINE_S`."""
        try:
            discovered = self._discover(LOOK_DEADLINE_S)
            token = self._token()
        except GpuFault as fault:
            return fault.text
        if CONTROL not in discovered.get("enabled_api_groups", ()):
            return f"zeusd runs without the group {CONTROL}"
        if discovered.get("auth_required") and token is None:
            return "zeusd asks for a token and none is configured"
        return None

    def set_limit(self, card: Card, limit_w: float, deadline_s: float) -> None:
        """See `LimitSetter`."""
        place = _place(self._discover(deadline_s), card)
        wanted = {"gpu_ids": place, "power_limit_mw": round(limit_w * 1000), "block": "true"}
        self._exchange("POST", f"/gpu/set_power_limit?{urlencode(wanted)}", deadline_s)

    def _discover(self, deadline_s: float) -> dict[str, Any]:
        body = self._exchange("GET", "/discover", deadline_s)
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as fault:
            raise _unknown(f"what it discovered is not JSON: {fault}") from fault
        if not isinstance(found, dict):
            raise _unknown("what it discovered is no object")
        return found

    def _token(self) -> str | None:
        if self._token_file is None:
            return None
        try:
            return self._token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as fault:
            raise GpuFault(FaultKind.NO_PERMISSION, f"zeusd's token: {fault}") from fault

    def _exchange(self, method: str, target: str, deadline_s: float) -> bytes:
        token = self._token()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = _UnixConnection(self._socket_path, deadline_s)
        try:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            body = answer.read(ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as fault:
            raise _unknown(f"at {self._socket_path}: {fault or type(fault).__name__}") from fault
        finally:
            connection.close()
        if answer.status == 200:
            return body
        kind = _KIND_OF.get(answer.status, FaultKind.UNKNOWN)
        raise GpuFault(kind, f"zeusd: {answer.status} {_said(body)}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, deadline_s: float) -> None:
        super().__init__("localhost", timeout=deadline_s)
        self._path = path

    def connect(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self.timeout)
        try:
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        self.sock = made


def _place(discovered: dict[str, Any], card: Card) -> int:
    """Number of a card with zeusd, which may see more cards than this process does."""
    rows = [row for row in discovered.get("gpus", ()) if isinstance(row, dict)]
    addresses = {_address(row.get("pci_address")): row.get("id") for row in rows}
    place = addresses.get(_address(card.pci)) if card.pci else None
    if place is None and not any(addresses.keys() - {None}):
        # Version 0.5.0 tells no addresses; both count the cards in the driver's order.
        same = (row for row in rows if row.get("id") == card.index)
        place = next((card.index for row in same if row.get("name") == card.name), None)
    if not isinstance(place, int):
        raise GpuFault(FaultKind.INVALID, f"zeusd has no card {card.name} at {card.pci}")
    return place


def _address(pci: Any) -> str | None:
    """Domains are written with four digits or with eight."""
    if not isinstance(pci, str):
        return None
    domain, _, rest = pci.lower().partition(":")
    return f"{domain.lstrip('0') or '0'}:{rest}"


def _said(body: bytes) -> str:
    """What an answer's errors say: `{"errors": {id: text}}`, `{"error": text}`, or plain text."""
    try:
        told = json.loads(body)
        if "errors" in told:
            return "; ".join(str(text) for text in told["errors"].values())
        return str(told["error"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return body[:200].decode(errors="replace").strip()


def _unknown(text: str) -> GpuFault:
    return GpuFault(FaultKind.UNKNOWN, f"zeusd: {text}")
