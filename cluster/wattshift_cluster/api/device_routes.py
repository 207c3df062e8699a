"""Routes of /v1 about single devices: what they are, their limits and curves, orders to ASICs."""

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from wattshift_cluster.api import device_views as views
from wattshift_cluster.api.auth import admin, operator, viewer
from wattshift_cluster.api.bodies import (
    FleetBody,
    LearntBody,
    LimitsBody,
    ProfileBody,
    parse_body,
)
from wattshift_cluster.api.learnt_views import LearntView
from wattshift_cluster.api.profile_views import ProfileView
from wattshift_cluster.api.routes import Port, answer, answers, body_schema, json_body
from wattshift_cluster.api.tokens import Token
from wattshift_cluster.errors import NotFound

FLEET_ACTIONS = ("sleep", "wake", "lock", "unlock", "limit")

read = APIRouter(prefix="/v1", dependencies=[Depends(viewer)])
write = APIRouter(prefix="/v1", dependencies=[Depends(operator)])


@read.get("/devices", response_model=views.DeviceList)
async def get_devices(port: Port) -> Response:
    """List the devices, and apart from them the machines that count nothing yet."""
    return answer({"devices": port.devices(), "unseen": port.unseen()})


@read.get("/devices/{device_id}/profile", response_model=ProfileView)
async def get_profile(port: Port, device_id: str) -> Response:
    """Show the power curve of a device as last measured, or how its measurement stands."""
    return answer(await port.profile_device(device_id, start=False))


@write.post(
    "/devices/{device_id}/profile",
    status_code=202,
    response_model=ProfileView,
    openapi_extra=body_schema("ProfileBody"),
)
async def post_profile(request: Request, port: Port, device_id: str) -> Response:
    """Measure the power curve of a device, or an ASIC's points, under the lease that it holds."""

    async def act() -> Response:
        raw = await json_body(request) if await request.body() else {}
        body = parse_body(ProfileBody, raw, "body")
        view = await port.profile_device(
            device_id,
            start=not body.dry_run,
            dry_run=body.dry_run,
            with_sleep=body.with_sleep,
            points=body.points,
        )
        return answer(view, 200 if body.dry_run else 202)

    return await answers(request).once(request, act)


@write.delete("/devices/{device_id}/profile", response_model=ProfileView)
async def delete_profile(port: Port, device_id: str) -> Response:
    """Break an ASIC's measurement off: it goes back to its lease, and keeps what was measured."""
    return answer(await port.profile_device(device_id, start=False, stop=True))


@write.post("/devices/{device_id}/release", response_model=views.ReleaseView)
async def post_release(request: Request, port: Port, device_id: str) -> Response:
    """Bring a device to its safe point; a GPU gets the power limit back that it had at first."""

    async def act() -> Response:
        return answer(await port.release_device(device_id))

    return await answers(request).once(request, act)


@write.post("/limits", response_model=views.LimitList, openapi_extra=body_schema("LimitsBody"))
async def post_limits(request: Request, port: Port) -> Response:
    """Set power limits of GPUs; each is raised only as far as the device's lease covers."""

    async def act() -> Response:
        body = parse_body(LimitsBody, await json_body(request), "body")
        return answer({"limits": await port.limit_devices(body.limits)})

    return await answers(request).once(request, act)


@read.get("/devices/{device_id}/learnt", response_model=LearntView)
async def get_learnt(port: Port, device_id: str) -> Response:
    """Show what is learnt of an ASIC: its watts at each point, its times, its firmware's error."""
    return answer(await port.learnt_device(device_id))


@write.post(
    "/fleet/learnt", response_model=views.FleetRows, openapi_extra=body_schema("LearntBody")
)
async def post_learnt(request: Request, port: Port) -> Response:
    """Hand what a commissioning learnt to the agents of the machines; a row tells of each."""

    async def act() -> Response:
        body = parse_body(LearntBody, await json_body(request), "body")
        by: Token = request.state.token
        rows = await port.teach_fleet(body.devices, by=by.name, reason=body.reason)
        return answer({"action": "learnt", "dry_run": False, "rows": rows})

    return await answers(request).once(request, act)


@write.post(
    "/fleet/{action}", response_model=views.FleetRows, openapi_extra=body_schema("FleetBody")
)
async def post_fleet(request: Request, port: Port, action: str) -> Response:
    """Sleep, wake, lock, unlock or limit ASICs; a row tells how each took it."""
    if action not in FLEET_ACTIONS:
        raise NotFound(f"no action {action[:40]}; there are {', '.join(FLEET_ACTIONS)}")

    async def act() -> Response:
        body = parse_body(FleetBody, await json_body(request), "body")
        body.check(action)
        by: Token = request.state.token
        if body.override:
            admin(request)
        rows = await port.command_fleet(
            action,
            body.devices,
            by=by.name,
            by_id=by.id,
            reason=body.reason,
            watts_w=body.watts_w,
            override=body.override,
            dry_run=body.dry_run,
        )
        return answer({"action": action, "dry_run": body.dry_run, "rows": rows})

    return await answers(request).once(request, act)
