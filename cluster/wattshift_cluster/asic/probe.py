"""Find out which firmware answers at an address, before any library is let near it.

pyasic's own discovery tries default passwords on some machines and takes a Whatsminer that speaks
only v3 for an older one. So two native questions come first, none of which carries a password; only
a firmware that we know is handed on.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.wire import Json, ask_cgminer, ask_framed, first

Kind = Literal["luxos", "whatsminer"]


@dataclass(frozen=True, slots=True)
class Found:
    """A machine with a known firmware; `model` and `version` in the machine's own words."""

    kind: Kind
    model: str
    version: str


async def probe(address: str, *, deadline_s: float) -> Found:
    """Ask ports 4028 and 4433 at once who is there.

    Raises:
        AsicUnreachable: neither port gave a usable answer.
        AsicRefused: something answers, but no firmware that can be driven safely.
    """
    old, framed = await asyncio.gather(
        ask_cgminer(address, "version", deadline_s=deadline_s),
        ask_framed(address, "get.device.info", None, deadline_s=deadline_s),
        return_exceptions=True,
    )
    for reply in (old, framed):
        if isinstance(reply, BaseException) and not isinstance(reply, AsicUnreachable):
            raise reply
    if isinstance(framed, dict) and (found := _whatsminer(framed)):
        return found
    if isinstance(old, dict):
        version = first(old, "VERSION")
        if "LUXminer" in version and isinstance(version.get("Type"), str):
            return Found("luxos", version["Type"], str(version["LUXminer"]))
        raise AsicRefused(address, "identify", f"no driver for {_describe(version)}")
    assert isinstance(old, BaseException)
    raise old


def _whatsminer(info: Json) -> Found | None:
    body = info.get("msg")
    if not isinstance(body, dict):
        return None
    miner, system = body.get("miner"), body.get("system")
    if not isinstance(miner, dict) or not isinstance(system, dict):
        return None
    model, version = miner.get("type"), system.get("fwversion")
    if not isinstance(model, str) or not isinstance(version, str):
        return None
    return Found("whatsminer", model, version)


def _describe(version: Json) -> str:
    named = version.get("Type") or version.get("PROD") or ", ".join(sorted(version)[:6])
    return f"this firmware ({named})" if named else "a firmware that does not name itself"
