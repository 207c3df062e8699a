"""PDUs over SNMP: v3 with authentication and privacy, or v2c where the owner chose it.

Only single GETs and SETs of the objects in `tables` are sent: nothing is walked, and nothing but
the on and off objects of an outlet is ever written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch.asyncio import (
    USM_AUTH_HMAC96_SHA,
    USM_AUTH_HMAC192_SHA256,
    USM_AUTH_HMAC384_SHA512,
    USM_PRIV_CFB128_AES,
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    get_cmd,
    set_cmd,
)
from pysnmp.proto.rfc1902 import Integer32
from pysnmp.proto.rfc1905 import EndOfMibView, NoSuchInstance, NoSuchObject

from wattshift_cluster.outlets.driver import PduRefused, PduUnreachable
from wattshift_cluster.outlets.tables import Row

OBJECTS_AT_ONCE = 16
"""In one GET: the smallest message that every agent takes is 484 bytes (RFC 3417)."""

MOST_DIGITS = 6
RETRIES = 1

AUTHENTICATION = {
    "sha1": USM_AUTH_HMAC96_SHA,
    "sha256": USM_AUTH_HMAC192_SHA256,
    "sha512": USM_AUTH_HMAC384_SHA512,
}


@dataclass(frozen=True, slots=True)
class Access:
    """How to enter: a v3 user, or a v2c community.

    Attributes:
        community: v2c; None for v3.
        username, password, authentication: v3 user and how its messages are authenticated.
        privacy: key phrase of AES-128; None: messages are authenticated and not encrypted.
    """

    community: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    privacy: str | None = field(default=None, repr=False)
    authentication: str = "sha256"


class SnmpWire:
    """See `driver.Wire`.

    Args:
        name: of the PDU, in messages.
        host, port: where its agent answers.
        row: its objects.
        access: community or user.
        deadline_s: of one exchange; a lost datagram is sent once more within it.
    """

    def __init__(
        self, name: str, host: str, port: int, row: Row, access: Access, *, deadline_s: float
    ) -> None:
        self._name = name
        self._at = (host, port)
        self._row = row
        self._access = access
        self._each_s = deadline_s / (RETRIES + 1)
        # It reads its modules for a tenth of a second: made here, so that no exchange pays for it.
        self._engine: Any = SnmpEngine()
        self._target: Any = None
        self._digits: dict[str, int] = {}

    async def read(self, outlets: Sequence[str]) -> Mapping[str, tuple[bool | None, float | None]]:
        """See `driver.Wire`."""
        row = self._row
        await self._learn_digits(outlets)
        asked = [row.oid(row.state, one) for one in outlets]
        if row.watts is not None:
            asked += [row.oid(row.watts, one) for one in outlets]
        values = await self._get(asked)
        return {
            outlet: (
                self._state(values.get(row.oid(row.state, outlet))),
                None if row.watts is None else self._watts(outlet, values),
            )
            for outlet in outlets
        }

    async def command(self, outlet: str, *, on: bool) -> None:
        """See `driver.Wire`."""
        row = self._row
        template, value = (row.on, row.on_value) if on else (row.off, row.off_value)
        doing = f"switch outlet {outlet} {'on' if on else 'off'}"
        what = ObjectType(ObjectIdentity(row.oid(template, outlet)), Integer32(value))
        await self._exchange(set_cmd, doing, [what])

    async def feed(self) -> None:
        """See `driver.Wire`."""
        raise PduRefused(self._name, "feed the watchdog", "an SNMP PDU has none")

    async def close(self) -> None:
        """See `driver.Wire`."""
        if self._target is not None:
            self._engine.close_dispatcher()
            self._target = None

    def _state(self, value: int | None) -> bool | None:
        settled = {self._row.state_on: True, self._row.state_off: False}
        return None if value is None else settled.get(value)

    def _watts(self, outlet: str, values: Mapping[str, int]) -> float | None:
        assert self._row.watts is not None
        raw = values.get(self._row.oid(self._row.watts, outlet))
        digits = 0 if self._row.decimals is None else self._digits.get(outlet)
        if raw is None or digits is None:
            return None
        return float(raw * self._row.watts_scale / 10**digits)

    async def _learn_digits(self, outlets: Sequence[str]) -> None:
        """Where the PDU itself says how many decimals its watts have: asked once per outlet."""
        template = self._row.decimals
        missing = [one for one in outlets if one not in self._digits]
        if template is None or not missing:
            return
        values = await self._get([self._row.oid(template, one) for one in missing])
        for outlet in missing:
            digits = values.get(self._row.oid(template, outlet))
            if digits is not None and 0 <= digits <= MOST_DIGITS:
                self._digits[outlet] = digits

    async def _get(self, oids: Sequence[str]) -> dict[str, int]:
        """The integers among the objects asked for; one that is missing is left out."""
        values: dict[str, int] = {}
        for at in range(0, len(oids), OBJECTS_AT_ONCE):
            some = oids[at : at + OBJECTS_AT_ONCE]
            what = [ObjectType(ObjectIdentity(oid)) for oid in some]
            answer = await self._exchange(get_cmd, "read", what)
            for oid, value in answer:
                if isinstance(value, NoSuchInstance | NoSuchObject | EndOfMibView):
                    continue
                try:
                    values[str(oid)] = int(value)
                except (TypeError, ValueError):
                    continue
        return values

    async def _exchange(self, command: Any, doing: str, what: list[Any]) -> list[tuple[Any, Any]]:
        try:
            if self._target is None:
                self._target = await UdpTransportTarget.create(
                    self._at, timeout=self._each_s, retries=RETRIES
                )
            failed, status, index, answer = await command(
                self._engine, self._login(), self._target, ContextData(), *what, lookupMib=False
            )
        except PySnmpError as fault:
            raise PduUnreachable(self._name, doing, type(fault).__name__) from None
        if failed is not None:
            raise PduUnreachable(self._name, doing, str(failed))
        if int(status) != 0:
            reason = f"{status.prettyPrint()} at object {int(index)}"
            raise PduRefused(self._name, doing, reason)
        return [(one[0], one[1]) for one in answer]

    def _login(self) -> Any:
        access = self._access
        if access.community is not None:
            return CommunityData(access.community, mpModel=1)
        return UsmUserData(
            access.username,
            authKey=access.password,
            privKey=access.privacy,
            authProtocol=AUTHENTICATION[access.authentication],
            privProtocol=USM_PRIV_CFB128_AES if access.privacy is not None else None,
        )
