"""An emulated PDU over Redfish: `Outlet` resources, `Outlet.PowerControl`, one account."""

import asyncio
import base64
import ssl
from typing import Any

from aiohttp import web

from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip

PATH = "/redfish/v1/PowerEquipment/RackPDUs/1"
MUTE_S = 60.0


class EmulatedRedfishPdu:
    """One PDU on one TCP port.

    Args:
        strip: its outlets.
        username, password: its account.
        trust: certificate and key; None: plain HTTP.
    """

    def __init__(
        self, strip: Strip, username: str, password: str, trust: ssl.SSLContext | None = None
    ) -> None:
        self.strip = strip
        account = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._account = f"Basic {account}"
        self._trust = trust
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises OSError."""
        app = web.Application(client_max_size=4096, middlewares=[self._guard])
        app.router.add_get(PATH + "/Outlets/{outlet}", self._get)
        app.router.add_post(PATH + "/Outlets/{outlet}/Actions/Outlet.PowerControl", self._switch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._trust)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.strip.fault is OutletFault.MUTE:
            await asyncio.sleep(MUTE_S)
        if request.headers.get("Authorization") != self._account:
            raise web.HTTPUnauthorized
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _get(self, request: web.Request) -> web.Response:
        outlet = self._known(request)
        here = f"{PATH}/Outlets/{outlet}"
        return web.json_response(
            {
                "@odata.type": "#Outlet.v1_4_0.Outlet",
                "@odata.id": here,
                "Id": outlet,
                "PowerState": "On" if self.strip.on(outlet) else "Off",
                "PowerWatts": {"Reading": self.strip.reported_w(outlet)},
                "Actions": {
                    "#Outlet.PowerControl": {
                        "target": f"{here}/Actions/Outlet.PowerControl",
                        "PowerState@Redfish.AllowableValues": ["On", "Off"],
                    }
                },
            }
        )

    async def _switch(self, request: web.Request) -> web.Response:
        outlet = self._known(request)
        wanted = (await request.json()).get("PowerState")
        if wanted not in ("On", "Off"):
            raise web.HTTPBadRequest
        if not self.strip.command(outlet, on=wanted == "On"):
            raise web.HTTPConflict
        return web.Response(status=204)

    def _known(self, request: web.Request) -> str:
        outlet = request.match_info["outlet"]
        if outlet not in self.strip.outlets:
            raise web.HTTPNotFound
        return outlet
