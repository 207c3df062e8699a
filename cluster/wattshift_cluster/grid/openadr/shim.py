"""What OpenADR 3.0.1 says otherwise than 3.1, put into the words of 3.1 and back.

    targets         3.0: lists of {type, values}       3.1: plain strings
    notifications   3.0: GET, POST, PUT, DELETE        3.1: READ, CREATE, UPDATE, DELETE
    resources       3.0: below vens/{venID}            3.1: a collection of their own
    reports         3.0: name their program            3.1: the event is enough
    subscriptions   3.0: for one program               3.1: for one or for all

Reading does not ask which version a VTN has: whatever it sends is read in both ways, since servers
exist that mix them. The version decides only what is sent and where.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from wattshift_cluster.grid.openadr.words import Report, ResourceWish, SubscriptionWish

VERBS = {"GET": "READ", "POST": "CREATE", "PUT": "UPDATE"}
MAX_TARGETS = 1000
VERSIONS = ("3.0", "3.1")


def modern(row: Any) -> Any:
    """An object of either version, as 3.1 would write it; anything else is returned as it is."""
    if not isinstance(row, dict):
        return row
    made = dict(row)
    if isinstance(row.get("targets"), list):
        made["targets"] = plain_targets(row["targets"])
    for key in ("reportDescriptors", "resources"):
        if isinstance(row.get(key), list):
            made[key] = [modern(part) for part in row[key]]
    return made


def modern_notice(row: Any) -> Any:
    """A notification of either version, as 3.1 would write it."""
    made = modern(row)
    if isinstance(made, dict):
        made["object"] = modern(made.get("object"))
        operation = made.get("operation")
        if isinstance(operation, str):
            made["operation"] = VERBS.get(operation, operation)
    return made


def plain_targets(targets: list[Any]) -> list[Any]:
    """Targets as plain strings: each value of a 3.0 target stands for itself.

    The kind of a target (VEN_NAME, GROUP, ...) is dropped: names and groups are compared as strings
    in 3.1, and a value that is no string is compared by its text.
    """
    plain: list[Any] = []
    for target in targets:
        if isinstance(target, dict) and isinstance(target.get("values"), list):
            plain += [value if isinstance(value, str) else str(value) for value in target["values"]]
        else:
            plain.append(target)
        if len(plain) > MAX_TARGETS:
            # The reader's own bound then refuses the object, instead of a part of it being used.
            break
    return plain


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one version wants to be spoken to. `version` is one of VERSIONS, or a later 3.x."""

    version: str

    @property
    def old(self) -> bool:
        """Whether this is 3.0."""
        return self.version.startswith("3.0")

    def resources(self, ven_id: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Path and query of a VEN's resources."""
        if not self.old:
            return "resources", (("venID", ven_id),)
        return f"vens/{quote(ven_id, safe='')}/resources", ()

    def ven(self, name: str) -> dict[str, Any]:
        """Body that creates a VEN."""
        return {"venName": name} if self.old else {"objectType": "VEN_VEN_REQUEST", "venName": name}

    def resource(self, ven_id: str, wish: ResourceWish) -> dict[str, Any]:
        """Body that creates or updates a resource."""
        body: dict[str, Any] = {"resourceName": wish.name, "venID": ven_id}
        if wish.attributes:
            body["attributes"] = [attribute.on_wire() for attribute in wish.attributes]
        return body if self.old else {"objectType": "VEN_RESOURCE_REQUEST", **body}

    def report(self, report: Report) -> dict[str, Any]:
        """Body of a report."""
        body = _request(report.on_wire())
        if not self.old:
            body.pop("programID", None)
        return body

    def subscription(self, wish: SubscriptionWish) -> dict[str, Any]:
        """Body of a subscription."""
        body: dict[str, Any] = {
            "clientName": wish.client_name,
            "objectOperations": [
                {
                    "objects": [kind.value for kind in wish.objects],
                    "operations": [done.value for done in wish.operations],
                    "callbackUrl": wish.callback_url,
                    "bearerToken": wish.bearer,
                }
            ],
        }
        if wish.program_id is not None:
            body["programID"] = wish.program_id
        return body


def _request(stored: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what its server gives it."""
    given = ("id", "createdDateTime", "modificationDateTime", "objectType")
    return {key: value for key, value in stored.items() if key not in given}
