"""Emulated PDUs as a program, beside the program whose machines hang on them, until SIGTERM.

When every port listens, one line goes to stdout: {"ready": true, "control": "host:port", "pdus":
[{"name", "protocol", "address", "outlets"}], "machines": N}. The control port knows what no PDU
tells, and has the switches that no real one has:

    GET  /v1/pdus     each PDU: fault, feeds of its watchdog, outlets with machine, relay, watts
    POST /v1/faults   {"pdu": "pdu-1", "fault": "lie"}, see `strip.OutletFault`; "none" clears
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Protocol

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.chosen import BadRequest
from wattshift_cluster.emulate.control import Response, serve_control
from wattshift_cluster.emulate.outlets.families import FAMILIES
from wattshift_cluster.emulate.outlets.modbus import EmulatedModbusCabinet
from wattshift_cluster.emulate.outlets.plugs import Plug, Plugs
from wattshift_cluster.emulate.outlets.racks import USERNAME, Rack
from wattshift_cluster.emulate.outlets.redfish import EmulatedRedfishPdu
from wattshift_cluster.emulate.outlets.snmp import EmulatedSnmpPdu
from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip
from wattshift_cluster.emulate.process import refusal
from wattshift_cluster.process import die_with_parent, stop_event


class EmulatedPdu(Protocol):
    """What all three protocols have."""

    strip: Strip
    port: int

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        ...

    async def stop(self) -> None:
        """Close the port and every connection."""
        ...


def serve(
    racks: Sequence[Rack],
    control: tuple[str, int],
    watchdog_s: float | None,
    fragment: str | None = None,
) -> int:
    """Run these PDUs in this process until told to stop; returns the exit code.

    Args:
        racks: they.
        control: host and port of the control port.
        watchdog_s: of Modbus contactors; None: they have none.
        fragment: what else stdout is told once all of them listen.
    """
    die_with_parent()
    return asyncio.run(_run(racks, control, watchdog_s, fragment))


def made(rack: Rack, watchdog_s: float | None) -> EmulatedPdu:
    """An emulated PDU; nothing listens yet."""
    guarded = watchdog_s if rack.protocol == "modbus" else None
    strip = Strip(rack.outlets, clock=boot_s, opens_after_s=guarded)
    match rack.protocol:
        case "snmp":
            objects = FAMILIES[rack.family].objects
            return EmulatedSnmpPdu(strip, objects, community=rack.secret)
        case "modbus":
            return EmulatedModbusCabinet(strip)
        case "redfish":
            return EmulatedRedfishPdu(strip, USERNAME, rack.secret)


async def _run(
    racks: Sequence[Rack],
    control: tuple[str, int],
    watchdog_s: float | None,
    fragment: str | None,
) -> int:
    stopped = stop_event()
    pdus = [made(rack, watchdog_s) for rack in racks]
    plugs = [
        Plug(pdu.strip, outlet, load)
        for rack, pdu in zip(racks, pdus, strict=True)
        for outlet, load in zip(rack.outlets, rack.loads, strict=True)
    ]
    cords = Plugs(plugs, boot_s)
    where = ""
    try:
        for rack, pdu in zip(racks, pdus, strict=True):
            where = f"{rack.address}:{rack.port} ({rack.protocol})"
            await pdu.start(rack.address, rack.port)
        where = f"{control[0]}:{control[1]}"
        desk = Desk(racks, pdus)
        server = await serve_control(*control, desk.routes)
    except OSError as error:
        sys.stderr.write(refusal(error, where) + "\n")
        await asyncio.gather(*(pdu.stop() for pdu in pdus))
        return 1
    bound = server.sockets[0].getsockname()
    sys.stdout.write(json.dumps(_ready(racks, f"{bound[0]}:{bound[1]}")) + "\n")
    sys.stdout.write("" if fragment is None else fragment)
    sys.stdout.flush()
    running = asyncio.create_task(cords.run())
    await stopped.wait()
    running.cancel()
    server.close()
    await asyncio.gather(running, *(pdu.stop() for pdu in pdus), return_exceptions=True)
    return 0


def _ready(racks: Sequence[Rack], control: str) -> dict[str, Any]:
    rows = [
        {
            "name": rack.name,
            "protocol": rack.protocol,
            "address": f"{rack.address}:{rack.port}",
            "outlets": len(rack.loads),
        }
        for rack in racks
    ]
    machines = sum(len(rack.loads) for rack in racks)
    return {"ready": True, "control": control, "pdus": rows, "machines": machines}


class Desk:
    """The control port.

    Attributes:
        routes: for `control.serve_control`.
    """

    def __init__(self, racks: Sequence[Rack], pdus: Sequence[EmulatedPdu]) -> None:
        self._pdus = {rack.name: (rack, pdu.strip) for rack, pdu in zip(racks, pdus, strict=True)}
        self.routes = {("GET", "/v1/pdus"): self._tell, ("POST", "/v1/faults"): self._fault}

    async def _tell(self, body: bytes) -> Response:
        rows = [_row(rack, strip) for rack, strip in self._pdus.values()]
        return HTTPStatus.OK, json.dumps({"at_s": boot_s(), "pdus": rows})

    async def _fault(self, body: bytes) -> Response:
        try:
            wanted = json.loads(body)
            found = self._pdus.get(wanted["pdu"])
            fault = OutletFault(str(wanted["fault"]))
        except (ValueError, KeyError, TypeError):
            names = ", ".join(fault.value for fault in OutletFault)
            raise BadRequest(f'wanted a "pdu" and a "fault", one of {names}') from None
        if found is None:
            raise BadRequest(f"no PDU {wanted['pdu']!r}"[:100], HTTPStatus.NOT_FOUND)
        found[1].fault = fault
        return HTTPStatus.OK, json.dumps({"pdu": wanted["pdu"], "fault": fault.value})


def _row(rack: Rack, strip: Strip) -> dict[str, Any]:
    outlets = [
        {
            "outlet": number,
            "device": load.id,
            "on": strip.on(outlet),
            "watts_w": strip.reported_w(outlet),
        }
        for number, (outlet, load) in enumerate(zip(rack.outlets, rack.loads, strict=True), 1)
    ]
    return {"pdu": rack.name, "fault": strip.fault.value, "feeds": strip.feeds, "outlets": outlets}
